"""What holds for every decision, whatever the load, the history and the order of things."""

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.api.llmdeployment import Scaling
from modelyard.core.decide import decide, observe_demand
from modelyard.core.demand import Demand, DemandMemory, DemandPolicy, estimate_demand, observe
from modelyard.core.names import Exposure, build_routing_table, resolve_names
from modelyard.core.replicas import SizeInput, SizeMemory, SizePolicy, decide_size
from modelyard.core.routing import RoutingTable
from modelyard.core.snapshot import GatewayReading, Snapshot
from modelyard.core.state import DeploymentMemory, Memory, Policy
from tests.property.strategies import NOW, inputs, memories, rates, scalings, snapshots

POLICY = SizePolicy()

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
@given(scalings(low=1), st.lists(st.tuples(st.floats(0.1, 120.0), rates), min_size=1, max_size=40))
def test_it_never_shrinks_below_what_was_wanted_within_the_window(
    scaling: Scaling, steps: list[tuple[float, float]]
):
    """Each replica answers 10 requests per second, and every decision is carried out at once."""
    memory, now, current = SizeMemory(since=0.0), NOW, scaling.min
    wanted: list[tuple[float, int]] = []
    for pause, rate in steps:
        now += pause
        data = SizeInput(scaling, current, current, 0, 10.0, Demand(rate, now))
        # What the load asks for by itself: the answer to a rule that remembers nothing.
        alone, _ = decide_size(replace(data, current=1), SizeMemory(since=0.0), now, POLICY)
        wanted.append((now, alone.replicas))
        size, memory = decide_size(data, memory, now, POLICY)
        recent = max(count for time, count in wanted if time >= now - POLICY.down_window)
        if size.replicas < current:
            assert size.replicas == recent
        else:
            assert size.replicas == max(alone.replicas, current)
        current = size.replicas


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


def _history(snapshot: Snapshot) -> Memory:
    """Some load before the present reading."""
    memory = Memory(
        {key: DeploymentMemory(size=SizeMemory(since=NOW - 60.0)) for key in snapshot.deployments}
    )
    past = replace(snapshot, reading=GatewayReading(NOW - 20.0))
    return observe_demand(past, _table(snapshot).routes, memory, NOW - 20.0, Policy())


def _decide(snapshot: Snapshot, memory: Memory) -> Any:
    observed = observe_demand(snapshot, _table(snapshot).routes, memory, NOW, Policy())
    return decide(snapshot, observed, NOW, Policy())


@unhurried
@given(snapshots())
def test_the_same_snapshot_gives_the_same_plan_again(snapshot: Snapshot):
    first, memory = _decide(snapshot, _history(snapshot))
    second, settled = _decide(snapshot, memory)
    assert second == first
    assert _decide(snapshot, settled) == (second, settled)


@unhurried
@given(snapshots(), st.randoms(use_true_random=False))
def test_order_never_matters(snapshot: Snapshot, random: Any):
    def shuffle(mapping: Any) -> dict[str, Any]:
        items = list(mapping.items())
        random.shuffle(items)
        return dict(items)

    shuffled = replace(
        snapshot,
        deployments=shuffle(snapshot.deployments),
        routes=shuffle(snapshot.routes),
        accelerators=shuffle(snapshot.accelerators),
        pods={key: tuple(random.sample(pods, len(pods))) for key, pods in shuffle(snapshot.pods).items()},
        children=shuffle(snapshot.children),
    )
    assert _decide(shuffled, _history(shuffled)) == _decide(snapshot, _history(snapshot))
    assert resolve_names(shuffled) == resolve_names(snapshot)
    assert _table(shuffled) == _table(snapshot)


@unhurried
@given(snapshots())
def test_every_name_leads_to_one_place_and_every_deployment_has_its_key(snapshot: Snapshot):
    table = _table(snapshot)
    names = [name for route in table.routes for name in route.models]
    assert len(names) == len(set(names))
    assert set(names) == set(resolve_names(snapshot))
    by_name = {name: route for route in table.routes for name in route.models}
    for key in snapshot.deployments:
        assert [target.deployment for target in by_name[key].targets] == [key]
    for route in table.routes:
        assert route.targets or route.refusal
        assert all(target.deployment in table.upstreams for target in route.targets)


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
