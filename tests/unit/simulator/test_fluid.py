"""A flow under a policy, against the same load request by request."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from modelyard.simulator.flow import fit_curve, flow_of
from modelyard.simulator.fluid import run_fluid
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Disturbances, StartTime
from tests.unit.simulator.play import Script, make_scenario, random_arrivals

HOUR = 3600.0


@cache
def curve():
    """Measured on other arrivals than those that the tests play."""
    runs = []
    for rate in (14.0, 18.0, 21.0, 23.0):
        arrivals = random_arrivals(rate, HOUR / 2, 100)
        runs.append((flow_of(arrivals), run(make_scenario(arrivals), Script([1], interval=60.0))))
    scenario = make_scenario(random_arrivals(1.0, 60.0, 0))
    return fit_curve(scenario.engine, scenario.objective, runs)


def both(scenario, wanted, interval: float = 60.0):
    """Play the same numbers of replicas request by request and as a flow; return outcomes and what was seen."""
    requests, flow = Script(list(wanted), interval=interval), Script(list(wanted), interval=interval)
    load = flow_of(scenario.arrivals)
    return run(scenario, requests), run_fluid(scenario, load, curve(), flow), requests.seen, flow.seen


@pytest.mark.parametrize("rate", [15.0, 20.0, 22.0, 24.0])
def test_a_fleet_of_one_attains_what_it_does_request_by_request(rate):
    requests, flow, _, _ = both(make_scenario(random_arrivals(rate, HOUR, 1)), [1])
    assert flow.attainment == pytest.approx(requests.attainment, abs=0.02)


def test_the_loads_above_are_both_easy_and_hard():
    easy, hard = (run(make_scenario(random_arrivals(rate, HOUR, 1)), Script([1])) for rate in (15.0, 24.0))
    assert easy.attainment > 0.99
    assert hard.attainment < 0.97


def test_starts_are_billed_as_request_by_request():
    scenario = make_scenario(random_arrivals(20.0, 1200.0, 2), initial=1, start=StartTime(120.0, 0.2), seed=3)
    requests, flow, _, _ = both(scenario, [1, 3, 3, 4, 4, 6, 6])
    assert flow.replica_seconds == requests.replica_seconds
    assert flow.cost == requests.cost
    assert flow.cold_starts == requests.cold_starts == 5
    assert np.array_equal(flow.ready, requests.ready)
    assert np.array_equal(flow.wanted, requests.wanted)


def test_starts_that_are_cancelled_are_billed_as_request_by_request():
    scenario = make_scenario(random_arrivals(20.0, 1200.0, 2), initial=2, start=StartTime(300.0, 0.1))
    requests, flow, _, _ = both(scenario, [4, 4, 2, 2, 5, 5, 3, 2])
    assert flow.replica_seconds == requests.replica_seconds
    assert flow.reversals == requests.reversals > 0


def test_a_drain_is_billed_about_as_request_by_request():
    scenario = make_scenario(random_arrivals(40.0, 1200.0, 2), initial=6)
    requests, flow, _, _ = both(scenario, [6, 5, 4, 3, 3, 2])
    without_drain = 120 * 6 + 60 * (5 + 4) + 120 * 3 + 840 * 2
    assert flow.replica_seconds == pytest.approx(requests.replica_seconds, rel=0.01)
    assert flow.replica_seconds > without_drain + 4


def test_what_a_policy_sees_adds_up_to_the_load():
    scenario = make_scenario(random_arrivals(20.0, HOUR / 2, 5), initial=2)
    load = flow_of(scenario.arrivals)
    _, flow, requests_seen, seen = both(scenario, [2, 2, 3, 3, 1, 2], interval=15.0)
    arrived = sum(one.arrivals for one in seen)
    assert arrived == pytest.approx(load.requests, abs=1)
    assert sum(one.arrived_input_tokens for one in seen) == pytest.approx(
        float((load.rate * load.input_tokens).sum() * load.step), abs=1
    )
    assert sum(one.arrived_output_tokens for one in seen) == pytest.approx(
        float((load.rate * load.output_tokens).sum() * load.step), abs=1
    )
    assert sum(one.completions for one in seen) + seen[-1].running + seen[-1].waiting == pytest.approx(
        load.requests, abs=2
    )
    assert [one.elapsed for one in seen] == pytest.approx([15.0] * len(seen))
    assert [one.time for one in seen] == [one.time for one in requests_seen[: len(seen)]]
    assert flow.requests == len(scenario.arrivals)


def test_what_a_policy_sees_is_about_what_it_sees_request_by_request():
    _, _, requests, flow = both(make_scenario(random_arrivals(20.0, HOUR / 2, 6)), [1], interval=120.0)
    for name in ("mean_running", "cache_usage", "inter_token_mean", "tokens_held", "arrivals", "completions"):
        expected = np.mean([getattr(one, name) for one in requests[1:15]])
        assert np.mean([getattr(one, name) for one in flow[1:15]]) == pytest.approx(expected, rel=0.15), name
    assert np.mean([one.busy for one in flow]) > 0.95


def test_without_replicas_nothing_attains_and_what_waits_is_seen():
    scenario = make_scenario(random_arrivals(5.0, 600.0, 1), initial=0, minimum=0, start=StartTime(60.0, 0.0))
    script = Script([0, 0, 0, 1], interval=60.0)
    outcome = run_fluid(scenario, flow_of(scenario.arrivals), curve(), script)
    held = [one.gateway_waiting for one in script.seen]
    assert held[0] == pytest.approx(300.0, rel=0.2)
    assert held[:3] == sorted(held[:3])
    assert held[5] == 0.0
    assert not np.nan_to_num(outcome.attained_share[:30]).any()
    assert outcome.attained_share[-1] > 0.95
    assert outcome.replica_seconds == pytest.approx(600.0 - 240.0)


def test_requests_at_an_old_replica_do_not_delay_those_of_a_new_one():
    scenario = make_scenario(random_arrivals(40.0, 900.0, 1), initial=1, start=StartTime(60.0, 0.0))
    requests, flow, _, _ = both(scenario, [1, 1, 1, 1, 1, 1, 4])
    late = slice(50, 60)
    assert np.nanmean(requests.attained_share[20:40]) < 0.05
    assert np.nanmean(flow.attained_share[20:40]) < 0.05
    assert np.nanmean(requests.attained_share[late]) > 0.95
    assert np.nanmean(flow.attained_share[late]) > 0.95


def test_the_same_gives_the_same():
    scenario = make_scenario(random_arrivals(30.0, 1200.0, 2), initial=2, start=StartTime(120.0, 0.3), seed=9)
    first, second = (both(scenario, [3, 1, 4, 2])[1] for _ in range(2))
    assert (first.attained, first.replica_seconds) == (second.attained, second.replica_seconds)
    assert np.array_equal(first.attained_share, second.attained_share, equal_nan=True)
    other = both(replace(scenario, seed=10), [3, 1, 4, 2])[1]
    assert other.attained != first.attained


def test_reasons_are_counted():
    scenario = make_scenario(random_arrivals(10.0, 300.0, 2))
    script = Script([1], interval=30.0)
    script.reason = "because"  # type: ignore[attr-defined]
    outcome = run_fluid(scenario, flow_of(scenario.arrivals), curve(), script)
    assert outcome.reasons == {"because": 10}


def test_disturbances_are_an_error():
    scenario = make_scenario(random_arrivals(10.0, 300.0, 2), disturbances=Disturbances(reading_delay=5.0))
    with pytest.raises(ValueError, match="a flow knows no disturbances"):
        run_fluid(scenario, flow_of(scenario.arrivals), curve(), Script([1]))
