"""From a size to replicas of variants, and how it gets there without a gap."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.allocation import (
    AllocationMemory,
    Situation,
    allocate,
    build_demand,
    find_unsettled,
    hold_back,
    list_offers,
    wait_for_rest,
)
from modelyard.core.availability import AvailabilityMemory, Shortage
from modelyard.core.inventory import Inventory, Pool, build_inventory
from modelyard.core.placement.problem import Allocation, PlacementPolicy
from modelyard.core.plan import Size
from modelyard.core.reasons import Code, Reason
from modelyard.core.snapshot import ChildDeployment
from modelyard.core.variants import VariantList
from tests.unit.core.build import NOW, make_accelerator, make_deployment, make_node, make_pod, make_variant

POLICY = PlacementPolicy()
CHEAP = make_variant(make_accelerator("cheap", price="1"), pool=Pool("nvidia.com/gpu", (("kind", "cheap"),)))
DEAR = make_variant(
    make_accelerator("dear", price="4"), pool=Pool("nvidia.com/gpu", (("kind", "dear"),)), capacity=3.0
)
LARGE = make_variant(
    make_accelerator("large", price=None), 2, pool=Pool("nvidia.com/gpu", (("kind", "large"),))
)
VARIANTS = (CHEAP, DEAR, LARGE)


def situation(
    *variants: Any,
    spec: dict[str, Any] | None = None,
    children: dict[str, int] | None = None,
    shortages: dict[str, int] | None = None,
    inventory: Inventory | None = None,
    priorities: dict[str, int] | None = None,
) -> Situation:
    ceilings = {
        name: Shortage(ceiling=count, retry_at=NOW, failures=1, free=None, message="")
        for name, count in (shortages or {}).items()
    }
    return Situation(
        deployment=make_deployment(**(spec or {"replicas": 2})),
        choice=VariantList(variants or VARIANTS),
        children={name: ChildDeployment(count) for name, count in (children or {}).items()},
        pods=(),
        availability=AvailabilityMemory(shortages=ceilings),
        inventory=inventory,
        priorities=priorities or {},
    )


def size(replicas: int, capacity: float = 0.0) -> Size:
    return Size(replicas, Reason(Code.OFFERED_LOAD, ""), capacity=capacity)


SCALED = {"scaling": {"min": 2, "max": 9}}


def test_a_fixed_size_asks_for_just_so_many():
    demand = build_demand(situation(), size(5, capacity=99.0))
    assert (demand.minimum, demand.maximum, demand.capacity) == (5, 5, 0.0)


@pytest.mark.parametrize(
    ("low", "replicas", "expected"),
    [(2, 3, (2, 9, 4.5)), (0, 3, (1, 9, 4.5)), (0, 0, (0, 0, 0.0)), (2, 0, (0, 0, 0.0))],
)
def test_load_asks_for_capacity_within_bounds_and_sleep_for_nothing(
    low: int, replicas: int, expected: tuple[int, int, float]
):
    demand = build_demand(situation(spec={"scaling": {"min": low, "max": 9}}), size(replicas, 4.5))
    assert (demand.minimum, demand.maximum, demand.capacity) == expected


def test_a_demand_says_what_each_variant_costs_and_holds():
    spec = {
        "replicas": 2,
        "placement": {"spot": {"onDemandBase": 1}, "priority": "high"},
    }
    demand = build_demand(
        situation(
            spec=spec,
            children={CHEAP.name: 2, "gone": 3, DEAR.name: 0},
            shortages={DEAR.name: 1},
            priorities={"high": 7},
        ),
        size(2),
    )
    assert (demand.priority, demand.on_demand_base, dict(demand.current)) == (7, 1, {CHEAP.name: 2})
    assert [item.price for item in demand.candidates] == pytest.approx([1.0, 4.0, 0.0], rel=1e-4)
    assert [item.accelerators for item in demand.candidates] == [1, 1, 2]
    assert [item.ceiling for item in demand.candidates] == [None, 1, None]
    assert build_demand(situation(), size(1)).priority == 0


def test_with_one_variant_a_shortage_limits_nothing():
    lonely = situation(CHEAP, shortages={CHEAP.name: 0})
    demand = build_demand(lonely, size(3))
    assert demand.candidates[0].ceiling is None
    assert allocate(lonely, demand, None, POLICY).allocation.replicas == {CHEAP.name: 3}


@pytest.mark.parametrize("turned", [False, True])
def test_of_equals_the_first_in_the_spec_is_taken(turned: bool):
    twins = [
        make_variant(make_accelerator(name, price="1"), pool=Pool("gpu", ((name, ""),))) for name in "ab"
    ]
    given = situation(*(twins[::-1] if turned else twins))
    found = allocate(given, build_demand(given, size(3)), None, POLICY).allocation.replicas
    assert found == {twins[1 if turned else 0].name: 3}


@pytest.mark.parametrize(
    ("capacity", "expected"),
    # One that is dear and answers three times as much is never worth it at four times the price; but three of the
    # cheap ones are all that there is room for.
    [(2.0, {CHEAP.name: 2}), (3.0, {CHEAP.name: 3}), (5.5, {CHEAP.name: 3, DEAR.name: 1})],
)
def test_the_cheapest_that_carries_the_load_and_can_be_had(capacity: float, expected: dict[str, int]):
    inventory = build_inventory([make_node("cheap-1", 3), make_node("dear-1", 8)], [], complete=True)
    given = situation(CHEAP, DEAR, spec=SCALED, inventory=inventory)
    assert (
        allocate(given, build_demand(given, size(1, capacity)), None, POLICY).allocation.replicas == expected
    )


def test_what_finds_no_room_waits_on_the_best_variant():
    inventory = build_inventory([make_node("dear-1", 1)], [], complete=True)
    given = situation(CHEAP, DEAR, inventory=inventory)
    allocation = allocate(given, build_demand(given, size(3)), None, POLICY).allocation
    assert allocation.replicas == {CHEAP.name: 2, DEAR.name: 1}


def test_the_rest_waits_within_the_maximum():
    demand = build_demand(situation(CHEAP, DEAR, spec=SCALED), size(9, 40.0))
    placed = Allocation({DEAR.name: 4}, shortage=28.0)
    assert wait_for_rest(demand, placed).replicas == {DEAR.name: 4, CHEAP.name: 5}
    enough = Allocation({CHEAP.name: 40})
    assert wait_for_rest(demand, enough) == enough
    empty = build_demand(situation(CHEAP, DEAR), size(0))
    assert wait_for_rest(empty, Allocation()) == Allocation()


def test_the_same_question_keeps_a_better_answer():
    given = situation(CHEAP, DEAR, spec={"scaling": {"min": 1, "max": 9}})
    demand = build_demand(given, size(3, 3.0))
    better = AllocationMemory(demand, Allocation({DEAR.name: 1, CHEAP.name: 1}))
    written = replace(demand, current={CHEAP.name: 7})
    assert allocate(given, written, better, POLICY) is better
    # A little more or less load, for which it is still right, changes nothing either.
    for capacity in (3.5, 4.0):
        assert allocate(given, build_demand(given, size(4, capacity)), better, POLICY) is better
    for capacity in (2.9, 4.1):
        assert allocate(given, build_demand(given, size(4, capacity)), better, POLICY) is not better


def test_what_waits_for_a_node_is_not_asked_for_again():
    """A size that stays asks for all that was allocated, which is more than the load where whole replicas wait."""
    inventory = build_inventory([make_node("dear-1", 1)], [], complete=True)
    given = situation(CHEAP, DEAR, spec=SCALED, inventory=inventory)
    first = allocate(given, build_demand(given, size(2, 3.5)), None, POLICY)
    assert first.allocation.shortage > 0
    assert first.allocation.replicas == {DEAR.name: 1, CHEAP.name: 1}
    assert allocate(given, build_demand(given, size(2, 4.0)), first, POLICY) is first
    assert allocate(given, build_demand(given, size(3, 4.5)), first, POLICY) is not first


def test_pools_that_variants_share_are_offered_once():
    twin = make_variant(CHEAP.accelerator, 4, pool=CHEAP.pool)
    assert len(list_offers(VariantList((CHEAP, twin, DEAR)))) == 2


def test_a_change_keeps_what_serves_until_the_others_do():
    written, targets = {CHEAP.name: 4}, {DEAR.name: 2}
    names = (CHEAP.name, DEAR.name)

    def write(cheap: int, dear: int) -> dict[str, int]:
        return hold_back(targets, written, dict(zip(names, (cheap, dear), strict=True)), VARIANTS)

    # The targets answer 6 requests/s: all four stay until one of the dear ones serves, then as many as make up for
    # the other.
    assert write(4, 0) == {DEAR.name: 2, CHEAP.name: 4}
    assert write(4, 1) == {DEAR.name: 2, CHEAP.name: 3}
    assert write(4, 2) == {DEAR.name: 2}
    # A replica that does not serve is no reason to wait.
    assert write(0, 0) == {DEAR.name: 2}


def moving(*, serving: int, new: ChildDeployment | None, ready: int | None = None) -> Situation:
    """Three replicas on the cheap variant, of which so many serve, are to move to the dear one."""
    given = situation(children={CHEAP.name: 3})
    children = {CHEAP.name: replace(given.children[CHEAP.name], ready=ready)}
    if new is not None:
        children[DEAR.name] = new
    pods = tuple(make_pod(f"pod-{index}", variant=CHEAP.name) for index in range(serving))
    return replace(given, children=children, pods=pods)


def test_nothing_is_lowered_before_the_pods_in_its_place_exist():
    """Or the disruption budget would take what is left for all there should be, and let one more go."""
    targets = {DEAR.name: 3}
    assert find_unsettled(moving(serving=2, new=None), targets) == {CHEAP.name}
    few = ChildDeployment(2)
    assert find_unsettled(moving(serving=2, new=few), targets) == {CHEAP.name, DEAR.name}
    written = ChildDeployment(3, started=False)
    given = moving(serving=2, new=written)
    assert find_unsettled(given, targets) == {CHEAP.name, DEAR.name}
    unsettled = find_unsettled(given, targets)
    assert hold_back(targets, given.written, {CHEAP.name: 2}, VARIANTS, unsettled) == {
        CHEAP.name: 3,
        DEAR.name: 3,
    }
    assert find_unsettled(moving(serving=2, new=replace(written, started=True)), targets) == frozenset()


def test_nothing_is_lowered_before_kubernetes_has_seen_what_left():
    """Or the ReplicaSet would remove a pod that serves for the one that was evicted."""
    targets, new = {DEAR.name: 3}, ChildDeployment(3)
    assert find_unsettled(moving(serving=2, new=new, ready=3), targets) == {CHEAP.name}
    assert find_unsettled(moving(serving=2, new=new, ready=2), targets) == frozenset()
    # What it has not seen become ready it removes first, which is no harm.
    assert find_unsettled(moving(serving=2, new=new, ready=1), targets) == frozenset()


def test_where_nothing_serves_or_nothing_shall_there_is_nothing_to_wait_for():
    assert find_unsettled(moving(serving=0, new=None, ready=3), {DEAR.name: 3}) == frozenset()
    assert find_unsettled(moving(serving=3, new=None, ready=3), {}) == frozenset()


counts = st.fixed_dictionaries(
    {variant.name: st.integers(0, 5) for variant in VARIANTS} | {"gone": st.integers(0, 5)}
)
targets = st.fixed_dictionaries({variant.name: st.integers(0, 5) for variant in VARIANTS})


@given(targets, counts, counts)
def test_serving_capacity_never_falls_below_the_targets(
    targets: dict[str, int], written: dict[str, int], ready: dict[str, int]
):
    serving = {name: min(ready[name], written[name]) for name in written}
    result = hold_back(targets, written, serving, VARIANTS)
    capacity = {variant.name: variant.capacity for variant in VARIANTS}
    usual = sum(capacity.values()) / len(capacity)

    def total(replicas: dict[str, int]) -> float:
        return sum(count * capacity.get(name, usual) for name, count in replicas.items())

    # Deployments remove the pods that do not serve first, so those that serve stay up to the written number.
    after = {name: min(serving[name], result.get(name, 0)) for name in serving}
    assert total(after) >= min(total(serving), total(targets)) - 1e-9
    for name, count in result.items():
        assert count >= targets.get(name, 0)
        assert count <= max(targets.get(name, 0), serving.get(name, 0))
    assert all(result.get(name, 0) >= count for name, count in targets.items())
    # Nothing superfluous stays: once the targets serve, all else goes.
    done = {name: targets.get(name, 0) for name in written}
    assert hold_back(targets, written, done, VARIANTS) == {
        name: count for name, count in targets.items() if count
    }
    # Carried out and decided again, it is the same.
    assert hold_back(targets, result, after, VARIANTS) == result
