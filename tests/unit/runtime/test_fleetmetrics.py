"""What a scrape works out from the fleet: values, and that what is gone leaves no series."""

from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry

from modelyard.api.llmbudget import LLMBudget
from modelyard.core.budget.judge import judge_budgets
from modelyard.core.plan import DeploymentPlan, Size
from modelyard.core.reasons import Code, Reason
from modelyard.core.replicas import SizeMemory
from modelyard.core.scaling.forecast import Forecast
from modelyard.core.scaling.headroom import Headroom, Pending
from modelyard.core.scaling.rule import LoadMemory
from modelyard.core.snapshot import GatewayReading
from modelyard.core.spend import HOUR, Spend, SpendKey, SpendLine
from modelyard.core.state import DeploymentMemory, Policy
from modelyard.gateway.ads import Node
from modelyard.gateway.streams import Stream
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen, SeenNode
from modelyard.kube.resources import LLM_DEPLOYMENTS, PODS
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.fleetmetrics import GAUGES, FleetCollector
from modelyard.runtime.holds import HoldBoard
from modelyard.runtime.queue import WorkQueue
from tests.unit.core.build import (
    KEY,
    NOW,
    make_accelerator,
    make_deployment,
    make_node,
    make_placement,
    make_pod,
)

STATES = ("serving", "starting", "pending", "leaving")
LABELS = {"namespace": "team", "deployment": "llama"}


class Watched:
    def __init__(self):
        self.events = {PODS: NOW}

    def ages(self):
        return {LLM_DEPLOYMENTS: 12.0}


def condition(kind, status, reason):
    stamp = "2026-11-30T12:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": stamp}


class Scene:
    def __init__(self):
        self.objects, self.pods = {}, {}
        self.nodes = {"n": [SeenNode("n", make_node(gpus=4))]}
        self.fleet = Fleet(
            indices=Indices(
                deployments=self.objects,
                pods=self.pods,
                accelerators={"l4": [Seen(uid="2", version="1", object=make_accelerator())]},
                nodes=self.nodes,
            )
        )
        self.now, self.acts = 0.0, True
        self.holds = HoldBoard(lambda _: False, lambda: self.now)
        self.queue = WorkQueue()
        self.registry = CollectorRegistry()
        self.envoys: list[Node] = []
        self.collector = FleetCollector(
            self.fleet, self.queue, self.holds, Watched(), lambda: self.envoys, Policy(), lambda: self.acts
        )
        self.registry.register(self.collector)

    def add(self, key=KEY, *pods, ready=("False", "Loading")):
        status = {"observedGeneration": 3, "conditions": [condition("Ready", *ready)]}
        deployment = make_deployment(key, scaling={"max": 4}, status=status)
        self.objects[key] = [Seen(uid=key, version="1", object=deployment)]
        self.pods[key] = list(pods)

    def value(self, metric, /, **labels):
        return self.registry.get_sample_value(metric, labels)

    def series(self):
        return [sample for family in self.registry.collect() for sample in family.samples]


@pytest.fixture
def scene():
    return Scene()


def test_pods_are_counted_by_state(scene):
    scene.add(
        KEY,
        make_pod("a"),
        make_pod("b", ready=False),
        make_pod("c", ready=False, scheduled=False, phase="Pending"),
        make_pod("d", terminating=True),
        make_pod("e"),
    )
    states = {state: scene.value("modelyard_replicas", **LABELS, state=state) for state in STATES}
    assert states == {"serving": 2, "starting": 1, "pending": 1, "leaving": 1}


def test_a_condition_has_one_series_with_its_reason(scene):
    scene.add()
    labels = {"kind": "LLMDeployment", "namespace": "team", "name": "llama", "type": "Ready"}
    assert scene.value("modelyard_condition", **labels, reason="Loading") == 0
    scene.add(ready=("True", "Serving"))
    assert scene.value("modelyard_condition", **labels, reason="Serving") == 1
    assert scene.value("modelyard_condition", **labels, reason="Loading") is None


def test_load_and_its_forecast(scene):
    scene.add()
    headroom = Headroom(pending=(Pending(NOW + 60, 2.0, 2.5),), observed=1800.0, error=0.09, power=1.0)
    load = LoadMemory(forecast=Forecast(NOW, fast=2.0, slow=2.0, dispersion=1.0), headroom=headroom)
    scene.fleet.memory[KEY] = DeploymentMemory(size=SizeMemory(since=0.0, load=load))
    scene.fleet.reading = GatewayReading(NOW, active={KEY: 7})
    assert scene.value("modelyard_offered_requests_per_second", **LABELS) == pytest.approx(2.0)
    assert scene.value("modelyard_forecast_requests_per_second", **LABELS) == 2.5
    # Half measured (0.3), half assumed (0.1): the root of the mean of squares.
    assert scene.value("modelyard_forecast_error_ratio", **LABELS) == pytest.approx((0.045 + 0.005) ** 0.5)
    assert scene.value("modelyard_requests_in_progress", **LABELS) == 7
    assert scene.value("modelyard_gateway_reading_timestamp_seconds") == NOW


