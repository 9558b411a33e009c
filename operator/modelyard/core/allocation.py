"""From a size to replicas of variants: what a deployment asks of the placement, and how it gets there without a gap."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.availability import AvailabilityMemory
from modelyard.core.inventory import Inventory, Offer, build_groups
from modelyard.core.placement.greedy import extend
from modelyard.core.placement.problem import (
    Allocation,
    Candidate,
    NodeGroup,
    PlacementDemand,
    PlacementPolicy,
    PlacementProblem,
)
from modelyard.core.plan import Size
from modelyard.core.snapshot import ChildDeployment, Pod
from modelyard.core.variants import Variant, VariantList

ORDER_WEIGHT = 1e-6
"""Share of the price that is added for each place further down in the spec: it decides between equals only."""


@dataclass(frozen=True, slots=True)
class AllocationMemory:
    """The last answer, and the question that it answers."""

    demand: PlacementDemand
    allocation: Allocation


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is of a deployment."""

    deployment: LLMDeployment
    choice: VariantList
    children: Mapping[str, ChildDeployment]
    pods: tuple[Pod, ...]
    availability: AvailabilityMemory
    inventory: Inventory | None
    priorities: Mapping[str, int] = field(default_factory=dict)

    @property
    def written(self) -> dict[str, int]:
        """Replicas in the child Deployments, by variant."""
        return {name: child.replicas for name, child in self.children.items() if child.replicas}

    def serving(self, name: str) -> int:
        """Return the pods of a variant that answer requests."""
        return sum(pod.serving and pod.variant == name for pod in self.pods)


def build_demand(situation: Situation, size: Size) -> PlacementDemand:
    """Return what the deployment asks of the placement."""
    deployment, choice = situation.deployment, situation.choice
    placement, scaling = deployment.spec.placement, deployment.spec.scaling
    least = most = size.replicas
    capacity = 0.0
    if scaling is not None and size.replicas:
        least, most, capacity = max(scaling.min, 1), scaling.max, size.capacity
    availability = situation.availability if len(choice.variants) > 1 else AvailabilityMemory()
    candidates = tuple(
        _candidate(variant, rank, availability) for rank, variant in enumerate(choice.variants)
    )
    known = {variant.name for variant in choice.variants}
    return PlacementDemand(
        key=deployment.key,
        candidates=candidates,
        capacity=capacity,
        minimum=least,
        maximum=most,
        priority=situation.priorities.get(placement.priority or "", 0),
        current={name: count for name, count in situation.written.items() if name in known},
        on_demand_base=placement.spot.on_demand_base if placement.spot is not None else 0,
    )


def _candidate(variant: Variant, rank: int, availability: AvailabilityMemory) -> Candidate:
    shortage = availability.shortages.get(variant.name)
    return Candidate(
        name=variant.name,
        pool=variant.pool.name,
        accelerators=variant.count,
        capacity=variant.capacity,
        price=variant.hourly * (1 + ORDER_WEIGHT * rank),
        spot=variant.spot,
        start_time=variant.start_time,
        ceiling=shortage.ceiling if shortage is not None else None,
        label=variant.label,
        nodes=f"{'spot ' if variant.spot else ''}nodes of class {variant.accelerator.metadata.name}",
    )


def list_offers(choice: VariantList) -> tuple[Offer, ...]:
    """Return the pools that the variants use."""
    return tuple(
        dict.fromkeys(Offer(item.pool, item.accelerator.metadata.name, item.spot) for item in choice.variants)
    )


def allocate(
    situation: Situation, demand: PlacementDemand, memory: AllocationMemory | None, policy: PlacementPolicy
) -> AllocationMemory:
    """Return how many replicas of each variant, from what runs and what is free.

    The same question gets the same answer as before, so that a better answer of the placement of the whole fleet
    stands until something changes.
    """
    if memory is not None and _still_right(memory, demand):
        return memory
    if memory is not None:
        known = {candidate.name for candidate in demand.candidates}
        kept = {name: count for name, count in memory.allocation.replicas.items() if name in known}
        demand = replace(demand, current=kept or demand.current)
    if len(demand.candidates) == 1:
        allocation = _only(demand)
    else:
        problem = PlacementProblem((demand,), find_groups(situation), policy=policy)
        allocation = wait_for_rest(demand, extend(problem, demand.key))
    return AllocationMemory(demand, allocation)


def _still_right(memory: AllocationMemory, demand: PlacementDemand) -> bool:
    """Return whether the last answer also answers this question: it still carries the load, with nothing to spare."""
    before = memory.demand
    if replace(before, current={}) == replace(demand, current={}):
        return True
    if replace(before, current={}, capacity=0.0) != replace(demand, current={}, capacity=0.0):
        return False
    if before.capacity == 0.0 or demand.capacity == 0.0:
        return False
    # What replicas that wait for a node will carry counts too, or each decision would ask for more of them.
    each = {candidate.name: candidate.capacity for candidate in demand.candidates}
    replicas = memory.allocation.replicas
    total = sum(each[name] * count for name, count in replicas.items())
    spare = total - demand.capacity
    return spare >= 0 and (
        sum(replicas.values()) <= demand.minimum or all(each[name] > spare + 1e-9 for name in replicas)
    )


