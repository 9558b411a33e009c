"""What can be had: nodes, what is free on them, who may use them, and what node autoscaling could add."""

from typing import Any

import pytest

from modelyard.api.acceleratorclass import Toleration
from modelyard.core.inventory import (
    DEFAULT_PER_NODE,
    Inventory,
    Offer,
    Pool,
    Taint,
    Usage,
    build_groups,
    build_inventory,
    find_pool,
    measure_node_sizes,
)
from tests.unit.core.build import KEY, make_accelerator, make_deployment, make_node

GPU = "nvidia.com/gpu"
POOL = Pool(GPU)


def use(node: str, count: int = 1, deployment: str = "", variant: str = "v") -> Usage:
    return Usage(node, deployment, variant, {GPU: count})


def test_free_is_what_nobody_holds_and_never_negative():
    inventory = build_inventory(
        [make_node("b", 8), make_node("a", 2)],
        [use("b", 3), use("b", 2, KEY), use("a", 5), use("gone")],
        complete=True,
    )
    assert [(state.node.name, dict(state.free)) for state in inventory.nodes] == [
        ("a", {GPU: 0}),
        ("b", {GPU: 3}),
    ]
    assert [(item.deployment, item.count) for item in inventory.nodes[1].holdings] == [(KEY, 2)]


@pytest.mark.parametrize(
    ("labels", "pool", "admitted"),
    [
        ({"kind": "l4"}, Pool(GPU, selector=(("kind", "l4"),)), True),
        ({"kind": "t4"}, Pool(GPU, selector=(("kind", "l4"),)), False),
        ({}, Pool(GPU, selector=(("kind", "l4"),)), False),
        ({}, Pool("amd.com/gpu"), False),
        ({}, Pool(None), False),
        # Pods on demand avoid nodes that carry all labels of spot capacity, and no others.
        ({"type": "spot"}, Pool(GPU, avoid=(("type", "spot"),)), False),
        ({"type": "on-demand"}, Pool(GPU, avoid=(("type", "spot"),)), True),
        ({}, Pool(GPU, avoid=(("type", "spot"),)), True),
        ({"type": "spot", "team": "x"}, Pool(GPU, avoid=(("team", "y"), ("type", "spot"))), True),
        ({"type": "spot", "team": "y"}, Pool(GPU, avoid=(("team", "y"), ("type", "spot"))), False),
    ],
)
def test_labels_decide_as_for_the_scheduler(labels: dict[str, str], pool: Pool, admitted: bool):
    assert pool.admits(make_node(labels=labels)) is admitted


TAINT = Taint("gpu", "yes", "NoSchedule")


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (None, False),
        ({"operator": "Exists"}, True),
        ({"key": "gpu"}, True),
        ({"key": "gpu", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "effect": "NoExecute"}, False),
        ({"key": "gpu", "effect": "PreferNoSchedule"}, False),
        ({"key": "other"}, False),
        ({"key": "gpu", "operator": "Equal", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "no"}, False),
        ({"key": "gpu", "operator": "Equal"}, False),
    ],
)
def test_taints_are_tolerated_as_for_the_scheduler(toleration: dict[str, Any] | None, tolerated: bool):
    tolerations = () if toleration is None else (Toleration.model_validate(toleration),)
    assert Pool(GPU, tolerations=tolerations).admits(make_node(taints=(TAINT,))) is tolerated


def test_every_taint_must_be_tolerated():
    pool = Pool(GPU, tolerations=(Toleration(key="gpu"),))
    assert not pool.admits(make_node(taints=(TAINT, Taint("team", "x"))))
    assert Pool(GPU, tolerations=(Toleration(key="gpu", operator="Equal"),)).admits(
        make_node(taints=(Taint("gpu"),))
    )


SPOT_CLASS = make_accelerator(
    "l4",
    nodeSelector={"kind": "l4"},
    tolerations=[{"key": "gpu"}],
    spot={"nodeSelector": {"type": "spot"}, "tolerations": [{"key": "spot"}]},
)


def test_a_pool_asks_what_the_pods_ask():
    deployment = make_deployment(placement={"nodeSelector": {"zone": "a"}})
    on_demand = find_pool(deployment, SPOT_CLASS, spot=False)
    assert dict(on_demand.selector) == {"kind": "l4", "zone": "a"}
    assert dict(on_demand.avoid) == {"type": "spot"}
    assert [item.key for item in on_demand.tolerations] == ["gpu"]
    spot = find_pool(deployment, SPOT_CLASS, spot=True)
    assert dict(spot.selector) == {"kind": "l4", "zone": "a", "type": "spot"}
    assert spot.avoid == ()
    assert sorted(item.key or "" for item in spot.tolerations) == ["gpu", "spot"]
    assert spot.name != on_demand.name


def test_a_pool_over_zones_says_so_once():
    assert Pool("r", (("kind", "a"),), zoned=True).name == "r,kind=a,zoned"


