"""The size of a plan is the one that the rule settles at: the real decision is played against constant random load."""

import math

import numpy as np
import pytest

from modelyard.core.demand import Sample
from modelyard.core.report.settle import let_serve
from modelyard.core.report.steady import find_capacity, find_rate, recall_load
from modelyard.core.scaling.rule import LoadPolicy
from modelyard.core.snapshot import ChildDeployment, Pod, Snapshot
from modelyard.simulator.modelyard import ModelyardPolicy
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Engine, Scenario, StartTime
from tests.unit.cli.planning import first, manifest
from tests.unit.core.plainload import PLAIN_LOAD
from tests.unit.simulator.play import make_arrivals, make_step

HOURS = 3.0
POLICY = LoadPolicy()


def play(rate: float, capacity: float, start: float) -> float:
    """Return the replicas wanted, on average over the last hour of Poisson arrivals at `rate` requests per second.

    Requests are short, because the rule looks at arrivals and the declared capacity only; the engine never limits.
    """
    chance = np.random.default_rng(1)
    duration = HOURS * 3600.0
    times = np.sort(chance.uniform(0.0, duration, chance.poisson(rate * duration)))
    scenario = Scenario(
        "steady",
        make_arrivals(times, 10, 2, duration=duration),
        Engine(make_step(), cache_tokens=100_000),
        capacity=capacity,
        initial=math.ceil(rate / capacity),
        start=StartTime(start, spread=0.0),
    )
    # A decision for each bin of arrivals; the operator's are more frequent and see the same bins.
    outcome = run(scenario, ModelyardPolicy(scenario, interval=8.0))
    return float(outcome.wanted[outcome.time > duration - 3600.0].mean())


@pytest.mark.parametrize(
    ("rate", "capacity", "start"),
    [
        (0.2, 0.1, 37.0),
        (0.5, 0.25, 300.0),
        (2.0, 0.5, 37.0),
        (2.0, 3.0, 120.0),
        (10.0, 1.0, 120.0),
        (20.0, 2.0, 37.0),
        (100.0, 3.0, 300.0),
    ],
)
def test_the_planned_size_is_where_a_steady_load_settles(
    tmp_path, rate: float, capacity: float, start: float
) -> None:
    option = {"class": "l4", "count": 1, "requestsPerMinute": round(capacity * 60)}
    load = {"requestsPerMinute": round(rate * 60)}
    planned = first(tmp_path, manifest(classes=[option], scaling={"max": 100}, load=load))["replicas"]
    settled = play(rate, capacity, start)
    assert planned == pytest.approx(settled, rel=0.1, abs=1.0)


def test_a_steady_load_is_remembered_without_anything_that_passes() -> None:
    memory = recall_load(Sample(1000.0, 600.0), 10.0, POLICY)
    assert memory.forecast is not None
    # Independent arrivals: the mean over 30 s has a standard deviation of sqrt(10 / 60) = 0.408.
    assert memory.forecast.level(POLICY.forecast) == pytest.approx(10.408, abs=1e-3)
    assert memory.forecast.slope(POLICY.forecast) == 0.0
    assert (memory.forecast.dispersion, memory.backlog, memory.headroom.allowed) == (1.0, 0.0, None)
    # What was assumed at first counts for its time among all that is remembered.
    headroom = POLICY.headroom
    left = headroom.prior / (headroom.prior + headroom.memory)
    assert memory.headroom.relative(headroom) == pytest.approx(headroom.deviation * math.sqrt(left))


def test_a_load_without_chance_uses_the_planned_share_of_the_capacity() -> None:
    assert find_capacity(10.0, None, PLAIN_LOAD) == pytest.approx(10.0 / PLAIN_LOAD.utilization)
    assert find_rate(12.5, None, PLAIN_LOAD) == pytest.approx(12.5 * PLAIN_LOAD.utilization, rel=1e-6)


@pytest.mark.parametrize("service_time", [None, 2.0, 40.0])
def test_the_highest_rate_of_a_capacity_needs_just_that(service_time: float | None) -> None:
    shares = []
    for capacity in (0.5, 3.0, 30.0, 300.0):
        rate = find_rate(capacity, service_time, POLICY)
        assert find_capacity(rate, service_time, POLICY) == pytest.approx(capacity, rel=1e-3)
        shares.append(rate / capacity)
    # Chance counts for less in a larger load, and never for nothing.
    assert shares == sorted(shares)
    assert shares[-1] < POLICY.utilization


def test_a_load_of_nothing_needs_nothing() -> None:
    assert find_capacity(0.0, None, POLICY) == 0.0
    assert find_rate(0.0, None, POLICY) == 0.0


def test_replicas_that_are_written_serve_and_what_has_no_node_stays_seen() -> None:
    lost = Pod("lost", "lost", "team/a", variant="v", waiting="Unschedulable")
    gone = Pod("gone", "gone", "team/a", variant="v", ready=True, address="10.0.0.1", terminating=True)
    settled = let_serve(
        Snapshot(pods={"team/a": (lost, gone)}, children={"team/a": {"v": ChildDeployment(2)}})
    )
    pods = settled.pods["team/a"]
    assert sum(pod.serving for pod in pods) == 2
    assert (pods[0].name, pods[0].waiting, pods[0].scheduled) == ("lost", "Unschedulable", False)
    assert pods[1] == gone
    assert let_serve(settled) == settled