def _only(demand: PlacementDemand) -> Allocation:
    """Return the allocation where there is one candidate: nodes do not matter, pods wait for them."""
    (candidate,) = demand.candidates
    return Allocation(
        {candidate.name: count} if (count := _needed(candidate, demand.capacity, demand)) else {}
    )


def _needed(candidate: Candidate, capacity: float, demand: PlacementDemand) -> int:
    # The subtraction keeps a quotient such as 3.0000000000000004 from asking for one replica more.
    wanted = math.ceil(capacity / candidate.capacity - 1e-9) if candidate.capacity > 0 else demand.maximum
    return min(max(wanted, demand.minimum), demand.maximum)


def find_groups(situation: Situation) -> tuple[NodeGroup, ...] | None:
    """Return the nodes that the deployment's variants may use; None where nodes are not read."""
    if situation.inventory is None:
        return None
    accelerators = {item.accelerator.metadata.name: item.accelerator for item in situation.choice.variants}
    return build_groups(
        situation.inventory,
        list_offers(situation.choice),
        accelerators,
        frozenset({situation.deployment.key}),
    )


def wait_for_rest(demand: PlacementDemand, allocation: Allocation) -> Allocation:
    """Return the allocation with what could not be placed on the best candidate, where its pods stay Pending.

    A Pending pod is what a node autoscaler acts on, and what takes the next accelerator that becomes free.
    """
    placed = sum(allocation.replicas.values())
    by_name = {candidate.name: candidate for candidate in demand.candidates}
    capacity = sum(by_name[name].capacity * count for name, count in allocation.replicas.items())
    missing = max(demand.capacity - capacity, 0.0)
    if not demand.candidates or (placed >= demand.minimum and missing <= 1e-9):
        return allocation
    best = min(demand.candidates, key=lambda item: item.price / item.capacity if item.capacity else math.inf)
    if not demand.capacity:
        best = min(demand.candidates, key=lambda item: item.price)
    more = max(math.ceil(missing / best.capacity - 1e-9) if best.capacity else 0, demand.minimum - placed)
    more = min(more, demand.maximum - placed)
    if more <= 0:
        return allocation
    replicas = dict(allocation.replicas)
    replicas[best.name] = replicas.get(best.name, 0) + more
    return replace(allocation, replicas=replicas)


def find_unsettled(situation: Situation, targets: Mapping[str, int]) -> frozenset[str]:
    """Return the variants whose written replicas must not be lowered now, because Kubernetes is behind.

    Two of its controllers act on what is written, each from its own view of the pods:

    - The disruption budget lets an eviction pass while no more than one replica is missing of all that is written. It
      counts a child Deployment from the first pod of it that it sees. If replicas of the old variant went before the
      new one has pods, the budget would take the rest for all there should be, and let a drain take one more of them.
    - The ReplicaSet removes as many pods as it sees too many. Before it has seen that one was evicted, it would remove
      one that serves in its place.

    Both share one view with the controller that writes the status of Deployments, so what stands there has been seen.
    """
    if not any(targets.values()) or not any(pod.serving for pod in situation.pods):
        return frozenset()
    written, children = situation.written, situation.children
    raised = {
        name
        for name, count in targets.items()
        if count and (written.get(name, 0) < count or not children[name].started)
    }
    if raised:
        return frozenset(written)
    return frozenset(
        name
        for name in written
        if (seen := children[name].ready) is not None and seen > situation.serving(name)
    )


def hold_back(
    targets: Mapping[str, int],
    written: Mapping[str, int],
    serving: Mapping[str, int],
    variants: Iterable[Variant],
    unsettled: Collection[str] = (),
) -> dict[str, int]:
    """Return the replicas to write: the targets, and serving replicas that must stay until others serve.

    A replica that is to go stays while what serves among the targets does not yet reach the capacity of the targets.
    Replicas of a variant that is not known any more, such as one whose class was deleted, count like the average. What
    is `unsettled` (`find_unsettled`) keeps all that is written.
    """
    capacity = {variant.name: variant.capacity for variant in variants}
    usual = sum(capacity.values()) / len(capacity) if capacity else 1.0
    result = {name: count for name, count in targets.items() if count}
    needed = sum(count * capacity.get(name, usual) for name, count in targets.items())
    ready = sum(
        min(serving.get(name, 0), count) * capacity.get(name, usual) for name, count in targets.items()
    )
    deficit = needed - ready
    for name in sorted(written):
        spare = min(written[name], serving.get(name, 0)) - targets.get(name, 0)
        each = capacity.get(name, usual)
        if spare <= 0 or deficit <= 1e-9 or each <= 0:
            continue
        kept = min(spare, math.ceil(deficit / each - 1e-9))
        result[name] = targets.get(name, 0) + kept
        deficit -= kept * each
    for name in unsettled:
        result[name] = max(result.get(name, 0), written[name])
    return result
