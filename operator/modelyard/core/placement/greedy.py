"""Greedy placement: one deployment after the other, by priority.

It takes over where the exact search would not end in time, and answers for one deployment between two searches.
"""

import math
from collections.abc import Mapping, Sequence

from modelyard.core.placement.compact import build_model
from modelyard.core.placement.explain import explain
from modelyard.core.placement.fill import Stock, fill, trim
from modelyard.core.placement.packing import Room, Shelf, count_fits, shelve
from modelyard.core.placement.problem import (
    Allocation,
    Budget,
    NodeGroup,
    PlacementDemand,
    PlacementProblem,
    PlacementResult,
)
from modelyard.core.placement.result import purse, report, seat
from modelyard.core.placement.terms import Counts, Terms, evaluate, state_terms


def place_greedily(problem: PlacementProblem) -> PlacementResult:
    """Place every deployment, the highest priority first, and state the gap to the relaxed optimum."""
    # The solver is a second's import, and most commands know this module without placing anything.
    from modelyard.core.placement.milp import Search, SolverError

    shelves = shelve(problem)
    terms = state_terms(problem, shelves)
    placed, stock = choose_greedily(terms, shelves, problem.budgets)
    if any(shelf.running for shelf in shelves or ()):
        stock = seat(terms, placed, shelves, problem.budgets)
    fits = count_fits((option.size for each in terms for option in each.options), shelves)
    try:
        model = build_model(terms, shelves, problem.budgets, fits)
        bound = Search(model, problem.policy, exact=False).relax().objective
    except SolverError:
        bound = 0.0
    return report(problem, terms, placed, stock, bound, "greedy")


def choose_greedily(
    terms: Sequence[Terms], shelves: Sequence[Shelf] | None, budgets: Sequence[Budget]
) -> tuple[dict[str, Counts], Stock]:
    """Return the replicas of every deployment, and what they leave; the positions of running ones do not count."""
    placed: dict[str, Counts] = {}
    stock = Stock(shelves, [Room(shelf.free) for shelf in shelves or ()])
    for each in sorted(terms, key=lambda t: (-t.priority, t.key)):
        placed[each.key] = _place(each, stock, purse(each.key, terms, placed, budgets))
    return placed, stock


def _place(terms: Terms, stock: Stock, money: float) -> Counts:
    before = stock.copy()
    counts: Counts = {}
    fill(terms, counts, stock, money)
    untrimmed = {name: dict(placed) for name, placed in counts.items()}
    if trim(terms, counts, stock.shelves):
        # Free what was taken away by placing the rest anew.
        again: Counts = {}
        for option in terms.options:
            count = sum(counts.get(option.name, {}).values())
            if count and before.place(option, count, again.setdefault(option.name, {})) < count:
                return untrimmed
        stock.rooms = before.rooms
        return again
    return counts


def extend(problem: PlacementProblem, key: str) -> Allocation:
    """Return the greedy answer for one deployment while all others keep what they hold.

    It keeps its own replicas, adds the best ones to them or takes away those not needed.

    Raises:
        KeyError: the problem has no such deployment.

    """
    own = next((demand for demand in problem.demands if demand.key == key), None)
    if own is None:
        raise KeyError(key)
    others = [demand for demand in problem.demands if demand.key != key]
    near = _near(problem, own)
    shelves = shelve(near)
    (terms,) = state_terms(near, shelves)
    stock = _stock(shelves, own, others)
    counts: Counts = {}
    # A ceiling below what runs means that the rest stayed Pending.
    money = _money_beside(problem.budgets, key, others)
    for option in sorted(terms.options, key=lambda each: -each.size):
        held = min(option.current, own.maximum if option.ceiling is None else option.ceiling)
        if option.cost > 0:
            spent = sum(o.cost * sum(counts.get(o.name, {}).values()) for o in terms.options)
            held = (
                min(held, int(max(0.0, money - spent) / option.cost * (1 + 1e-9)))
                if money < math.inf
                else held
            )
        held = min(held, terms.maximum - sum(sum(placed.values()) for placed in counts.values()))
        if held > 0:
            stock.place(option, held, counts.setdefault(option.name, {}))
    before = {name: dict(placed) for name, placed in counts.items()}
    left = fill(terms, counts, stock, money)
    if counts == before:
        # What runs is needed until what was added serves.
        trim(terms, counts, shelves)
    score = evaluate(terms, counts, shelves)
    return Allocation(
        replicas={name: sum(each.values()) for name, each in sorted(counts.items()) if any(each.values())},
        shortage=score.shortage,
        limits=explain(terms, counts, stock, tuple((b, left) for b in problem.budgets if key in b.keys)),
    )


