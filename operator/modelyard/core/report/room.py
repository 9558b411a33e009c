"""Which replicas of a plan have no room, on the nodes that exist and those that can be had."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.core.inventory import Inventory, Offer, build_groups, node_size
from modelyard.core.placement.packing import Room
from modelyard.core.plan import DeploymentPlan
from modelyard.core.snapshot import ChildDeployment
from modelyard.core.variants import Variant


@dataclass(frozen=True, slots=True)
class _Want:
    key: str
    variant: Variant
    count: int
    running: bool
    """Whether these replicas run already: they keep their place."""


def find_missing(
    plans: Mapping[str, DeploymentPlan],
    running: Mapping[str, Mapping[str, ChildDeployment]],
    inventory: Inventory | None,
    accelerators: Mapping[str, AcceleratorClass],
) -> dict[str, int]:
    """Return how many replicas of each deployment have no room; only deployments that lack some are in it.

    Replicas that run and stay come first, then new ones, those that need most accelerators of one node before others.
    The decision itself leaves replicas without room Pending, for a node autoscaler to act on; a reviewer wants to know
    of them before.
    """
    if inventory is None:
        return {}
    wanted = list(_list_wanted(plans, running))
    offers = dict.fromkeys(
        Offer(want.variant.pool, want.variant.accelerator.metadata.name, want.variant.spot) for want in wanted
    )
    used = {offer.class_name: accelerators[offer.class_name] for offer in offers}
    groups = build_groups(inventory, offers, used, frozenset(plans))
    rooms = [(group.pools, Room(group.free)) for group in groups]
    missing: dict[str, int] = {}
    for want in sorted(wanted, key=_order):
        left = want.count
        # Nodes that fewer pools may use come first: they are of no use to others.
        for _, room in sorted(
            ((pools, room) for pools, room in rooms if want.variant.pool.name in pools),
            key=lambda item: len(item[0]),
        ):
            left -= room.take(want.variant.count, left)
        if left:
            missing[want.key] = missing.get(want.key, 0) + left
    return missing


def largest_node(variant: Variant, inventory: Inventory) -> int:
    """Return the accelerators of the largest node that a variant may use, or that can be had; 0: there is none."""
    resource, spec = variant.pool.resource, variant.accelerator.spec
    if resource is None:
        return 0
    sizes = [
        state.node.accelerators[resource] for state in inventory.nodes if variant.pool.admits(state.node)
    ]
    if spec.available:
        sizes.append(node_size(variant.accelerator, inventory))
    return max(sizes, default=0)


def _list_wanted(
    plans: Mapping[str, DeploymentPlan], running: Mapping[str, Mapping[str, ChildDeployment]]
) -> Iterator[_Want]:
    for key, plan in sorted(plans.items()):
        if plan.placement is None or plan.refusal is not None:
            continue
        for item in plan.placement.variants:
            if item.variant.pool.resource is None:
                continue
            child = running.get(key, {}).get(item.variant.name)
            kept = min(child.replicas, item.wanted) if child is not None else 0
            for count, runs in ((kept, True), (item.wanted - kept, False)):
                if count:
                    yield _Want(key, item.variant, count, runs)


def _order(want: _Want) -> tuple[bool, int, str, str]:
    return not want.running, -want.variant.count, want.key, want.variant.name
