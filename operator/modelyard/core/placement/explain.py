"""Says what kept a better choice out: by comparison with the choice if nothing were scarce."""

import math
from collections.abc import Sequence
from dataclasses import replace

from modelyard.core.placement.fill import UNLIMITED, Stock, fill
from modelyard.core.placement.packing import Room
from modelyard.core.placement.problem import Budget
from modelyard.core.placement.terms import Counts, Option, Terms, evaluate

WORTH_SAYING = 0.01
"""A choice that costs this share more than the best one is explained: the default gap of the search."""


def explain(
    terms: Terms, counts: Counts, stock: Stock, budgets: Sequence[tuple[Budget, float]]
) -> tuple[str, ...]:
    """Return sentences for the user.

    `stock` is what is left after the placement, `budgets` those that the deployment counts towards, with what is left
    of each in US dollars per hour.
    """
    free = _unlimited(terms, stock)
    chosen: Counts = {}
    shelves = stock.shelves or None
    fill(free, chosen, Stock(shelves, [Room((UNLIMITED,)) for _ in stock.rooms]), math.inf)
    best, actual = evaluate(free, chosen, shelves), evaluate(free, counts, shelves)
    if actual.penalty <= best.penalty * (1 + WORTH_SAYING) and actual.cost <= best.cost * (1 + WORTH_SAYING):
        return ()
    if not terms.options:
        return ("no variant that fits",)
    sentences: list[str] = []
    for option in terms.options:
        count = sum(counts.get(option.name, {}).values())
        if sum(chosen.get(option.name, {}).values()) > count:
            sentences += _obstacles(terms, option, count, counts, stock, budgets)
    return tuple(dict.fromkeys(sentences))


def _unlimited(terms: Terms, stock: Stock) -> Terms:
    everywhere = tuple(range(len(stock.rooms))) or (0,)
    options = tuple(
        replace(each, ceiling=None, current=0, removal=0.0, addition=0.0, shelves=each.shelves or everywhere)
        for each in terms.options
    )
    return replace(terms, options=options, maximum=UNLIMITED)


def _obstacles(
    terms: Terms,
    option: Option,
    count: int,
    counts: Counts,
    stock: Stock,
    budgets: Sequence[tuple[Budget, float]],
) -> list[str]:
    found: list[str] = []
    if option.ceiling is not None and count >= option.ceiling:
        found.append(f"only {_replicas(option.ceiling)} on {option.label} can be had at present")
    if sum(sum(placed.values()) for placed in counts.values()) >= terms.maximum:
        found.append(f"maximum of {_replicas(terms.maximum)}")
    found += [
        f"budget {budget.name} of {budget.per_hour:g} $/h is used up"
        for budget, left in budgets
        if left < option.cost
    ]
    if stock.fits(option) == 0:
        found.append(_scarcity(option, stock))
    if not found and any(each.current for each in terms.options):
        found.append(f"a change to {option.label} would not earn back what it costs")
    return found


def _replicas(count: int) -> str:
    return f"{count} replica" if count == 1 else f"{count} replicas"


def _scarcity(option: Option, stock: Stock) -> str:
    if not option.shelves:
        return f"there are no {option.nodes}"
    largest = max(stock.rooms[shelf].largest for shelf in option.shelves)
    if largest == 0:
        return f"{option.nodes} have no free accelerators"
    return f"{option.nodes} have at most {largest} free on one node, {option.size} needed"
