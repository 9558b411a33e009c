"""What runs now, in the terms of a plan."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Literal

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.placement import MOST_NODES
from modelyard.catalog.accelerators import describe
from modelyard.core.plan import DeploymentPlan
from modelyard.core.report.model import CENT, State, VariantState
from modelyard.core.variants import Variant, variant_name

HOURS_PER_DAY = 24
_MOST_ACCELERATORS = 16
"""Upper bound of `placement.accelerators[].count`."""


@dataclass(frozen=True, slots=True)
class RunningVariant:
    """Replicas of one variant that run."""

    class_name: str
    count: int
    """Accelerators of one replica."""
    replicas: int
    spot: bool = False
    nodes: int = 1
    """Nodes that one replica spans."""

    @property
    def name(self) -> str:
        """`Variant.name`."""
        return variant_name(self.class_name, self.count, spot=self.spot, nodes=self.nodes)


def find_running(
    children: Mapping[str, int], accelerators: Iterable[str]
) -> tuple[tuple[RunningVariant, ...], tuple[str, ...]]:
    """Return what child Deployments run, from their replicas by `Variant.name`, and the names that mean no variant.

    The name is a digest of class, count, nodes and purchase, so it is found by trying them all.
    """
    known = _name_variants(tuple(sorted(accelerators)))
    found, strange = [], []
    for name, replicas in sorted(children.items()):
        if name not in known:
            strange.append(name)
        elif replicas:
            variant = known[name]
            found.append(replace(variant, replicas=replicas))
    return tuple(found), tuple(strange)


@lru_cache(maxsize=8)
def _name_variants(accelerators: tuple[str, ...]) -> Mapping[str, RunningVariant]:
    """Return every variant that there can be on these classes, by name. Only replicas on one node are ever spot."""
    return {
        variant.name: variant
        for class_name in accelerators
        for count in range(1, _MOST_ACCELERATORS + 1)
        for variant in (
            *(
                RunningVariant(class_name, count * nodes, 0, nodes=nodes)
                for nodes in range(1, MOST_NODES + 1)
            ),
            RunningVariant(class_name, count, 0, spot=True),
        )
    }


def state_running(variants: Iterable[RunningVariant], accelerators: Mapping[str, AcceleratorClass]) -> State:
    """Return the state of what runs, at the prices of its classes."""
    total: Decimal | None = Decimal(0)
    rows = []
    for variant in sorted(
        variants, key=lambda item: (-item.replicas, item.class_name, item.count, item.nodes, item.spot)
    ):
        price = _price(variant, accelerators)
        total = None if price is None or total is None else total + price * variant.replicas
        rows.append(
            _row(variant.class_name, variant.count, variant.replicas, spot=variant.spot, nodes=variant.nodes)
        )
    return State(
        replicas=sum(row.replicas for row in rows),
        variants=tuple(rows),
        per_day=None if total is None else per_day(total),
    )


def count_planned(plan: DeploymentPlan) -> tuple[tuple[Variant, int], ...]:
    """Return the variants and replicas that a plan leads to, the main one first; empty if it is refused.

    Where an outside autoscaler owns the number, it is what the load needs on the main variant.
    """
    if plan.placement is None or plan.refusal is not None:
        return ()
    if plan.replicas is not None:
        found = tuple((item.variant, item.wanted) for item in plan.placement.variants if item.wanted)
        return found or ((plan.placement.main, 0),)
    main, size = plan.placement.main, plan.size
    if size is None:
        return ((main, 0),)
    needed = math.ceil(size.capacity / main.capacity - 1e-9) if size.capacity and main.capacity else 0
    return ((main, needed or size.replicas),)


def state_planned(plan: DeploymentPlan) -> State | None:
    """Return the state that a plan leads to; None if it is refused."""
    counted = count_planned(plan)
    if not counted:
        return None
    wanted = [(variant, count) for variant, count in counted if count]
    total = price_planned(wanted)
    return State(
        replicas=sum(count for _, count in wanted),
        variants=tuple(
            _row(
                variant.accelerator.metadata.name,
                variant.count,
                count,
                spot=variant.spot,
                nodes=variant.nodes,
            )
            for variant, count in wanted
        ),
        per_day=None if total is None else per_day(total),
    )


def price_planned(replicas: Iterable[tuple[Variant, int]]) -> Decimal | None:
    """Return US dollars per hour; None if a price is not known."""
    total = Decimal(0)
    for variant, count in replicas:
        if variant.price is None:
            return None
        total += variant.price * count
    return total


def per_day(per_hour: Decimal) -> Decimal:
    """Return US dollars per day, to the cent."""
    return (per_hour * HOURS_PER_DAY).quantize(CENT)


def purchase(*, spot: bool) -> Literal["OnDemand", "Spot"]:
    """Return how capacity is bought."""
    return "Spot" if spot else "OnDemand"


def _row(class_name: str, count: int, replicas: int, *, spot: bool, nodes: int) -> VariantState:
    return VariantState(
        class_name=class_name,
        count=count,
        nodes=nodes if nodes > 1 else None,
        purchase=purchase(spot=spot),
        replicas=replicas,
    )


def _price(variant: RunningVariant, accelerators: Mapping[str, AcceleratorClass]) -> Decimal | None:
    accelerator = accelerators.get(variant.class_name)
    hardware = describe(accelerator) if accelerator is not None else None
    if hardware is None:
        return None
    unit = hardware.spot if variant.spot else hardware.on_demand
    return None if unit is None else unit * variant.count
