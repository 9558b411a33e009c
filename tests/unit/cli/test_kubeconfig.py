"""Which cluster, context and namespace a command means, as kubectl would find them; and what is wrong, in one line."""

import os
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from modelyard.cli.explain import KINDS
from modelyard.cli.kubeconfig import Access, find_access
from modelyard.cli.main import app
from modelyard.cli.manifests import InputError
from modelyard.cli.target import KIND_NAMES, read_target
from tests.unit.cli.clusterstub import serve_lists

READING = (
    ("status",),
    ("explain", "llmdep", "chat"),
    ("logs", "llmdep", "chat"),
    ("cost",),
    ("plan", "-f", "MANIFEST", "--against", "live"),
    ("simulate", "-f", "MANIFEST", "--synthetic", "poisson:rate=1,minutes=1", "--against", "live"),
)
"""Commands that read a cluster."""

MODEL = {
    "apiVersion": "modelyard.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "chat"},
    "spec": {"model": {"source": "hf://a/b"}, "replicas": 1},
}


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kubeconfig and no cluster around the tests."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def write(path: Path, current: str | None, **contexts: dict[str, str]) -> Path:
    """Write a kubeconfig with contexts, each with a cluster of its own."""
    clusters = sorted({fields.get("cluster", name) for name, fields in contexts.items()})
    content: dict[str, Any] = {
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": "u", **fields}}
            for name, fields in contexts.items()
        ],
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}.invalid"}} for name in clusters],
        "users": [{"name": "u", "user": {}}],
    }
    if current is not None:
        content["current-context"] = current
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_namespace_is_that_of_the_context(tmp_path: Path) -> None:
    path = write(tmp_path / "one", "a", a={"namespace": "team"}, b={})
    assert find_access(path, None) == Access((path,), "a", "team")
    assert find_access(path, "b") == Access((path,), "b", "default")


def test_the_usual_file_is_used_where_nothing_names_one(tmp_path: Path) -> None:
    path = write(tmp_path / "home/.kube/config", "a", a={})
    assert find_access(None, None).files == (path,)


def test_of_several_files_the_first_that_says_something_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "first", None, a={"namespace": "first"})
    second = write(tmp_path / "second", "b", a={"namespace": "second"}, b={"namespace": "mine"})
    third = write(tmp_path / "third", "a", c={})
    stated = (first, tmp_path / "missing", second, third)
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, stated)))
    assert find_access(None, None) == Access((first, second, third), "b", "mine")
    assert find_access(None, "a").namespace == "first"
    assert find_access(None, "c").context == "c"


