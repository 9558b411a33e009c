"""One route between an own fleet and a provider, played request by request."""

from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.breakeven.inputs import Target, TokenPrice
from modelyard.core.reasons import Code
from modelyard.simulator.arrivals import Lengths, piecewise
from modelyard.simulator.breakeven import play_route, request_costs
from modelyard.simulator.breakevenrules import (
    FLEET,
    AlwaysApi,
    AlwaysFleet,
    Api,
    LowestCost,
    Order,
    RouteTerms,
)
from modelyard.simulator.modelyard import ModelyardPolicy
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Disturbances, StartTime
from tests.unit.simulator.play import make_arrivals, make_scenario

API = Api("together/llama", TokenPrice(0.18, 0.18), first_token=0.4, quality=0.7)
TERMS = RouteTerms((API,))
LENGTHS = Lengths(914, 155)
BREAK_EVEN = 4.75
"""Requests per second: 3.29 $/h over 1,069 tokens at 0.18 $ a million."""


def make_route_scenario(*rates: tuple[float, float], duration: float, **changes):
    values = {"price": 3.29, "initial": 0, "minimum": 0, "maximum": 8, "start": StartTime(60.0, spread=0.0)}
    return make_scenario(piecewise(rates, duration, LENGTHS, seed=5), **(values | changes))


def play_lowest(scenario, terms=TERMS):
    rule = LowestCost(scenario, terms)
    return play_route(scenario, terms, rule), rule


class Halves:
    """Sends half to each side, with one replica."""

    name = "halves"
    interval = 5.0

    def begin(self) -> Order:
        return Order(((FLEET, 0.5), (Target("Provider", API.name), 0.5)), 1)

    def order(self, signals, offered) -> Order:
        return self.begin()


def test_without_a_provider_the_run_is_that_of_the_fleet_alone():
    scenario = make_route_scenario((0.0, 20.0), duration=600.0, initial=1)
    alone = run(scenario, ModelyardPolicy(scenario))
    routed = play_route(scenario, TERMS, AlwaysFleet(scenario))
    assert (routed.fleet.attained, routed.fleet.cost) == (alone.attained, alone.cost)
    assert np.array_equal(routed.fleet.wanted, alone.wanted)
    assert routed.api_requests == 0


def test_the_provider_is_paid_by_the_token():
    arrivals = make_arrivals([0.5, 3.0], [1000, 500], [100, 1], cached=[400, 0], duration=10.0)
    api = replace(API, price=TokenPrice(2.0, 8.0, 0.5))
    scenario = make_scenario(arrivals, initial=0, minimum=0)
    outcome = play_route(scenario, RouteTerms((api,)), AlwaysApi(api))
    assert outcome.cost == pytest.approx((600 * 2 + 400 * 0.5 + 100 * 8 + 500 * 2 + 8) / 1e6)
    assert (outcome.api_requests, outcome.fleet.requests, outcome.lost) == (2, 0, 0)
    with pytest.raises(ValueError, match="the price of x is not known: state it"):
        request_costs(Api("x", None), arrivals.input_tokens, arrivals.cached_tokens, arrivals.output_tokens)


def test_every_request_goes_to_one_side_by_its_share():
    scenario = make_route_scenario((0.0, 20.0), duration=600.0, initial=1)
    outcome = play_route(scenario, TERMS, Halves())
    count = len(scenario.arrivals)
    assert outcome.requests == count
    # Four standard deviations of a fair coin.
    assert abs(outcome.api_requests - count / 2) < 2 * count**0.5
    assert outcome.fleet.completed == outcome.fleet.requests
    arrived = outcome.fleet.arrival_rate.sum() * 10.0
    assert arrived == pytest.approx(outcome.fleet.requests)


@pytest.mark.parametrize(
    ("first_token", "inter_token", "attained"), [(0.4, 0.01, 1), (9.0, 0.01, 0), (0.4, 0.5, 0)]
)
def test_a_slow_provider_misses_the_objective(first_token, inter_token, attained):
    api = replace(API, first_token=first_token, inter_token=inter_token)
    scenario = make_scenario(make_arrivals([0.5], 1000, 100, duration=5.0), initial=0, minimum=0)
    assert play_route(scenario, RouteTerms((api,)), AlwaysApi(api)).api_attained == attained


def test_requests_below_the_quality_are_counted():
    scenario = make_route_scenario((0.0, 5.0), duration=60.0, initial=1)
    terms = RouteTerms((replace(API, quality=0.3),), fleet_quality=0.7, minimum_quality=0.6)
    outcome = play_route(scenario, terms, Halves())
    assert outcome.below_quality == outcome.api_requests > 0
    decided, _ = play_lowest(scenario, terms)
    assert decided.below_quality == decided.api_requests == 0


def test_a_step_above_the_break_even_is_followed_and_spills_until_the_fleet_serves():
    scenario = make_route_scenario((0.0, 1.0), (600.0, 12.0), duration=1800.0)
    outcome, rule = play_lowest(scenario)
    assert rule.changes[0] == (0.0, Target("Provider", API.name))
    (at, target), *more = rule.changes[1:]
    assert target == FLEET
    assert not more
    assert 600.0 < at < 660.0
    # At 1 request/s until then, at 12 until the replica serves one start time later, and none any more.
    expected = np.searchsorted(scenario.arrivals.time, at + 60.0)
    assert outcome.api_requests == pytest.approx(expected, abs=12.0 * 6)
    assert outcome.lost == 0
    assert outcome.attainment > 0.999


def test_a_step_below_the_break_even_puts_the_fleet_to_sleep():
    scenario = make_route_scenario((0.0, 12.0), (900.0, 1.0), duration=1800.0, initial=1)
    outcome, rule = play_lowest(scenario)
    assert rule.changes[0] == (0.0, FLEET)
    (at, target), *more = rule.changes[1:]
    assert target == Target("Provider", API.name)
    assert not more
    # The forecast falls within its time constant of 30 s, and what a start costs has not been lost before.
    assert 900.0 < at < 990.0
    assert outcome.fleet.wanted[outcome.fleet.time > at].max() == 0
    assert outcome.lost == 0


def test_lost_readings_hold_the_choice():
    lost = Disturbances(lost_readings=((700.0, 1400.0),))
    scenario = make_route_scenario((0.0, 12.0), (720.0, 1.0), duration=1800.0, initial=1, disturbances=lost)
    outcome, rule = play_lowest(scenario)
    assert [target for _, target in rule.changes] == [FLEET, Target("Provider", API.name)]
    assert rule.changes[1][0] > 1400.0
    assert outcome.lost == 0
    assert outcome.fleet.reasons[Code.NO_DATA] > 300


def test_the_same_run_gives_the_same_outcome():
    scenario = make_route_scenario((0.0, 2.0), (120.0, 9.0), duration=420.0)
    (first, _), (second, _) = play_lowest(scenario), play_lowest(scenario)
    assert (first.cost, first.attainment, first.api_requests) == (
        second.cost,
        second.attainment,
        second.api_requests,
    )
