"""The chain of checks that makes a plan."""

from dataclasses import replace
from typing import Any

import pytest

from modelyard.core.decide import decide, decide_deployment, observe_demand
from modelyard.core.plan import DeploymentPlan
from modelyard.core.reasons import Code
from modelyard.core.replicas import SizeMemory, SizePolicy
from modelyard.core.routing import Route, WeightedTarget
from modelyard.core.snapshot import GatewayReading, Snapshot
from modelyard.core.state import DeploymentMemory, Memory, Policy
from tests.unit.core.build import KEY, NOW, make_deployment, make_pod, make_snapshot
from tests.unit.core.plainload import PLAIN_LOAD

POLICY = Policy(size=SizePolicy(load=PLAIN_LOAD))
ROUTES = (Route(KEY, ("llama",), (WeightedTarget(KEY),)),)


def _decide(
    snapshot: Snapshot, memory: Memory | None = None, now: float = NOW
) -> tuple[DeploymentPlan, Memory]:
    plan, after = decide(snapshot, memory or Memory(), now, POLICY)
    return plan.deployments[KEY], after


def _scaled(low: int = 1, high: int = 10, **scaling: Any) -> Any:
    return make_deployment(scaling={"min": low, "max": high, **scaling})


def _loaded(rate: float, now: float = NOW) -> Memory:
    """A memory whose counters grew by `rate` requests per second up to now."""
    memory = Memory({KEY: DeploymentMemory(size=SizeMemory(since=now - 10_000.0))})
    for age in (10.0, 5.0, 0.0):
        reading = GatewayReading(now - age, {KEY: (100.0 - age) * rate})
        memory = observe_demand(make_snapshot(_scaled(), reading=reading), ROUTES, memory, now, POLICY)
    return memory


def test_a_class_that_does_not_exist_is_passed_over():
    deployment = make_deployment(classes=("h100", "l4"), requests_per_minute=90)
    plan, _ = _decide(make_snapshot(deployment))
    assert plan.placement is not None
    assert plan.placement.main.label == "1 x l4"
    assert plan.placement.main.capacity == 1.5


def test_an_assumed_capacity_is_said_to_be_assumed():
    plan, _ = _decide(make_snapshot(make_deployment(requests_per_minute=None)))
    assert plan.placement is not None
    assert plan.placement.main.capacity == 1.0
    assert "assumed" in plan.placement.message
    plan, _ = _decide(make_snapshot(make_deployment()))
    assert plan.placement is not None
    assert "assumed" not in plan.placement.message


def test_a_deployment_without_any_class_is_refused_and_left_alone():
    snapshot = make_snapshot(make_deployment(classes=("h100",)), pods={KEY: (make_pod(),)}, children={KEY: 1})
    plan, _ = _decide(snapshot)
    assert plan.refusal is not None
    assert plan.refusal.reason == Code.ACCELERATOR_NOT_FOUND
    assert "h100" in plan.refusal.message
    assert "l4" in plan.refusal.message
    assert (plan.replicas, plan.size) == (None, None)


def test_without_classes_the_remedy_is_still_said():
    plan, _ = _decide(make_snapshot(make_deployment(), classes=()))
    assert plan.refusal is not None
    assert "none yet" in plan.refusal.message


def test_a_stranger_in_the_childs_place_is_refused():
    plan, _ = _decide(replace(make_snapshot(make_deployment()), strangers={KEY: "Deployment team/llama-x"}))
    assert plan.refusal is not None
    assert plan.refusal.reason == Code.NAME_CONFLICT
    assert "Deployment team/llama-x" in plan.refusal.message
    assert plan.replicas is None


@pytest.mark.parametrize("replicas", [0, 1, 7])
def test_a_fixed_size_is_written_as_it_is(replicas: int):
    plan, _ = _decide(make_snapshot(make_deployment(replicas=replicas)))
    assert plan.size is not None
    assert (plan.replicas, plan.size.reason.code) == (replicas, Code.FIXED)


