"""The placement of the whole fleet."""

from collections.abc import Mapping

from modelyard.core.placement.columns import Columns, Market
from modelyard.core.placement.compact import build_model
from modelyard.core.placement.greedy import choose_greedily, place_greedily
from modelyard.core.placement.milp import Search, SolverError
from modelyard.core.placement.packing import count_fits, shelve
from modelyard.core.placement.problem import PlacementPolicy, PlacementProblem, PlacementResult
from modelyard.core.placement.result import report, seat
from modelyard.core.placement.steady import keep_running, place_running
from modelyard.core.placement.terms import Counts, Terms, evaluate, state_terms

MAX_OPTIONS = 6_000
"""Variants of all deployments beyond which the greedy placement answers: ten times the fleet of the benchmark."""

PROOF = 1e-9
"""Relative distance of bound and objective that proves the optimum: rounding of sums."""


def solve(problem: PlacementProblem, *, exact: bool = False) -> PlacementResult:
    """Place every deployment of the problem.

    `exact` searches until the optimum is proven, whatever it takes (minutes for a large fleet on scarce nodes). The
    same problem gives the same answer, in whatever order its parts come.

    Where something is missing and priorities differ, the highest is served first at whatever sum. The objective then
    may lie well above the bound, which is that of the weighted sum.
    """
    columns = _collect(problem)
    terms, market = columns.terms, columns.market
    if sum(len(each.options) for each in terms) > MAX_OPTIONS and not exact:
        return place_greedily(problem)
    running = place_running(terms, market.shelves)
    greedy, _ = choose_greedily(terms, market.shelves, market.budgets)
    for each in terms:
        for counts in ({}, running[each.key], greedy[each.key]):
            columns.add(each, counts)
    try:
        columns.generate(problem.policy, exact=exact)
        found = Search(columns.build(), problem.policy, exact=False).search()
        placed, bound = columns.read(found.values), columns.bound
        if exact:
            placed, bound = _prove(columns, placed, problem.policy)
    except SolverError:
        return place_greedily(problem)
    if not exact:
        placed = keep_running(terms, placed, running, market.shelves, market.budgets, 2 * problem.policy.gap)
    stock = seat(terms, placed, market.shelves, market.budgets)
    return report(problem, terms, placed, stock, bound, "search")


def prove_bound(problem: PlacementProblem) -> float:
    """Return a lower bound on the objective of any placement, US dollars per hour: seconds for a large fleet.

    It is the Lagrangian bound: what each deployment costs at the least at prices of nodes and budgets, as HiGHS proves
    at gap 0, less what those are worth.
    """
    columns = _collect(problem)
    for each in columns.terms:
        columns.add(each, {})
    columns.generate(problem.policy, exact=True)
    alone = sum(_bound_alone(columns, each, {})[0] for each in columns.terms)
    priced = sum(_bound_alone(columns, each, columns.prices.get(each.key, {}))[0] for each in columns.terms)
    return max(alone, priced - columns.worth)


def _collect(problem: PlacementProblem) -> Columns:
    shelves = shelve(problem)
    terms = state_terms(problem, shelves)
    sizes = (option.size for each in terms for option in each.options)
    budgets = tuple(sorted(problem.budgets, key=lambda each: each.name))
    return Columns(terms, Market(shelves, budgets, count_fits(sizes, shelves)))


def _prove(
    columns: Columns, placed: Mapping[str, Counts], policy: PlacementPolicy
) -> tuple[dict[str, Counts], float]:
    """Solve the compact program to its optimum, from an answer and the bounds of the single deployments."""
    terms, market = columns.terms, columns.market
    model = build_model(terms, market.shelves, market.budgets, market.fits)
    search = Search(model, policy, exact=True)
    objective = sum(
        score.money + score.penalty
        for each in terms
        for score in [evaluate(each, placed[each.key], market.shelves)]
    )
    # Where nothing is scarce, the bounds at no prices are exact.
    least = sum(_bound_alone(columns, each, {})[0] for each in terms)
    if least >= objective * (1 - PROOF):
        return dict(placed), least
    for each in terms:
        bound, values = _bound_alone(columns, each, columns.prices.get(each.key, {}))
        search.bound_below(model.owned[each.key], values, bound)
    start = {
        column: placed[key].get(option, {}).get(shelf, 0)
        for (key, option), by_shelf in model.replicas.items()
        for shelf, column in by_shelf.items()
    }
    found = search.search(start)
    answer: dict[str, Counts] = {each.key: {} for each in terms}
    for (key, option), by_shelf in model.replicas.items():
        for shelf, column in by_shelf.items():
            if found.values[column] > 0:
                answer[key].setdefault(option, {})[shelf] = int(found.values[column])
    return answer, found.bound


def _bound_alone(
    columns: Columns, terms: Terms, prices: Mapping[tuple[str, int], float]
) -> tuple[float, list[float]]:
    """Return what one deployment costs at the least, at prices of what is shared, and the costs of its columns."""
    market = columns.market
    alone = build_model((terms,), market.shelves, (), market.fits, limited=False)
    for (_, option), by_shelf in alone.replicas.items():
        for shelf, column in by_shelf.items():
            alone.money[column] += prices.get((option, shelf), 0.0)
    bound = Search(alone, PlacementPolicy(), exact=True).minimum()
    return bound, [money + penalty for money, penalty in zip(alone.money, alone.penalty, strict=True)]
