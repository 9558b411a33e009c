"""What soft limits make of a deployment's size."""

import math
from dataclasses import dataclass, replace
from decimal import Decimal

from modelyard.core.scaling.schedules import Bounds


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """What budgets ask of one deployment with `scaling`."""

    capped_by: str = ""
    """Names of the budgets that bound its growth; empty: none does."""
    max_share: Decimal | None = None
    """Share of `scaling.max` that is left of it. None: whatever runs."""
    grows: bool = True
    """False: never above what runs."""
    slept_by: str = ""
    """Names of the budgets that let it sleep as soon as it is idle; empty: none does."""


def limit_bounds(bounds: Bounds, limit: SizeLimit | None, present: int) -> Bounds:
    """Return the bounds with `max` lowered. `present`: replicas that are written.

    `min` holds: it is what the deployment's owner promises to its users. Nor does a limit take the last replica: that
    goes by sleeping, which a request ends.
    """
    if limit is None or not limit.capped_by:
        return bounds
    most = bounds.max
    if limit.max_share is not None:
        most = min(most, math.ceil(bounds.max * limit.max_share))
    if not limit.grows:
        most = min(most, present)
    most = max(most, bounds.min, 1)
    return bounds if most >= bounds.max else replace(bounds, max=most, budget=limit.capped_by)
