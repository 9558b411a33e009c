"""`modelyard plan --against live`: what runs, read from an API server and never written."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.api.meta import API_VERSION, LABEL_DEPLOYMENT, LABEL_VARIANT
from modelyard.cli.main import app
from modelyard.core.report.steady import find_rate
from modelyard.core.scaling.rule import LoadPolicy
from modelyard.core.variants import variant_name
from tests.unit.cli.clusterstub import Lists, serve_lists

VARIANT = variant_name("l4", 1, spot=False)
SELECTOR = {"gpu": "l4"}


def meta(name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    found = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", **more}
    return {**found, "namespace": namespace} if namespace else found


def model(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMDeployment",
        "metadata": meta(name, "team", generation=1),
        "spec": {
            "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "contextLength": 4096},
            "placement": {"accelerators": [{"class": "l4", "count": 1, "requestsPerMinute": 60}]},
            **spec,
        },
    }


def child(name: str, replicas: int) -> dict[str, Any]:
    owner = {"uid": f"uid-{name}", "controller": True}
    labels = {LABEL_DEPLOYMENT: name, LABEL_VARIANT: VARIANT}
    metadata = meta(f"{name}-{VARIANT}", "team", labels=labels, ownerReferences=[owner])
    return {"metadata": metadata, "spec": {"replicas": replicas}}


def pod(name: str, node: str, deployment: str | None = None) -> dict[str, Any]:
    labels = {LABEL_DEPLOYMENT: deployment, LABEL_VARIANT: VARIANT} if deployment else {}
    return {
        "metadata": meta(name, "team", labels=labels),
        "spec": {
            "nodeName": node,
            "containers": [{"name": "engine", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
        },
        "status": {"phase": "Running"},
    }


def node(name: str) -> dict[str, Any]:
    return {
        "metadata": meta(name, labels=SELECTOR),
        "status": {
            "allocatable": {"nvidia.com/gpu": "1"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


CLASS = {
    "metadata": meta("l4"),
    "spec": {
        "resourceName": "nvidia.com/gpu",
        "nodeSelector": SELECTOR,
        "memory": "24Gi",
        "price": {"onDemand": "1"},
    },
}
LIVE: Lists = {
    "llmdeployments": [model("a", replicas=1), model("b", scaling={"min": 1, "max": 4})],
    "acceleratorclasses": [CLASS],
    "deployments": [child("a", 1), child("b", 2)],
    "pods": [
        pod("a-1", "n1", "a"),
        pod("b-1", "n2", "b"),
        pod("b-2", "n3", "b"),
        pod("other", "n4"),
    ],
    "nodes": [node(f"n{number}") for number in range(1, 6)],
}


def plan(
    tmp_path, lists: Lists, manifests: list[dict[str, Any]], *options: str
) -> tuple[Any, dict[str, Any]]:
    path = tmp_path / "manifests.json"
    path.write_text(json.dumps({"kind": "List", "items": manifests}), encoding="utf-8")
    with serve_lists(tmp_path, lists) as (kubeconfig, seen):
        arguments = [
            "plan",
            "-f",
            path,
            "--against",
            "live",
            "--kubeconfig",
            kubeconfig,
            "--offline",
            "-o",
            "json",
        ]
        result = CliRunner().invoke(app, [str(item) for item in (*arguments, *options)])
    assert {request.partition(" ")[0] for request in seen} == {"GET"}
    return result, json.loads(result.stdout or "{}")


def kinds(report: dict[str, Any]) -> dict[str, str]:
    return {change["name"]: change["kind"] for change in report["changes"]}


def test_the_difference_and_the_totals(tmp_path) -> None:
    result, report = plan(tmp_path, LIVE, [model("a", replicas=2), model("c", replicas=0)])
    assert result.exit_code == 0
    assert kinds(report) == {"a": "Changed", "b": "Unchanged", "c": "Added"}
    assert [item["name"] for item in report["deployments"]] == ["a", "c"]
    totals = report["totals"]
    # a grows from 1 to 2 and b keeps its 2, at 1 dollar an hour: 3 x 24 before, 4 x 24 after.
    assert (totals["beforePerDay"], totals["perDay"], totals["changePerDay"]) == ("72.00", "96.00", "24.00")
    assert "staying" in result.stderr


def test_a_changed_spec_is_a_change_though_the_size_stays(tmp_path) -> None:
    wanted = model("a", replicas=1)
    wanted["spec"]["model"]["contextLength"] = 8192
    _, report = plan(tmp_path, LIVE, [wanted])
    change = report["changes"][0]
    assert (change["kind"], change["fields"]) == ("Changed", ["model.contextLength"])


def test_what_is_in_no_file_goes_with_prune(tmp_path) -> None:
    result, report = plan(tmp_path, LIVE, [model("a", replicas=1)], "--prune")
    assert result.exit_code == 0
    assert kinds(report) == {"a": "Unchanged", "b": "Removed"}
    assert report["totals"]["changePerDay"] == "-48.00"


def test_accelerators_of_pruned_deployments_are_free_again(tmp_path) -> None:
    # Five nodes: one is held by others, two by b.
    wanted = [model("a", replicas=4)]
    kept, report = plan(tmp_path, LIVE, wanted)
    assert (kept.exit_code, report["deployments"][0]["missingReplicas"]) == (3, 2)
    assert any("have no room" in note for note in report["deployments"][0]["notes"])
    pruned, report = plan(tmp_path, LIVE, wanted, "--prune")
    assert (pruned.exit_code, report["deployments"][0]["missingReplicas"]) == (0, 0)


def test_without_a_load_the_present_size_stands(tmp_path) -> None:
    _, report = plan(tmp_path, LIVE, [model("b", scaling={"min": 1, "max": 4})])
    (deployment,) = report["deployments"]
    assert (deployment["replicas"], deployment["size"]["reason"]) == (2, "NoData")
    assert any("no load is stated" in note for note in deployment["notes"])


def test_a_load_decides_over_what_runs(tmp_path) -> None:
    # Half of what one replica is planned to answer.
    load = {"requestsPerMinute": int(find_rate(1.0, None, LoadPolicy()) * 60 / 2)}
    wanted = model("b", scaling={"min": 1, "max": 4}, load=load)
    _, report = plan(tmp_path, LIVE, [wanted])
    assert (report["deployments"][0]["replicas"], kinds(report)["b"]) == (1, "Changed")


def test_a_class_that_the_cluster_lacks_is_refused_as_there(tmp_path) -> None:
    wanted = model("a", replicas=1, placement={"accelerators": [{"class": "h100"}]})
    result, report = plan(tmp_path, LIVE, [wanted])
    assert result.exit_code == 3
    assert report["deployments"][0]["fit"]["reason"] == "AcceleratorClassNotFound"
    assert kinds(report)["a"] == "Refused"
    # What runs stays, and is still paid for.
    assert report["totals"]["perDay"] == "72.00"


@pytest.mark.parametrize(
    ("plural", "note"),
    [("nodes", "room on nodes is not checked"), ("priorityclasses", "priorities count as equal")],
)
def test_what_may_not_be_read_is_noted(tmp_path, plural: str, note: str) -> None:
    result, report = plan(tmp_path, {**LIVE, plural: 403}, [model("a", replicas=9)])
    assert any(note in item for item in report["notes"])
    assert result.exit_code == (0 if plural == "nodes" else 3)


def test_a_cluster_that_cannot_be_read_is_an_error_of_its_own(tmp_path) -> None:
    result, _ = plan(tmp_path, {**LIVE, "llmdeployments": 403}, [model("a", replicas=1)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the cluster cannot be read: 403" in result.stderr


def test_no_kubeconfig_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a.json").write_text(json.dumps(model("a", replicas=1)), encoding="utf-8")
    result = CliRunner().invoke(app, ["plan", "-f", str(tmp_path / "a.json"), "--against", "live"])
    assert result.exit_code == 2
    assert "no kubeconfig" in result.stderr


@pytest.mark.parametrize("text", ["a: [", "a: 1", "", "current-context: a\nclusters: []"])
def test_a_bad_kubeconfig_is_told_in_one_line(tmp_path, text: str) -> None:
    (tmp_path / "kubeconfig").write_text(text, encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(model("a", replicas=1)), encoding="utf-8")
    arguments = ["plan", "-f", str(tmp_path / "a.json"), "--against", "live"]
    result = CliRunner().invoke(app, [*arguments, "--kubeconfig", str(tmp_path / "kubeconfig")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.strip().splitlines()) == 1
