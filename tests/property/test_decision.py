"""What holds for every decision, whatever the load, the history and the order of things."""

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.core.availability import AvailabilityMemory
from modelyard.core.decide import decide, observe_demand
from modelyard.core.demand import DemandMemory, DemandPolicy, estimate_demand, observe
from modelyard.core.names import Exposure, build_routing_table, resolve_names
from modelyard.core.plan import Placement, Plan
from modelyard.core.reasons import Reason
from modelyard.core.replicas import SizeInput, SizeMemory, SizePolicy, decide_size
from modelyard.core.routing import RoutingTable
from modelyard.core.snapshot import GatewayReading, Snapshot
from modelyard.core.state import DeploymentMemory, Memory, Policy
from modelyard.core.status import build_status
from modelyard.core.variants import VariantList
from modelyard.gateway.resources import build_resources
from modelyard.render.envoy.settings import GatewaySettings
from tests.property.strategies import (
    ACCELERATORS,
    NOW,
    availabilities,
    fleets,
    inputs,
    make_inventory,
    memories,
    rates,
    shuffle,
    shuffle_snapshot,
    snapshots,
)
from tests.unit.core.build import make_deployment

POLICY = SizePolicy()
SETTINGS = GatewaySettings()
NOTHING_MISSING = AvailabilityMemory()

# How long an example takes depends on the machine's other work, and says nothing about the decision.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(inputs(), memories())
def test_size_is_always_within_its_bounds(data: SizeInput, memory: SizeMemory):
    size, _ = decide_size(data, memory, NOW, POLICY)
    assert data.scaling.min <= size.replicas <= data.scaling.max


@unhurried
@given(inputs(known=False), memories())
def test_unknown_demand_never_makes_it_smaller(data: SizeInput, memory: SizeMemory):
    size, _ = decide_size(data, memory, NOW, POLICY)
    assert size.replicas >= min(data.current or 0, data.scaling.max)


@unhurried
@given(inputs(low=1, known=True), memories(), rates)
def test_more_load_never_means_fewer_replicas(data: SizeInput, memory: SizeMemory, other: float):
    assert data.demand is not None
    less, more = sorted((data.demand.rate, other))
    sizes = [
        decide_size(replace(data, demand=replace(data.demand, rate=rate)), memory, NOW, POLICY)[0].replicas
        for rate in (less, more)
    ]
    assert sizes == sorted(sizes)


@unhurried
@given(inputs(low=1, known=True), memories())
def test_a_size_that_is_reached_carries_the_load_or_is_the_maximum(data: SizeInput, memory: SizeMemory):
    assert data.demand is not None
    if data.current == 0:
        data = replace(data, current=1)
    size, _ = decide_size(data, memory, NOW, POLICY)
    carried = size.replicas * data.capacity * POLICY.utilization
    assert size.replicas == data.scaling.max or carried >= data.demand.rate * (1 - 1e-6) - 1e-6


@unhurried
@given(st.lists(st.tuples(st.floats(0.1, 60.0), st.floats(-1000.0, 1000.0)), max_size=60))
def test_demand_is_never_negative_and_its_memory_is_bounded(steps: list[tuple[float, float]]):
    policy = DemandPolicy()
    memory, now, total = DemandMemory(), NOW, 0.0
    for pause, change in steps:
        now += pause
        total = max(total + change, 0.0)
        memory = observe(memory, now, total, policy)
        demand = estimate_demand(memory, now, policy)
        assert demand is None or demand.rate >= 0.0
        assert [item.time for item in memory.samples] == sorted({item.time for item in memory.samples})
        assert sum(item.time < now - policy.long_window for item in memory.samples) <= 1


def _table(snapshot: Snapshot) -> RoutingTable:
    exposures = {key: Exposure(generation=1) for key in snapshot.deployments}
    return build_routing_table(snapshot, resolve_names(snapshot), exposures, RoutingTable(), anonymous=False)


def _history(snapshot: Snapshot, availability: AvailabilityMemory = NOTHING_MISSING) -> Memory:
    """Some load before the present reading, and the same that is remembered of all deployments' variants."""
    memory = Memory(
        {
            key: DeploymentMemory(size=SizeMemory(since=NOW - 60.0), availability=availability)
            for key in snapshot.deployments
        }
    )
    past = replace(snapshot, reading=GatewayReading(NOW - 20.0))
    return observe_demand(past, _table(snapshot).routes, memory, NOW - 20.0, Policy())


def _decide(snapshot: Snapshot, memory: Memory) -> tuple[Plan, Memory]:
    observed = observe_demand(snapshot, _table(snapshot).routes, memory, NOW, Policy())
    return decide(snapshot, observed, NOW, Policy())


