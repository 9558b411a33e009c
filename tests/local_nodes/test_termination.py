"""How pods on local nodes end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from dev.cluster.control_plane import ControlPlane
from dev.nodes import LocalNodes, parse_environment_rule
from dev.nodes.api import ApiError
from tests.local_nodes.support import (
    WAIT_SECONDS,
    Cluster,
    engine,
    engine_status,
    fetch,
    is_alive,
    is_ready,
    pid_of,
    pod,
    probe,
)


def _ended(manifest: dict[str, object]) -> bool:
    return "terminated" in engine_status(manifest).get("state", {})


async def _process_ends(pid: int) -> None:
    """Wait until a process, of whatever parent, is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_pre_stop_sleep_comes_before_sigterm(cluster: Cluster, cpu_node: str) -> None:
    container = engine(readinessProbe=probe(), lifecycle={"preStop": {"sleep": {"seconds": 2}}})
    await cluster.create("pods", pod("m", cpu_node, container))
    seen = await cluster.pod_reaches("m", is_ready)
    clock = asyncio.get_running_loop().time

    asked, since = clock(), await cluster.version()
    await cluster.delete_pod("m")
    deleting = await cluster.pod_reaches("m", lambda p: "deletionTimestamp" in p["metadata"])
    assert await fetch(deleting, "/v1/models")
    last = await cluster.pod_goes("m", since)

    assert clock() - asked >= 2
    ended = engine_status(last)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert last["status"]["phase"] == "Succeeded"
    assert not is_ready(last)
    assert not is_alive(pid_of(seen))


async def test_process_that_ignores_sigterm_is_killed_when_its_time_is_up(
    cluster: Cluster, nodes: LocalNodes, cpu_node: str
) -> None:
    nodes.rules.append(parse_environment_rule("STANDIN_HANG_ON_DRAIN=true"))
    manifest = pod("m", cpu_node, engine(readinessProbe=probe()), terminationGracePeriodSeconds=3)
    await cluster.create("pods", manifest)
    seen = await cluster.pod_reaches("m", is_ready)
    clock = asyncio.get_running_loop().time

    asked = clock()
    last = await cluster.delete_and_follow("m")

    assert clock() - asked >= 3
    ended = engine_status(last)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128 + signal.SIGKILL, "Error")
    assert last["status"]["phase"] == "Failed"
    assert not is_alive(pid_of(seen))


async def test_second_deletion_shortens_the_grace_period(
    cluster: Cluster, nodes: LocalNodes, cpu_node: str
) -> None:
    nodes.rules.append(parse_environment_rule("STANDIN_HANG_ON_DRAIN=true"))
    manifest = pod("m", cpu_node, engine(readinessProbe=probe()), terminationGracePeriodSeconds=600)
    await cluster.create("pods", manifest)
    await cluster.pod_reaches("m", is_ready)
    await cluster.delete_pod("m")
    last = await cluster.delete_and_follow("m", gracePeriodSeconds=1)
    assert engine_status(last)["state"]["terminated"]["exitCode"] == 128 + signal.SIGKILL


async def test_forced_deletion_ends_the_process(cluster: Cluster, cpu_node: str) -> None:
    await cluster.create("pods", pod("m", cpu_node, engine(readinessProbe=probe())))
    seen = await cluster.pod_reaches("m", is_ready)
    await cluster.delete_pod("m", gracePeriodSeconds=0)
    await _process_ends(pid_of(seen))


async def test_leaving_the_block_ends_processes_and_removes_nodes_and_pods(
    control_plane: ControlPlane, cluster: Cluster, name_prefix: str, tmp_path: Path
) -> None:
    async with LocalNodes(control_plane.kubeconfig, "cpu=1", tmp_path, name_prefix=name_prefix) as nodes:
        (node,) = nodes.names
        await cluster.create("pods", pod("m", node, engine(readinessProbe=probe())))
        await cluster.pod_reaches("m", is_ready)
        (pid,) = nodes.pids().values()
    assert not is_alive(pid)
    with pytest.raises(ApiError, match="404"):
        await cluster.api.get(f"api/v1/nodes/{node}")
    with pytest.raises(ApiError, match="404"):
        await cluster.api.get(cluster.path("pods", "m"))


async def test_killed_agent_leaves_no_process_and_its_successor_takes_over(
    control_plane: ControlPlane, cluster: Cluster, name_prefix: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "dev.nodes", "--kubeconfig", str(control_plane.kubeconfig)]
    command += ["--nodes", "cpu=1", "--name-prefix", name_prefix, "--folder", str(tmp_path)]
    agent = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        await cluster.create("pods", pod("m", f"{name_prefix}-cpu-0", engine(readinessProbe=probe())))
        seen = await cluster.pod_reaches("m", is_ready)
    finally:
        agent.kill()
        await agent.wait()
    await _process_ends(pid_of(seen))

    async with LocalNodes(control_plane.kubeconfig, "cpu=1", tmp_path, name_prefix=name_prefix) as nodes:
        again = await cluster.pod_reaches(
            "m", lambda p: engine_status(p)["restartCount"] == 1 and is_ready(p)
        )
        assert nodes.pids() == {f"{cluster.namespace}/m/engine": pid_of(again)}


async def test_agent_stops_on_sigterm(
    control_plane: ControlPlane, cluster: Cluster, name_prefix: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "dev.nodes", "--kubeconfig", str(control_plane.kubeconfig)]
    command += ["--nodes", "cpu=1", "--name-prefix", name_prefix, "--folder", str(tmp_path)]
    agent = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        await cluster.create("pods", pod("m", f"{name_prefix}-cpu-0", engine(readinessProbe=probe())))
        seen = await cluster.pod_reaches("m", is_ready)
        agent.terminate()
        assert await agent.wait() == 0
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.wait()
    assert not is_alive(pid_of(seen))
