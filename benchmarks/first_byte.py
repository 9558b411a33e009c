"""Time from Ready to the first byte: `python -m benchmarks.first_byte` (`make bench`).

For each of n new models one request is held by the real Envoy while the model has no pod. The benchmark plays the
kubelet: it writes the pod's status that sets Ready, and takes the time from the API server's reply to that write to
the first byte of the held request's 200. In between lie the watch, the operator, the ADS push, and a stand-in
engine with zero step time.
"""

import asyncio
import datetime as dt
import json
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console
from rich.progress import track

from dev.cluster.control_plane import ControlPlane
from dev.cluster.processes import Component
from dev.demo.kube import Cluster, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.stack import Stack
from modelyard.gateway.counters import read_counters
from modelyard.kube.client import KubeClient
from modelyard.kube.resources import PODS, Resource

NAMESPACE = "bench"
NODE = "bench-node"
ENGINE_ADDRESS = "127.77.0.1"
"""Where the one stand-in listens that answers for all models."""
ENGINE_PORT = 8000
"""The port of vLLM's pods."""
LIMIT_MS = 50.0
"""Bar of the median, in milliseconds."""
HEARTBEAT_S = 10.0
"""Between renewals of the node's Lease, as a kubelet does."""
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Sample:
    """One model: milliseconds from the reply to the status write until the first byte."""

    milliseconds: float
    status: int
    body: bytes


def now() -> str:
    """Return the time as Kubernetes writes it, with microseconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def create_node(client: KubeClient, pods: int) -> None:
    """Register a node that takes all pods."""
    capacity = {"cpu": "64", "memory": "64Gi", "pods": str(pods), "nvidia.com/gpu": str(pods)}
    await client.create(
        NODES,
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {"bench": "true"}}},
    )
    status = {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Bench", "message": "", "lastHeartbeatTime": None}
        ],
    }
    await client.request(
        "PATCH",
        NODES.path(name=NODE, subresource="status"),
        body={"status": status},
        content_type=MERGE_PATCH,
    )


async def beat(client: KubeClient) -> None:
    """Renew the node's Lease until cancelled."""
    manifest = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": NODE, "namespace": "kube-node-lease"},
    }
    while True:
        spec = {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": now()}
        await client.apply(LEASES, {**manifest, "spec": spec})
        await asyncio.sleep(HEARTBEAT_S)


def model_manifest(name: str) -> dict[str, Any]:
    """Return a model that starts asleep."""
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "hf://bench/model"},
            "placement": {"accelerators": [{"class": "bench"}]},
            "scaling": {"min": 0, "max": 1, "idleAfter": "10h"},
        },
    }


def class_manifest() -> dict[str, Any]:
    """Return a class that selects the node."""
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": "bench"},
        "spec": {
            "resourceName": "nvidia.com/gpu",
            "nodeSelector": {"bench": "true"},
            "requests": {"cpu": "10m", "memory": "1Mi"},
        },
    }


async def find_pod(client: KubeClient, name: str) -> str:
    """Wait for the model's pod to be bound and return its name."""
    path = PODS.path(NAMESPACE)
    while True:
        answer = await client.request(
            "GET", path, query={"labelSelector": f"modelyard.dev/deployment={name}"}
        )
        for pod in answer["items"]:
            if pod["spec"].get("nodeName"):
                return str(pod["metadata"]["name"])
        await asyncio.sleep(0.01)


