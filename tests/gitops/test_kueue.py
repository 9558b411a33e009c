"""A model whose LLMDeployment names a queue of Kueue: labelled for it, told while it waits, served when admitted.

What Kueue's webhook does to a pod of such a Deployment, a scheduling gate, is done here by a policy of the API server.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from dev.cluster.waiting import wait_until
from modelyard.api.meta import QUEUE_LABELS
from modelyard.kube.resources import DEPLOYMENTS, PODS
from tests.apiserver.client import APPLY
from tests.gitops.conftest import Site
from tests.gitops.health import ArgoHealth, kstatus

GATE = "kueue.x-k8s.io/admission"
"""The gate that Kueue puts on pods (https://kueue.sigs.k8s.io/docs/tasks/run/plain_pods/)."""

LABELS = dict(zip(QUEUE_LABELS, ("team-a", "interactive"), strict=True))

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICY = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicy",
    "metadata": {"name": "queue-gate"},
    "spec": {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ]
        },
        "matchConditions": [
            {
                "name": "queued",
                "expression": f"has(object.metadata.labels) && '{QUEUE_LABELS[0]}' in object.metadata.labels",
            }
        ],
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {
                    "expression": "Object{spec: Object.spec{schedulingGates: "
                    f"[Object.spec.schedulingGates{{name: '{GATE}'}}]}}}}"
                },
            }
        ],
    },
}
BINDING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicyBinding",
    "metadata": {"name": "queue-gate"},
    "spec": {"policyName": "queue-gate"},
}


@pytest.fixture
def gates(site: Site) -> Iterator[None]:
    """A gate on every new pod that names a queue."""
    paths = (
        f"{ADMISSION}/mutatingadmissionpolicies/queue-gate",
        f"{ADMISSION}/mutatingadmissionpolicybindings/queue-gate",
    )
    for path, body in zip(paths, (POLICY, BINDING), strict=True):
        reply = site.server.request("PATCH", f"{path}?fieldManager=tests&force=true", body, APPLY)
        assert reply.status in {200, 201}, reply.message
    probe = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "labels": LABELS},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "probe",
                    "image": "example.com/probe:1",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }

    def acts() -> bool:
        reply = site.server.request("POST", f"{PODS.path(site.models)}?dryRun=All", probe)
        return bool(reply.body.get("spec", {}).get("schedulingGates"))

    wait_until(acts, "the API server applies the policy", timeout_s=60)
    yield
    for path in paths:
        site.server.request("DELETE", path)


def mine(site: Site, resource: Any, name: str) -> list[dict[str, Any]]:
    """Return the Deployments or pods of a model."""
    reply = site.server.request(
        "GET", f"{resource.path(site.models)}?labelSelector=modelyard.dev/deployment={name}"
    )
    return list(reply.body["items"])


def ready(body: dict[str, Any]) -> tuple[str, str]:
    """Return status and reason of Ready."""
    for item in body["status"].get("conditions", ()):
        if item["type"] == "Ready":
            return item["status"], item["reason"]
    return "", ""


@pytest.mark.usefixtures("gates")
def test_a_model_waits_for_its_queue_and_serves_when_it_is_admitted(
    site: Site, examples: list[dict[str, Any]]
) -> None:
    for item in examples:
        if item["kind"] == "AcceleratorClass":
            site.apply(item, "tests")
    manifest = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "queued", "labels": {**LABELS, "team": "search"}},
        "spec": {
            "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "contextLength": 8192},
            "placement": {"accelerators": [{"class": "l4", "requestsPerMinute": 60, "count": 1}]},
            "replicas": 1,
        },
    }
    assert site.apply(manifest, "tests").status in {200, 201}
    wait_until(
        lambda: ready(site.read(manifest)) == ("False", "Queued"), "it waits for its queue", timeout_s=60
    )
    waiting = site.read(manifest)
    assert (ArgoHealth().judge(waiting)[0], kstatus(waiting)) == ("Progressing", "InProgress")
    (deployment,) = mine(site, DEPLOYMENTS, "queued")
    (pod,) = mine(site, PODS, "queued")
    for labels in (deployment["metadata"]["labels"], pod["metadata"]["labels"]):
        assert labels.items() >= LABELS.items()
        assert "team" not in labels, "other labels of the user are the user's"
    # Kueue admits it: the gate goes.
    patch = {"spec": {"schedulingGates": None}}
    path = PODS.path(site.models, pod["metadata"]["name"])
    reply = site.server.request("PATCH", path, patch, "application/merge-patch+json")
    assert reply.status == 200, reply.message
    wait_until(lambda: ready(site.read(manifest)) == ("True", "Serving"), "it serves", timeout_s=60)
    # Switched off it holds no place in the queue.
    off = {**manifest, "spec": {**manifest["spec"], "suspend": True}}
    site.apply(off, "tests")
    wait_until(lambda: not mine(site, PODS, "queued"), "its pods are gone", timeout_s=60)
    site.server.request("DELETE", site.place(manifest))
