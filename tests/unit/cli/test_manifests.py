"""Reading manifests, and `modelyard validate`."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from modelyard.api.crd import KINDS
from modelyard.api.validation import validate
from modelyard.cli import manifests
from modelyard.cli.main import app
from modelyard.cli.manifests import InputError, load_yaml, read_files
from modelyard.cli.validate import INVALID
from tests.apiserver.cases import all_cases

EXAMPLES = Path(__file__).parents[3] / "examples"
BROKEN = sorted((EXAMPLES / "invalid").glob("*.yaml"))
GOOD = """
apiVersion: modelyard.dev/v1alpha1
kind: LLMDeployment
metadata: {name: NAME}
spec: {model: {source: "hf://org/model"}, replicas: 1}
"""


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, ["validate", *map(str, arguments)], input=stdin)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def messages(path: Path) -> list[str]:
    return [problem.message for problem in read_files([path]).problems]


@pytest.mark.parametrize("path", [EXAMPLES, *sorted(EXAMPLES.glob("*.yaml"))], ids=lambda path: path.name)
def test_every_example_is_valid(path: Path) -> None:
    assert (run(path).exit_code, read_files([path]).problems) == (0, [])


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_every_broken_example_fails_with_the_message_that_it_states(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    (stated,) = [line.removeprefix("# Message: ") for line in lines if line.startswith("# Message: ")]
    result = run(path)
    assert result.exit_code == INVALID
    assert stated in result.stderr
    assert "1 problems" in result.stderr


def test_there_are_broken_examples_of_every_kind() -> None:
    kinds = {line for path in BROKEN for line in path.read_text().splitlines() if line.startswith("kind: ")}
    assert kinds == {f"kind: {kind}" for kind in KINDS}


def test_a_folder_named_invalid_is_skipped_with_a_note_and_read_when_it_is_named() -> None:
    walked = read_files([EXAMPLES])
    assert any("examples/invalid: skipped" in note for note in walked.notes)
    named = read_files([EXAMPLES / "invalid"])
    assert len({problem.file for problem in named.problems}) == len(BROKEN)


@pytest.mark.parametrize("case", all_cases()[::7], ids=str)
def test_the_command_agrees_with_the_case(case, tmp_path) -> None:
    path = write(tmp_path, "case.yaml", yaml.safe_dump(json.loads(json.dumps(case.manifest))))
    assert run(path).exit_code == (0 if case.field is None else INVALID)


def test_a_float_is_no_number_of_replicas_as_scale_has_it() -> None:
    manifest = yaml.safe_load(GOOD.replace("NAME", "a"))
    manifest["spec"]["replicas"] = 2.0
    assert [str(problem) for problem in validate(manifest)] == [
        "spec.replicas: must be written as 2, not 2.0"
    ]
    manifest["spec"] = {
        **manifest["spec"],
        "replicas": 2,
        "model": {"source": "hf://a/b", "contextLength": 2048.0},
    }
    assert validate(manifest) == []


@pytest.mark.parametrize(
    ("namespace", "accepted"), [("team-1", True), ("", True), ("a|b", False), ("A", False)]
)
def test_a_namespace_is_a_label(namespace: str, accepted: bool) -> None:
    manifest = yaml.safe_load(GOOD.replace("NAME", "a"))
    manifest["metadata"]["namespace"] = namespace
    assert ([problem.field for problem in validate(manifest)] == []) is accepted


def test_standard_input_is_read(tmp_path) -> None:
    result = run("-", stdin=GOOD.replace("NAME", "Upper"))
    assert result.exit_code == INVALID
    assert "standard input: Error: LLMDeployment Upper: metadata.name" in result.stderr
    assert run("-", stdin=GOOD.replace("NAME", "lower")).exit_code == 0


@pytest.mark.parametrize("kind", ["List", "LLMDeploymentList"])
def test_lists_are_unfolded(tmp_path, kind: str) -> None:
    items = [yaml.safe_load(GOOD.replace("NAME", name)) for name in ("a", "b")]
    path = write(tmp_path, "list.json", json.dumps({"apiVersion": "v1", "kind": kind, "items": items}))
    reading = read_files([path])
    assert (reading.checked, [item.object.metadata.name for item in reading.manifests]) == (2, ["a", "b"])


def test_objects_of_others_are_skipped_with_a_note(tmp_path) -> None:
    path = write(
        tmp_path, "a.yaml", "kind: Secret\napiVersion: v1\n---\n- 1\n---\n" + GOOD.replace("NAME", "a")
    )
    reading = read_files([path])
    assert reading.notes == [
        f"{path}: Secret skipped: not of modelyard.dev",
        f"{path}: document skipped: not of modelyard.dev",
    ]
    assert reading.checked == 1


def test_the_same_object_twice_is_refused_whatever_says_its_namespace(tmp_path) -> None:
    write(tmp_path, "a.yaml", GOOD.replace("NAME", "x"))
    write(tmp_path, "b/c.yaml", GOOD.replace("NAME", "x, namespace: default"))
    write(tmp_path, "d.yaml", GOOD.replace("NAME", "x, namespace: other"))
    reading = read_files([tmp_path])
    assert [problem.message for problem in reading.problems] == [
        f"default/x stands in the files more than once; first in {tmp_path / 'a.yaml'}"
    ]
    assert len(reading.manifests) == 2


def test_a_file_that_is_given_twice_is_read_once(tmp_path) -> None:
    path = write(tmp_path, "a.yaml", GOOD.replace("NAME", "x"))
    assert read_files([path, tmp_path, tmp_path / "." / "a.yaml"]).problems == []


@pytest.mark.parametrize(
    "text",
    [
        "name: {{ .Values.name }}",
        "{{- if .Values.on }}\na: 1\n{{- end }}",
        GOOD.replace("NAME", '"{{ .Release.Name }}"'),
    ],
)
def test_a_template_is_told_as_such(tmp_path, text: str) -> None:
    (message,) = messages(write(tmp_path, "a.yaml", text))
    assert message.startswith("looks like a template ({{ }}): render it first")


def test_braces_in_a_good_manifest_are_no_template(tmp_path) -> None:
    text = GOOD.replace("NAME", 'a, annotations: {note: "{{ x }}"}')
    assert messages(write(tmp_path, "a.yaml", text)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: [1", "not YAML"),
        ("a: 1\na: 2", "stands there twice"),
        ("a: &x [*x]", "an alias stands for something that holds it"),
        ("[" * 5000, "not YAML that can be read"),
        ("a: " + "9" * 5000, "not YAML that can be read"),
    ],
)
def test_what_cannot_be_read_is_a_problem(tmp_path, text: str, found: str) -> None:
    (message,) = messages(write(tmp_path, "a.yaml", text))
    assert found in message
    assert "\n" not in message


def test_aliases_that_blow_up_are_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(InputError, match="its aliases written out"):
        load_yaml("\n".join(levels))


def test_a_file_may_not_be_too_large(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(manifests, "LARGEST_FILE", 100)
    assert messages(write(tmp_path, "a.yaml", "#" * 101)) == ["larger than 100 bytes"]
    assert messages(write(tmp_path, "b.yaml", "#" * 100)) == []


def test_what_is_not_text_is_a_problem(tmp_path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe")
    assert messages(path) == ["not UTF-8"]


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_result_as_data(tmp_path, output: str, load) -> None:
    path = write(tmp_path, "a.yaml", GOOD.replace("NAME", "Upper"))
    result = run(path, "-o", output)
    data = load(result.stdout)
    assert result.exit_code == INVALID
    assert (data["version"], data["valid"], data["checked"]) == ("1", False, 1)
    assert {problem["field"] for problem in data["problems"]} == {"metadata.name"}
    assert data["problems"][0]["severity"] == "Error"


def test_text_leaves_standard_output_empty(tmp_path) -> None:
    assert run(write(tmp_path, "a.yaml", GOOD.replace("NAME", "a"))).stdout == ""


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_no_document_breaks_the_check(document: object) -> None:
    text = yaml.safe_dump({"apiVersion": "modelyard.dev/v1alpha1", "kind": "LLMDeployment", "spec": document})
    for loaded in load_yaml(text):
        assert validate(loaded)
