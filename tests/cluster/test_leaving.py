"""A gateway pod that is deleted: what its requests used up to the last one is in the ledger when its Envoy ends.

The test is the kubelet: it asks the preStop hook, and sends SIGTERM when that answers.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from dev.cluster.processes import Component, free_ports
from dev.demo.kube import namespace_manifest
from dev.stack import envoy_component
from modelyard.core.ledger.usage import Use
from modelyard.render.envoy.bootstrap import LEAVE_PATH
from modelyard.runtime.departures import GATEWAY_PODS
from modelyard.runtime.settings import SYSTEM_NAMESPACE
from tests.cluster.conftest import Bed
from tests.cluster.test_ledger import ask_many, written

FINALIZER = "modelyard.dev/kubelet-of-a-test"
"""Keeps a pod that is being deleted, as a kubelet does until its containers have ended."""


@dataclass
class GatewayPod:
    """A pod of the gateway in the API server, and its Envoy as a process."""

    bed: Bed
    manifest: dict[str, Any]
    envoy: Component
    stats_url: str

    def delete(self) -> None:
        """Let the pod be deleted; it stays until its containers have ended."""
        self.bed.cluster.delete([self.manifest], SYSTEM_NAMESPACE)

    async def ask_hook(self) -> tuple[int, str]:
        """Do what the kubelet does before SIGTERM."""
        timeout = aiohttp.ClientTimeout(total=300)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{self.stats_url}{LEAVE_PATH}") as reply,
        ):
            return reply.status, await reply.text()


@pytest.fixture
def pod(bed: Bed) -> Iterator[GatewayPod]:
    """The only gateway for a test; the usual one comes back after it."""
    bed.cluster.apply([namespace_manifest(SYSTEM_NAMESPACE, {})])
    name = f"gateway-{uuid.uuid4().hex[:6]}"
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": dict(label.split("=") for label in GATEWAY_PODS.split(",")),
            "finalizers": [FINALIZER],
        },
        "spec": {
            # Its Envoy is started here.
            "schedulerName": "nobody",
            "containers": [{"name": "envoy", "image": "envoyproxy/envoy"}],
        },
    }
    bed.cluster.apply([manifest], SYSTEM_NAMESPACE)
    pods = bed.cluster.dynamic.resources.get(api_version="v1", kind="Pod")
    uid = pods.get(name=name, namespace=SYSTEM_NAMESPACE).metadata.uid
    stats, admin = free_ports(2)
    ports = replace(bed.stack.ports, stats=stats, admin=admin)
    folder = bed.stack.folder
    envoy = envoy_component(folder / f"{name}.json", ports, folder / f"{name}.log", uid)
    bed.stack.envoy.stop()
    try:
        envoy.start()
        envoy.wait_ready()
        yield GatewayPod(bed, manifest, envoy, ports.stats_url)
    finally:
        envoy.stop()
        pods.patch(
            name=name,
            namespace=SYSTEM_NAMESPACE,
            body={"metadata": {"finalizers": None}},
            content_type="application/merge-patch+json",
        )
        bed.cluster.delete([manifest], SYSTEM_NAMESPACE)
        bed.stack.operator.start()
        bed.stack.operator.wait_ready()
        bed.stack.envoy.start()
        bed.stack.envoy.wait_ready()


async def charged(bed: Bed, target: str) -> Use:
    """Return what is written of a deployment, as it stands."""
    found = await written(bed, target)
    return found[target].use if target in found else Use()


@pytest.mark.parametrize("restart", [False, True], ids=["operator stays", "operator is killed"])
async def test_the_last_requests_are_charged(
    bed: Bed, make_model: Callable[..., str], pod: GatewayPod, restart: bool
) -> None:
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    target = f"{bed.namespace}/{name}"
    told = await ask_many(bed, name, 1)
    await asyncio.to_thread(pod.delete)
    hook = asyncio.create_task(pod.ask_hook())
    told += await ask_many(bed, name, 20)
    if restart:
        bed.stack.operator.kill()
        # Nobody has read these when the next operator starts.
        told += await ask_many(bed, name, 40)
        await asyncio.to_thread(bed.stack.operator.start)
    told += await ask_many(bed, name, 60)
    assert not hook.done()
    assert await hook == (200, "settled\n")
    pod.envoy.stop()
    assert await charged(bed, target) == told, "it is written before the Envoy ends"

    # The next Envoy counts from zero; the one that left is not waited for.
    if restart:
        await asyncio.to_thread(bed.stack.operator.wait_ready)
    await asyncio.to_thread(bed.stack.envoy.start)
    await asyncio.to_thread(bed.stack.envoy.wait_ready)
    await asyncio.to_thread(bed.wait_routed, name)
    told += await ask_many(bed, name, 80)
    async with asyncio.timeout(60):
        while await charged(bed, target) != told:
            await asyncio.sleep(0.2)


async def test_a_pod_that_stays_is_not_drained(
    bed: Bed, make_model: Callable[..., str], pod: GatewayPod
) -> None:
    """Somebody else than the kubelet asks for the path: the API server knows of no deletion."""
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    hook = asyncio.create_task(pod.ask_hook())
    told = await ask_many(bed, name, 1)
    assert await hook == (200, "settled\n")
    assert await charged(bed, f"{bed.namespace}/{name}") == told
    async with aiohttp.ClientSession() as session, session.get(f"{bed.stack.url}/healthz") as reply:
        assert reply.status == 200
    assert pod.envoy.running
