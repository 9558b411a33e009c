"""The golden children on a real API server: accepted, stored as written, and fit for restricted Pod Security."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from dev.cluster.control_plane import ControlPlane
from dev.cluster.crds import LEADER_WORKER_SET
from modelyard.api.meta import FIELD_MANAGER
from modelyard.render.resources import multiply_quantity
from tests.apiserver.client import APPLY, ApiServer
from tests.apiserver.foreign import installed
from tests.golden.cases import INPUTS, build_case, pod_templates, read_workload

_CREATED = (200, 201)
_PLURALS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Service": "/api/v1/namespaces/{}/services",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "LeaderWorkerSet": "/apis/leaderworkerset.x-k8s.io/v1/namespaces/{}/leaderworkersets",
}


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The API server, with LeaderWorkerSet's own definition, and the priority and runtime classes of the cases."""
    classes: list[tuple[str, dict[str, Any]]] = []
    workloads = [read_workload(name) for name in INPUTS]
    for priority in {item.deployment.spec.placement.priority for item in workloads} - {None}:
        body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000}
        classes.append((f"/apis/scheduling.k8s.io/v1/priorityclasses/{priority}", body))
    for runtime in {item.accelerator.spec.runtime_class_name for item in workloads} - {None}:
        body = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "nvidia"}
        classes.append((f"/apis/node.k8s.io/v1/runtimeclasses/{runtime}", body))
    with ApiServer(
        control_plane.url, control_plane.ca, control_plane.certificate, control_plane.key
    ) as running:
        for path, body in classes:
            manifest = {**body, "metadata": {"name": path.rpartition("/")[2]}}
            reply = running.request("PATCH", f"{path}?fieldManager=test&force=true", manifest, APPLY)
            assert reply.status in _CREATED, reply.message
        with installed(running, LEADER_WORKER_SET, "leaderworkerset.x-k8s.io_leaderworkersets.yaml"):
            yield running
        for path, _ in classes:
            running.request("DELETE", path)


@pytest.fixture
def namespace(make_namespace: Callable[..., str]) -> str:
    return make_namespace(**{"pod-security.kubernetes.io/warn": "restricted"})


def _children(name: str, namespace: str) -> list[dict[str, Any]]:
    children = [copy.deepcopy(child) for child in build_case(name)]
    for child in children:
        child["metadata"]["namespace"] = namespace
    return children


def _differences(desired: Any, stored: Any, path: str = "") -> Iterator[str]:
    """Yield where a stored object lacks, or writes otherwise, what was desired. Fields beside that are defaults."""
    if isinstance(desired, Mapping) and isinstance(stored, Mapping):
        for key, value in desired.items():
            yield from _differences(value, stored.get(key), f"{path}.{key}")
    elif isinstance(desired, list) and isinstance(stored, list) and len(desired) == len(stored):
        for index, value in enumerate(desired):
            yield from _differences(value, stored[index], f"{path}[{index}]")
    elif desired != stored:
        yield f"{path}: {desired!r} was stored as {stored!r}"


@pytest.mark.parametrize("name", INPUTS)
def test_children_are_accepted_and_stored_as_written(name: str, server: ApiServer, namespace: str) -> None:
    for child in _children(name, namespace):
        path = f"{_PLURALS[child['kind']].format(namespace)}/{child['metadata']['name']}"
        query = f"?dryRun=All&fieldValidation=Strict&fieldManager={FIELD_MANAGER}&force=true"
        reply = server.request("PATCH", path + query, child, APPLY)
        assert (reply.status in _CREATED, reply.message, reply.warnings) == (True, "", ())
        assert list(_differences(child, reply.body)) == []


@pytest.mark.parametrize("name", INPUTS)
def test_pod_is_admitted_under_restricted_pod_security(name: str, server: ApiServer, namespace: str) -> None:
    children = _children(name, namespace)
    account = {key: value for key, value in children[0].items() if key != "metadata"}
    # Without its owner, which does not exist here: garbage collection would remove the account.
    account["metadata"] = {"name": children[0]["metadata"]["name"], "namespace": namespace}
    reply = server.request("POST", _PLURALS["ServiceAccount"].format(namespace), account)
    assert reply.status in _CREATED, reply.message
    for template in pod_templates(children[-1]):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **template["metadata"]},
            "spec": template["spec"],
        }
        reply = server.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
        assert (reply.status in _CREATED, reply.message, reply.warnings) == (True, "", ())


@pytest.mark.parametrize(
    "text",
    ["0.5", "1500m", "1000", "0.0001", "2000M", "1.5Gi", "1024Mi", "0.5Ki", "1023Ki", "1.0001Gi", "0.1Mi"],
)
def test_quantities_are_written_as_the_server_stores_them(
    text: str, server: ApiServer, namespace: str
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "quota"},
        "spec": {"hard": {"limits.memory": text}},
    }
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/quota?dryRun=All&fieldManager=test"
    reply = server.request("PATCH", path, quota, APPLY)
    assert reply.status in _CREATED, reply.message
    assert multiply_quantity(text, 1) == reply.body["spec"]["hard"]["limits.memory"]
