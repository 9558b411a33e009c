"""The size rule: up at once, down after the window, to zero when idle."""

from dataclasses import replace
from typing import Any

import pytest

from modelyard.api.llmdeployment import Scaling
from modelyard.core.demand import Demand
from modelyard.core.plan import Size
from modelyard.core.reasons import Code
from modelyard.core.replicas import SizeInput, SizeMemory, SizePolicy, decide_size
from tests.unit.core.plainload import PLAIN_LOAD

POLICY = SizePolicy(load=PLAIN_LOAD, down_window=300.0)
OLD = SizeMemory(since=0.0)
"""A history that reaches behind every window of these tests."""
NOW = 10_000.0
HOLD = 600.0


def _input(rate: float | None, *, current: int | None = 1, **changes: Any) -> SizeInput:
    """One request per second and replica; the newest arrival is now."""
    scaling = Scaling(min=changes.pop("low", 1), max=changes.pop("high", 10), idle_after="60s")
    last_arrival = changes.pop("last_arrival", NOW)
    fields = {"serving": current or 0, "active": 0, "capacity": 1.0, "hold": HOLD, **changes}
    demand = None if rate is None else Demand(rate, last_arrival)
    return SizeInput(scaling=scaling, current=current, demand=demand, **fields)


def _decide(data: SizeInput, memory: SizeMemory = OLD, now: float = NOW) -> tuple[int, str, SizeMemory]:
    size, after = decide_size(data, memory, now, POLICY)
    return size.replicas, size.reason.code, after


@pytest.mark.parametrize(
    ("rate", "replicas", "code"),
    [
        (0.8, 1, Code.OFFERED_LOAD),
        (0.81, 2, Code.OFFERED_LOAD),
        (2.4, 3, Code.OFFERED_LOAD),
        (8.0, 10, Code.OFFERED_LOAD),
        (8.1, 10, Code.AT_MAXIMUM),
        (0.0, 1, Code.AT_MINIMUM),
    ],
)
def test_size_follows_load_up_at_once_within_bounds(rate: float, replicas: int, code: str):
    assert _decide(_input(rate))[:2] == (replicas, code)


def test_rounding_errors_ask_for_no_replica_more():
    # 0.1 + 0.2 is 0.30000000000000004 in binary floating point.
    data = _input((0.1 + 0.2) * 0.8, capacity=0.1)
    assert decide_size(data, OLD, NOW, POLICY)[0].replicas == 3


def test_size_falls_only_when_the_smaller_one_held_for_the_window():
    size, _, memory = _decide(_input(4.0, current=5))
    assert size == 5
    for age, expected in [(1.0, 5), (299.0, 5), (300.0, 5), (311.0, 1)]:
        size, code, memory = _decide(_input(0.5, current=5), memory, NOW + age)
        assert (age, size) == (age, expected)
        assert code == (Code.STABILIZING if expected == 5 else Code.OFFERED_LOAD)


def test_size_falls_to_the_highest_of_the_window_not_to_the_newest():
    memory = _decide(_input(8.0, current=10))[2]
    memory = _decide(_input(4.0, current=10), memory, NOW + 200.0)[2]
    size, code, _ = _decide(_input(0.5, current=10), memory, NOW + 301.0)
    assert (size, code) == (5, Code.STABILIZING)


def test_size_does_not_fall_before_the_history_fills_the_window():
    memory = SizeMemory(since=NOW)
    size, code, memory = _decide(_input(0.5, current=5), memory, NOW + 299.0)
    assert (size, code) == (5, Code.STABILIZING)
    assert _decide(_input(0.5, current=5), memory, NOW + 300.0)[0] == 1


def test_a_lowered_maximum_acts_at_once():
    assert _decide(_input(9.0, current=10, high=4))[0] == 4
    memory = _decide(_input(9.0, current=10))[2]
    assert _decide(_input(0.5, current=10, high=4), memory, NOW + 1.0)[0] == 4


def test_a_raised_minimum_acts_at_once():
    assert _decide(_input(0.0, current=1, low=3))[0] == 3


@pytest.mark.parametrize(("current", "held"), [(4, 4), (20, 10), (1, 2)])
def test_unknown_demand_holds_the_size_within_its_bounds(current: int, held: int):
    size, _ = decide_size(_input(None, current=current, low=2), OLD, NOW, POLICY)
    assert (size.replicas, size.reason.code, size.known) == (held, Code.NO_DATA, False)


def test_unknown_demand_holds_no_more_than_the_maximum_answers():
    assert decide_size(_input(None, current=3, high=2), OLD, NOW, POLICY)[0].capacity == 2.0
    large = _input(None, current=3, high=2, held=3.0, largest=2.0)
    assert decide_size(large, OLD, NOW, POLICY)[0].capacity == 3.0