def _near(problem: PlacementProblem, own: PlacementDemand) -> PlacementProblem:
    """Return the part of the problem that one deployment sees."""
    if problem.groups is None:
        return PlacementProblem(demands=(own,), groups=None, policy=problem.policy)
    pools = {candidate.pool for candidate in own.candidates}
    groups: list[NodeGroup] = []
    rest = list(problem.groups)
    # Nodes that several pools share connect them: what others do on one matters to the next.
    while near := [group for group in rest if group.pools & pools]:
        rest = [group for group in rest if not group.pools & pools]
        pools = pools.union(*(group.pools for group in near))
        groups += near
    return PlacementProblem(demands=(own,), groups=tuple(groups), policy=problem.policy)


def _stock(shelves: Sequence[Shelf] | None, own: PlacementDemand, others: Sequence[PlacementDemand]) -> Stock:
    """Return what the other deployments leave."""
    if shelves is None:
        return Stock(None, [])
    sizes = {
        (demand.key, candidate.name): max(1, candidate.accelerators)
        for demand in others
        for candidate in demand.candidates
        if demand.current.get(candidate.name, 0) > 0
    }
    rooms: list[Room] = []
    seated: dict[tuple[str, str], int] = {}
    for shelf in shelves:
        free = list(shelf.free)
        for node, running in enumerate(shelf.running):
            for (key, name), count in running.items():
                if key != own.key and (key, name) in sizes:
                    free[node] = max(0, free[node] - count * sizes[key, name])
                    seated[key, name] = seated.get((key, name), 0) + count
        rooms.append(Room(free))
    _seat_rest(shelves, rooms, others, seated)
    return Stock(shelves, rooms)


def _seat_rest(
    shelves: Sequence[Shelf],
    rooms: list[Room],
    others: Sequence[PlacementDemand],
    seated: Mapping[tuple[str, str], int],
) -> None:
    """Place replicas that run at positions not known: those with the fewest choices first, then the largest."""
    serving: dict[str, list[int]] = {}
    for index, shelf in enumerate(shelves):
        for pool in shelf.pools:
            serving.setdefault(pool, []).append(index)
    rest = [
        (
            len(serving[candidate.pool]),
            -max(1, candidate.accelerators),
            demand.key,
            candidate.name,
            candidate.pool,
        )
        for demand in others
        for candidate in demand.candidates
        if demand.current.get(candidate.name, 0) > 0 and candidate.pool in serving
    ]
    current = {demand.key: demand.current for demand in others}
    for _, size, key, name, pool in sorted(rest):
        missing = current[key][name] - seated.get((key, name), 0)
        for index in serving[pool]:
            if missing > 0:
                missing -= rooms[index].take(-size, missing)
        for index in serving[pool]:
            if missing > 0 and rooms[index].total:
                available = rooms[index].total
                rooms[index].seize(missing * -size)
                missing -= math.ceil(available / -size)


def _money_beside(budgets: Sequence[Budget], key: str, others: Sequence[PlacementDemand]) -> float:
    left = math.inf
    for budget in budgets:
        if key in budget.keys:
            spent = sum(
                candidate.price * demand.current.get(candidate.name, 0)
                for demand in others
                if demand.key in budget.keys
                for candidate in demand.candidates
            )
            left = min(left, budget.per_hour - spent)
    return left
