"""Whole numbers that are written as floats: a real API server takes some of them, and the offline check the same."""

from typing import Any

import pytest

from modelyard.api.crd import KINDS
from modelyard.api.meta import API_VERSION
from modelyard.api.validation import validate
from tests.apiserver.client import ApiServer
from tests.apiserver.manifests import PROFILE, change_field, parse_path, smallest


def judge(kinds: ApiServer, manifest: dict[str, Any]) -> tuple[bool, bool, str]:
    """Return the verdicts of the API server and of the offline check, and the server's message."""
    kind = KINDS[manifest["kind"]]
    path = f"/apis/{API_VERSION}/namespaces/default/{kind.plural}?dryRun=All"
    reply = kinds.request("POST", path, manifest)
    refused = any(problem.severity == "Error" for problem in validate(manifest))
    return reply.status == 201, not refused, reply.message


@pytest.mark.parametrize(
    ("kind", "changes", "accepted"),
    [
        ("LLMDeployment", {"spec.replicas": 2.0}, False),
        ("LLMDeployment", {"spec.replicas": 0.0}, False),
        ("LLMDeployment", {"spec.replicas": 2.5}, False),
        ("LLMDeployment", {"spec.load": {"requestsPerMinute": 60.0}}, True),
        ("LLMDeployment", {"spec.model.contextLength": 8192.0}, True),
        ("LLMDeployment", {"spec.replicas": None, "spec.scaling": {"min": 1.0, "max": 3}}, False),
        ("LLMDeployment", {"spec.replicas": None, "spec.scaling": {"min": 1, "max": 3.0}}, False),
        ("LLMDeployment", {"spec.model.profile": {**PROFILE, "layers": 32.0, "slidingLayers": 4}}, False),
        ("LLMDeployment", {"spec.model.profile": {**PROFILE, "hiddenSize": 4096.0}}, True),
        ("LLMRoute", {"spec.targets": [{"deployment": "a", "weight": 1.0}]}, False),
    ],
)
def test_whole_floats_are_judged_alike(
    kinds: ApiServer, kind: str, changes: dict[str, Any], accepted: bool
) -> None:
    manifest = smallest(kind)
    for path, value in changes.items():
        manifest = change_field(manifest, parse_path(path), value)
    by_server, offline, message = judge(kinds, manifest)
    assert (by_server, offline) == (accepted, accepted), message


@pytest.mark.parametrize(
    ("namespace", "accepted"), [("default", True), ("", True), ("A|b", False), ("a.b", False)]
)
def test_namespaces_are_judged_alike(kinds: ApiServer, namespace: str, accepted: bool) -> None:
    manifest = smallest("LLMDeployment")
    manifest["metadata"] = {**manifest["metadata"], "namespace": namespace}
    by_server, offline, message = judge(kinds, manifest)
    assert (by_server, offline) == (accepted, accepted), message
