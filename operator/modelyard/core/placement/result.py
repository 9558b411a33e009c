"""From placed replicas to the answer: what really fits, what it costs, and why nothing better."""

import math
from collections.abc import Mapping, Sequence

from modelyard.core.placement.explain import explain
from modelyard.core.placement.fill import Stock, fill
from modelyard.core.placement.packing import Item, Room, Shelf, pack
from modelyard.core.placement.problem import Allocation, Budget, PlacementProblem, PlacementResult
from modelyard.core.placement.terms import Counts, Score, Terms, evaluate

ROUNDING = 1e-6
"""Relative: the solver's feasibility tolerance."""


def purse(key: str, terms: Sequence[Terms], placed: Mapping[str, Counts], budgets: Sequence[Budget]) -> float:
    """Return what one deployment may cost beside what is placed of the others, US dollars per hour."""
    mine = [budget for budget in budgets if key in budget.keys]
    return min((budget.per_hour - _spent(budget, terms, placed, key) for budget in mine), default=math.inf)


def _spent(
    budget: Budget, terms: Sequence[Terms], placed: Mapping[str, Counts], without: str | None = None
) -> float:
    return sum(
        option.cost * sum(placed[each.key].get(option.name, {}).values())
        for each in terms
        if each.key in budget.keys and each.key != without and each.key in placed
        for option in each.options
    )


def list_items(terms: Sequence[Terms], placed: Mapping[str, Counts], shelf: int) -> list[Item]:
    """Return the replicas that are to be on a shelf."""
    return [
        Item(each.key, option.name, option.size, count, each.priority)
        for each in terms
        for option in each.options
        if (count := placed[each.key].get(option.name, {}).get(shelf, 0)) > 0
    ]


def seat(
    terms: Sequence[Terms],
    placed: dict[str, Counts],
    shelves: Sequence[Shelf] | None,
    budgets: Sequence[Budget],
) -> Stock:
    """Really put all replicas on nodes; add others for those that do not fit, and return what is left.

    Sizes that do not divide each other and replicas that run in the way of larger ones are why some may not fit.
    """
    rooms: list[Room] = []
    for index, shelf in enumerate(shelves or ()):
        items = list_items(terms, placed, index)
        fitting, room = pack(shelf, items)
        rooms.append(room)
        for item in items:
            fit = fitting[item.key, item.candidate]
            if fit < item.count:
                placed[item.key][item.candidate][index] = fit
    stock = Stock(shelves, rooms)
    for each in sorted(terms, key=lambda t: (-t.priority, t.key)):
        fill(each, placed[each.key], stock, purse(each.key, terms, placed, budgets))
    return stock


def report(
    problem: PlacementProblem,
    terms: Sequence[Terms],
    placed: Mapping[str, Counts],
    stock: Stock,
    bound: float,
    method: str,
) -> PlacementResult:
    """Return the answer; a search that met its bound is `optimal`."""
    scores = {each.key: evaluate(each, placed[each.key], stock.shelves) for each in terms}
    left = [(budget, budget.per_hour - _spent(budget, terms, placed)) for budget in problem.budgets]
    objective = sum(score.money + score.penalty for score in scores.values())
    return PlacementResult(
        allocations={
            each.key: _allocation(each, placed[each.key], scores[each.key], stock, left) for each in terms
        },
        cost=sum(score.cost for score in scores.values()),
        objective=objective,
        bound=min(bound, objective),
        method="optimal" if method == "search" and objective <= bound + ROUNDING * abs(bound) else method,
    )


def _allocation(
    terms: Terms, counts: Counts, score: Score, stock: Stock, budgets: Sequence[tuple[Budget, float]]
) -> Allocation:
    totals = {name: sum(placed.values()) for name, placed in sorted(counts.items())}
    return Allocation(
        replicas={name: count for name, count in totals.items() if count > 0},
        shortage=score.shortage,
        limits=explain(terms, counts, stock, [each for each in budgets if terms.key in each[0].keys]),
    )
