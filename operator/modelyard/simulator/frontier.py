"""What cost buys: which outcomes no other beats, and the cost of an attainment between them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One policy with one setting."""

    cost: float
    """US dollars."""
    attainment: float
    """Share of requests, 0 to 1."""
    label: str = ""


def frontier(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points that no other beats, by rising cost: none attains as much or more for less or the same."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.attainment, point.label)):
        if not best or point.attainment > best[-1].attainment:
            best.append(point)
    return tuple(best)


def cost_at(points: Sequence[Point], attainment: float) -> float:
    """Return the lowest cost among the points that attain so much; infinite if none does.

    Nothing is interpolated: between two settings of a rule there need not be one.
    """
    return min((point.cost for point in points if point.attainment >= attainment), default=math.inf)


def attainment_at(points: Sequence[Point], cost: float) -> float:
    """Return the highest attainment among the points that cost at most so much; NaN if none is so cheap."""
    return max((point.attainment for point in points if point.cost <= cost), default=math.nan)
