"""The clairvoyant against every schedule that there is, on loads small enough to play them all."""

import itertools
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from modelyard.simulator.clairvoyant import SAME_ATTAINMENT, Plan, plan
from modelyard.simulator.flow import fit_curve, flow_of
from modelyard.simulator.fluid import run_fluid
from modelyard.simulator.meters import unknown
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Scenario, Signals, StartTime
from modelyard.simulator.schedule import Misses, Schedule, schedule_for
from tests.unit.simulator.play import Script, make_arrivals, make_scenario, make_step

STEP = make_step(fixed=0.02, per_sequence=0.002, prefill_token=2e-5)
"""40 ms between tokens at a batch of 10."""
TARGET = 0.95
"""Of a few hundred requests: a hundredth would be two or three."""
BOUND = 1.03
"""Cost over the optimum's that no instance may exceed."""


def scenario_of(rates, seed: int, *, lead: float = 60.0, **changes) -> Scenario:
    """A minute at each of the rates."""
    chance = np.random.default_rng([seed, len(rates)])
    counts = chance.poisson(60 * np.asarray(rates))
    times = np.concatenate(
        [np.sort(chance.uniform(60 * i, 60 * i + 60, count)) for i, count in enumerate(counts)]
    )
    arrivals = make_arrivals(
        times,
        np.maximum(1, chance.exponential(500, len(times))),
        np.maximum(2, chance.exponential(200, len(times))),
        duration=60.0 * len(rates),
    )
    settings = {"initial": 2, "maximum": 3, "start": StartTime(lead, 0.1), "seed": seed} | changes
    return replace(make_scenario(arrivals, STEP, **settings), capacity=1.25)


@dataclass(frozen=True)
class Instance:
    seed: int
    load: float
    """Mean requests per second; one replica answers 1.25."""
    lead: float
    periods: int = 4
    most: int = 3

    @property
    def scenario(self) -> Scenario:
        rates = self.load * np.random.default_rng(self.seed).uniform(0.3, 1.7, self.periods)
        return scenario_of(rates, self.seed, lead=self.lead, maximum=self.most)


INSTANCES = [
    *(Instance(seed, load, lead) for lead in (30.0, 60.0) for load in (0.8, 1.2, 1.6) for seed in range(2)),
    *(Instance(seed, 0.9, 60.0, periods=7, most=2) for seed in range(2)),
]


@cache
def every_outcome(instance: Instance):
    schedules = itertools.product(range(1, instance.most + 1), repeat=instance.periods)
    return [run(instance.scenario, Schedule(np.array(one), instance.lead)) for one in schedules]


def optimum(instance: Instance) -> float | None:
    """Replica-seconds of the cheapest schedule that attains the target; None: none does."""
    able = [one.replica_seconds for one in every_outcome(instance) if one.attainment >= TARGET]
    return min(able, default=None)


@cache
def found(instance: Instance) -> Plan:
    return plan(instance.scenario, target=TARGET)


@pytest.mark.parametrize("instance", INSTANCES, ids=str)
def test_it_is_as_cheap_as_the_cheapest_of_all_schedules(instance):
    best, outcome = optimum(instance), found(instance).outcome
    assert found(instance).reached == (best is not None)
    if best is None:
        most = max(one.attainment for one in every_outcome(instance))
        assert most - SAME_ATTAINMENT <= outcome.attainment < TARGET
    else:
        assert outcome.attainment >= TARGET
        assert best * (1 - 1e-9) <= outcome.replica_seconds <= BOUND * best


def test_most_instances_are_solved_exactly_and_some_have_no_solution():
    best = {instance: optimum(instance) for instance in INSTANCES}
    solvable = [instance for instance in INSTANCES if best[instance] is not None]
    exact = [one for one in solvable if found(one).outcome.replica_seconds <= best[one] * (1 + 1e-9)]
    assert 2 <= len(INSTANCES) - len(solvable) < len(INSTANCES) / 2
    assert len(exact) >= 0.8 * len(solvable)


def test_the_same_scenario_gives_the_same_plan():
    first, second = found(INSTANCES[2]), plan(INSTANCES[2].scenario, target=TARGET)
    assert np.array_equal(first.serving, second.serving)
    assert first.outcome.replica_seconds == second.outcome.replica_seconds
    assert first.runs == second.runs


def test_the_result_is_what_a_run_of_its_schedule_gives():
    plan_found = found(INSTANCES[3])
    again = run(INSTANCES[3].scenario, Schedule(plan_found.serving, INSTANCES[3].lead))
    assert again.replica_seconds == plan_found.outcome.replica_seconds
    assert again.attained == plan_found.outcome.attained


