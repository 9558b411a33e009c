"""Keeps what runs, as far as the answer is not clearly better.

The search stops at a gap, so that two answers within it are equally good: the one that runs is the better one.
"""

from collections.abc import Mapping, Sequence

from modelyard.core.placement.fill import Stock
from modelyard.core.placement.packing import Room, Shelf, pack
from modelyard.core.placement.problem import Budget
from modelyard.core.placement.result import list_items, purse
from modelyard.core.placement.terms import Counts, Terms, evaluate

ROUNDING = 1e-6


def place_running(terms: Sequence[Terms], shelves: Sequence[Shelf] | None) -> dict[str, Counts]:
    """Return the replicas that run and may go on to, on shelves that have them or could."""
    stock = Stock(shelves, [Room(shelf.free) for shelf in shelves or ()])
    placed: dict[str, Counts] = {each.key: {} for each in terms}
    order = sorted(
        ((each, option) for each in terms for option in each.options if option.current > 0),
        key=lambda pair: (len(pair[1].shelves), -pair[1].size, pair[0].key, pair[1].name),
    )
    for each, option in order:
        others = sum(sum(counts.values()) for counts in placed[each.key].values())
        count = min(option.current, each.maximum - others)
        if option.ceiling is not None:
            count = min(count, option.ceiling)
        if count <= 0:
            continue
        counts = placed[each.key].setdefault(option.name, {})
        for index in option.shelves if shelves is not None else ():
            known = (
                sum(node.get((each.key, option.name), 0) for node in shelves[index].running) if shelves else 0
            )
            if known and count:
                taken = stock.rooms[index].take(option.size, min(known, count))
                counts[index] = counts.get(index, 0) + taken
                count -= taken
        stock.place(option, count, counts)
    return placed


def keep_running(
    terms: Sequence[Terms],
    placed: Mapping[str, Counts],
    running: Mapping[str, Counts],
    shelves: Sequence[Shelf] | None,
    budgets: Sequence[Budget],
    slack: float,
) -> dict[str, Counts]:
    """Return the answer, with what runs where that costs at most `slack` (relative) more and misses no more.

    The whole fleet is kept if it can be, else each deployment that can.
    """
    chosen = dict(placed)
    own = {each.key: evaluate(each, placed[each.key], shelves) for each in terms}
    now = {each.key: evaluate(each, running[each.key], shelves) for each in terms}
    if not any(running.values()):
        return chosen
    as_good = [
        each for each in terms if now[each.key].penalty <= own[each.key].penalty * (1 + ROUNDING) + ROUNDING
    ]
    money = sum(score.money for score in own.values())
    if (
        len(as_good) == len(terms)
        and sum(score.money for score in now.values()) <= money * (1 + slack) + ROUNDING
        and all(_affordable(each, terms, running, budgets) for each in terms)
        and _fits(terms, running, shelves, range(len(shelves or ())))
    ):
        return dict(running)
    for each in as_good:
        if now[each.key].money > own[each.key].money * (1 + slack) + ROUNDING:
            continue
        if _totals(running[each.key]) == _totals(chosen[each.key]):
            continue
        other = {**chosen, each.key: running[each.key]}
        touched = sorted({index for counts in running[each.key].values() for index in counts})
        if _affordable(each, terms, other, budgets) and _fits(terms, other, shelves, touched):
            chosen = other
    return chosen


def _totals(counts: Counts) -> dict[str, int]:
    return {name: total for name, placed in counts.items() if (total := sum(placed.values()))}


def _affordable(
    terms: Terms, everyone: Sequence[Terms], placed: Mapping[str, Counts], budgets: Sequence[Budget]
) -> bool:
    cost = sum(option.cost * sum(placed[terms.key].get(option.name, {}).values()) for option in terms.options)
    return cost <= purse(terms.key, everyone, placed, budgets) * (1 + ROUNDING)


def _fits(
    terms: Sequence[Terms],
    placed: Mapping[str, Counts],
    shelves: Sequence[Shelf] | None,
    touched: Sequence[int],
) -> bool:
    if shelves is None:
        return True
    for index in touched:
        items = list_items(terms, placed, index)
        fitting, _ = pack(shelves[index], items)
        if any(fitting[item.key, item.candidate] < item.count for item in items):
            return False
    return True
