"""Where a deployment runs: the variants that carry its size, and what it waits for."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from modelyard.core.allocation import (
    AllocationMemory,
    Situation,
    allocate,
    build_demand,
    find_groups,
    find_unsettled,
    hold_back,
)
from modelyard.core.inventory import Inventory, count_places
from modelyard.core.placement.greedy import extend
from modelyard.core.placement.problem import Allocation, PlacementDemand, PlacementPolicy, PlacementProblem
from modelyard.core.plan import Placement, Size, VariantPlan
from modelyard.core.reasons import Code, Reason
from modelyard.core.variants import Variant


def place(
    situation: Situation, size: Size, memory: AllocationMemory | None, policy: PlacementPolicy
) -> tuple[Placement, Size, AllocationMemory | None]:
    """Return where the deployment runs, its size in real replicas, and the memory for the next decision."""
    scaling = situation.deployment.spec.scaling
    suspended = situation.deployment.spec.suspend
    if scaling is not None and not suspended and scaling.actuator == "External":
        return _leave(situation, None), size, None
    if scaling is not None and not suspended and scaling.mode == "Advise":
        return _leave(situation, max(scaling.min, 1)), size, None
    demand = _prefer_fastest(situation, build_demand(situation, size), policy)
    memory = allocate(situation, demand, memory, policy)
    targets = memory.allocation.replicas
    if scaling is not None and size.known and targets:
        size = _tell_size(situation, size, targets)
    serving = {name: situation.serving(name) for name in situation.written}
    unsettled = find_unsettled(situation, targets)
    replicas = hold_back(targets, situation.written, serving, situation.choice.variants, unsettled)
    wanted = {candidate.name for candidate in demand.candidates}
    main = find_main(situation, targets, wanted)
    placement = _build(situation, main, targets, replicas)
    waiting = explain_waiting(situation, memory.allocation, main, demand)
    return replace(placement, preferred=waiting), size, memory


def _prefer_fastest(
    situation: Situation, demand: PlacementDemand, policy: PlacementPolicy
) -> PlacementDemand:
    """Return the demand for the fastest variants that can carry it, where none meets the objective.

    Money decides among variants that are fast enough; where none is, it would choose the one that misses by most. If
    not even one kind can be had in the number that is needed, all of them stay.
    """
    variants = situation.choice.variants
    if any(variant.meets_objective for variant in variants):
        return demand
    for latency in sorted({_planned_latency(variant) for variant in variants}):
        names = {variant.name for variant in variants if _planned_latency(variant) == latency}
        candidates = tuple(item for item in demand.candidates if item.name in names)
        current = {name: count for name, count in demand.current.items() if name in names}
        narrowed = replace(demand, candidates=candidates, current=current)
        found = extend(PlacementProblem((narrowed,), find_groups(situation), policy=policy), demand.key)
        enough = sum(found.replicas.values()) >= demand.minimum
        if enough and (found.shortage <= 0 or sum(found.replicas.values()) >= demand.maximum):
            return narrowed
    return demand


def _planned_latency(variant: Variant) -> float:
    """Return seconds between two tokens of one request at a time, as planned; infinite where not one can run."""
    speed = variant.speed
    if speed is None or speed.limit in ("memory", "maxSequences"):
        return math.inf
    return speed.planned.inter_token_latency


def _tell_size(situation: Situation, size: Size, targets: Mapping[str, int]) -> Size:
    """Return the size in real replicas, with what they answer where the sentence counts in another variant."""
    variants = {variant.name: variant for variant in situation.choice.variants if targets.get(variant.name)}
    total = sum(targets.values())
    scaling = situation.deployment.spec.scaling
    least = max(scaling.min, 1) if scaling is not None else 1
    cheapest = min(situation.choice.variants, key=lambda item: cost_of_load(item, size.capacity, least))
    answered = math.fsum(variant.capacity * targets[name] for name, variant in variants.items())
    message = size.reason.message
    if total != size.replicas or set(variants) != {cheapest.name}:
        parts = [f"{targets[name]} on {variants[name].label}" for name in sorted(variants, key=_by(targets))]
        shown = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
        verb = "answers" if total == 1 else "answer"
        message += f": {shown} {verb} {format_figure(answered)} requests/s"
    spots = [variant.capacity for variant in variants.values() if variant.spot]
    if spots and total > least and answered - min(spots) >= size.capacity * (1 - 1e-9):
        message += ", more than the load needs: the spot replicas of one zone may be lost at once"
    return replace(size, replicas=total, reason=replace(size.reason, message=message))


def _by(targets: Mapping[str, int]) -> Callable[[str], tuple[int, str]]:
    return lambda name: (-targets[name], name)


def format_figure(value: float) -> str:
    """Return a rate with two decimals, and with two digits where it is smaller than that: never a plain zero."""
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def format_count(value: float) -> str:
    """Return a rate of about a whole number, and one below ten with two digits: never a plain zero."""
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.2g}"


def _leave(situation: Situation, initial: int | None) -> Placement:
    """Return a placement that changes no number of replicas.

    `initial` is for a deployment that does not run yet; None leaves the field to an outside autoscaler, which acts on
    one child Deployment.
    """
    main = find_main(situation, situation.written)
    present = {main.name: initial} if initial is not None else {}
    if initial is not None and situation.children:
        known = {variant.name for variant in situation.choice.variants}
        present = {
            name: child.replicas for name, child in situation.children.items() if name in known
        } or present
    placement = _build(situation, main, present, present)
    obsolete = set(situation.children) - {variant.name for variant in situation.choice.variants}
    # What a changed spec left behind goes when the new one serves.
    remove = tuple(sorted(obsolete)) if situation.serving(main.name) else ()
    if initial is None:
        return replace(placement, variants=(VariantPlan(main, 0, None),), remove=remove)
    return replace(placement, remove=remove)


def find_main(
    situation: Situation, targets: Mapping[str, int], wanted: Collection[str] | None = None
) -> Variant:
    """Return the variant of most replicas; with none, the one that stands, else the cheapest that can be had.

    `wanted` are the names of those that it may run on; None: all.
    """
    choice = situation.choice
    for counts in (targets, {name: child.replicas + 1 for name, child in situation.children.items()}):
        known = [variant for variant in choice.variants if counts.get(variant.name)]
        if known:
            return max(known, key=lambda variant: counts[variant.name])
    short = situation.availability.shortages
    able = [variant for variant in choice.variants if wanted is None or variant.name in wanted]
    return min(able, key=lambda variant: (variant.name in short, variant.spot, variant.hourly))


def _build(
    situation: Situation, main: Variant, targets: Mapping[str, int], replicas: Mapping[str, int]
) -> Placement:
    """Return the placement: the main variant always has a child Deployment, the others while they have replicas."""
    others = [
        variant
        for variant in situation.choice.variants
        if variant.name != main.name and replicas.get(variant.name)
    ]
    variants = tuple(
        VariantPlan(variant, targets.get(variant.name, 0), replicas.get(variant.name, 0))
        for variant in (main, *others)
    )
    kept = {item.variant.name for item in variants} | set(replicas)
    return Placement(
        main=main,
        variants=variants,
        remove=tuple(sorted(set(situation.children) - kept)),
        message=explain_choice(situation, main),
    )


def measure_room(variant: Variant, inventory: Inventory | None) -> int | None:
    """Return how many more replicas of a variant the nodes have space for; None where nodes are not read."""
    resource = variant.pool.resource
    if inventory is None or resource is None:
        return None
    if variant.nodes > 1:
        return count_places(inventory, variant.pool)
    return sum(
        state.free.get(resource, 0) // variant.count
        for state in inventory.nodes
        if state.node.schedulable and variant.pool.admits(state.node)
    )


def cost_of_load(variant: Variant, capacity: float, least: int = 1) -> float:
    """Return US dollars per hour of the replicas, at least so many, that answer so many requests per second."""
    if variant.capacity <= 0:
        return math.inf
    return variant.hourly * max(math.ceil(capacity / variant.capacity - 1e-9), least, 1)


def explain_choice(situation: Situation, main: Variant) -> str:
    """Return one sentence: what runs, what it answers, and the next best variant."""
    price = "price not known" if main.price is None else f"${main.price.normalize():f}/h"
    sentence = f"{main.label} ({price} a replica): {format_count(main.capacity * 60)} requests a minute and "
    sentence += f"replica, {main.basis}"
    if main.fitting_context is not None and main.fit is not None:
        sentence += (
            f"; context {main.fitting_context} of {main.fit.profile.context_length} tokens, all that fits: set "
            "model.contextLength"
        )
    others = [item for item in situation.choice.variants if item.name != main.name]
    if others:
        second = min(others, key=lambda item: item.hourly / item.capacity if item.capacity else math.inf)
        its_price = "price not known" if second.price is None else f"${second.price.normalize():f}/h"
        sentence += (
            f"; next: {second.label} ({its_price}, {format_count(second.capacity * 60)} requests a minute)"
        )
    return sentence


def explain_waiting(
    situation: Situation, allocation: Allocation, main: Variant, demand: PlacementDemand
) -> Reason | None:
    """Return why the deployment does not run as it should, or None."""
    names = {variant.name: variant for variant in situation.choice.variants}
    used = ", ".join(names[name].label for name in allocation.replicas if name in names) or main.label
    for name, shortage in sorted(situation.availability.shortages.items()):
        variant = names.get(name)
        if variant is None or len(names) == 1:
            continue
        when = datetime.fromtimestamp(int(shortage.retry_at), UTC).strftime("%H:%M:%SZ")
        message = (
            f"waits for {variant.label}: {shortage.message or 'no node has room'}; runs on {used} meanwhile, and "
            f"{variant.label} is tried again when there is room, at {when} at the latest"
        )
        return Reason(Code.CAPACITY_MISSING, message)
    wanted = _find_missing(situation, allocation, demand)
    if wanted is not None:
        # Without the numbers of the moment: others' pods would make them move, and each move is a write.
        message = f"runs on {used}: waits for {wanted.label}, whose nodes lack room"
        return Reason(Code.CAPACITY_MISSING, message)
    if main.speed is not None and not main.meets_objective:
        return Reason(Code.OBJECTIVE_MISSED, f"{main.label}: {main.speed.explain()}")
    return None


def _find_missing(situation: Situation, allocation: Allocation, demand: PlacementDemand) -> Variant | None:
    """Return the cheapest variant that is wanted if it is not used because the nodes lack room for it."""
    names = {candidate.name for candidate in demand.candidates}
    variants = [variant for variant in situation.choice.variants if variant.name in names]
    capacity = demand.capacity
    if len(variants) == 1 or not allocation.replicas:
        return None
    best = min(variants, key=lambda variant: cost_of_load(variant, capacity))
    needed = math.ceil(capacity / best.capacity - 1e-9) if capacity else sum(allocation.replicas.values())
    missing = max(needed, 1) - allocation.replicas.get(best.name, 0)
    room = measure_room(best, situation.inventory)
    return None if best.spot or missing <= 0 or room is None or room >= missing else best
