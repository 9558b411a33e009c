"""A day whose volume crosses the break-even twice."""

import math
from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.breakeven.inputs import BreakEvenPolicy, TokenPrice
from modelyard.simulator.arrivals import Lengths
from modelyard.simulator.breakevenday import (
    WorkingDay,
    api_cost_per_minute,
    best_switching,
    find_crossings,
    find_delays,
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
    assert [to_fleet for _, to_fleet in report.crossings] == [True, False]
    assert len(report.delays) == 2
    assert all(abs(delay) <= START for delay in report.delays)
    assert report.ratio <= 1.05
    assert report.strict_ratio <= 1.05
    assert report.best < min(report.self_hosted.cost, report.api.cost)
    assert (report.decided.lost, report.decided.below_quality) == (0, 0)
    assert report.decided.attainment > 0.99


def by_the_minute(*stretches: tuple[float, int]):
    return np.concatenate([np.full(minutes, rate) for rate, minutes in stretches])


def crossings_of(rates):
    """Of a fleet whose replicas cost what 10 requests/s do, and answer 20 or somewhat less; starts take one minute."""
    arrivals = make_arrivals([0.0], 1, 1, duration=60.0)
    scenario = replace(make_scenario(arrivals, price=3.6, start=StartTime(60.0)), capacity=20.0)
    return find_crossings(rates, 3.6 / 3600 / 10.0, scenario)


def test_a_crossing_is_where_the_cheaper_side_changes_for_good():
    assert crossings_of(by_the_minute((2.0, 60), (15.0, 60), (2.0, 60))) == ((3600.0, True), (7200.0, False))


def test_a_day_near_the_break_even_has_no_crossing_that_is_worth_a_start():
    assert crossings_of(by_the_minute((9.9, 60), (10.1, 60), (9.9, 60), (10.1, 60))) == ()


@pytest.mark.parametrize(("minutes", "worth"), [(3, False), (5, True)])
def test_who_is_one_start_late_still_gains_by_a_crossing(minutes, worth):
    # 15 requests/s save half a replica: in 4 minutes as much as two starts of one minute cost.
    found = crossings_of(by_the_minute((2.0, 60), (15.0, minutes), (2.0, 60)))
    assert found == (((3600.0, True), (3600.0 + 60.0 * minutes, False)) if worth else ())


def test_a_step_on_the_way_up_that_is_lost_again_is_no_crossing():
    # One replica is worth its price for two minutes, then two are needed, and are not until 20 requests/s.
    up = by_the_minute((2.0, 60), (12.0, 2), (18.5, 5), (30.0, 60))
    assert crossings_of(up) == ((60.0 * 67, True),)
    # Where less is lost on the second step than was won on the first, it is.
    assert crossings_of(by_the_minute((2.0, 60), (12.0, 2), (18.5, 1), (30.0, 60))) == ((3600.0, True),)


def test_changes_go_with_crossings_or_are_others():
    crossings = ((100.0, True), (900.0, False))
    assert find_delays(crossings, ((130.0, True), (880.0, False))) == (30.0, -20.0)
    assert find_delays(crossings, ((130.0, True),)) == ()
    assert find_delays(crossings, ((130.0, False), (880.0, True))) == ()


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
    counts = replicas_for(day.rates, 28.0, BreakEvenPolicy())
    assert len(counts) == 120
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