async def set_ready(client: KubeClient, pod: str) -> float:
    """Write the status that sets Ready; return the time of the API server's reply."""
    started = {"running": {"startedAt": now()[:19] + "Z"}}
    status = {
        "phase": "Running",
        "podIP": ENGINE_ADDRESS,
        "podIPs": [{"ip": ENGINE_ADDRESS}],
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True"},
            {"type": "ContainersReady", "status": "True"},
        ],
        "containerStatuses": [
            {
                "name": "engine",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": started,
                "image": "",
                "imageID": "",
            }
        ],
    }
    path = PODS.path(NAMESPACE, pod, "status")
    await client.request("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)
    return time.perf_counter()


async def hold(session: aiohttp.ClientSession, url: str, name: str) -> tuple[float, int, bytes]:
    """Send a request; return the time of the reply's first byte, its status and its body."""
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
        return time.perf_counter(), reply.status, await reply.read()


async def measure(client: KubeClient, session: aiohttp.ClientSession, stack: Stack, name: str) -> Sample:
    """Hold one request for a sleeping model, make it Ready, and time the release."""
    while True:
        async with session.get(f"{stack.url}/v1/models/{name}") as listed:
            if listed.status == 200:
                break
        await asyncio.sleep(0.01)
    request = asyncio.create_task(hold(session, stack.url, name))
    pod = await find_pod(client, name)
    route = f"{NAMESPACE}/{name}"
    while (await read_counters(session, stack.stats_url)).arrivals.get(route) != 1:
        await asyncio.sleep(0.01)
    if request.done():
        raise RuntimeError(f"the request for {name} was not held: {request.result()}")
    replied = await set_ready(client, pod)
    first_byte, status, answer = await request
    return Sample(1000 * (first_byte - replied), status, answer)


async def run(
    stack: Stack, cluster: Cluster, kubeconfig: Path, names: Sequence[str], console: Console
) -> list[Sample]:
    """Measure all models, one after the other."""
    client = await KubeClient.connect(kubeconfig)
    timeout = aiohttp.ClientTimeout(total=120)
    samples = []
    try:
        await create_node(client, len(names) + 10)
        heart = asyncio.create_task(beat(client))
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for name in track(names, "Models", console=console, disable=not console.is_terminal):
                await asyncio.to_thread(cluster.apply, [model_manifest(name)], NAMESPACE)
                samples.append(await measure(client, session, stack, name))
        heart.cancel()
        with suppress(asyncio.CancelledError):
            await heart
    finally:
        await client.close()
    return samples


def check(samples: Sequence[Sample], names: Sequence[str]) -> None:
    """Make sure that every request was answered by its model, with the answer it asked for."""
    for sample, name in zip(samples, names, strict=True):
        answer = json.loads(sample.body)
        if sample.status != 200 or answer["model"] != name or answer["usage"]["completion_tokens"] != 1:
            raise RuntimeError(f"{name} was not answered as asked: {sample.status} {answer}")


def main(
    models: Annotated[int, typer.Option(help="Models, each with one held request.", min=2, max=1000)] = 200,
) -> None:
    """Measure the time from a pod's Ready to the first byte of a held request. Exits 1 above the bar."""
    console = Console()
    names = [f"m{index}" for index in range(models)]
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as temporary:
        folder = Path(temporary)
        console.print("Starting control plane, operator, Envoy and a stand-in engine ...")
        with ControlPlane(folder / "control-plane") as plane, Cluster(plane.kubeconfig) as cluster:
            cluster.apply_crds(load_manifests([CRDS]))
            cluster.apply([namespace_manifest(NAMESPACE), class_manifest()])
            stack = Stack(folder / "stack", plane.kubeconfig, plane.kubeconfig, (NAMESPACE,))
            engine = Component(
                "engine",
                [
                    *(sys.executable, "-m", "dev.standin", "--model", "bench/model"),
                    *("--host", ENGINE_ADDRESS, "--port", str(ENGINE_PORT), "--served-model-name", *names),
                ],
                folder / "engine.log",
                lambda: responds_at(ENGINE_ADDRESS, ENGINE_PORT),
            )
            parts = (engine, stack.operator, stack.envoy)
            try:
                for part in parts:
                    part.start()
                    part.wait_ready()
                samples = asyncio.run(run(stack, cluster, plane.kubeconfig, names, console))
            finally:
                for part in reversed(parts):
                    part.stop()
    check(samples, names)
    values = sorted(sample.milliseconds for sample in samples)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    console.print(
        f"{len(values)} of {models} held requests answered. Ready to first byte: p50 {cuts[49]:.1f} ms, "
        f"p90 {cuts[89]:.1f} ms, p99 {cuts[98]:.1f} ms, max {values[-1]:.1f} ms "
        f"({platform.processor() or platform.machine()}, {dt.datetime.now(dt.UTC):%Y-%m-%d})"
    )
    if cuts[49] > LIMIT_MS:
        console.print(f"The median is above the bar of {LIMIT_MS:.0f} ms.")
        sys.exit(1)


def responds_at(address: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    typer.run(main)
