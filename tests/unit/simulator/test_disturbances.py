"""What may go wrong makes a difference to the cluster's own decision, each in the direction that it must.

The load rises after ten minutes and falls back: replicas start and leave.
"""

from dataclasses import replace
from functools import cache

import numpy as np

from modelyard.simulator.modelyard import ModelyardPolicy
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Disturbances, Outcome, StartTime
from tests.unit.simulator.play import make_arrivals, make_scenario

MINUTES = (600.0, 1200.0, 1800.0)
"""Seconds at which the load rises, falls and ends."""
CAPACITY = 20.0
"""Requests per second that one replica answers well."""
START = StartTime(median=60.0)


@cache
def played(start: StartTime = START, disturbances: Disturbances = Disturbances()) -> Outcome:  # noqa: B008
    chance = np.random.default_rng(3)
    rates = ((0.0, MINUTES[0], 10.0), (*MINUTES[:2], 55.0), (*MINUTES[1:], 10.0))
    times = np.sort(
        np.concatenate([chance.uniform(a, b, chance.poisson((b - a) * rate)) for a, b, rate in rates])
    )
    arrivals = make_arrivals(times, 900, 150, duration=MINUTES[-1])
    scenario = make_scenario(arrivals, initial=1, start=start, disturbances=disturbances)
    scenario = replace(scenario, capacity=CAPACITY)
    return run(scenario, ModelyardPolicy(scenario))


def ready_at(outcome: Outcome, seconds: float) -> int:
    return int(outcome.ready[int(seconds / 10)])


def test_without_any_it_follows_the_load_up_and_down():
    outcome = played()
    assert ready_at(outcome, 590) <= 2
    assert ready_at(outcome, 1100) >= 3
    assert ready_at(outcome, 1790) <= 2
    assert 0.8 < outcome.attainment < 1.0
    assert outcome.abandoned == outcome.refused == 0


def test_a_node_that_is_made_first_delays_each_replica_and_is_billed():
    outcome = played(replace(START, provision=120.0))
    assert outcome.attainment < played().attainment - 0.02
    assert ready_at(outcome, 720) < ready_at(played(), 720)


def test_an_image_that_is_pulled_first_delays_it_as_long():
    outcome = played(replace(START, image_pull=120.0))
    assert outcome.attainment < played().attainment - 0.02
    # Only the way to it is another: the first starts are those on new nodes either way.
    assert ready_at(outcome, 720) == ready_at(played(replace(START, provision=120.0)), 720)


def test_replicas_that_are_taken_away_are_started_again_and_missed():
    outcome = played(disturbances=Disturbances(spot_losses=((1000.0, 2),)))
    assert outcome.cold_starts >= played().cold_starts + 2
    # Answers that had begun broke off, and their clients do not ask again; others wait longer.
    assert outcome.refused > 0
    assert outcome.attained < played().attained - outcome.refused
    assert played(disturbances=Disturbances(spot_losses=((1000.0, 2),), retries=1)).refused == 0


def test_old_readings_come_too_late():
    outcome = played(disturbances=Disturbances(reading_delay=60.0))
    assert outcome.attainment < played().attainment - 0.02


def test_lost_readings_hold_the_size():
    lost = Disturbances(lost_readings=((1150.0, 1500.0),))
    outcome = played(disturbances=lost)
    # The load fell at 1,200 s: without readings nothing leaves, and afterwards it does.
    assert ready_at(outcome, 1490) == ready_at(outcome, 1160) > ready_at(played(), 1490)
    assert ready_at(outcome, 1790) < ready_at(outcome, 1490)
    assert outcome.replica_seconds > played().replica_seconds + 300.0


def test_clients_who_give_up_shorten_the_queue():
    outcome = played(disturbances=Disturbances(abandon_after=5.0))
    assert outcome.abandoned > 100
    # Who still waits, waits for less: the worst first token is what they put up with.
    assert outcome.first_token[-1] < 5.0 < played().first_token[-1]


def test_who_asks_again_may_be_answered_late_but_adds_to_the_load():
    given_up = played(disturbances=Disturbances(abandon_after=5.0))
    again = played(disturbances=Disturbances(abandon_after=5.0, retries=3))
    assert again.abandoned < given_up.abandoned
    assert again.completed > given_up.completed
    assert again.attainment <= given_up.attainment
