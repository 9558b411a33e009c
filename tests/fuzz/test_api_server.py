"""Objects made from the schemas on a real API server, and an operator among them."""

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dev.cluster.control_plane import ControlPlane
from dev.cluster.waiting import wait_until
from dev.stack import Ports, operator_component
from modelyard.api.crd import KINDS
from modelyard.api.validation import validate
from tests.apiserver.client import MERGE, ApiServer, resource_path
from tests.apiserver.manifests import manifest
from tests.fuzz.conftest import TRIED, tries
from tests.fuzz.schemas import from_schema, manifests, repair

PATIENCE_S = 180
"""Longest wait for anything: a bound on a machine that is busy with other things, not a measure."""
HOSTILE_OBJECTS = 40
"""Objects that stand in the namespace of the good one."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_and_the_offline_check_agree_on_everything(kinds: ApiServer, kind: str) -> None:
    """Nothing but a verdict comes from the server, and it is that of the offline check."""
    path = f"{resource_path(kind, 'default')}?dryRun=All"

    @tries(60)
    @given(body=manifests(kind))
    def judge(body: dict[str, Any]) -> None:
        TRIED[f"{kind} to the API server (dry run)"] += 1
        reply = kinds.request("POST", path, body)
        problems = [problem for problem in validate(body) if problem.severity == "Error"]
        assert reply.status in {201, 400, 422}, reply.message
        assert (reply.status == 201) == (not problems), (reply.message, problems)

    judge()


@pytest.fixture
def operator(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Callable[[], Ports]]:
    """Starts an operator that works on all namespaces; it must live until the test ends."""
    ports = Ports.choose()
    component = operator_component(
        control_plane.kubeconfig,
        (),
        ports,
        tmp_path / "operator.log",
        *("--no-read-hub", "--read-interval", "1"),
    )

    def start() -> Ports:
        component.start()
        component.wait_ready(PATIENCE_S)
        return ports

    yield start
    alive = component.running
    component.stop()
    assert alive


def test_an_operator_among_hostile_objects_serves_the_good_one(
    kinds: ApiServer,
    namespace: str,
    make_namespace: Callable[..., str],
    operator: Callable[[], Ports],
) -> None:
    created(kinds, "/api/v1/namespaces/" + make_namespace() + "/pods", hostile_pod())
    classes = resource_path("AcceleratorClass", "")
    created(
        kinds,
        classes,
        manifest(
            "AcceleratorClass", namespace, resourceName="nvidia.com/gpu", nodeSelector={"fuzz": namespace}
        ),
    )
    try:
        for number, body in enumerate(made_objects(namespace)):
            body["metadata"]["name"] = f"hostile-{number}"
            kinds.request("POST", resource_path(body["kind"], namespace), body)
        stored = sum(
            len(kinds.request("GET", resource_path(kind, namespace)).body["items"])
            for kind in ("LLMDeployment", "LLMRoute")
        )
        assert stored > HOSTILE_OBJECTS / 4
        TRIED["objects in front of a running operator"] += stored
        good = manifest(
            "LLMDeployment",
            "good",
            model={"source": "hf://org/good"},
            placement={"accelerators": [{"class": namespace, "count": 1, "requestsPerMinute": 60}]},
            replicas=1,
        )
        created(kinds, resource_path("LLMDeployment", namespace), good)
        ports = operator()
        path = resource_path("LLMDeployment", namespace, "good")
        wait_until(
            lambda: generation_seen(kinds, path, 1), "the good object has a status", timeout_s=PATIENCE_S
        )
        # It goes on working, also for changes that come later.
        assert kinds.request("PATCH", path, {"spec": {"replicas": 2}}, MERGE).status == 200
        wait_until(lambda: generation_seen(kinds, path, 2), "the change was taken in", timeout_s=PATIENCE_S)
        wait_until(
            lambda: sizes(kinds, namespace) == [2], "its Deployment has two replicas", timeout_s=PATIENCE_S
        )
        wait_until(
            lambda: metric(ports, "modelyard_queue_length") == 0,
            "nothing waits",
            timeout_s=PATIENCE_S,
        )
        assert metric(ports, "modelyard_reconciles_total", outcome="failed") == 0
    finally:
        kinds.request("DELETE", f"{classes}/{namespace}")


def hostile_pod() -> dict[str, Any]:
    """Restricted, bound to a node of its own choice, with a quantity that only Kubernetes itself writes so."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    resources = {"limits": {"example.com/x": "1e3"}, "requests": {"example.com/x": "1e3"}}
    container = {"name": "c", "image": "none.example/c", "securityContext": security, "resources": resources}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hostile"},
        "spec": {"nodeName": "nowhere", "containers": [container]},
    }


def made_objects(accelerator: str) -> list[dict[str, Any]]:
    """Deployments that would run here, and routes, as the schema allows them."""
    found: list[dict[str, Any]] = []

    @settings(tries(HOSTILE_OBJECTS), phases=[Phase.generate], database=None)
    @given(data=st.data())
    def collect(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(("LLMDeployment", "LLMRoute")))
        spec = data.draw(from_schema(kind))
        if kind == "LLMDeployment":
            spec.pop("scaling", None)
            spec |= {
                "replicas": data.draw(st.integers(0, 2)),
                "placement": {"accelerators": [{"class": accelerator}]},
            }
        else:
            repair(spec)
        found.append({**manifest(kind, "hostile"), "spec": spec})

    collect()
    return found


def created(server: ApiServer, path: str, body: dict[str, Any]) -> None:
    reply = server.request("POST", path, body)
    assert reply.status == 201, reply.message


def generation_seen(server: ApiServer, path: str, generation: int) -> bool:
    status = server.request("GET", path).body.get("status", {})
    return bool(status.get("observedGeneration", 0) >= generation)


def sizes(server: ApiServer, namespace: str) -> list[int]:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments?labelSelector=modelyard.dev/deployment=good"
    return [item["spec"]["replicas"] for item in server.request("GET", path).body["items"]]


def metric(ports: Ports, name: str, **labels: str) -> float:
    with urllib.request.urlopen(ports.metrics_url, timeout=10) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