@pytest.mark.parametrize("size", [{"replicas": 5}, {"scaling": {"min": 2, "max": 5, "actuator": "External"}}])
def test_suspend_goes_before_everything(size: dict[str, Any]):
    plan, _ = _decide(make_snapshot(make_deployment(suspend=True, **size), children={KEY: 5}))
    assert plan.size is not None
    assert (plan.replicas, plan.size.reason.code) == (0, Code.SUSPENDED)


def test_a_request_from_before_a_suspension_does_not_wake():
    memory = _loaded(1.0)
    suspended = make_deployment(scaling={"min": 0, "max": 3}, suspend=True)
    _, memory = _decide(make_snapshot(suspended, children={KEY: 1}), memory, NOW + 1.0)
    resumed = make_snapshot(_scaled(low=0), children={KEY: 0})
    plan, memory = _decide(resumed, memory, NOW + 2.0)
    assert plan.replicas == 0
    plan, _ = _decide(replace(resumed, wakes={KEY: NOW + 3.0}), memory, NOW + 3.0)
    assert plan.replicas == 1


def test_a_size_that_was_fixed_is_kept_until_the_window_has_passed():
    _, memory = _decide(make_snapshot(make_deployment(replicas=5), children={KEY: 5}), _loaded(0.1))
    plan, _ = _decide(make_snapshot(_scaled(), children={KEY: 5}), memory, NOW + 1.0)
    assert plan.size is not None
    assert (plan.replicas, plan.size.reason.code) == (5, Code.STABILIZING)


def test_load_decides_the_size():
    plan, _ = _decide(make_snapshot(_scaled(), children={KEY: 1}), _loaded(4.0))
    assert plan.replicas == 5


def test_advise_reports_the_size_and_keeps_the_present_one():
    snapshot = make_snapshot(_scaled(mode="Advise"), children={KEY: 2})
    plan, _ = _decide(snapshot, _loaded(4.0))
    assert plan.size is not None
    assert (plan.replicas, plan.size.replicas) == (2, 5)


@pytest.mark.parametrize(("low", "replicas"), [(0, 1), (3, 3)])
def test_advise_starts_with_at_least_one(low: int, replicas: int):
    plan, _ = _decide(make_snapshot(_scaled(low=low, mode="Advise")))
    assert plan.replicas == replicas


def test_an_external_actuator_keeps_the_field():
    plan, _ = _decide(make_snapshot(_scaled(actuator="External"), children={KEY: 2}), _loaded(4.0))
    assert plan.size is not None
    assert (plan.replicas, plan.size.replicas) == (None, 5)


def test_an_external_actuator_keeps_the_field_in_advise_mode_too():
    plan, _ = _decide(make_snapshot(_scaled(actuator="External", mode="Advise"), children={KEY: 2}))
    assert plan.replicas is None


def test_arrivals_of_the_reading_become_demand():
    memory = _loaded(2.0)
    assert memory.deployments[KEY].demand.last_arrival == NOW
    assert observe_demand(make_snapshot(_scaled()), ROUTES, memory, NOW, POLICY) == memory


def test_a_changed_weight_does_not_look_like_load():
    def split(weight: int) -> tuple[Route, ...]:
        return (
            Route("team/chat@route", ("chat",), (WeightedTarget(KEY, weight), WeightedTarget("team/b", 1))),
        )

    memory = Memory({KEY: DeploymentMemory(size=SizeMemory(since=0.0))})
    for step, weight in enumerate([1, 1, 1, 3, 3, 3]):
        time = NOW + 5.0 * step
        reading = GatewayReading(time, {"team/chat@route": 100_000.0 + 5.0 * step})
        snapshot = make_snapshot(_scaled(high=100), children={KEY: 1}, reading=reading)
        memory = observe_demand(snapshot, split(weight), memory, time, POLICY)
        plan, memory = _decide(snapshot, memory, time)
        assert plan.replicas == 1