def test_unknown_demand_does_not_put_an_idle_model_to_sleep():
    assert _decide(_input(None, low=0))[:2] == (1, Code.NO_DATA)


@pytest.mark.parametrize("low", [0, 1, 3])
def test_a_new_deployment_starts_at_its_minimum(low: int):
    assert _decide(_input(None, current=None, low=low))[:2] == (low, Code.INITIAL)


def test_a_new_deployment_that_somebody_asked_for_starts_awake():
    data = _input(None, current=None, low=0, woken_at=NOW)
    assert _decide(data, SizeMemory(since=NOW))[:2] == (1, Code.WOKEN)


def test_an_idle_model_sleeps_after_its_time():
    data = _input(0.0, low=0, last_arrival=NOW)
    awake, code, memory = _decide(data, OLD, NOW + 59.0)
    assert (awake, code) == (1, Code.STABILIZING)
    asleep, code, memory = _decide(data, memory, NOW + 60.0)
    assert (asleep, code) == (0, Code.IDLE)
    assert memory.slept_at == NOW + 60.0


def test_requests_being_answered_keep_a_model_awake():
    data = _input(0.0, low=0, active=1, last_arrival=0.0)
    size, _, memory = _decide(data)
    assert size == 1
    done = replace(data, active=0)
    size, _, memory = _decide(done, memory, NOW + 59.0)
    assert size == 1
    assert _decide(done, memory, NOW + 60.0)[0] == 0


def test_a_request_that_waits_for_a_pod_keeps_a_model_awake_as_long_as_it_may_wait():
    data = _input(0.0, low=0, serving=0, last_arrival=NOW)
    size, _, memory = _decide(data, OLD, NOW + HOLD - 1.0)
    assert size == 1
    size, _, memory = _decide(data, memory, NOW + HOLD + 58.0)
    assert size == 1
    assert _decide(data, memory, NOW + HOLD + 59.0)[0] == 0


def test_a_start_that_takes_longer_than_a_request_may_wait_is_not_broken_off():
    """Who gave up comes again: a model that sleeps before it serves would never serve anybody."""
    data = _input(0.0, low=0, serving=0, last_arrival=NOW, hold=20.0, start_time=300.0)
    memory = OLD
    for seconds in (20.0, 81.0, 300.0, 599.0):
        size, _, memory = _decide(data, memory, NOW + seconds)
        assert size == 1
    # Now it serves, and has its time for who comes again.
    served, _, idle = _decide(replace(data, serving=1), memory, NOW + 600.0)
    assert (served, _decide(replace(data, serving=1), idle, NOW + 659.0)[0]) == (1, 0)
    # One that does not come in twice that time is not waited for.
    assert _decide(data, memory, NOW + 658.0)[0] == 1
    assert _decide(data, memory, NOW + 660.0)[0] == 0


def test_a_minimum_of_one_never_sleeps():
    assert _decide(_input(0.0, last_arrival=0.0))[0] == 1


def test_only_a_request_after_falling_asleep_wakes():
    asleep = SizeMemory(since=0.0, slept_at=NOW)
    data = _input(0.0, current=0, low=0, last_arrival=NOW - 1.0)
    assert _decide(data, asleep, NOW + 5.0)[:2] == (0, Code.SCALED_TO_ZERO)
    assert _decide(replace(data, woken_at=NOW - 0.5), asleep, NOW + 5.0)[0] == 0
    assert _decide(replace(data, woken_at=NOW + 1.0), asleep, NOW + 5.0)[:2] == (1, Code.WOKEN)
    arrived = _input(0.2, current=0, low=0, last_arrival=NOW + 1.0)
    assert _decide(arrived, asleep, NOW + 5.0)[:2] == (1, Code.WOKEN)


def test_a_wake_signal_wakes_without_any_counters():
    data = _input(None, current=0, low=0, woken_at=NOW)
    assert _decide(data, SizeMemory(since=0.0, slept_at=NOW - 1.0))[:2] == (1, Code.WOKEN)


def test_history_that_starts_after_a_request_does_not_wake():
    data = _input(0.0, current=0, low=0, last_arrival=NOW - 1.0)
    assert _decide(data, SizeMemory(since=NOW))[0] == 0


def test_a_deployment_at_zero_grows_to_a_minimum_set_later():
    assert _decide(_input(0.0, current=0, low=2))[:2] == (2, Code.AT_MINIMUM)


def test_history_of_wanted_sizes_stays_small():
    memory = OLD
    size: Size | None = None
    for second in range(1000):
        load = 1.0 + (second * 7 % 11) * 0.6
        size, memory = decide_size(_input(load), memory, NOW + second, POLICY)
    assert size is not None
    assert len(memory.wanted) <= 10