def _writes(plan: Plan) -> dict[str, Any]:
    """What is written of a plan: replicas by variant, and which children go."""
    return {
        key: None
        if item.placement is None
        else (
            [(each.variant.name, each.replicas) for each in item.placement.variants],
            item.placement.remove,
            item.generation,
        )
        for key, item in plan.deployments.items()
    }


@unhurried
@given(snapshots(), availabilities())
def test_the_same_snapshot_gives_the_same_plan_again(snapshot: Snapshot, availability: AvailabilityMemory):
    first, memory = _decide(snapshot, _history(snapshot, availability))
    second, settled = _decide(snapshot, memory)
    # Only words may differ: what stands is told in the replicas that were decided, once there are any.
    assert _writes(second) == _writes(first)
    assert _decide(snapshot, settled) == (second, settled)


@unhurried
@given(fleets(), availabilities(), st.randoms(use_true_random=False))
def test_order_never_matters(snapshot: Snapshot, availability: AvailabilityMemory, random: Random):
    shuffled = shuffle_snapshot(snapshot, random)
    before = _decide(snapshot, _history(snapshot, availability))
    assert _decide(shuffled, _history(shuffled, shuffle(availability, random))) == before
    assert resolve_names(shuffled) == resolve_names(snapshot)
    assert _table(shuffled) == _table(snapshot)
    # Where they do not look the same in Envoy, every start of the operator and every second one of two would push them.
    assert (
        build_resources(_table(shuffled), SETTINGS).version
        == build_resources(_table(snapshot), SETTINGS).version
    )


@unhurried
@given(snapshots())
def test_every_name_leads_to_one_place_and_every_deployment_has_its_key(snapshot: Snapshot):
    table = _table(snapshot)
    names = [name for route in table.routes for name in route.models]
    assert len(names) == len(set(names))
    assert set(names) == set(resolve_names(snapshot))
    by_name = {name: route for route in table.routes for name in route.models}
    for key in snapshot.deployments:
        assert [target.upstream for target in by_name[key].targets] == [key]
    for route in table.routes:
        assert route.targets or route.refusal
        assert all(target.upstream in table.upstreams for target in route.targets)


@unhurried
@given(snapshots())
def test_a_plan_refuses_or_places_and_never_does_both_by_halves(snapshot: Snapshot):
    plan, _ = _decide(snapshot, _history(snapshot))
    assert set(plan.deployments) == set(snapshot.deployments)
    for key, item in plan.deployments.items():
        assert (item.refusal is None) == (item.size is not None)
        assert item.refusal is None or item.replicas is None
        stored = snapshot.deployments[key].status.gateway
        assert stored is not None
        assert stored.generation <= item.generation <= stored.generation + 1


def _decided(plan: Plan) -> dict[str, Placement]:
    return {key: item.placement for key, item in plan.deployments.items() if item.placement is not None}


def _left_behind(snapshot: Snapshot, memory: Memory, key: str) -> set[str]:
    """Return the children of variants that the spec does not allow any more: only those may go without a decision."""
    choice = memory.deployments[key].choice
    assert choice is not None
    assert isinstance(choice.answer, VariantList)
    return set(snapshot.children.get(key, {})) - {variant.name for variant in choice.answer.variants}


@unhurried
@given(snapshots(), availabilities())
def test_bounds_hold_and_what_does_not_act_changes_nothing(
    snapshot: Snapshot, availability: AvailabilityMemory
):
    plan, memory = _decide(snapshot, _history(snapshot, availability))
    for key, placement in _decided(plan).items():
        spec = snapshot.deployments[key].spec
        children = snapshot.children.get(key, {})
        wanted = sum(item.wanted for item in placement.variants)
        if spec.suspend:
            assert [item.replicas for item in placement.variants] == [0]
            assert set(placement.remove) == set(children) - {placement.main.name}
        elif spec.scaling is None:
            assert wanted == spec.replicas
        elif spec.scaling.actuator == "External":
            assert [item.replicas for item in placement.variants] == [None]
            assert set(placement.remove) <= _left_behind(snapshot, memory, key)
        elif spec.scaling.mode == "Advise":
            present = {name: child.replicas for name, child in children.items()}
            for item in placement.variants:
                assert (
                    not (present.keys() & {item.variant.name}) or item.replicas == present[item.variant.name]
                )
            assert set(placement.remove) <= _left_behind(snapshot, memory, key)
        else:
            assert spec.scaling.min <= wanted <= spec.scaling.max


