"""How local nodes treat containers that end by themselves or fail their probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dev.nodes import LocalNodes, parse_environment_rule
from tests.local_nodes.support import Cluster, engine, engine_status, fetch, is_ready, pod, probe, waits_for


def _restarts(at_least: int) -> Any:
    def holds(manifest: Mapping[str, Any]) -> bool:
        return bool(engine_status(manifest).get("restartCount", 0) >= at_least)

    return holds


async def test_crash_is_reported_and_restarted_with_back_off(
    cluster: Cluster, nodes: LocalNodes, cpu_node: str
) -> None:
    nodes.rules.append(parse_environment_rule("STANDIN_CRASH_AT_START=true"))
    nodes.rules.append(parse_environment_rule("STANDIN_CRASH_EXIT_CODE=7"))
    await cluster.create("pods", pod("m", cpu_node, engine()))

    waiting = await cluster.pod_reaches("m", waits_for("CrashLoopBackOff"))
    last = engine_status(waiting)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (7, "Error")
    assert waiting["status"]["phase"] == "Running"
    assert not is_ready(waiting)

    nodes.rules.clear()
    recovered = await cluster.pod_reaches("m", is_ready)
    assert engine_status(recovered)["restartCount"] >= 1
    assert engine_status(recovered)["lastState"]["terminated"]["exitCode"] == 7


async def test_first_restart_has_no_pause(cluster: Cluster, cpu_node: str) -> None:
    await cluster.create("pods", pod("m", cpu_node, engine(readinessProbe=probe())))
    seen = await cluster.pod_reaches("m", is_ready)
    await fetch(seen, "/standin/faults", {"crash_after_seconds": 0.01, "crash_exit_code": 9})

    history = await cluster.pod_history("m", lambda p: _restarts(1)(p) and is_ready(p))

    assert not any(waits_for("CrashLoopBackOff")(state) for state in history)
    assert engine_status(history[-1])["lastState"]["terminated"]["exitCode"] == 9


async def test_failed_startup_probe_kills_the_container(cluster: Cluster, cpu_node: str) -> None:
    container = engine(startupProbe=probe("/no-such-page", failureThreshold=2))
    await cluster.create("pods", pod("m", cpu_node, container))
    history = await cluster.pod_history("m", _restarts(1))
    assert not any(engine_status(state).get("started") for state in history)


async def test_failed_liveness_probe_kills_the_container(cluster: Cluster, cpu_node: str) -> None:
    liveness = probe("/metrics", failureThreshold=2, initialDelaySeconds=3)
    await cluster.create("pods", pod("m", cpu_node, engine(livenessProbe=liveness, readinessProbe=probe())))
    seen = await cluster.pod_reaches("m", is_ready)
    await fetch(seen, "/standin/faults", {"metrics": "error"})
    await cluster.pod_reaches("m", _restarts(1))


@pytest.mark.parametrize(("exit_code", "phase"), [(0, "Succeeded"), (3, "Failed")])
async def test_pod_that_never_restarts_ends(
    cluster: Cluster, nodes: LocalNodes, cpu_node: str, exit_code: int, phase: str
) -> None:
    nodes.rules.append(parse_environment_rule("STANDIN_CRASH_AT_START=true"))
    nodes.rules.append(parse_environment_rule(f"STANDIN_CRASH_EXIT_CODE={exit_code}"))
    await cluster.create("pods", pod("m", cpu_node, engine(), restartPolicy="Never"))

    seen = await cluster.pod_reaches("m", lambda p: p["status"]["phase"] == phase)

    ended = engine_status(seen)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (exit_code, "Error" if exit_code else "Completed")
    assert not is_ready(seen)
    await cluster.delete_and_follow("m")


async def test_refused_arguments_end_the_container_as_argparse_does(cluster: Cluster, cpu_node: str) -> None:
    await cluster.create("pods", pod("m", cpu_node, engine(args=["--no-such-flag"]), restartPolicy="Never"))
    seen = await cluster.pod_reaches("m", lambda p: p["status"]["phase"] == "Failed")
    assert engine_status(seen)["state"]["terminated"]["exitCode"] == 2


async def test_command_that_the_image_lacks_is_a_start_error(cluster: Cluster, cpu_node: str) -> None:
    await cluster.create("pods", pod("m", cpu_node, engine(command=["/bin/sh"]), restartPolicy="Never"))
    seen = await cluster.pod_reaches("m", lambda p: p["status"]["phase"] == "Failed")
    ended = engine_status(seen)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