def test_what_is_not_known_has_no_value(scene):
    scene.add()
    names = {sample.name for sample in scene.series()}
    assert names.isdisjoint(
        {
            "modelyard_offered_requests_per_second",
            "modelyard_requests_in_progress",
            "modelyard_cost_dollars_per_million_tokens",
            "modelyard_gateway_reading_timestamp_seconds",
            "modelyard_spend_timestamp_seconds",
            "modelyard_held_seconds",
        }
    )


def test_plan_and_hold(scene):
    scene.add()
    size = Size(3, Reason(Code.OFFERED_LOAD, "because"), capacity=9.0)
    scene.fleet.plans[KEY] = DeploymentPlan(KEY, placement=make_placement(), size=size, replicas=4)
    scene.holds.note(KEY)
    scene.now = 31.0
    assert scene.value("modelyard_wanted_replicas", **LABELS) == 4
    assert scene.value("modelyard_planned_requests_per_second", **LABELS) == 9.0
    assert scene.value("modelyard_held_seconds", **LABELS) == 31.0


async def test_queue_and_watches(scene):
    assert scene.value("modelyard_queue_oldest_seconds") == 0
    scene.queue.add("a/b")
    assert scene.value("modelyard_queue_length") == 1
    assert scene.value("modelyard_queue_oldest_seconds") > 0
    assert scene.value("modelyard_watch_age_seconds", resource="llmdeployments") == 12.0
    assert scene.value("modelyard_watch_last_event_timestamp_seconds", resource="pods") == NOW


def test_envoys_are_counted_when_they_come_and_go_not_when_they_are_read(scene):
    scene.envoys[:] = [
        Node("a", connected=True, stream=Stream(lambda *_: None, rejections=2)),
        Node("b", connected=True, stream=Stream(lambda *_: None, rejections=1)),
    ]
    assert scene.value("modelyard_gateway_nodes") == 2
    assert scene.value("modelyard_gateway_rejections") == 3
    scene.envoys[0].connected = False
    assert scene.value("modelyard_gateway_nodes") == 1
    assert scene.value("modelyard_gateway_rejections") == 1


def test_accelerators_of_a_class(scene):
    scene.add(KEY, make_pod("a", node="node-1", accelerators={"nvidia.com/gpu": 1}))
    assert scene.value("modelyard_accelerators", **{"class": "l4"}) == 4
    assert scene.value("modelyard_accelerators_free", **{"class": "l4"}) == 3


@pytest.mark.parametrize(
    ("dollars", "states"),
    [(1.0, (0, 0, 0)), (8.5, (1, 0, 0)), (10.0, (1, 1, 0)), (None, (0, 0, 1))],
    ids=["within", "soft", "hard", "unknown"],
)
def test_budgets(scene, dollars, states):
    spec = {"amount": "10", "period": "Month", "soft": {"at": "0.8", "action": "Sleep"}}
    budget = LLMBudget.model_validate({"metadata": {"name": "all", "namespace": "system"}, "spec": spec})
    lines = (SpendLine(int(NOW - NOW % HOUR), SpendKey(), "Own", dollars),) if dollars is not None else ()
    spend = None if dollars is None else Spend(NOW, lines)
    scene.fleet.budgets = judge_budgets([budget], spend, NOW)
    assert scene.value("modelyard_budget_amount_dollars", budget="all") == float(Decimal(10))
    assert scene.value("modelyard_budget_spent_dollars", budget="all") == dollars
    names = ("soft", "hard", "unknown")
    found = tuple(scene.value("modelyard_budget_state", budget="all", state=name) for name in names)
    assert found == states


def test_series_of_what_is_gone_are_gone_and_each_object_has_few(scene):
    empty = len(scene.series())
    for number in range(50):
        scene.add(f"team/m{number}", make_pod(f"p{number}"))
    full = len(scene.series())
    assert full - empty <= 50 * len(GAUGES)
    for number in range(50):
        del scene.objects[f"team/m{number}"]
        scene.fleet.forget(f"team/m{number}")
    assert len(scene.series()) == empty
    assert not [sample for sample in scene.series() if "deployment" in sample.labels]


def test_what_is_described_is_what_is_collected(scene):
    assert {family.name for family in scene.collector.describe()} == set(GAUGES)
    assert {family.name for family in scene.collector.collect()} == set(GAUGES)


def test_a_standby_says_nothing_of_the_fleet(scene):
    """The sum over both operators is right."""
    scene.add()
    scene.acts = False
    assert scene.series() == []