def test_a_schedule_is_billed_from_the_start_and_until_it_has_drained():
    """One request of 100 s; a replica more serves in the third and fourth minute, then the only busy one stays."""
    arrivals = make_arrivals([5.0], [10], [1000], duration=360.0)
    scenario = make_scenario(arrivals, make_step(fixed=0.1), initial=1, start=StartTime(60.0, 0.0))
    outcome = run(scenario, Schedule(np.array([1, 1, 2, 2, 1, 1]), 60.0))
    # Decided at 60 s to serve at 120 s; gone at 240 s, idle.
    assert outcome.replica_seconds == pytest.approx(360.0 + 180.0)
    assert outcome.cold_starts == 1
    assert outcome.ready[[5, 11, 12, 23, 24]].tolist() == [1, 1, 2, 2, 1]


def test_a_leaving_replica_is_billed_while_it_answers():
    arrivals = make_arrivals([115.0, 115.0], [10, 10], [300, 300], duration=300.0)
    scenario = make_scenario(
        arrivals, make_step(fixed=0.1), initial=2, start=StartTime(60.0, 0.0), drain=120.0
    )
    outcome = run(scenario, Schedule(np.array([2, 2, 1, 1, 1]), 60.0))
    # It has one of the two requests until 145 s.
    assert outcome.replica_seconds == pytest.approx(300.0 + 145.0, abs=0.5)
    assert outcome.completed == 2


def test_a_schedule_gives_what_a_script_of_the_same_numbers_gives():
    scenario = INSTANCES[2].scenario
    scripted = run(scenario, Script([3, 3, 1], interval=60.0))
    planned = run(scenario, Schedule(np.array([2, 2, 3, 1]), 60.0))
    assert planned.replica_seconds == scripted.replica_seconds
    assert planned.attained == scripted.attained


def test_a_dip_shorter_than_a_start_is_not_followed():
    schedule = Schedule(np.array([2, 1, 1, 2, 2, 2]), 180.0)
    assert [schedule.decide(look(60.0 * minute)) for minute in range(6)] == [2, 2, 2, 2, 2, 2]
    schedule = Schedule(np.array([2, 1, 1, 1, 1, 2]), 120.0)
    assert [schedule.decide(look(60.0 * minute)) for minute in range(6)] == [2, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("lead", "interval"), [(0.0, 60.0), (37.0, 1.0), (120.0, 60.0), (300.0, 60.0), (90.0, 30.0)]
)
def test_a_start_is_due_at_a_decision(lead, interval):
    assert Schedule(np.array([1, 2]), lead).interval == interval
    assert (60.0 - lead) % interval == 0


def test_it_scales_to_zero_where_it_may_and_nothing_comes():
    scenario = scenario_of([0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5], 0, minimum=0, initial=1)
    plan_found = plan(scenario, target=TARGET)
    assert plan_found.reached
    assert 0 in plan_found.serving
    assert (
        plan_found.outcome.replica_seconds
        < plan(replace(scenario, minimum=1), target=TARGET).outcome.replica_seconds
    )


def test_a_flow_can_be_planned_for_too():
    scenario = scenario_of(np.repeat([0.5, 2.5, 0.5], 10), 1, maximum=4)
    load = flow_of(scenario.arrivals)
    fixed = replace(scenario, initial=2, minimum=2, maximum=2)
    curve = fit_curve(scenario.engine, scenario.objective, [(load, run(fixed, Script([2], interval=60.0)))])
    plan_found = plan(
        scenario,
        target=TARGET,
        player=lambda one, policy: run_fluid(one, load, curve, policy),
        flow=(load, curve),
    )
    assert plan_found.reached
    assert plan_found.serving[12:20].min() > plan_found.serving[:5].max()


def test_a_load_without_requests_is_an_error():
    empty = make_arrivals([], [], [], duration=60.0)
    with pytest.raises(ValueError, match="no requests to plan for"):
        plan(make_scenario(empty, STEP))


def look(time: float) -> Signals:
    return replace(unknown(None, time, 1), known=True)


def test_dynamic_programming_finds_the_cheapest_schedule_of_a_table():
    chance = np.random.default_rng(4)
    scenario = replace(INSTANCES[0].scenario, initial=1, drain=0.0)
    table = np.sort(chance.uniform(0, 5, (6, 3)), axis=1)[:, ::-1].copy()
    misses, price, lead = Misses(np.array([1, 2, 3]), table), 20.0, 60.0

    def cost(serving) -> float:
        if serving[0] > 1 or serving[1] > serving[0]:
            return float("inf")
        starts = sum(max(0, after - before) for before, after in itertools.pairwise((1, *serving)))
        lost = sum(table[period, count - 1] for period, count in enumerate(serving))
        return 60.0 * sum(serving) + lead * starts + price * lost

    best = min(itertools.product((1, 2, 3), repeat=6), key=cost)
    serving, lost = schedule_for(scenario, misses, price, lead)
    assert cost(tuple(serving)) == pytest.approx(cost(best))
    assert lost == pytest.approx(sum(table[period, count - 1] for period, count in enumerate(serving)))
