"""Fleet, gateway, clients, cluster and bill around the engines, each against arithmetic done by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from modelyard.simulator.records import ABANDONED, ASKS, COMPLETED, REFUSED
from modelyard.simulator.run import Simulation, run
from modelyard.simulator.scenario import Disturbances, Objective, StartTime
from tests.unit.simulator.play import (
    LLAMA_8B,
    Script,
    make_arrivals,
    make_scenario,
    make_step,
    random_arrivals,
)

STEP = make_step(fixed=0.1)
"""Ten tokens a second, whatever the batch and the prompt."""
SURE = StartTime(median=30.0, spread=0.0)


def play(scenario, wanted, interval=10.0):
    policy = Script(wanted, interval)
    simulation = Simulation(scenario, policy)
    return simulation.play(), simulation.fleet.requests, policy.seen


def test_requests_go_to_the_replica_with_the_fewest():
    scenario = make_scenario(make_arrivals([0, 1, 2, 3, 4, 5.0], 1, 1000), STEP, initial=3)
    _, requests, _ = play(scenario, [3])
    assert np.bincount(requests["replica"]).tolist() == [2, 2, 2]


def test_ties_are_broken_at_random_but_the_same_for_a_seed():
    arrivals = make_arrivals(np.arange(300.0), 1, 5)
    counts = [
        np.bincount(play(make_scenario(arrivals, STEP, initial=3, seed=seed), [3])[1]["replica"])
        for seed in (1, 1, 2)
    ]
    assert counts[0].tolist() == counts[1].tolist() != counts[2].tolist()
    # 300 draws with probability 1/3: standard deviation 8.2.
    assert all(abs(count - 100) < 33 for count in counts[0])


def test_the_gateway_holds_requests_while_no_replica_serves():
    arrivals = make_arrivals([5.0, 6.0], 1, 5, duration=100)
    scenario = make_scenario(arrivals, STEP, initial=0, minimum=0, start=SURE)
    outcome, requests, seen = play(scenario, [1])
    assert list(requests["first"]) == pytest.approx([40.1, 40.1])
    assert [signals.gateway_waiting for signals in seen[:4]] == [2, 2, 2, 0]
    assert seen[0].mean_waiting == pytest.approx((5 + 4) / 10)
    assert (outcome.cold_starts, outcome.attained) == (1, 0)


def test_a_start_is_billed_from_the_decision_and_a_departure_until_the_last_answer():
    arrivals = make_arrivals([0.0, 0.0], 1, [10, 200], duration=200)
    scenario = make_scenario(arrivals, STEP, initial=2, start=SURE, price=3.6)
    # Up to three at 10 s; down to one at 50 s: the newest goes at once, the second once its request is done.
    outcome, requests, _ = play(scenario, [3, 3, 3, 3, 1])
    gone = 50.0 if requests["replica"][1] == 0 else max(50.0, requests["done"][1])
    assert outcome.replica_seconds == pytest.approx(200 + gone + 40)
    assert outcome.cost == pytest.approx(outcome.replica_seconds / 1000)
    assert outcome.ready[[0, 3, 4, 5, 6]].tolist() == [2, 2, 3, 1, 1]
    assert outcome.wanted[[0, 1, 4, 5]].tolist() == [2, 3, 3, 1]


def test_a_cancelled_start_is_billed_until_then():
    scenario = make_scenario(make_arrivals([0.0], 1, 1, duration=100), STEP, initial=1, start=SURE)
    outcome, _, seen = play(scenario, [4, 4, 2, 2])
    # Two of the three are no longer wanted at 30 s.
    assert outcome.replica_seconds == pytest.approx(100 + 90 + 2 * 20)
    assert [signals.pending for signals in seen[:5]] == [0, 3, 3, 0, 0]
    assert [signals.ready for signals in seen[:5]] == [1, 1, 1, 2, 2]


def test_start_times_are_log_normal_and_the_same_whatever_the_policy():
    arrivals = make_arrivals([0.0], 1, 1, duration=4000)
    scenario = make_scenario(arrivals, STEP, initial=0, minimum=0, start=StartTime(120.0, 0.2), seed=3)
    one = Simulation(scenario, Script([400]))
    one.play()
    other = Simulation(scenario, Script([1, 1, 50, 400], interval=40.0))
    other.play()
    waits = [np.array([run.ledger.ready_at(n) for n in range(400)]) for run in (one, other)]
    assert waits[0][1:50] - 15 == pytest.approx(waits[1][1:50] - 120)
    logs = np.log((waits[0] - 15) / 120)
    assert abs(logs.mean()) < 4 * 0.2 / math.sqrt(400)
    assert abs(logs.std() - 0.2) < 4 * 0.2 / math.sqrt(800)


def test_a_new_node_takes_its_time_where_none_is_empty():
    start = StartTime(30.0, 0.0, provision=100.0)
    scenario = make_scenario(make_arrivals([0.0], 1, 1, duration=2000), STEP, start=start)
    simulation = Simulation(scenario, Script([2] * 20 + [1] * 5 + [2] * 5 + [1] * 70 + [2], interval=10.0))
    simulation.play()
    # The second start finds the node of the first, left 50 s before; the third comes 700 s after that was left.
    ready = [simulation.ledger.ready_at(number) for number in (1, 2, 3)]
    assert ready == pytest.approx([10 + 130, 260 + 30, 1010 + 130])


def test_what_is_not_answered_when_the_drain_is_over_goes_elsewhere_or_breaks_off():
    arrivals = make_arrivals([0.0, 0.05, 0.06], 1, [500, 500, 500], duration=100)
    scenario = make_scenario(arrivals, STEP, initial=2, minimum=0, drain=5.0, max_sequences=1, start=SURE)
    outcome, requests, _ = play(scenario, [1])
    assert outcome.replica_seconds == pytest.approx(100 + 15)
    # Its running answer breaks off; the third request, wherever it waited, is answered by the one that stays.
    assert sorted(requests["state"][:2]) == [COMPLETED, REFUSED]
    assert requests["state"][2] == COMPLETED
    stays = requests["replica"][:2][requests["state"][:2] == COMPLETED]
    assert requests["replica"][2] == stays[0]
    assert requests["first"][2] == pytest.approx(50, abs=0.2)


@pytest.mark.parametrize(("retries", "refused"), [(0, 1), (1, 0)])
def test_a_lost_replica_breaks_off_answers_and_is_replaced(retries, refused):
    arrivals = make_arrivals([0.0, 0.05], 1, [300, 300], duration=100)
    disturbances = Disturbances(spot_losses=((20.0, 1),), retries=retries)
    scenario = make_scenario(arrivals, STEP, max_sequences=1, start=SURE, disturbances=disturbances)
    outcome, requests, seen = play(scenario, [1])
    # The second had no token yet: the gateway keeps it until the next replica serves, 30 s later, without a new ask.
    assert requests["asks"].tolist() == [1 + retries, 1]
    assert outcome.refused == refused
    assert requests["done"][1] == pytest.approx(50 + 30 * (1 + retries))
    if retries:
        assert requests["done"][0] == pytest.approx(50 + 30)
    assert outcome.replica_seconds == pytest.approx(20 + 80)
    assert outcome.cold_starts == 1
    assert [signals.ready for signals in seen[:6]] == [1, 0, 0, 0, 1, 1]


def test_clients_give_up_without_a_first_token_and_ask_again():
    arrivals = make_arrivals([0.0, 1.0], 1, [100, 10], duration=30)
    scenario = make_scenario(arrivals, STEP, max_sequences=1)
    for retries, asks, state in ((0, 1, ABANDONED), (1, 2, ABANDONED), (2, 3, COMPLETED)):
        disturbances = Disturbances(abandon_after=4.0, retries=retries)
        outcome, requests, seen = play(replace(scenario, disturbances=disturbances), [1])
        assert (requests["asks"][1], requests["state"][1]) == (asks, state)
        assert outcome.abandoned == (state == ABANDONED)
        assert sum(signals.arrivals for signals in seen[:2]) == 1 + asks
    # Judged from when the client first asked: nine seconds before the answer that it got.
    assert requests["first"][1] - requests["arrival"][1] == pytest.approx(9.1)
    assert outcome.attained == 0


def test_signals_are_what_happened_since_the_last_look():
    arrivals = make_arrivals([2.0, 4.0, 11.0], [50, 70, 10], [21, 41, 300], duration=60)
    step = make_step(fixed=0.1)
    _, _, seen = play(make_scenario(arrivals, step, cache_tokens=1000), [1])
    one, two = seen[:2]
    assert (one.time, one.elapsed, one.arrivals, one.completions, two.arrivals) == (10.0, 10.0, 2, 2, 1)
    assert (one.arrived_input_tokens, one.arrived_output_tokens) == (120, 62)
    assert (one.completed_input_tokens, one.completed_output_tokens) == (120, 62)
    assert one.mean_running == pytest.approx((2.1 + 4.1) / 10, abs=0.011)
    assert one.busy == pytest.approx((8.1 - 2.0) / 10, abs=0.011)
    assert one.first_token_mean == pytest.approx(0.1, abs=0.051)
    assert one.inter_token_mean == pytest.approx(0.1)
    assert one.inter_token_p90 == pytest.approx(0.1, rel=0.005)
    assert (one.running, one.cache_usage, two.running) == (0, 0, 1)
    # 10 tokens of prompt; 90 steps of which the first computed it.
    assert two.tokens_held == pytest.approx(10 + 89, abs=1)
    assert two.cache_usage == two.cache_usage_max == two.tokens_held / 1000
    assert two.mean_running == pytest.approx(0.9)
    assert two.inter_token_mean is None or two.inter_token_mean == pytest.approx(0.1)


def test_a_policy_sees_what_was_one_delay_ago():
    arrivals = make_arrivals(np.arange(0.5, 100), 1, 1, duration=100)
    delayed = make_scenario(arrivals, STEP, disturbances=Disturbances(reading_delay=25.0))
    _, _, seen = play(delayed, [1])
    assert [signals.known for signals in seen[:4]] == [False, False, True, True]
    # At 30 s it is what was at 5 s.
    assert [signals.arrivals for signals in seen[:5]] == [0, 0, 5, 10, 10]
    assert [signals.time for signals in seen[:3]] == [10.0, 20.0, 30.0]


def test_lost_readings_leave_the_last_one_and_the_next_covers_the_gap():
    arrivals = make_arrivals(np.arange(0.5, 100), 1, 1, duration=100)
    lossy = make_scenario(arrivals, STEP, disturbances=Disturbances(lost_readings=((15.0, 45.0),)))
    _, _, seen = play(lossy, [1])
    assert [signals.known for signals in seen[:6]] == [True, False, False, False, True, True]
    assert [signals.arrivals for signals in seen[:6]] == [10, 10, 10, 10, 40, 10]
    assert [signals.elapsed for signals in seen[:6]] == [10, 10, 10, 10, 40, 10]


def test_bounds_and_reversals():
    scenario = make_scenario(
        make_arrivals([0.0], 1, 1, duration=400), STEP, initial=2, minimum=2, maximum=4, start=SURE
    )
    # Up, down within 30 s, up again after 80 s, and what is out of bounds.
    outcome, _, _ = play(scenario, [9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4])
    assert outcome.reversals == 1
    assert set(outcome.wanted.tolist()) == {2, 4}


def test_attainment_by_hand():
    arrivals = make_arrivals([0.0, 10.0, 20.0, 30.0], [1, 1, 1, 1], [5, 5, 1, 5], duration=40)
    for objective, attained in (
        (Objective(0.2, 0.0, 0.2), 4),
        (Objective(0.05, 0.0, 0.2), 0),
        (Objective(0.2, 0.0, 0.05), 1),
        (Objective(0.0, 0.2, 0.2), 4),
    ):
        outcome = run(make_scenario(arrivals, STEP, objective=objective), Script([1]))
        assert outcome.attained == attained
        assert np.nansum(outcome.attained_share) == attained
    assert outcome.first_token == pytest.approx([0.1] * 4)
    assert outcome.inter_token == pytest.approx([0.1] * 4)
    assert outcome.arrival_rate.tolist() == [0.1] * 4


def test_the_run_goes_on_until_all_is_answered_without_a_bill():
    outcome = run(make_scenario(make_arrivals([9.0], 1, 5000, duration=10), STEP), Script([1]))
    assert (outcome.completed, outcome.replica_seconds) == (1, 10.0)
    outcome = run(make_scenario(make_arrivals([9.0], 1, 50_000, duration=10), STEP), Script([1]))
    assert (outcome.completed, outcome.refused) == (0, 1)


def test_reasons_are_counted_where_a_policy_gives_any():
    class Reasoning(Script):
        @property
        def reason(self) -> str:
            return "Steady" if len(self.seen) > 2 else "Starting"

    outcome = run(make_scenario(make_arrivals([0.0], 1, 1, duration=50), STEP), Reasoning([1], 10.0))
    assert outcome.reasons == {"Starting": 2, "Steady": 3}


def test_what_cannot_be_played_is_refused():
    with pytest.raises(ValueError, match="not sorted"):
        run(make_scenario(make_arrivals([2.0, 1.0], 1, 1), STEP), Script([1]))
    with pytest.raises(ValueError, match="interval"):
        run(make_scenario(make_arrivals([1.0], 1, 1), STEP), Script([1], interval=0.0))


def test_many_replicas_and_a_busy_hour():
    """More replicas than there is room for at first, and each of many requests answered."""
    scenario = make_scenario(random_arrivals(400, 60, seed=5), LLAMA_8B, initial=10, start=StartTime(10.0))
    simulation = Simulation(scenario, Script([40, 10, 60], 10.0))
    outcome = simulation.play()
    assert outcome.completed == outcome.requests == len(scenario.arrivals)
    assert simulation.fleet.meters.counter[ASKS] == outcome.requests
    assert outcome.ready.max() == 60


def test_all_that_an_overloaded_replica_leaves_behind_goes_to_the_other_one():
    arrivals = random_arrivals(120.0, 400.0, 5)
    scenario = make_scenario(arrivals, initial=2, drain=20.0)
    outcome = run(scenario, Script([2, 2, 2, 1], interval=60.0))
    # Far more came than two replicas answer, so that thousands wait at the one that leaves after 240 s.
    assert outcome.attainment < 0.5
    assert outcome.completed + outcome.refused == outcome.requests == len(arrivals)
    # Only answers that had begun break off.
    assert 0 < outcome.refused <= scenario.engine.max_sequences


def test_a_node_pulls_the_image_once():
    start = StartTime(30.0, 0.0, image_pull=50.0)
    scenario = make_scenario(make_arrivals([0.0], 1, 1, duration=3000), STEP, start=start)
    simulation = Simulation(scenario, Script([3] * 20 + [1] * 180 + [4], 10.0))
    simulation.play()
    ready = [simulation.ledger.ready_at(number) for number in (1, 2, 3, 4, 5)]
    # The first two starts pull it. Half an hour later their nodes still have it; that of a third replica does not.
    assert ready == pytest.approx([10 + 80, 10 + 80, 2010 + 30, 2010 + 30, 2010 + 80])


def test_a_new_node_has_no_image():
    start = StartTime(30.0, 0.0, provision=100.0, image_pull=50.0)
    scenario = make_scenario(make_arrivals([0.0], 1, 1, duration=2000), STEP, start=start)
    simulation = Simulation(scenario, Script([2] * 20 + [1] * 5 + [2] * 5 + [1] * 70 + [2], 10.0))
    simulation.play()
    ready = [simulation.ledger.ready_at(number) for number in (1, 2, 3)]
    assert ready == pytest.approx([10 + 180, 260 + 30, 1010 + 180])


def test_a_start_that_is_given_up_before_the_image_is_there_leaves_none():
    start = StartTime(30.0, 0.0, image_pull=50.0)
    scenario = make_scenario(make_arrivals([0.0], 1, 1, duration=1000), STEP, start=start)
    simulation = Simulation(scenario, Script([2, 2, 1, 2, 2, 2, 2, 2, 2, 1, 2], 10.0))
    simulation.play()
    # Given up 20 s after it began; the next after 60 s, when it had the image but did not serve yet.
    ready = [simulation.ledger.ready_at(number) for number in (1, 2, 3)]
    assert ready == pytest.approx([10 + 80, 40 + 80, 110 + 30])


def test_what_is_longer_than_the_context_is_refused():
    arrivals = make_arrivals([0.0, 1.0, 2.0], [90, 91, 10], [10, 10, 91], duration=60)
    scenario = make_scenario(arrivals, STEP)
    engine = replace(scenario.engine, context_length=100)
    outcome, requests, _ = play(replace(scenario, engine=engine), [1])
    assert list(requests["state"]) == [COMPLETED, REFUSED, REFUSED]
    assert (outcome.refused, outcome.completed) == (2, 1)
    # The cache limits it, too.
    engine = replace(scenario.engine, context_length=1000, cache_tokens=100)
    assert play(replace(scenario, engine=engine), [1])[0].refused == 2
