"""Logs of local nodes through the API server, and `modelyard logs` on runs that are over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dev.cluster.control_plane import ControlPlane
from dev.nodes import LocalNodes, parse_environment_rule
from modelyard.cli.logsread import LogOptions, read_log
from modelyard.kube.client import ApiError, KubeClient
from tests.local_nodes.support import Cluster, engine, fetch, is_ready, pod, probe, waits_for


@pytest.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    connected = await KubeClient.connect(control_plane.kubeconfig)
    yield connected
    await connected.close()


async def read(client: KubeClient, cluster: Cluster, **options: object) -> list[str]:
    """Return the lines of the pod's log."""
    lines = read_log(client, cluster.namespace, "m", LogOptions(**options), follow=False)
    return [line.text async for line in lines]


async def test_a_run_and_the_one_before_are_told_apart(
    cluster: Cluster, nodes: LocalNodes, cpu_node: str, client: KubeClient
) -> None:
    nodes.rules.append(parse_environment_rule("STANDIN_CRASH_AT_START=true"))
    await cluster.create("pods", pod("m", cpu_node, engine(readinessProbe=probe())))
    await cluster.pod_reaches("m", waits_for("CrashLoopBackOff"))
    nodes.rules.clear()
    await cluster.pod_reaches("m", is_ready)

    before, now = await read(client, cluster, previous=True), await read(client, cluster)
    assert before
    assert now
    assert before != now
    assert any("crash" in line.lower() for line in before)
    assert not any("crash" in line.lower() for line in now)
    assert await read(client, cluster, tail=1) == now[-1:]


async def test_following_ends_with_the_container(cluster: Cluster, cpu_node: str, client: KubeClient) -> None:
    await cluster.create("pods", pod("m", cpu_node, engine(readinessProbe=probe())))
    ready = await cluster.pod_reaches("m", is_ready)
    lines: list[str] = []
    began = asyncio.Event()

    async def follow() -> None:
        async for line in read_log(client, cluster.namespace, "m", LogOptions(), follow=True):
            lines.append(line.text)
            began.set()

    following = asyncio.create_task(follow())
    # Who asks after the crash follows the next run, which does not end.
    await asyncio.wait_for(began.wait(), timeout=60)
    await fetch(ready, "/standin/faults", {"crash_after_seconds": 0.01, "crash_exit_code": 9})
    await asyncio.wait_for(following, timeout=60)
    assert lines == await read(client, cluster, previous=True)


async def test_what_is_not_there(cluster: Cluster, cpu_node: str, client: KubeClient) -> None:
    with pytest.raises(ApiError) as absent:
        await read(client, cluster)
    assert absent.value.status == 404
    await cluster.create("pods", pod("m", cpu_node, engine()))
    await cluster.pod_reaches("m", is_ready)
    with pytest.raises(ApiError, match="previous terminated container"):
        await read(client, cluster, previous=True)
    with pytest.raises(ApiError, match="not valid for pod m"):
        await read(client, cluster, container="other")
    with pytest.raises(ApiError, match="does not note when"):
        await read(client, cluster, timestamps=True)
