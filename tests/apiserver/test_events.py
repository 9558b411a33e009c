"""Events of an object that flaps, as a real API server has them afterwards."""

from collections.abc import AsyncIterator

import pytest

from dev.cluster.control_plane import ControlPlane
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.eventflow import BURST, REFILL_SECONDS
from modelyard.kube.client import KubeClient
from modelyard.kube.resources import EVENTS
from modelyard.runtime.events import EventRecorder
from tests.apiserver.client import ApiServer

HOUR = 3600


@pytest.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    client = await KubeClient.connect(control_plane.kubeconfig)
    yield client
    await client.close()


def deployment(namespace: str, reason: str) -> LLMDeployment:
    """Return an LLMDeployment whose Ready condition has a reason."""
    condition = {
        "type": "Ready",
        "status": "True" if reason == "Serving" else "False",
        "reason": reason,
        "message": f"it is {reason}",
        "lastTransitionTime": "2026-11-30T12:00:00Z",
    }
    metadata = {"name": "flaps", "namespace": namespace, "uid": f"uid-{namespace}"}
    spec = {"model": {"source": "hf://org/model"}, "placement": {"accelerators": [{"class": "l4"}]}}
    status = {"observedGeneration": 1, "conditions": [condition]}
    return LLMDeployment.model_validate({"metadata": metadata, "spec": spec, "status": status})


async def test_an_object_that_flaps_for_an_hour_leaves_two_events_that_count(
    kinds: ApiServer, namespace: str, client: KubeClient
) -> None:
    now, requests = 1_800_000_000.0, []
    client.observer = lambda method, resource, status, _: requests.append((method, resource, status))
    recorder = EventRecorder(client, lambda: now)
    views = {reason: deployment(namespace, reason) for reason in ("Loading", "Serving")}
    flips = 0
    for _ in range(HOUR // 4):
        for before, after in (("Loading", "Serving"), ("Serving", "Loading")):
            now += 2
            flips += 1
            await recorder.emit_changes(views[before], views[after].status)

    assert {(resource, status) for _, resource, status in requests} == {("events", 201), ("events", 200)}
    assert len(requests) <= BURST + HOUR / REFILL_SECONDS
    client.observer = lambda *_: None
    events = [item async for item in client.list_pages(EVENTS, {}, namespace=namespace)]
    own = {item["reason"]: item for item in events if item["involvedObject"]["name"] == "flaps"}
    assert own.keys() == {"Loading", "Serving"}
    # The last write said how often it had been, those left out included.
    assert max(item["count"] for item in own.values()) > (flips - REFILL_SECONDS) / 2
    assert all(item["firstTimestamp"] < item["lastTimestamp"] for item in own.values())


async def test_an_event_that_the_api_server_dropped_is_written_anew(
    kinds: ApiServer, namespace: str, client: KubeClient
) -> None:
    now = 1_800_000_000.0
    recorder = EventRecorder(client, lambda: now)
    loading, serving = deployment(namespace, "Loading"), deployment(namespace, "Serving")
    await recorder.emit_changes(loading, serving.status)
    [first] = [item async for item in client.list_pages(EVENTS, {}, namespace=namespace)]
    assert await client.delete(EVENTS, namespace, first["metadata"]["name"], first["metadata"]["uid"])
    await recorder.emit_changes(loading, serving.status)
    await recorder.emit_changes(loading, serving.status)
    [second] = [item async for item in client.list_pages(EVENTS, {}, namespace=namespace)]
    assert second["metadata"]["name"] != first["metadata"]["name"]
    assert second["count"] == 3
