"""Offered load from cumulative counters."""

import pytest

from modelyard.core.demand import (
    DemandMemory,
    DemandPolicy,
    Share,
    estimate_demand,
    find_shares,
    observe,
    observe_share,
    split_arrivals,
)
from modelyard.core.routing import Route, WeightedTarget
from modelyard.core.snapshot import GatewayReading

POLICY = DemandPolicy(short_window=10.0, long_window=60.0, stale_after=20.0)


def _observe(*samples: tuple[float, float], memory: DemandMemory | None = None) -> DemandMemory:
    memory = memory or DemandMemory()
    for time, total in samples:
        memory = observe(memory, time, total, POLICY)
    return memory


def test_a_steady_load_is_its_rate():
    memory = _observe(*((5.0 * step, 10.0 * step) for step in range(20)))
    demand = estimate_demand(memory, 95.0, POLICY)
    assert demand is not None
    assert demand.rate == pytest.approx(2.0)
    assert demand.last_arrival == 95.0


def test_a_burst_shows_in_the_short_window_at_once():
    memory = _observe(*((5.0 * step, 0.0) for step in range(13)), (65.0, 50.0), (70.0, 100.0))
    demand = estimate_demand(memory, 70.0, POLICY)
    assert demand is not None
    assert demand.rate == pytest.approx(10.0)


def test_after_a_burst_the_long_window_remembers():
    quiet = ((5.0 * step, 100.0) for step in range(2, 9))
    memory = _observe((0.0, 0.0), (5.0, 100.0), *quiet)
    demand = estimate_demand(memory, 40.0, POLICY)
    assert demand is not None
    assert demand.rate == pytest.approx(100.0 / 40.0)
    assert demand.last_arrival == 5.0


def test_a_burst_older_than_the_long_window_is_forgotten():
    quiet = ((5.0 * step, 100.0) for step in range(2, 16))
    memory = _observe((0.0, 0.0), (5.0, 100.0), *quiet)
    demand = estimate_demand(memory, 75.0, POLICY)
    assert demand is not None
    assert demand.rate == 0.0


def test_readings_further_apart_than_the_windows_still_make_a_rate():
    demand = estimate_demand(_observe((0.0, 0.0), (100.0, 200.0)), 100.0, POLICY)
    assert demand is not None
    assert demand.rate == pytest.approx(2.0)


@pytest.mark.parametrize("samples", [(), ((0.0, 5.0),)])
def test_demand_is_unknown_before_two_readings(samples: tuple[tuple[float, float], ...]):
    assert estimate_demand(_observe(*samples), 0.0, POLICY) is None


def test_demand_is_unknown_once_the_readings_are_stale():
    memory = _observe((0.0, 0.0), (5.0, 5.0))
    assert estimate_demand(memory, 25.0, POLICY) is not None
    assert estimate_demand(memory, 25.1, POLICY) is None


def test_a_counter_that_falls_starts_again_without_a_negative_rate():
    memory = _observe((0.0, 100.0), (5.0, 200.0), (10.0, 3.0))
    assert estimate_demand(memory, 10.0, POLICY) is None
    assert memory.last_arrival == 5.0
    demand = estimate_demand(_observe((15.0, 8.0), memory=memory), 15.0, POLICY)
    assert demand is not None
    assert demand.rate == pytest.approx(1.0)


def test_the_same_reading_twice_changes_nothing():
    memory = _observe((0.0, 0.0), (5.0, 5.0))
    assert _observe((5.0, 9.0), (4.0, 9.0), memory=memory) == memory


def test_the_first_reading_is_no_arrival():
    assert _observe((0.0, 500.0)).last_arrival is None


def test_history_is_bounded_by_the_long_window():
    memory = _observe(*((float(second), 0.0) for second in range(1000)))
    assert len(memory.samples) <= POLICY.long_window + 2


def test_other_shares_start_the_history_again():
    half, most = (Share("team/chat@route", 0.5),), (Share("team/chat@route", 0.75),)
    memory = observe_share(DemandMemory(), 0.0, 5000.0, half, POLICY)
    memory = observe_share(memory, 5.0, 5005.0, half, POLICY)
    assert estimate_demand(memory, 5.0, POLICY) is not None
    # The same 10 010 requests as before, split otherwise: nobody sent 2 500 requests within five seconds.
    memory = observe_share(memory, 10.0, 7507.5, most, POLICY)
    assert estimate_demand(memory, 10.0, POLICY) is None
    assert memory.last_arrival == 5.0
    demand = estimate_demand(observe_share(memory, 15.0, 7512.5, most, POLICY), 15.0, POLICY)
    assert demand is not None
    assert demand.rate == pytest.approx(1.0)


def test_arrivals_are_split_by_weight_and_adapters_count_for_their_deployment():
    routes = (
        Route("team/a", ("a",), (WeightedTarget("team/a"),)),
        Route("team/a:lora", ("lora",), (WeightedTarget("team/a:lora"),)),
        Route(
            "team/chat@route",
            ("chat",),
            (WeightedTarget("team/a", 1), WeightedTarget("team/b", 3), WeightedTarget("team/gone", 4)),
        ),
        Route("team/closed@route", ("closed",), (), refusal="suspended"),
        Route("team/zero@route", ("zero",), (WeightedTarget("team/a", 0),)),
    )
    arrivals = {
        "team/a": 10.0,
        "team/a:lora": 5.0,
        "team/chat@route": 80.0,
        "team/closed@route": 7.0,
        "team/zero@route": 9.0,
        "team/unknown": 1.0,
    }
    shares = find_shares(routes, {"team/a": None, "team/b": None, "team/idle": None})
    totals = split_arrivals(GatewayReading(0.0, arrivals), shares)
    assert totals == {"team/a": 25.0, "team/b": 30.0, "team/idle": 0.0}
