"""A day whose volume crosses the break-even twice."""

import math

import numpy as np
import pytest

from modelyard.core.breakeven.inputs import BreakEvenPolicy, TokenPrice
from modelyard.simulator.arrivals import Lengths
from modelyard.simulator.breakevenday import (
    WorkingDay,
    api_cost_per_minute,
    best_switching,
    play_day,
    replicas_for,
)
from modelyard.simulator.breakevenrules import Api, RouteTerms
from modelyard.simulator.scenario import StartTime
from tests.unit.simulator.play import make_arrivals, make_scenario

START = 60.0
TERMS = RouteTerms(
    (
        Api("together/llama", TokenPrice(0.18, 0.18), quality=0.7),
        Api("cheap/small", TokenPrice(0.01, 0.01), quality=0.3),
        Api("other/unpriced", None, quality=0.9),
    ),
    fleet_quality=0.7,
    minimum_quality=0.6,
)


def make_day_scenario(day: WorkingDay, seed: int, **changes):
    arrivals = day.arrivals(Lengths(914, 155, 0.8, 0.8), seed)
    values = {
        "price": 3.29,
        "initial": 0,
        "minimum": 0,
        "maximum": 8,
        "start": StartTime(START),
        "seed": seed,
    }
    return make_scenario(arrivals, **(values | changes))


def test_the_route_follows_both_crossings_at_the_cost_of_hindsight():
    day = WorkingDay(1.0, 12.0, duration=5400.0)
    # The day is 16 times as short, and so is the time over which a start is to pay.
    policy = BreakEvenPolicy(horizon=3600.0 / 16)
    report = play_day(day, make_day_scenario(day, 1), TERMS, policy)
    assert [to_fleet for _, to_fleet in report.changes] == [True, False]
    assert all(abs(delay) <= START for delay in report.delays)
    assert report.ratio <= 1.05
    assert report.strict_ratio <= 1.05
    assert report.best < min(report.self_hosted.cost, report.api.cost)
    assert (report.decided.lost, report.decided.below_quality) == (0, 0)
    assert report.decided.attainment > 0.99


def test_the_crossings_of_a_day_are_where_its_rate_is_the_break_even():
    day = WorkingDay(1.0, 20.0, duration=7200.0)
    morning, evening = day.crossings(4.75)
    assert day.rate(morning) == pytest.approx(4.75)
    assert day.rate(evening) == pytest.approx(4.75)
    assert day.rate(morning + 1.0) > 4.75 > day.rate(evening + 1.0)
    assert (day.rate(0.0), day.rate(3600.0), day.rate(7199.0)) == (1.0, 20.0, 1.0)
    with pytest.raises(ValueError, match=r"between low 1\.0 and high 20\.0, not 30"):
        day.crossings(30.0)


def test_a_day_has_the_requests_of_its_rates():
    day = WorkingDay(1.0, 20.0, duration=7200.0)
    arrivals = day.arrivals(Lengths(914, 155), 1)
    expected = sum(day.rate(60.0 * minute + 30.0) * 60.0 for minute in range(120))
    assert len(arrivals) == pytest.approx(expected, abs=4 * math.sqrt(expected))


def cheapest_by_hand(replicas, api, start) -> float:
    """Every way to switch, tried."""
    best = math.inf
    for pattern in range(2 ** len(api)):
        on = [bool(pattern >> minute & 1) for minute in range(len(api))]
        cost = sum(replicas[at] * 0.06 if on[at] else api[at] for at in range(len(api)))
        cost += sum(replicas[at] * start for at in range(1, len(api)) if on[at] and not on[at - 1])
        best = min(best, cost)
    return best


@pytest.mark.parametrize("seed", range(20))
def test_switching_in_hindsight_is_the_best_of_all_ways(seed):
    chance = np.random.default_rng(seed)
    replicas = chance.integers(1, 4, 9).astype(float)
    api = chance.uniform(0.0, 0.3, 9)
    scenario = make_scenario(make_arrivals([0.0], 1, 1, duration=540.0), price=3.6, start=StartTime(90.0))
    found = best_switching(replicas, api, scenario)
    assert found.cost == pytest.approx(cheapest_by_hand(replicas, api, 0.09))
    on = found.on_fleet
    cost = sum(replicas[at] * 0.06 if on[at] else api[at] for at in range(9))
    cost += sum(replicas[at] * 0.09 for at in range(1, 9) if on[at] and not on[at - 1])
    assert cost == pytest.approx(found.cost)


def test_the_smallest_fleet_follows_the_known_rate():
    day = WorkingDay(1.0, 60.0, duration=7200.0)
    counts = replicas_for(day, 28.0, 120, BreakEvenPolicy())
    assert (counts.min(), counts.max()) == (1.0, 3.0)
    assert counts[0] == 1.0
    assert counts[60] == 3.0


def test_the_minutes_of_the_api_add_up():
    arrivals = make_arrivals([1.0, 61.0, 62.0], [100, 200, 300], [1, 1, 1], duration=120.0)
    costs = api_cost_per_minute(Api("x", TokenPrice(1.0, 1.0)), arrivals)
    assert costs == pytest.approx([101e-6, 502e-6])


def test_without_a_usable_provider_there_is_no_day():
    day = WorkingDay(1.0, 20.0, duration=600.0)
    terms = RouteTerms((Api("x", None),))
    with pytest.raises(ValueError, match="no provider has a price"):
        play_day(day, make_day_scenario(day, 1), terms)