def test_equal_pools_have_equal_names_in_whatever_order_they_are_written():
    tolerations = [{"key": "a"}, {"key": "b", "effect": "NoSchedule"}]
    pools = [
        find_pool(make_deployment(), make_accelerator("x", tolerations=items), spot=False)
        for items in (tolerations, tolerations[::-1])
    ]
    assert pools[0].name == pools[1].name
    others = {
        Pool(GPU).name,
        Pool(None).name,
        Pool(GPU, selector=(("a", "b"),)).name,
        Pool(GPU, avoid=(("a", "b"),)).name,
        pools[0].name,
    }
    assert len(others) == 5


@pytest.mark.parametrize(
    ("changes", "sizes", "expected"),
    [
        ({}, [], DEFAULT_PER_NODE),
        ({}, [2, 4], 4),
        ({"perNode": 6}, [2, 4], 6),
        ({"resourceName": None, "requests": {"cpu": "1", "memory": "1Gi"}}, [], 1),
        ({"nodeSelector": {"kind": "l4"}}, [2], DEFAULT_PER_NODE),
    ],
)
def test_a_node_is_as_large_as_said_else_as_the_largest_there_is(
    changes: dict[str, Any], sizes: list[int], expected: int
):
    # Taints do not matter: whether pods tolerate them is another question.
    nodes = [make_node(f"node-{size}", size, taints=(TAINT,)) for size in sizes]
    inventory = build_inventory(nodes, [], complete=True)
    assert measure_node_sizes({"l4": make_accelerator(**changes)}, inventory) == {"l4": expected}


def groups(
    inventory: Inventory, *offers: Offer, movable: frozenset[str] = frozenset(), **classes: Any
) -> Any:
    accelerators = {name: make_accelerator(name, **changes) for name, changes in classes.items()}
    return build_groups(inventory, offers, accelerators, movable)


def test_what_a_movable_deployment_holds_is_its_own_to_use():
    usages = [use("node-1", 2, KEY), use("node-1", 1, "team/other"), use("node-1", 1)]
    inventory = build_inventory([make_node(gpus=8)], usages, complete=True)
    (group,) = groups(inventory, Offer(POOL, "l4"), movable=frozenset({KEY}))
    assert (group.free, dict(group.running[0])) == ((6,), {(KEY, "v"): 1})
    (group,) = groups(inventory, Offer(POOL, "l4"))
    assert (group.free, dict(group.running[0])) == ((4,), {})


def test_no_pod_makes_a_node_larger():
    """Whoever may create pods may bind one to a node and ask for more than it has, under any label."""
    inventory = build_inventory([make_node(gpus=8)], [use("node-1", 10**18, KEY)], complete=True)
    (group,) = groups(inventory, Offer(POOL, "l4"), movable=frozenset({KEY}))
    assert group.free == (8,)


def test_a_cordoned_node_keeps_what_it_has_and_takes_no_more():
    inventory = build_inventory(
        [make_node(gpus=8, schedulable=False)], [use("node-1", 2, KEY)], complete=True
    )
    (group,) = groups(inventory, Offer(POOL, "l4"), movable=frozenset({KEY}))
    assert group.free == (2,)


def test_nodes_are_grouped_by_who_may_use_them_and_by_zone_where_spot_is():
    zone = "topology.kubernetes.io/zone"
    nodes = [
        make_node("l4-1", labels={"kind": "l4", zone: "a"}),
        make_node("l4-2", labels={"kind": "l4", zone: "b"}),
        make_node("l4-3", labels={"kind": "l4", zone: "a", "type": "spot"}),
        make_node("l4-4", labels={"kind": "l4", zone: "b", "type": "spot"}),
        make_node("t4-1", labels={"kind": "t4"}),
    ]
    inventory = build_inventory(nodes, [], complete=True)
    fixed = find_pool(make_deployment(), SPOT_CLASS, spot=False)
    spot = find_pool(make_deployment(), SPOT_CLASS, spot=True)
    found = groups(inventory, Offer(fixed, "l4"), Offer(spot, "l4", spot=True))
    assert sorted((sorted(group.pools), group.zone, group.free) for group in found) == sorted(
        [([fixed.name], "", (1, 1)), ([spot.name], "a", (1,)), ([spot.name], "b", (1,))]
    )


@pytest.mark.parametrize(
    ("available", "expected"), [(None, []), (4, []), (8, [(4,)]), (14, [(4, 4, 2)]), (2, [])]
)
def test_nodes_that_do_not_exist_yet_count_where_the_class_says_how_many(
    available: int | None, expected: list[tuple[int, ...]]
):
    changes = {} if available is None else {"available": available, "perNode": 4, "provisionTime": "5m"}
    # Four accelerators are there, in use or not; the rest can be had.
    inventory = build_inventory([make_node(gpus=4)], [use("node-1", 4)], complete=True)
    new = [
        group for group in groups(inventory, Offer(POOL, "l4"), l4=changes) if group.name.startswith("new/")
    ]
    assert [group.free for group in new] == expected
    assert all((group.delay, group.pools) == (300.0, {POOL.name}) for group in new)


def test_replicas_without_accelerators_are_left_to_the_scheduler():
    (group,) = groups(Inventory(), Offer(Pool(None), "cpu"))
    assert group.free[0] > 1000
