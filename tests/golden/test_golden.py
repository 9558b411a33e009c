"""The children of known manifests, as YAML files to read and review.

`MODELYARD_UPDATE_GOLDEN=1 pytest tests/golden` writes them anew.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.golden.cases import (
    FOLDER,
    INPUTS,
    UPDATE,
    broken_rules,
    build_case,
    dump,
    pod_templates,
    read_workload,
)
from tests.golden.pod_security import violations


@pytest.mark.parametrize("name", INPUTS)
def test_children_equal_the_golden_file(name: str) -> None:
    path = FOLDER / "output" / f"{name}.yaml"
    built = dump(build_case(name))
    if UPDATE:
        path.write_text(built, encoding="utf-8")
    assert built.splitlines() == path.read_text(encoding="utf-8").splitlines()


def test_every_golden_file_has_an_input() -> None:
    assert sorted(path.stem for path in (FOLDER / "output").glob("*.yaml")) == INPUTS


@pytest.mark.parametrize("name", INPUTS)
def test_input_is_valid(name: str) -> None:
    workload = read_workload(name)
    assert [*broken_rules(workload.deployment), *broken_rules(workload.accelerator)] == []


@pytest.mark.parametrize("name", INPUTS)
def test_pod_is_restricted(name: str) -> None:
    for template in pod_templates(build_case(name)[-1]):
        assert violations(template["spec"]) == []


def _pod(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = pod_templates(build_case(name)[-1])[0]["spec"]
    return pod


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda pod: pod.update(hostNetwork=True), "hostNetwork"),
        (lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "volume x"),
        (lambda pod: pod["securityContext"].update(runAsUser=0), "runAsUser of the pod"),
        (lambda pod: pod["securityContext"].pop("seccompProfile"), "seccompProfile of engine"),
        (lambda pod: pod["securityContext"].update(runAsNonRoot=False), "runAsNonRoot of engine"),
        (lambda pod: pod["containers"][0].pop("securityContext"), "capabilities.drop of engine"),
        (lambda pod: pod["containers"][0]["ports"][0].update(hostPort=1), "hostPort of engine"),
        (
            lambda pod: pod["containers"][0]["livenessProbe"]["httpGet"].update(host="x"),
            "probe host of engine",
        ),
    ],
)
def test_the_checker_finds_violations(spoil: Callable[[dict[str, Any]], object], found: str) -> None:
    pod = copy.deepcopy(_pod("vllm-one-l4"))
    spoil(pod)
    assert found in violations(pod)
