"""The outside autoscalers, as YAML files to read and review; and what must hold for each of them."""

from dataclasses import replace
from typing import Any

import pytest

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.external import METRIC, ScalerKind
from modelyard.render.autoscaler import build_autoscaler
from modelyard.render.workload import Workload
from tests.golden.cases import FOLDER, SETTINGS, UPDATE, dump, read_workload

AUTOSCALERS: dict[str, tuple[ScalerKind, bool]] = {
    "horizontal-pod-autoscaler": ("HorizontalPodAutoscaler", True),
    "horizontal-pod-autoscaler-before-1.35": ("HorizontalPodAutoscaler", False),
    "scaled-object": ("ScaledObject", False),
}
OUTPUT = FOLDER / "output" / "autoscalers"


def build(name: str, workload: Workload | None = None) -> dict[str, Any]:
    kind, tolerance = AUTOSCALERS[name]
    return build_autoscaler(
        kind, workload or read_workload("external-actuator"), SETTINGS, tolerance=tolerance
    )


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_autoscaler_equals_the_golden_file(name: str) -> None:
    path, built = OUTPUT / f"{name}.yaml", dump((build(name),))
    if UPDATE:
        path.write_text(built, encoding="utf-8")
    assert built.splitlines() == path.read_text(encoding="utf-8").splitlines()


def test_every_golden_file_has_a_case() -> None:
    assert sorted(path.stem for path in OUTPUT.glob("*.yaml")) == sorted(AUTOSCALERS)


@pytest.mark.parametrize("name", AUTOSCALERS)
@pytest.mark.parametrize("least", [0, 1, 3])
def test_no_autoscaler_may_take_the_last_replica(name: str, least: int) -> None:
    workload = read_workload("external-actuator")
    body = workload.deployment.model_dump(by_alias=True)
    body["spec"]["scaling"] |= {"min": least, "max": 5}
    spec = build(name, replace(workload, deployment=LLMDeployment.model_validate(body)))["spec"]
    bounds = spec.get("minReplicas", spec.get("minReplicaCount"))
    assert bounds == max(least, 1)
    assert spec.get("maxReplicas", spec.get("maxReplicaCount")) == 5


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_the_target_of_groups_is_their_set(name: str) -> None:
    alone = read_workload("external-actuator")
    spec = build(name, replace(alone, count=alone.count * 2, pipeline=2, nodes=2))["spec"]
    target = spec["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet")
    assert target["name"] != build(name)["spec"]["scaleTargetRef"]["name"]


def test_keda_has_no_fallback_that_could_scale_down() -> None:
    spec = build("scaled-object")["spec"]
    assert not {"fallback", "idleReplicaCount"} & spec.keys()
    assert spec["advanced"]["restoreToOriginalReplicaCount"] is False


def test_the_hpa_asks_for_the_series_of_its_deployment() -> None:
    metric = build("horizontal-pod-autoscaler")["spec"]["metrics"][0]["external"]["metric"]
    labels = {"namespace": "team-b", "deployment": "qwen"}
    assert metric == {"name": METRIC, "selector": {"matchLabels": labels}}


def test_a_fixed_size_has_no_autoscaler() -> None:
    with pytest.raises(ValueError, match="no scaling"):
        build("scaled-object", read_workload("vllm-adapter-from-hub"))
