"""Where a deployment runs, which child Deployments it has, and what it waits for."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modelyard.api.llmdeployment import LLMDeploymentStatus
from modelyard.api.meta import Refusal
from modelyard.core.allocation import AllocationMemory, Situation
from modelyard.core.availability import AvailabilityMemory, Shortage
from modelyard.core.decide import find_reference
from modelyard.core.inventory import Pool, Usage, build_inventory
from modelyard.core.load import Objective
from modelyard.core.perf.predict import Capacity, Performance
from modelyard.core.place import cost_of_load, find_main, measure_room, place
from modelyard.core.placement.problem import Allocation, PlacementPolicy
from modelyard.core.plan import DeploymentPlan, Placement, Size, VariantPlan
from modelyard.core.reasons import Code, Reason
from modelyard.core.snapshot import ChildDeployment
from modelyard.core.status import build_status
from modelyard.core.variants import Variant, VariantList
from tests.unit.core.build import (
    KEY,
    NOW,
    make_accelerator,
    make_deployment,
    make_node,
    make_placement,
    make_pod,
    make_snapshot,
    make_variant,
)

GPU = "nvidia.com/gpu"
CHEAP = make_variant(make_accelerator("cheap", price="1"), pool=Pool(GPU, (("kind", "cheap"),)))
DEAR = make_variant(make_accelerator("dear", price="2"), pool=Pool(GPU, (("kind", "dear"),)))
BOTH = (CHEAP, DEAR)


def situation(
    *variants: Variant,
    children: dict[str, int] | None = None,
    serving: dict[str, int] | None = None,
    shortages: dict[str, Shortage] | None = None,
    inventory: Any = None,
    **spec: Any,
) -> Situation:
    """A deployment on these variants; all pods of its children serve, unless `serving` says how many."""
    pods = tuple(
        make_pod(f"{name}-{index}", variant=name)
        for name, count in ((children or {}) if serving is None else serving).items()
        for index in range(count)
    )
    return Situation(
        deployment=make_deployment(**spec),
        choice=VariantList(variants or BOTH),
        children={name: ChildDeployment(count) for name, count in (children or {}).items()},
        pods=pods,
        availability=AvailabilityMemory(shortages=shortages or {}),
        inventory=inventory,
    )


def decide(given: Situation, replicas: int, capacity: float = 0.0) -> Placement:
    size = Size(replicas, Reason(Code.FIXED, ""), capacity=capacity)
    return place(given, size, None, PlacementPolicy())[0]


def counts(placement: Placement) -> dict[str, int | None]:
    return {item.variant.name: item.replicas for item in placement.variants}


def shortage(ceiling: int = 0) -> Shortage:
    return Shortage(ceiling, NOW + 300.0, 1, None, "0/3 nodes are available")


def test_the_main_variant_is_that_of_most_replicas():
    given = situation()
    assert find_main(given, {CHEAP.name: 1, DEAR.name: 2}) is DEAR
    assert find_main(given, {CHEAP.name: 2, DEAR.name: 2}) is CHEAP
    assert find_main(given, {"gone": 9, DEAR.name: 1}) is DEAR


def test_without_replicas_the_child_that_stands_is_the_main_one_else_the_cheapest_to_be_had():
    assert find_main(situation(children={DEAR.name: 0}), {}) is DEAR
    assert find_main(situation(children={"gone": 3}), {}) is CHEAP
    assert find_main(situation(), {}) is CHEAP
    assert find_main(situation(shortages={CHEAP.name: shortage()}), {}) is DEAR
    spot = make_variant(CHEAP.accelerator, spot=True, price=Decimal("0.1"))
    assert find_main(situation(spot, DEAR), {}) is DEAR


def test_what_is_not_known_any_more_is_removed_once_others_serve():
    given = situation(children={"gone": 2, CHEAP.name: 2}, serving={"gone": 2}, replicas=2)
    assert decide(given, 2).remove == ()
    given = situation(children={"gone": 2, CHEAP.name: 2}, serving={"gone": 2, CHEAP.name: 2}, replicas=2)
    assert decide(given, 2).remove == ("gone",)


def test_a_child_that_gives_way_goes_when_the_others_serve():
    given = situation(children={DEAR.name: 2, CHEAP.name: 2}, serving={DEAR.name: 2}, replicas=2)
    memory = AllocationMemory(
        place(given, _fixed(2), None, PlacementPolicy())[2].demand, Allocation({CHEAP.name: 2})
    )  # type: ignore[union-attr]
    placement, _, _ = place(given, _fixed(2), memory, PlacementPolicy())
    assert counts(placement) == {CHEAP.name: 2, DEAR.name: 2}
    assert [item.wanted for item in placement.variants] == [2, 0]
    given = situation(children={DEAR.name: 2, CHEAP.name: 2}, replicas=2)
    placement, _, _ = place(given, _fixed(2), memory, PlacementPolicy())
    assert counts(placement) == {CHEAP.name: 2}
    assert placement.remove == (DEAR.name,)


def _fixed(replicas: int) -> Size:
    return Size(replicas, Reason(Code.FIXED, ""))


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 3, "suspend": True},
        {"replicas": 0},
        {"scaling": {"min": 0, "max": 3}},
        {"scaling": {"min": 1, "max": 3, "mode": "Advise"}, "suspend": True},
        {"scaling": {"min": 1, "max": 3, "actuator": "External"}, "suspend": True},
    ],
)
def test_at_rest_just_one_child_stays_with_no_replicas(spec: dict[str, Any]):
    placement = decide(situation(children={CHEAP.name: 1, DEAR.name: 2, "gone": 1}, **spec), 0)
    assert counts(placement) == {DEAR.name: 0}
    assert placement.remove == tuple(sorted((CHEAP.name, "gone")))


@pytest.mark.parametrize("extra", [{}, {"mode": "Advise"}])
def test_an_external_actuator_gets_one_child_and_no_other_is_touched(extra: dict[str, str]):
    scaling = {"min": 1, "max": 9, "actuator": "External", **extra}
    given = situation(children={CHEAP.name: 1, DEAR.name: 2}, scaling=scaling)
    placement, size, memory = place(given, _fixed(7), None, PlacementPolicy())
    assert (counts(placement), placement.remove, size.replicas, memory) == ({DEAR.name: None}, (), 7, None)


def test_advise_leaves_every_child_as_it_is():
    scaling = {"min": 2, "max": 9, "mode": "Advise"}
    placement = decide(situation(children={CHEAP.name: 1, DEAR.name: 3}, scaling=scaling), 7)
    assert (counts(placement), placement.remove) == ({DEAR.name: 3, CHEAP.name: 1}, ())
    assert counts(decide(situation(scaling=scaling), 7)) == {CHEAP.name: 2}


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_a_fixed_size_is_kept_whatever_the_nodes_hold(replicas: int):
    inventory = build_inventory([make_node("dear-1", 3)], [], complete=True)
    placement = decide(situation(inventory=inventory, replicas=replicas), replicas)
    assert sum(item.replicas or 0 for item in placement.variants) == replicas


def test_the_size_is_told_in_replicas_that_there_are():
    strong = make_variant(make_accelerator("strong", price="3"), capacity=5.0)
    given = situation(CHEAP, strong, scaling={"min": 1, "max": 9})
    _, size, _ = place(given, Size(5, Reason(Code.OFFERED_LOAD, ""), capacity=5.0), None, PlacementPolicy())
    assert size.replicas == 1


OFFERED = Reason(Code.OFFERED_LOAD, "5.00 requests/s at 1.00 a replica, need 5")


def tell(given: Situation, size: Size) -> str:
    return place(given, size, None, PlacementPolicy())[1].reason.message


def test_the_size_says_what_really_answers():
    scaling = {"min": 1, "max": 9}
    counted = Size(5, OFFERED, capacity=5.0)
    assert tell(situation(scaling=scaling), counted) == OFFERED.message
    strong = make_variant(make_accelerator("strong", price="3"), capacity=5.5)
    other = tell(situation(CHEAP, strong, scaling=scaling), counted)
    assert other == f"{OFFERED.message}: 1 on 1 x strong answers 5.50 requests/s"
    inventory = build_inventory([make_node("cheap-1", 3), make_node("dear-1", 8)], [], complete=True)
    mixed = tell(situation(scaling=scaling, inventory=inventory), counted)
    assert mixed == f"{OFFERED.message}: 3 on 1 x cheap and 2 on 1 x dear answer 5.00 requests/s"
    full = build_inventory([make_node("dear-1", 8)], [], complete=True)
    all_dear = tell(situation(scaling=scaling, inventory=full), counted)
    assert all_dear == f"{OFFERED.message}: 5 on 1 x dear answer 5.00 requests/s"


def test_replicas_kept_for_the_loss_of_a_zone_are_told():
    pool = Pool(GPU, (("kind", "spot"),), zoned=True)
    spot = make_variant(make_accelerator("cheap", price="0.1"), spot=True, pool=pool)
    nodes = [
        make_node(f"spot-{zone}", 8, labels={"kind": "spot", "topology.kubernetes.io/zone": zone})
        for zone in "abc"
    ]
    inventory = build_inventory(nodes, [], complete=True)
    given = situation(spot, DEAR, scaling={"min": 1, "max": 20}, inventory=inventory)
    message = tell(given, Size(10, OFFERED, capacity=10.0))
    assert message.endswith(
        ": 15 on 1 x cheap spot answer 15.00 requests/s, more than the load needs: the spot replicas of one zone may "
        "be lost at once"
    )
    assert "lost" not in tell(situation(scaling={"min": 1, "max": 20}), Size(10, OFFERED, capacity=10.0))


def too_slow(latency: float) -> Capacity:
    best = Performance(latency, 1.0, 0.1, 10.0)
    return Capacity(0.0, 0, "interTokenLatency", best, best, Objective(1.0, 0.001), 0.1)


SLOW = replace(CHEAP, speed=too_slow(0.03), capacity=0.5)
FAST = replace(DEAR, speed=too_slow(0.01), capacity=1.0)


def test_where_none_meets_the_objective_the_fastest_is_used():
    scaling = {"min": 1, "max": 9}
    for spec, size in (
        ({"scaling": scaling}, Size(2, OFFERED, capacity=2.0)),
        ({"replicas": 2}, _fixed(2)),
    ):
        placement = place(situation(SLOW, FAST, **spec), size, None, PlacementPolicy())[0]
        assert counts(placement) == {FAST.name: 2}
        assert placement.preferred is not None
        assert placement.preferred.code == Code.OBJECTIVE_MISSED
    resting = place(situation(SLOW, FAST, scaling=scaling), Size(0, OFFERED), None, PlacementPolicy())[0]
    assert counts(resting) == {FAST.name: 0}
    one_is_fast = situation(replace(SLOW, speed=None), FAST, replicas=2)
    assert counts(place(one_is_fast, _fixed(2), None, PlacementPolicy())[0]) == {CHEAP.name: 2}


def test_the_next_fastest_is_used_while_the_fastest_cannot_be_had():
    given = situation(SLOW, FAST, shortages={FAST.name: shortage()}, replicas=2)
    placement = place(given, _fixed(2), None, PlacementPolicy())[0]
    assert counts(placement) == {SLOW.name: 2}
    assert placement.preferred is not None
    assert placement.preferred.code == Code.CAPACITY_MISSING
    few = build_inventory([make_node("cheap-1", 8), make_node("dear-1", 1)], [], complete=True)
    given = situation(SLOW, FAST, inventory=few, replicas=2)
    assert counts(place(given, _fixed(2), None, PlacementPolicy())[0]) == {SLOW.name: 2}
    enough = build_inventory([make_node("cheap-1", 8), make_node("dear-1", 2)], [], complete=True)
    given = situation(SLOW, FAST, inventory=enough, children={SLOW.name: 2}, replicas=2)
    assert [
        (item.variant.name, item.wanted)
        for item in place(given, _fixed(2), None, PlacementPolicy())[0].variants
    ] == [(FAST.name, 2), (SLOW.name, 0)]


def test_a_slow_replica_is_not_told_to_answer_nothing():
    weak = replace(CHEAP, capacity=0.002)
    message = decide(situation(weak, replace(DEAR, capacity=0.0005), replicas=1), 1).message
    assert ": 0.12 requests a minute and replica" in message
    assert "($2/h, 0.03 requests a minute)" in message


def test_an_unknown_load_keeps_its_number():
    given = situation(children={CHEAP.name: 4}, scaling={"min": 1, "max": 9})
    unknown = Size(4, Reason(Code.NO_DATA, ""), known=False, capacity=4.0)
    placement, size, _ = place(given, unknown, None, PlacementPolicy())
    assert (counts(placement), size) == ({CHEAP.name: 4}, unknown)


def test_what_it_waits_for_is_said_with_the_time_of_the_next_attempt():
    given = situation(shortages={CHEAP.name: shortage()}, replicas=1)
    reason = decide(given, 1).preferred
    assert reason is not None
    assert reason.code == Code.CAPACITY_MISSING
    assert "waits for 1 x cheap: 0/3 nodes are available; runs on 1 x dear meanwhile" in reason.message
    assert "08:05:00Z" in reason.message
    alone = situation(CHEAP, shortages={CHEAP.name: shortage()}, replicas=1)
    assert decide(alone, 1).preferred is None


def test_nodes_without_room_for_the_cheapest_are_said_too():
    inventory = build_inventory([make_node("cheap-1", 1), make_node("dear-1", 4)], [], complete=True)
    reason = decide(situation(inventory=inventory, replicas=3), 3).preferred
    assert reason is not None
    assert reason.code == Code.CAPACITY_MISSING
    assert "1 x cheap" in reason.message.partition(":")[0]
    roomy = build_inventory([make_node("cheap-1", 8)], [], complete=True)
    assert decide(situation(inventory=roomy, replicas=3), 3).preferred is None


def test_the_choice_is_explained_with_price_capacity_and_runner_up():
    message = decide(situation(replicas=1), 1).message
    assert message.startswith("1 x cheap ($1/h a replica): 60 requests a minute and replica")
    assert "next: 1 x dear ($2/h, 60 requests a minute)" in message
    unpriced = make_variant(make_accelerator("x", price=None))
    assert "price not known" in decide(situation(unpriced, replicas=1), 1).message


def test_room_is_what_schedulable_nodes_of_the_pool_have_free():
    nodes = [
        make_node("cheap-1", 8),
        make_node("cheap-2", 3),
        make_node("cheap-3", 8, schedulable=False),
        make_node("dear-1", 8),
    ]
    inventory = build_inventory(nodes, [Usage("cheap-1", KEY, "v", {GPU: 3})], complete=True)
    assert measure_room(CHEAP, inventory) == 8
    assert measure_room(make_variant(CHEAP.accelerator, 2, pool=CHEAP.pool), inventory) == 3
    assert measure_room(CHEAP, None) is None
    assert measure_room(make_variant(pool=Pool(None)), inventory) is None


def test_what_a_load_costs():
    assert cost_of_load(CHEAP, 2.5) == 3.0
    assert cost_of_load(CHEAP, 2.0000000001) == 2.0
    assert cost_of_load(CHEAP, 0.0) == 1.0
    assert cost_of_load(CHEAP, 1.0, least=4) == 4.0
    assert cost_of_load(make_variant(capacity=0.0), 1.0) == float("inf")
    assert replace(make_variant(make_accelerator(price=None), 2), stand_in=6.0).hourly == 6.0


def show(
    placement: Placement | None, status: dict[str, Any] | None = None, **changes: Any
) -> LLMDeploymentStatus:
    deployment = make_deployment(status=status or {})
    plan = replace(DeploymentPlan(KEY, placement, _fixed(2), 2), **changes)
    pods = (make_pod("a", variant=CHEAP.name), make_pod("b", variant=DEAR.name, ready=False))
    snapshot = make_snapshot(deployment, pods={KEY: pods})
    return build_status(deployment, plan, snapshot, (True, Reason(Code.ROUTED, "")), None, NOW)


def test_the_status_lists_the_variants_the_main_one_first():
    written = show(decide(situation(children={CHEAP.name: 1, DEAR.name: 1}, replicas=2), 2))
    assert written.placement is not None
    found = [
        (item.class_name, item.purchase, item.replicas, item.ready_replicas)
        for item in written.placement.variants
    ]
    assert found == [("cheap", "OnDemand", 1, 1), ("dear", "OnDemand", 1, 0)]
    assert written.placement.variants[0].deployment == f"llama-{CHEAP.name}"
    assert written.cost is not None
    assert written.cost.per_hour == "3"


def test_the_sentence_of_the_choice_is_only_rewritten_with_another_choice():
    first = show(make_placement(CHEAP, message="first"))
    status = first.model_dump(mode="json", by_alias=True, exclude_none=True)
    same = show(make_placement(CHEAP, message="other figures"), status)
    assert (same.placement, same) == (first.placement, first)
    spot = make_variant(CHEAP.accelerator, spot=True)
    for other in (spot, DEAR, make_variant(CHEAP.accelerator, 2)):
        changed = show(make_placement(other, message="another"), status).placement
        assert changed is not None
        assert changed.message == "another"


def test_a_refusal_keeps_the_placement_and_the_cost_that_were():
    first = show(make_placement(CHEAP, message="first"))
    status = first.model_dump(mode="json", by_alias=True, exclude_none=True)
    refusal = Refusal(Code.DOES_NOT_FIT, "too large")
    refused = show(None, status, size=None, replicas=None, refusal=refusal)
    assert (refused.placement, refused.cost, refused.scaling) == (first.placement, first.cost, first.scaling)


def test_a_variant_that_costs_nothing_costs_nothing():
    gratis = make_variant(make_accelerator("dear", price="0"))
    placement = Placement(CHEAP, (VariantPlan(CHEAP, 1, 1), VariantPlan(gratis, 1, 1)))
    cost = show(placement).cost
    assert cost is not None
    assert cost.per_hour == "1"


def test_sizes_are_counted_in_the_variant_that_is_cheapest_within_the_bounds():
    strong = make_variant(make_accelerator("strong", price="3"), capacity=10.0)

    def find(low: int, high: int, load: float) -> Variant:
        return find_reference(situation(CHEAP, strong, scaling={"min": low, "max": high}), load)

    assert find(1, 9, 2.0) is CHEAP
    assert find(1, 9, 5.0) is strong
    # Three of the strong ones would cost 9, five of the cheap ones cost 5.
    assert find(3, 9, 5.0) is CHEAP
    # So many of the cheap ones are not allowed.
    assert find(1, 1, 2.0) is strong
    assert find(1, 2, 99.0) is strong