@unhurried
@given(snapshots(), availabilities())
def test_what_serves_stays_until_as_much_serves_in_its_place(
    snapshot: Snapshot, availability: AvailabilityMemory
):
    plan, memory = _decide(snapshot, _history(snapshot, availability))
    for key, placement in _decided(plan).items():
        scaling = snapshot.deployments[key].spec.scaling
        if scaling is not None and (scaling.actuator == "External" or scaling.mode == "Advise"):
            continue
        choice = memory.deployments[key].choice
        assert choice is not None
        assert isinstance(choice.answer, VariantList)
        capacity = {variant.name: variant.capacity for variant in choice.answer.variants}
        usual = sum(capacity.values()) / len(capacity)
        children = snapshot.children.get(key, {})
        serving = {
            name: min(sum(pod.serving and pod.variant == name for pod in snapshot.pods[key]), child.replicas)
            for name, child in children.items()
        }
        written = {name: child.replicas for name, child in children.items() if name not in placement.remove}
        written |= {item.variant.name: item.replicas or 0 for item in placement.variants}
        before = sum(count * capacity.get(name, usual) for name, count in serving.items())
        after = sum(
            min(count, written.get(name, 0)) * capacity.get(name, usual) for name, count in serving.items()
        )
        target = sum(item.wanted * item.variant.capacity for item in placement.variants)
        assert after >= min(before, target) - 1e-9


@unhurried
@given(snapshots())
def test_lost_metrics_take_no_capacity_away(snapshot: Snapshot):
    snapshot = replace(snapshot, reading=None, inventory=None)
    plan, memory = _decide(snapshot, _history(snapshot))
    for key, placement in _decided(plan).items():
        spec = snapshot.deployments[key].spec
        written = {name: child.replicas for name, child in snapshot.children.get(key, {}).items()}
        choice = memory.deployments[key].choice
        if (
            spec.scaling is None
            or spec.suspend
            or choice is None
            or not isinstance(choice.answer, VariantList)
        ):
            continue
        acts = spec.scaling.actuator == "Modelyard" and spec.scaling.mode == "Active"
        if acts and sum(written.values()) <= spec.scaling.max:
            capacity = {variant.name: variant.capacity for variant in choice.answer.variants}
            held = sum(count * capacity.get(name, 0.0) for name, count in written.items())
            carried = sum(item.wanted * item.variant.capacity for item in placement.variants)
            # A variant whose pods find no node is replaced by what can be had, which may be smaller, up to `max`.
            replaced = set(memory.deployments[key].availability.shortages) & set(written)
            most = sum(item.wanted for item in placement.variants) == spec.scaling.max
            assert carried >= held - 1e-9 or (replaced and most)


@unhurried
@given(st.lists(st.integers(0, 3), max_size=4))
def test_a_fleet_that_fits_is_placed_within_what_there_is(replicas: list[int]):
    """Four replicas of two accelerators fit, on three kinds of node."""
    deployments = {
        f"team/llama-{index}": make_deployment(
            f"team/llama-{index}",
            placement={"accelerators": [{"class": name, "count": 2} for name in ("l4", "h100")], "spot": {}},
            replicas=count,
        )
        for index, count in enumerate(replicas)
    }
    snapshot = Snapshot(deployments=deployments, accelerators=ACCELERATORS, inventory=make_inventory({}))
    plan, _ = decide(snapshot, Memory(), NOW, Policy())
    used: dict[str, int] = {}
    for placement in _decided(plan).values():
        for item in placement.variants:
            used[item.variant.label] = used.get(item.variant.label, 0) + item.wanted
    total = sum(replicas)
    room = {"2 x l4": 1, "2 x h100": 1, "2 x h100 spot": 2}
    assert sum(used.values()) == total
    if total <= sum(room.values()):
        assert all(count <= room[label] for label, count in used.items())


@unhurried
@given(snapshots(), availabilities())
def test_a_status_that_is_written_is_not_written_again(snapshot: Snapshot, availability: AvailabilityMemory):
    first, memory = _decide(snapshot, _history(snapshot, availability))
    second, _ = _decide(snapshot, memory)
    names = resolve_names(snapshot)
    for key, deployment in snapshot.deployments.items():
        name = (True, Reason("Routed", f"{len(names)} names"))
        written = build_status(deployment, first.deployments[key], snapshot, name, None, NOW)
        after = deployment.model_copy(update={"status": written})
        later = build_status(after, second.deployments[key], snapshot, name, None, NOW + 100.0)
        # What cannot be known at the first decision after a start: which of the replicas only stay for a while.
        known = first.deployments[key].size
        if known is None or known.known:
            assert later == written
        settled = after.model_copy(update={"status": later})
        assert build_status(settled, second.deployments[key], snapshot, name, None, NOW + 200.0) == later
