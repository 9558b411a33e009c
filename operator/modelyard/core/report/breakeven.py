"""The volume from which an own deployment costs less than an API that is paid by the token.

An API's cost grows with every request. A deployment's is a step function: it stays until a further replica is needed.
So the two may cross several times; the first crossing and the last are told.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from modelyard.catalog.api_prices import ApiPrice
from modelyard.core.load import LoadShape

_ROUNDING = 1e-9
"""Relative. Keeps a quotient such as 3.0000000000000004 from counting as a step more."""


@dataclass(frozen=True, slots=True)
class Staircase:
    """What the replicas of one variant cost as their number follows the volume."""

    price: float
    """US dollars per hour and replica."""
    answered: Callable[[int], float]
    """Requests per hour that so many replicas are planned to answer. With more replicas it is as much for each or more:
    the random part of a load shrinks against its mean as it grows."""
    minimum: int
    """Replicas, at least 1."""
    maximum: int
    """Replicas."""

    @property
    def most(self) -> float:
        """Requests per hour of all replicas."""
        return self.answered(self.maximum)


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where the costs cross. Rates are in requests per hour."""

    first: float
    """The lowest rate at which the deployment costs less, or the same."""
    variant: int
    """Index of the staircase that does."""
    last: float
    """From here on it does at every rate up to `until`."""
    until: float | None
    """Above it, what can answer so much costs more; None: it holds for every rate that can be answered."""
    crossings: int
    """How often the deployment gets cheaper as the rate grows."""


@dataclass(frozen=True, slots=True)
class _Interval:
    """Rates at which a number of replicas costs less than the API."""

    start: float
    end: float
    variant: int


def find_break_even(staircases: Sequence[Staircase], per_request: float) -> BreakEven | None:
    """Return where the cheapest of the variants gets cheaper than an API at so many dollars a request; None: nowhere.

    The cheapest costs less exactly where any does, so the answer is the union of their intervals.
    """
    if per_request <= 0:
        return None
    found = sorted(
        (
            interval
            for index, staircase in enumerate(staircases)
            for interval in _cheaper(staircase, per_request, index)
        ),
        key=lambda item: (item.start, item.end),
    )
    if not found:
        return None
    merged: list[_Interval] = []
    for interval in found:
        if merged and interval.start <= merged[-1].end * (1 + _ROUNDING):
            joined = max(merged[-1].end, interval.end)
            merged[-1] = _Interval(merged[-1].start, joined, merged[-1].variant)
        else:
            merged.append(interval)
    most = max(item.most for item in staircases)
    end = merged[-1].end
    return BreakEven(
        first=merged[0].start,
        variant=merged[0].variant,
        last=merged[-1].start,
        until=None if end >= most * (1 - _ROUNDING) else end,
        crossings=len(merged),
    )


def _cheaper(staircase: Staircase, per_request: float, index: int) -> Iterator[_Interval]:
    """Yield the rates at which k replicas cost less than the API, for each k that is of use.

    k replicas cost less from k x price / per_request on, and answer up to their number. The fewest replicas answer
    everything below, too. Once the intervals of k and of one fewer touch, all further ones do, so the rest is one.
    """
    least, most = staircase.minimum, staircase.maximum
    if least > most or staircase.most <= 0:
        return
    unit = staircase.price / per_request
    if most * unit > staircase.most * (1 + _ROUNDING):
        # Even the most replicas, which each answer as much as any, cost more when they are full.
        return
    before = 0.0
    for count in range(least, most + 1):
        start, end = count * unit, staircase.answered(count)
        if count > least and start <= before * (1 + _ROUNDING):
            yield _Interval(min(before, start), staircase.most, index)
            return
        if start <= end * (1 + _ROUNDING):
            yield _Interval(start, end, index)
        before = end


def request_price(price: ApiPrice, shape: LoadShape) -> Decimal:
    """Return US dollars for the mean request. Discounts for cached input are not counted."""
    tokens = (Decimal(shape.input_tokens), Decimal(shape.output_tokens))
    return (tokens[0] * price.input_per_million + tokens[1] * price.output_per_million) / 1_000_000
