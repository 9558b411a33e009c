"""When a route says that some Envoy serves it in an older form: not at every push, and not for what has not changed."""

from dataclasses import dataclass, replace

import pytest

from modelyard.core.reasons import Code
from modelyard.core.routing import Route, WeightedTarget
from modelyard.runtime.rollout import PATIENCE, VERSIONS, Rollout

OPEN = Route("t/chat@route", ("chat",), (WeightedTarget("provider:acme/large"),))
CLOSED = replace(OPEN, targets=(WeightedTarget("t/own"),), sovereign=True)
OTHER = Route("t/other@route", ("other",), (WeightedTarget("t/own"),))


@dataclass
class Envoy:
    """What the ADS server knows of one."""

    id: str = "envoy-1"
    connected: bool = True
    routes: str = "v1"
    routes_rejected: bool = False


@pytest.fixture
def rollout():
    rollout = Rollout()
    rollout.offer((OPEN, OTHER), "v1")
    assert rollout.observe([Envoy()], 0.0) == frozenset()
    return rollout


def test_only_what_lasts_is_told_and_only_of_the_route_that_changed(rollout):
    rollout.offer((CLOSED, OTHER), "v2")
    assert rollout.observe([Envoy()], 100.0) == frozenset()
    assert rollout.observe([Envoy()], 100.0 + PATIENCE - 1) == frozenset()
    assert rollout.observe([Envoy()], 100.0 + PATIENCE) == {CLOSED.name}
    assert rollout.late[CLOSED.name].code == Code.ROUTES_NOT_CONFIRMED
    assert "envoy-1" in rollout.late[CLOSED.name].message
    # The same is not told twice, and what is over is told once.
    assert rollout.observe([Envoy()], 500.0) == frozenset()
    assert rollout.observe([Envoy(routes="v2")], 502.0) == {CLOSED.name}
    assert rollout.late == {}


def test_a_rejection_is_told_as_one(rollout):
    rollout.offer((CLOSED, OTHER), "v2")
    rejecting = [Envoy(routes_rejected=True), Envoy("envoy-2", routes="v2")]
    rollout.observe(rejecting, 100.0)
    assert rollout.observe(rejecting, 100.0 + PATIENCE) == {CLOSED.name}
    reason = rollout.late[CLOSED.name]
    assert reason.code == Code.ROUTES_REJECTED
    assert "envoy-1" in reason.message
    assert "envoy-2" not in reason.message


def test_an_envoy_that_keeps_up_is_never_late_however_often_routes_change(rollout):
    envoy = Envoy()
    for number in range(2, 60):
        route = CLOSED if number % 2 else OPEN
        rollout.offer((route, OTHER), f"v{number}")
        # It always has the version before.
        assert rollout.observe([envoy], number * 20.0) == frozenset()
        envoy.routes = f"v{number}"


def test_new_versions_do_not_excuse_an_envoy_that_takes_none(rollout):
    for number in range(2, 6):
        rollout.offer((replace(CLOSED, hold_seconds=number), OTHER), f"v{number}")
        rollout.observe([Envoy()], number * PATIENCE / 3)
    assert CLOSED.name in rollout.late


def test_routes_that_an_envoy_had_before_are_current_again(rollout):
    rollout.offer((CLOSED, OTHER), "v2")
    rollout.observe([Envoy()], 100.0)
    rollout.offer((OPEN, OTHER), "v1")
    assert rollout.observe([Envoy()], 200.0) == frozenset()


def test_an_envoy_that_is_away_cannot_be_asked_but_is_late_as_soon_as_it_is_back(rollout):
    rollout.offer((CLOSED, OTHER), "v2")
    assert rollout.observe([Envoy(connected=False)], 100.0) == frozenset()
    assert rollout.observe([Envoy(connected=False)], 100.0 + 2 * PATIENCE) == frozenset()
    assert rollout.observe([Envoy()], 102.0 + 2 * PATIENCE) == {CLOSED.name}


def test_after_a_restart_an_envoy_that_has_the_routes_is_current_and_another_is_not():
    rollout = Rollout()
    rollout.offer((CLOSED, OTHER), "v2")
    envoys = [Envoy("same", routes="v2"), Envoy("old", routes="from before")]
    rollout.observe(envoys, 0.0)
    assert rollout.observe(envoys, PATIENCE) == {CLOSED.name, OTHER.name}
    assert "same" not in rollout.late[CLOSED.name].message


def test_what_is_remembered_is_bounded(rollout):
    for number in range(2 * VERSIONS):
        rollout.offer((replace(CLOSED, hold_seconds=number + 1), OTHER), f"n{number}")
    rollout.observe([Envoy()], 0.0)
    # The version is forgotten, so nothing is known of what it has.
    assert rollout.observe([Envoy()], PATIENCE) == {CLOSED.name, OTHER.name}
