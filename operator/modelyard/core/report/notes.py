"""What a reviewer should know of a deployment beside its figures, one sentence each."""

from collections.abc import Iterator
from dataclasses import dataclass

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.inventory import Inventory
from modelyard.core.place import format_count
from modelyard.core.plan import DeploymentPlan
from modelyard.core.reasons import Code
from modelyard.core.report.room import largest_node
from modelyard.core.report.settle import StatedLoad
from modelyard.core.state import DeploymentMemory
from modelyard.core.variants import Variant, VariantList


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to say something about."""

    deployment: LLMDeployment
    plan: DeploymentPlan
    memory: DeploymentMemory
    counted: tuple[tuple[Variant, int], ...]
    """What was chosen, with replicas; empty if it is refused."""
    load: StatedLoad
    missing: int
    """Replicas without room."""
    inventory: Inventory | None
    warnings: tuple[str, ...] = ()
    """About its manifest."""

    @property
    def rate(self) -> float | None:
        """Requests per second that are answered: the load, as far as the replicas go; None: no load is stated."""
        if self.load.requests_per_minute is None:
            return None
        capacity = sum(variant.capacity * count for variant, count in self.counted)
        return min(self.load.requests_per_minute / 60, capacity)


def write_notes(facts: Facts) -> Iterator[str]:
    """Yield the notes."""
    yield from facts.warnings
    yield from _note_platforms(facts)
    if not facts.counted:
        return
    yield from _note_load(facts)
    yield from _note_scaling(facts)
    yield from _note_room(facts)
    yield from _note_spot(facts)
    main = facts.counted[0][0]
    if main.price is None:
        name = main.accelerator.metadata.name
        yield f"the price of class {name} is not known: set spec.price in its AcceleratorClass"


def misses_objective(counted: tuple[tuple[Variant, int], ...]) -> bool:
    """Return whether what was chosen answers outside the objective even one request at a time."""
    return any(not variant.meets_objective for variant, _ in counted)


def _note_platforms(facts: Facts) -> Iterator[str]:
    """Yield why classes that nothing can run on yet are left out or refused."""
    answer = facts.memory.choice.answer if facts.memory.choice is not None else None
    if isinstance(answer, VariantList):
        refusals = [item.refusal for item in answer.rejected]
    else:
        refusals = [answer] if answer is not None else []
    if any("no image for rocm" in item.message for item in refusals):
        yield "Modelyard has no ROCm image of an engine yet: AMD accelerators such as MI300X cannot be used"


def _note_load(facts: Facts) -> Iterator[str]:
    stated = facts.load.requests_per_minute
    if stated is None and not facts.deployment.spec.suspend:
        yield "no load is stated: sized without it; set spec.load.requestsPerMinute or give --load"
    rate = facts.rate
    if rate is not None and stated and rate * 60 < stated * (1 - 1e-9):
        yield (
            f"the replicas answer {format_count(rate * 60)} of {stated:g} requests a minute within the "
            "objective: raise replicas or scaling.max"
        )


def _note_scaling(facts: Facts) -> Iterator[str]:
    scaling, size = facts.deployment.spec.scaling, facts.plan.size
    if scaling is not None and scaling.actuator == "External":
        yield "scaling.actuator is External: replicas and price are what the load needs, the autoscaler decides"
    if scaling is not None and scaling.mode == "Advise" and size is not None:
        yield f"scaling.mode is Advise: the size is advice only, it would be {size.replicas}"


def _note_room(facts: Facts) -> Iterator[str]:
    if facts.missing:
        allocation = facts.memory.allocation.allocation if facts.memory.allocation is not None else None
        why = "; ".join(allocation.limits) if allocation is not None else ""
        why = _explain_small_nodes(facts) or why or "not enough free accelerators on one node"
        verb = "replica has no room and stays" if facts.missing == 1 else "replicas have no room and stay"
        yield f"{facts.missing} {verb} Pending: {why}"
    waiting = facts.plan.placement.preferred if facts.plan.placement is not None else None
    if waiting is not None and not (facts.missing and waiting.code == Code.CAPACITY_MISSING):
        yield waiting.message
    if waiting is None or waiting.code != Code.OBJECTIVE_MISSED:
        for variant, _ in facts.counted:
            if not variant.meets_objective and variant.speed is not None:
                yield f"{variant.label}: {variant.speed.explain()}"


def _explain_small_nodes(facts: Facts) -> str:
    """Say which replicas are larger than every node; empty if none is."""
    for variant, count in facts.counted:
        largest = largest_node(variant, facts.inventory) if facts.inventory is not None else 0
        if count and 0 < largest < variant.per_node:
            name = variant.accelerator.metadata.name
            return (
                f"no node of class {name} has {variant.per_node} accelerators, the largest has {largest}: change "
                "placement.accelerators[].count"
            )
    return ""


def _note_spot(facts: Facts) -> Iterator[str]:
    answer = facts.memory.choice.answer if facts.memory.choice is not None else None
    if facts.inventory is not None or not isinstance(answer, VariantList):
        return
    offered = any(variant.spot for variant in answer.variants)
    if offered and not any(variant.spot for variant, _ in facts.counted):
        yield (
            "spot is left out: without an inventory all of it counts as one zone, which may be lost at once; give "
            "--against with nodes in several zones"
        )
