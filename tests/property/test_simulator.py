"""Nothing is lost and nothing appears, whatever goes wrong; and the same run twice is the same."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.simulator.records import (
    ABANDONED,
    ASKS,
    BUSY,
    COMPLETED,
    COMPLETED_OUTPUT,
    COMPLETIONS,
    GENERATED,
    HELD_LEVEL,
    LIVE,
    QUEUED_LEVEL,
    REFUSED,
    RUNNING,
)
from modelyard.simulator.run import Simulation
from modelyard.simulator.scenario import Disturbances, Scenario, StartTime
from tests.unit.simulator.play import LLAMA_8B, Script, make_arrivals, make_scenario

DURATION = 120.0


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Small fleets that are often too small, with everything that may go wrong."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(0, 400))
    arrivals = make_arrivals(
        np.sort(chance.choice([chance.uniform(0, DURATION, count), chance.uniform(0, 5, count)])),
        chance.integers(1, draw(st.sampled_from([10, 1000, 6000])), count),
        chance.integers(1, draw(st.sampled_from([2, 50, 600])), count),
        cached=chance.integers(0, 500, count),
        duration=DURATION,
    )
    times = st.floats(0, DURATION)
    disturbances = Disturbances(
        reading_delay=draw(st.sampled_from([0.0, 4.0, 15.0, 40.0])),
        lost_readings=draw(st.sampled_from([(), ((20.0, 60.0),)])),
        abandon_after=draw(st.sampled_from([None, 0.5, 5.0, 30.0])),
        retries=draw(st.integers(0, 2)),
        spot_losses=tuple(draw(st.lists(st.tuples(times, st.integers(1, 3)), max_size=3))),
    )
    return make_scenario(
        arrivals,
        LLAMA_8B,
        initial=draw(st.integers(0, 3)),
        minimum=0,
        maximum=6,
        start=StartTime(draw(st.sampled_from([1.0, 20.0])), draw(st.sampled_from([0.0, 0.3])), 10.0),
        drain=draw(st.sampled_from([0.0, 2.0, 120.0])),
        disturbances=disturbances,
        seed=draw(st.integers(0, 1000)),
        max_sequences=draw(st.sampled_from([1, 4, 64])),
        max_batched_tokens=draw(st.sampled_from([64, 512, 8192])),
        cache_tokens=draw(st.sampled_from([2_000, 7_000, 400_000])),
    )


scripts = st.lists(st.integers(-1, 9), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=scenarios(), wanted=scripts)
def test_requests_tokens_and_time_are_conserved(scenario, wanted):
    policy = Script(wanted)
    simulation = Simulation(scenario, policy)
    outcome = simulation.play()
    requests, meters = simulation.fleet.requests, simulation.fleet.meters
    state = requests["state"]

    assert (
        outcome.requests == outcome.completed + outcome.refused + outcome.abandoned == len(scenario.arrivals)
    )
    assert set(np.unique(state)) <= {COMPLETED, REFUSED, ABANDONED}
    assert outcome.attained <= outcome.completed == meters.counter[COMPLETIONS]
    assert meters.counter[COMPLETED_OUTPUT] == requests["output"][state == COMPLETED].sum()
    assert meters.counter[ASKS] == requests["asks"].sum() >= len(requests)
    assert requests["asks"].max(initial=0) <= 1 + scenario.disturbances.retries
    # Tokens beyond those answered were generated only for answers that broke off.
    assert meters.counter[GENERATED] >= meters.counter[COMPLETED_OUTPUT]
    if outcome.completed == meters.counter[ASKS]:
        assert meters.counter[GENERATED] == meters.counter[COMPLETED_OUTPUT]

    done = requests[state == COMPLETED]
    assert np.all(done["first"] >= done["arrival"])
    assert np.all(done["done"] >= done["first"])
    if scenario.disturbances.abandon_after is None:
        assert outcome.abandoned == 0
    else:
        assert np.all(done["first"] - done["asked"] <= scenario.disturbances.abandon_after + 1e-9)

    # Everything seen adds up, up to the last look.
    readings = [signals for signals in policy.seen if signals.known]
    assert sum(signals.arrivals for signals in readings) <= meters.counter[ASKS]
    for signals in policy.seen:
        assert 0 <= signals.busy <= 1 + 1e-9
        assert 0 <= signals.cache_usage <= signals.cache_usage_max <= 1
        assert signals.gateway_waiting <= signals.waiting
        assert signals.mean_running >= -1e-6
        assert signals.mean_waiting >= -1e-6
        assert signals.running <= scenario.engine.max_sequences * 6 * 3

    # Nothing is left anywhere, unless some of it was given up at the end.
    if not simulation.unanswered():
        assert np.all(np.abs(meters.level[[RUNNING, QUEUED_LEVEL, HELD_LEVEL, BUSY]]) < 1e-6)
        assert np.all(simulation.fleet.active == 0)
        live = simulation.fleet.live[: simulation.fleet.bounds[1]]
        assert np.all(simulation.fleet.replicas["held"][live] == 0)
        assert meters.level[LIVE] == sum(math.isinf(at) for at in simulation.fleet.replicas["gone_at"][live])


@settings(max_examples=30, deadline=None)
@given(scenario=scenarios(), wanted=scripts)
def test_the_same_run_twice_is_the_same(scenario, wanted):
    runs = [Simulation(scenario, Script(wanted)) for _ in range(2)]
    first, second = (run.play() for run in runs)
    for name in ("attained", "refused", "abandoned", "completed", "replica_seconds", "cost", "cold_starts"):
        assert getattr(first, name) == getattr(second, name)
    assert runs[0].fleet.requests.tobytes() == runs[1].fleet.requests.tobytes()


@settings(max_examples=50, deadline=None)
@given(scenario=scenarios(), wanted=scripts)
def test_the_bill_is_the_time_between_decisions_and_ends(scenario, wanted):
    """What serves is billed; what is billed serves, starts or drains."""
    outcome = Simulation(scenario, Script(wanted)).play()
    serving = float(outcome.ready.sum()) * 10.0
    bounds = (scenario.maximum + 3) * DURATION * 4
    assert outcome.replica_seconds <= bounds
    assert outcome.cost * 3600 == outcome.replica_seconds * scenario.price or math.isclose(
        outcome.cost * 3600, outcome.replica_seconds * scenario.price
    )
    doubled = replace(scenario, price=scenario.price * 2)
    assert math.isclose(Simulation(doubled, Script(wanted)).play().cost, 2 * outcome.cost)
    # Samples stand for ten seconds each: replicas that came or went within one are off by as much.
    changes = int(np.abs(np.diff(outcome.ready)).sum()) + outcome.cold_starts + scenario.initial
    assert outcome.replica_seconds >= serving - 10.0 * changes - 1e-6