def test_a_new_deployment_starts_with_generation_zero():
    plan, memory = _decide(make_snapshot(make_deployment()))
    assert plan.generation == 0
    plan, _ = _decide(make_snapshot(make_deployment(), pods={KEY: (make_pod(),)}), memory)
    assert plan.generation == 0


def test_the_generation_is_raised_once_each_time_it_stops_serving():
    up = make_snapshot(make_deployment(), pods={KEY: (make_pod(),)})
    down = make_snapshot(make_deployment())
    memory = Memory()
    generations = []
    for snapshot in (down, up, up, down, down, up, down):
        plan, memory = _decide(snapshot, memory)
        generations.append(plan.generation)
    assert generations == [0, 0, 0, 1, 1, 1, 2]


def test_the_generation_is_raised_when_it_is_put_to_sleep_while_its_pods_still_serve():
    pods = {KEY: (make_pod(),)}
    _, memory = _decide(make_snapshot(make_deployment(), pods=pods))
    off = make_deployment(replicas=0)
    plan, memory = _decide(make_snapshot(off, pods=pods), memory)
    assert plan.generation == 1
    plan, _ = _decide(make_snapshot(off), memory)
    assert plan.generation == 1


@pytest.mark.parametrize(
    ("ready", "pods", "generation"), [(1, False, 5), (1, True, 4), (0, False, 4), (0, True, 4)]
)
def test_after_a_restart_the_status_tells_what_was_served(ready: int, pods: bool, generation: int):
    status = {"readyReplicas": ready, "gateway": {"generation": 4}}
    snapshot = make_snapshot(make_deployment(status=status), pods={KEY: (make_pod(),)} if pods else {})
    plan, memory = _decide(snapshot)
    assert plan.generation == generation
    assert _decide(snapshot, memory)[0].generation == generation


def test_the_generation_never_falls_behind_the_status_or_the_memory():
    stored = make_deployment(status={"gateway": {"generation": 9}})
    memory = Memory({KEY: DeploymentMemory(size=SizeMemory(since=NOW), serving=False, generation=2)})
    plan, memory = _decide(make_snapshot(stored), memory)
    assert plan.generation == 9
    assert _decide(make_snapshot(make_deployment()), memory)[0].generation == 9


def test_a_request_held_since_before_a_restart_wakes():
    deployment = _scaled(low=0)
    asleep = make_snapshot(deployment, children={KEY: 0}, wakes={KEY: NOW - 2.0})
    assert _decide(asleep)[0].replicas == 1
    # The first counters may be read after the wake signal and before the first decision.
    reading = GatewayReading(NOW - 1.0, {KEY: 1.0})
    memory = observe_demand(make_snapshot(deployment, reading=reading), ROUTES, Memory(), NOW - 1.0, POLICY)
    assert _decide(asleep, memory)[0].replicas == 1


def test_after_a_restart_a_sleeping_model_stays_asleep():
    deployment = _scaled(low=0)
    memory = Memory()
    for age in (10.0, 5.0, 0.0):
        now = NOW - age
        snapshot = make_snapshot(deployment, children={KEY: 0}, reading=GatewayReading(now, {KEY: 1000.0}))
        memory = observe_demand(snapshot, ROUTES, memory, now, POLICY)
        plan, memory = _decide(snapshot, memory, now)
        assert plan.replicas == 0


def test_a_deployment_that_is_gone_is_forgotten():
    _, memory = _decide(make_snapshot(make_deployment()))
    assert decide(make_snapshot(), memory, NOW, POLICY)[1] == Memory({})


def test_one_deployment_is_decided_as_in_the_fleet():
    snapshot = make_snapshot(_scaled(), children={KEY: 1})
    plan, memory = _decide(snapshot, _loaded(4.0))
    alone = decide_deployment(KEY, snapshot, _loaded(4.0).deployments[KEY], NOW, POLICY)
    assert alone == (plan, memory.deployments[KEY])
