"""The placement of the whole fleet."""

import numpy as np
from numpy.typing import NDArray

from modelyard.core.placement.greedy import place_greedily
from modelyard.core.placement.milp import Search, SolverError
from modelyard.core.placement.model import Model, build_model
from modelyard.core.placement.packing import shelve
from modelyard.core.placement.problem import PlacementPolicy, PlacementProblem, PlacementResult
from modelyard.core.placement.result import report, seat
from modelyard.core.placement.terms import Counts, Score, Terms, evaluate, state_terms

MAX_COLUMNS = 10_000
"""Columns of whole numbers beyond which the greedy placement answers: about ten times the fleet of the benchmark."""
ROUNDING = 1e-6


def solve(problem: PlacementProblem, *, exact: bool = False) -> PlacementResult:
    """Place every deployment of the problem.

    `exact` searches until the optimum is proven, whatever it takes. The same problem gives the same answer, in
    whatever order its parts come.
    """
    shelves = shelve(problem)
    terms = state_terms(problem, shelves)
    model = build_model(terms, shelves, problem.budgets)
    if sum(model.whole) > MAX_COLUMNS and not exact:
        return place_greedily(problem)
    try:
        search = Search(model, problem.policy, exact=exact)
        found = search.search()
    except SolverError:
        return place_greedily(problem)
    values = found.values
    if not exact:
        values = _steady(search, model, terms, values, problem.policy)
    placed = _read(model, terms, values)
    stock = seat(terms, placed, shelves, problem.budgets)
    return report(problem, terms, placed, stock, found.bound, "optimal" if found.complete else "search")


def _read(model: Model, terms: tuple[Terms, ...], values: NDArray[np.float64]) -> dict[str, Counts]:
    placed: dict[str, Counts] = {each.key: {} for each in terms}
    for (key, option), columns in model.replicas.items():
        counts = {shelf: int(values[column]) for shelf, column in columns.items() if values[column] > 0}
        if counts:
            placed[key][option] = counts
    return placed


def _steady(
    search: Search,
    model: Model,
    terms: tuple[Terms, ...],
    values: NDArray[np.float64],
    policy: PlacementPolicy,
) -> NDArray[np.float64]:
    """Return what runs now, as far as the answer is not clearly better.

    The search stops at a gap, so two answers within it are equally good, and the one that runs is the better one. It
    is kept for the whole fleet if that costs no more than twice the gap, else for each deployment that would not
    gain that much.
    """
    running = [each for each in terms if any(option.current for option in each.options)]
    if not running:
        return values
    placed = _read(model, terms, values)
    own = {each.key: _score_by_count(each, placed[each.key]) for each in terms}
    now = {each.key: _score_by_count(each, _current(each)) for each in terms}
    slack = 2 * policy.gap

    def accept(kept: list[Terms], allowed: float) -> NDArray[np.float64] | None:
        replicas = [(each.key, option.name, option.current) for each in kept for option in each.options]
        other = search.keep(replicas)
        if other is None or search.penalty(other) > search.penalty(values) * (1 + ROUNDING) + ROUNDING:
            return None
        return other if search.money(other) <= search.money(values) * (1 + allowed) + ROUNDING else None

    enough = [each for each in terms if now[each.key].shortage <= own[each.key].shortage * (1 + ROUNDING)]
    similar = [
        each
        for each in enough
        if now[each.key].money <= own[each.key].money * (1 + slack) + ROUNDING
        and _differs(each, placed[each.key])
    ]
    if len(enough) == len(terms) and sum(s.money for s in now.values()) <= search.money(values) * (1 + slack):
        kept = accept(list(terms), slack)
        if kept is not None:
            return kept
        search.release()
    if similar:
        kept = accept(similar, policy.gap)
        if kept is not None:
            return kept
    return values


def _current(terms: Terms) -> Counts:
    return {option.name: {0: option.current} for option in terms.options if option.current > 0}


def _differs(terms: Terms, placed: Counts) -> bool:
    return any(sum(placed.get(option.name, {}).values()) != option.current for option in terms.options)


def _score_by_count(terms: Terms, counts: Counts) -> Score:
    """Score without zones: the same for what runs, whose zones are not known, and for the answer."""
    totals = {name: {0: sum(placed.values())} for name, placed in counts.items()}
    return evaluate(terms, totals, None)
