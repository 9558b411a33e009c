"""The placement of the whole fleet: the same questions that the deployments asked one by one, answered together."""

from collections.abc import Mapping
from dataclasses import replace

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.core.allocation import AllocationMemory, list_offers, wait_for_rest
from modelyard.core.inventory import Inventory, Offer, build_groups
from modelyard.core.placement.problem import (
    Budget,
    NodeGroup,
    PlacementDemand,
    PlacementPolicy,
    PlacementProblem,
    PlacementResult,
)
from modelyard.core.state import DeploymentMemory
from modelyard.core.variants import VariantList


def build_problem(
    memories: Mapping[str, DeploymentMemory],
    current: Mapping[str, Mapping[str, int]],
    accelerators: Mapping[str, AcceleratorClass],
    inventory: Inventory | None,
    policy: PlacementPolicy,
    budgets: tuple[Budget, ...] = (),
) -> PlacementProblem | None:
    """Return what the deployments ask of the placement; None if none of them has a choice.

    `current` are the replicas in their child Deployments, by variant.
    """
    demands: list[PlacementDemand] = []
    offers: dict[Offer, None] = {}
    for key, memory in sorted(memories.items()):
        choice = memory.choice.answer if memory.choice is not None else None
        if memory.allocation is None or not isinstance(choice, VariantList):
            continue
        demand = memory.allocation.demand
        names = {candidate.name for candidate in demand.candidates}
        held = {name: count for name, count in current.get(key, {}).items() if name in names and count}
        demands.append(replace(demand, current=held))
        offers |= dict.fromkeys(list_offers(choice))
    if not any(len(demand.candidates) > 1 for demand in demands):
        return None
    groups: tuple[NodeGroup, ...] | None = None
    if inventory is not None:
        used = {
            offer.class_name: accelerators[offer.class_name]
            for offer in offers
            if offer.class_name in accelerators
        }
        groups = build_groups(inventory, offers, used, frozenset(demand.key for demand in demands))
    return PlacementProblem(tuple(demands), groups, budgets, policy)


def adopt(
    memories: Mapping[str, DeploymentMemory], problem: PlacementProblem, result: PlacementResult
) -> dict[str, DeploymentMemory]:
    """Return the memories of the deployments whose allocation the result changes.

    A deployment that asked something else meanwhile keeps its own answer.
    """
    changed = {}
    for demand in problem.demands:
        memory = memories.get(demand.key)
        if memory is None or memory.allocation is None or len(demand.candidates) < 2:
            continue
        own = memory.allocation
        if replace(own.demand, current={}) != replace(demand, current={}):
            continue
        allocation = result.allocations[demand.key]
        if not any(demand.key in budget.keys for budget in problem.budgets):
            # What a budget refused must not wait as a Pending pod for the next free accelerator.
            allocation = wait_for_rest(demand, allocation)
        if allocation != own.allocation:
            changed[demand.key] = replace(memory, allocation=AllocationMemory(own.demand, allocation))
    return changed
