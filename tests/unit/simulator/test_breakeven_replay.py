"""A route played from counts alone, against the same route played request by request."""

import pytest

from modelyard.simulator.breakeven import play_route
from modelyard.simulator.breakevenday import WorkingDay
from modelyard.simulator.breakevenreplay import replay
from modelyard.simulator.breakevenrules import AlwaysApi, AlwaysFleet, LowestCost
from tests.unit.simulator.test_breakeven_day import TERMS, make_day_scenario

DAY = WorkingDay(1.0, 12.0, duration=3600.0)


@pytest.mark.parametrize("rule", ["api", "lowest"])
def test_counts_alone_tell_what_requests_do(rule):
    scenario = make_day_scenario(DAY, 3)
    make = {
        "api": lambda: AlwaysApi(TERMS.providers[0]),
        "lowest": lambda: LowestCost(scenario, TERMS),
    }[rule]
    by_count, by_request = make(), make()
    replayed = replay(DAY.rate, DAY.duration, scenario, TERMS, by_count)
    played = play_route(scenario, TERMS, by_request)
    # Other draws of the same rates, and no time in which leaving replicas finish.
    assert replayed.cost == pytest.approx(played.cost, rel=0.05)
    if isinstance(by_count, LowestCost) and isinstance(by_request, LowestCost):
        one, two = by_count.changes, by_request.changes
        assert [target for _, target in one] == [target for _, target in two]
        assert [time for time, _ in one] == pytest.approx([time for time, _ in two], abs=120.0)
        assert replayed.replicas.max() == played.fleet.wanted.max()


def test_the_same_seed_is_the_same_replay():
    scenario = make_day_scenario(DAY, 3)
    one, two = (replay(DAY.rate, 900.0, scenario, TERMS, AlwaysFleet(scenario)) for _ in range(2))
    assert one.cost == two.cost
    assert one.starts == 1


def test_a_replica_is_billed_from_when_it_is_asked_for_and_serves_one_start_later():
    scenario = make_day_scenario(DAY, 3)
    out = replay(lambda _: 0.0, 600.0, scenario, TERMS, AlwaysFleet(scenario))
    # Nobody asks for it: none is started, and nothing costs anything.
    assert (out.cost, out.starts) == (0.0, 0)
