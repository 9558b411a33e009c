"""Why a deployment cannot run in some way, or at all, in sentences; and the price of what has none."""

from collections.abc import Iterable
from dataclasses import replace

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.core.fit import DoesNotFit
from modelyard.core.reasons import Code
from modelyard.core.snapshot import Snapshot
from modelyard.core.variants import Rejection, Variant

UNKNOWN_PRICE = 1.0
"""US dollars per hour and accelerator where no variant has a price: all cost alike, so the fewest accelerators win,
then the order in the spec."""


def explain_misfit(answer: DoesNotFit, size: int) -> str:
    """Return the refusal, without remedies that need more accelerators than a node has."""
    possible = tuple(item for item in answer.remedies if item.parallelism.per_node <= size)
    needed = [item.parallelism.per_node for item in answer.remedies if item.parallelism.per_node > size]
    spread = [item for item in possible if item.parallelism.nodes > answer.parallelism.nodes]
    if not needed or len(possible) > len(spread):
        return replace(answer, remedies=possible).reason()
    total = answer.reason().partition(". ")[0]
    text = f"{total}. It needs {min(needed)} accelerators on one node, and nodes of this class have {size}"
    return f"{text}; or {spread[0].sentence}" if spread else text


def stand_in_prices(variants: Iterable[Variant]) -> tuple[Variant, ...]:
    """Give variants without a price that of the dearest accelerator among the others.

    A price that nobody stated must not make a variant the cheapest.
    """
    variants = tuple(variants)
    known = [float(variant.price) / variant.count for variant in variants if variant.price is not None]
    unit = max(known, default=UNKNOWN_PRICE)
    return tuple(
        replace(variant, stand_in=unit * variant.count) if variant.price is None else variant
        for variant in variants
    )


def refuse_classes(deployment: LLMDeployment, snapshot: Snapshot) -> Refusal:
    """Return why none of the classes can be used: none of those that are named exists."""
    wanted = ", ".join(option.class_name for option in deployment.spec.placement.accelerators)
    if not wanted:
        return Refusal(Code.ACCELERATOR_NOT_FOUND, "no AcceleratorClass exists: create one")
    return Refusal(
        Code.ACCELERATOR_NOT_FOUND,
        f"placement.accelerators names no AcceleratorClass that exists ({wanted}): create one, or name one of "
        f"{', '.join(sorted(snapshot.accelerators)) or 'none yet'}",
    )


def refuse_all(rejected: Iterable[Rejection]) -> Refusal:
    """Return the refusal of the first class, with a word on the others."""
    first, *others = rejected
    also = "; ".join(f"{item.label}: {item.refusal.message}" for item in others[:3])
    message = f"{first.label}: {first.refusal.message}"
    return Refusal(first.refusal.reason, f"{message}; {also}" if also else message)