def test_a_wrong_variable_leads_to_no_other_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip in KUBECONFIG must not read the cluster of the usual file, nor the one around the process."""
    write(tmp_path / "home/.kube/config", "a", a={})
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "slip"))
    with pytest.raises(InputError, match=r"KUBECONFIG names no file that exists: .*slip"):
        find_access(None, None)


def test_inside_a_cluster_there_is_no_file_and_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert find_access(None, None) == Access()
    with pytest.raises(InputError, match="--context a: there is no kubeconfig"):
        find_access(None, "a")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "no kubeconfig: not YAML"),
        ("", "no kubeconfig"),
        ("- a", "no kubeconfig"),
        ("text", "no kubeconfig"),
        ("contexts: x", "contexts is no list of things with names"),
        ("users: [1]", "users is no list of things with names"),
        ("a: 1", "no current-context is set: give --context: it has none"),
        ("contexts: [{name: x}, {name: y}]", "no current-context is set: give --context: it has x, y"),
        ("current-context: z\ncontexts: [{name: x, context: }]", "there is no context z: it has x"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        find_access(path, None)
    assert str(path) in str(error.value)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


BROKEN = {
    "not YAML": "a: [",
    "no cluster": "current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]",
    "no certificate": yaml.safe_dump(
        {
            "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "clusters": [
                {
                    "name": "a",
                    # "garbage", in base64.
                    "cluster": {"server": "https://a.invalid", "certificate-authority-data": "Z2FyYmFnZQ=="},
                }
            ],
            "users": [{"name": "a", "user": {}}],
        }
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("command", READING, ids=lambda words: words[0])
def test_every_command_tells_it_in_one_line(tmp_path: Path, command: tuple[str, ...], broken: str) -> None:
    path, manifest = tmp_path / "kubeconfig", tmp_path / "model.yaml"
    path.write_text(BROKEN[broken], encoding="utf-8")
    manifest.write_text(yaml.safe_dump(MODEL), encoding="utf-8")
    words = [str(manifest) if word == "MANIFEST" else word for word in command]
    result = CliRunner().invoke(app, [*words, "--kubeconfig", str(path)])
    assert result.exit_code == (2 if broken == "not YAML" else 1)
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")


@pytest.mark.parametrize("command", READING, ids=lambda words: words[0])
def test_every_command_takes_a_context(tmp_path: Path, command: tuple[str, ...]) -> None:
    manifest = tmp_path / "model.yaml"
    manifest.write_text(yaml.safe_dump(MODEL), encoding="utf-8")
    words = [str(manifest) if word == "MANIFEST" else word for word in command]
    with serve_lists(tmp_path, {}) as (served, seen):
        # The current one leads nowhere.
        config = yaml.safe_load(served.read_text(encoding="utf-8"))
        config["contexts"].append({"name": "away", "context": {"cluster": "away", "user": "stub"}})
        config["clusters"].append({"name": "away", "cluster": {"server": "http://127.0.0.1:1"}})
        config["current-context"] = "away"
        served.write_text(yaml.safe_dump(config), encoding="utf-8")
        CliRunner().invoke(app, [*words, "--kubeconfig", str(served), "--context", "stub"])
    assert seen


@pytest.mark.parametrize("command", ["explain", "logs"])
def test_an_object_is_looked_for_where_kubectl_would(tmp_path: Path, command: str) -> None:
    with serve_lists(tmp_path, {}) as (served, seen):
        config = yaml.safe_load(served.read_text(encoding="utf-8"))
        config["contexts"][0]["context"]["namespace"] = "mine"
        served.write_text(yaml.safe_dump(config), encoding="utf-8")
        for options in ((), ("-n", "other")):
            CliRunner().invoke(app, [command, "llmdep/chat", *options, "--kubeconfig", str(served)])
    asked = [path for path in seen if path.endswith("/llmdeployments/chat")]
    group = "GET /apis/modelyard.dev/v1alpha1/namespaces"
    assert asked == [f"{group}/{name}/llmdeployments/chat" for name in ("mine", "other")]


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (("llmdep", "chat", None), ("llmdep", None, "chat")),
        (("LLMDep", "chat", "team"), ("llmdep", "team", "chat")),
        (("llmdep", "team/chat", None), ("llmdep", "team", "chat")),
        (("llmdep", "team/chat", "team"), ("llmdep", "team", "chat")),
        (("llmdep/chat", None, "team"), ("llmdep", "team", "chat")),
        (("llmdep/team/chat", None, None), ("llmdep", "team", "chat")),
    ],
)
def test_forms_of_a_target(
    words: tuple[str, str | None, str | None], target: tuple[str, str | None, str]
) -> None:
    assert read_target(*words) == target


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("chat", None, None), "write llmdep chat"),
        (("llmdep/", None, None), "write llmdep NAME"),
        (("LLMRoutes", None, None), "write LLMRoutes NAME"),
        (("llmdep", "a/chat", "b"), "a/chat is not in namespace b"),
    ],
)
def test_a_target_that_is_half_said(words: tuple[str, str | None, str | None], told: str) -> None:
    with pytest.raises(typer.BadParameter, match=told):
        read_target(*words)


def test_every_name_of_a_kind_is_known_where_only_that_is_given() -> None:
    assert KINDS.keys() == KIND_NAMES
