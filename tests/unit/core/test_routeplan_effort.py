"""The decision about routes in large fleets: its work grows as the fleet does, and no faster."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from modelyard.core.routeplan.decide import decide_routes
from modelyard.core.snapshot import GatewayReading, Snapshot
from tests.unit.core.build import make_deployment, make_provider, make_snapshot, make_targets_route
from tests.unit.core.routestage import Stage

PRICE = {"inputPerMillion": "0.1", "outputPerMillion": "0.5"}


def make_fleet(size: int, policy: str) -> tuple[Stage, Snapshot]:
    """Return so many deployments, each behind a route with a provider as its other target, under load."""
    deployments = [
        make_deployment(f"team/d{number}", requests_per_minute=300, scaling={"min": 1, "max": 8})
        for number in range(size)
    ]
    routes = tuple(
        make_targets_route(
            f"team/r{number}",
            f"m{number}",
            {"deployment": f"d{number}"},
            {"provider": "acme", "model": "large"},
            policy=policy,
        )
        for number in range(size)
    )
    snapshot = make_snapshot(*deployments, routes=routes)
    provider = make_provider("acme", {"name": "large", "price": PRICE})
    stage = Stage(replace(snapshot, providers={"acme": provider}), start=0.0)
    for number in range(size):
        stage.serve(f"team/d{number}", 1)
    stage.run(16, {f"team/r{number}@route": 1.0 for number in range(size)})
    reading = GatewayReading(stage.now + 2, arrivals=dict(stage.totals), route_answers=dict(stage.totals))
    return stage, replace(stage.snapshot, reading=reading, pods=stage.pods())


def count_lines(call: Callable[[], Any]) -> int:
    """Return how many lines of Python a call runs: the same on every machine, as no time is."""
    lines = 0

    def trace(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal lines
        lines += event in {"line", "call"}
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def effort(size: int, policy: str) -> int:
    stage, snapshot = make_fleet(size, policy)
    return count_lines(
        lambda: decide_routes(
            snapshot,
            stage.table.routes,
            stage.routes_memory,
            stage.memory.deployments,
            stage.now + 2,
            stage.policy,
        )
    )


@pytest.mark.parametrize("policy", ["Weighted", "Priority", "LowestCost"])
def test_a_fleet_of_twice_the_size_takes_twice_the_work(policy: str):
    small, large = effort(20, policy), effort(40, policy)
    assert large <= 2.05 * small
