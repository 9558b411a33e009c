"""What holds for every placement: inventory, budgets, bounds, order, optimality and calm."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.core.placement.greedy import extend, place_greedily
from modelyard.core.placement.problem import (
    Budget,
    Candidate,
    NodeGroup,
    PlacementDemand,
    PlacementPolicy,
    PlacementProblem,
    PlacementResult,
)
from modelyard.core.placement.solve import solve
from modelyard.core.placement.terms import evaluate, state_terms

# How long an example takes depends on the machine's other work, and says nothing about the answer.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

POOLS = ("big", "small")
SIZES = (1, 2, 4)
CALM = PlacementPolicy(hysteresis=0.0)
"""Without a charge for switching where starting takes no time."""


@st.composite
def demands(
    draw: st.DrawFn, key: str, *, sizes: tuple[int, ...] = SIZES, running: bool = True
) -> PlacementDemand:
    candidates = tuple(
        Candidate(
            name=f"c{index}",
            pool=draw(st.sampled_from(POOLS)),
            accelerators=draw(st.sampled_from(sizes)),
            capacity=draw(st.sampled_from((0.0, 0.7, 1.0, 2.5, 6.0))),
            price=draw(st.integers(0, 12)) / 2,
            spot=draw(st.booleans()),
            start_time=draw(st.sampled_from((0.0, 60.0, 600.0))),
            ceiling=draw(st.sampled_from((None, None, 0, 2))),
        )
        for index in range(draw(st.integers(0, 3)))
    )
    minimum = draw(st.integers(0, 2))
    return PlacementDemand(
        key=key,
        candidates=candidates,
        capacity=draw(st.sampled_from((0.0, 0.5, 1.0, 3.0, 5.5))),
        minimum=minimum,
        maximum=draw(st.integers(max(1, minimum), 5)),
        priority=draw(st.sampled_from((0, 10))),
        current={c.name: draw(st.integers(0, 1)) for c in candidates} if running else {},
        on_demand_base=draw(st.integers(0, 1)),
    )


@st.composite
def groups(draw: st.DrawFn) -> tuple[NodeGroup, ...]:
    return tuple(
        NodeGroup(
            name=f"g{index}",
            pools=frozenset(draw(st.sets(st.sampled_from(POOLS), min_size=1))),
            free=tuple(draw(st.lists(st.integers(0, 4), max_size=3))),
            zone=draw(st.sampled_from(("a", "b"))),
            delay=draw(st.sampled_from((0.0, 120.0))),
        )
        for index in range(draw(st.integers(0, 3)))
    )


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    sizes: tuple[int, ...] = SIZES,
    running: bool = True,
    most: int = 3,
    budgeted: bool = True,
) -> PlacementProblem:
    chosen = tuple(
        draw(demands(f"d{i}", sizes=sizes, running=running)) for i in range(draw(st.integers(1, most)))
    )
    budgets: tuple[Budget, ...] = ()
    if budgeted and draw(st.booleans()):
        keys = draw(st.sets(st.sampled_from([d.key for d in chosen])))
        budgets = (Budget("team", frozenset(keys), draw(st.integers(0, 20)) / 2),)
    inventory = draw(st.none() | groups())
    return PlacementProblem(chosen, inventory, budgets, CALM)


def can_pack(items: list[tuple[int, str]], nodes: list[tuple[int, frozenset[str]]]) -> bool:
    """Whether replicas (accelerators, pool) fit on nodes (free, pools), by trying everything."""

    def place(index: int, free: tuple[int, ...]) -> bool:
        if index == len(ordered):
            return True
        size, pool = ordered[index]
        tried = set()
        for node, left in enumerate(free):
            state = (left, nodes[node][1])
            if left >= size and pool in nodes[node][1] and state not in tried:
                tried.add(state)
                if place(index + 1, (*free[:node], left - size, *free[node + 1 :])):
                    return True
        return False

    ordered = sorted(items, reverse=True)
    return place(0, tuple(free for free, _ in nodes))


def fits(problem: PlacementProblem, replicas: dict[str, dict[str, int]]) -> bool:
    if problem.groups is None:
        return True
    nodes = [(free, group.pools) for group in problem.groups for free in group.free]
    by_key = {d.key: {c.name: c for c in d.candidates} for d in problem.demands}
    items = [
        (by_key[key][name].accelerators, by_key[key][name].pool)
        for key, counts in replicas.items()
        for name, count in counts.items()
        for _ in range(count)
    ]
    return can_pack(items, nodes)


def check(problem: PlacementProblem, result: PlacementResult) -> None:
    replicas = {key: dict(allocation.replicas) for key, allocation in result.allocations.items()}
    assert set(replicas) == {d.key for d in problem.demands}
    assert fits(problem, replicas)
    for demand in problem.demands:
        counts = replicas[demand.key]
        by_name = {c.name: c for c in demand.candidates}
        assert all(count > 0 for count in counts.values())
        assert sum(counts.values()) <= demand.maximum
        assert all(by_name[n].ceiling is None or count <= by_name[n].ceiling for n, count in counts.items())
        served = sum(by_name[name].capacity * count for name, count in counts.items())
        assert result.allocations[demand.key].shortage >= demand.capacity - served - 1e-6
    for budget in problem.budgets:
        assert cost(problem, replicas, budget.keys) <= budget.per_hour * (1 + 1e-6) + 1e-9
    assert result.bound <= result.objective + 1e-6


def cost(problem: PlacementProblem, replicas: dict[str, dict[str, int]], keys: frozenset[str]) -> float:
    return sum(
        c.price * replicas[d.key].get(c.name, 0)
        for d in problem.demands
        if d.key in keys
        for c in d.candidates
    )


@unhurried
@given(problems(sizes=(1, 2, 3, 4)))
def test_answers_stay_within_inventory_budgets_and_bounds(problem: PlacementProblem):
    for result in (solve(problem), place_greedily(problem)):
        check(problem, result)


@unhurried
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(problem, rng):
    def mixed(items):
        return tuple(rng.sample(list(items), len(items)))

    other = replace(
        problem,
        demands=mixed([replace(d, candidates=mixed(d.candidates)) for d in problem.demands]),
        groups=None
        if problem.groups is None
        else mixed([replace(g, free=mixed(g.free)) for g in problem.groups]),
    )
    for decide in (solve, place_greedily):
        assert decide(other) == decide(problem) == decide(problem)


def all_counts(demand: PlacementDemand) -> Iterator[dict[str, int]]:
    limits = [
        min(demand.maximum, demand.maximum if c.ceiling is None else c.ceiling) for c in demand.candidates
    ]
    for counts in itertools.product(*(range(limit + 1) for limit in limits)):
        if sum(counts) <= demand.maximum:
            yield {c.name: n for c, n in zip(demand.candidates, counts, strict=True) if n}


@settings(unhurried, max_examples=60)
@given(problems(sizes=(1, 2, 3, 4), running=False, most=2))
def test_the_exact_optimum_is_that_of_trying_everything(problem: PlacementProblem):
    # On demand only: which zone a spot replica is in is not a part of the answer.
    problem = replace(
        problem,
        demands=tuple(
            replace(d, priority=0, candidates=tuple(replace(c, spot=False) for c in d.candidates))
            for d in problem.demands
        ),
    )
    terms = {each.key: each for each in state_terms(problem, None)}
    best = float("inf")
    for choice in itertools.product(*(list(all_counts(d)) for d in problem.demands)):
        replicas = {d.key: counts for d, counts in zip(problem.demands, choice, strict=True)}
        total = 0.0
        for key, counts in replicas.items():
            known = {option.name for option in terms[key].options}
            if not counts.keys() <= known:
                total = float("inf")
                break
            score = evaluate(terms[key], {name: {0: n} for name, n in counts.items()}, None)
            total += score.money + score.penalty
        if total >= best or any(cost(problem, replicas, b.keys) > b.per_hour + 1e-9 for b in problem.budgets):
            continue
        if fits(problem, replicas):
            best = total
    result = solve(problem, exact=True)
    check(problem, result)
    assert abs(result.objective - best) <= 1e-5 * max(1.0, best)
    assert solve(problem).bound <= best + 1e-5 * max(1.0, best)
    greedy = place_greedily(problem)
    assert greedy.bound - 1e-5 * max(1.0, best) <= best <= greedy.objective + 1e-5 * max(1.0, best)


@settings(unhurried, max_examples=60)
@given(problems(running=False, most=2), st.sampled_from((1.0, 1.3, 2.0)), st.sampled_from((1.0, 1.2, 3.0)))
def test_the_optimum_rises_with_price_and_demand(problem, dearer, busier):
    # One priority: of several, the highest is served first, at whatever sum. Owned accelerators have no price.
    problem = replace(problem, demands=tuple(replace(d, priority=0) for d in problem.demands), budgets=())
    first = problem.demands[0]
    after = replace(
        first,
        capacity=first.capacity * busier,
        candidates=tuple(replace(c, price=c.price * dearer) for c in first.candidates),
    )
    more = replace(problem, demands=(after, *problem.demands[1:]))
    low, high = solve(problem, exact=True), solve(more, exact=True)
    assert low.objective <= high.objective * (1 + 1e-6) + 1e-6


@unhurried
@given(problems(most=3))
def test_the_same_problem_with_the_answer_running_changes_nothing(problem: PlacementProblem):
    problem = replace(problem, policy=PlacementPolicy())
    if problem.groups is not None:
        # One pool for each group: which of several groups runs a replica is not known afterwards.
        problem = replace(
            problem, groups=tuple(replace(g, pools=frozenset([min(g.pools)])) for g in problem.groups)
        )
    first = solve(problem)
    running = replace(
        problem,
        demands=tuple(replace(d, current=first.allocations[d.key].replicas) for d in problem.demands),
    )
    second = solve(running)
    assert {k: dict(a.replicas) for k, a in second.allocations.items()} == {
        k: dict(a.replicas) for k, a in first.allocations.items()
    }


@unhurried
@given(problems(running=False, budgeted=False), st.integers(0, 1))
def test_higher_priority_does_not_starve(problem: PlacementProblem, index: int):
    """What the highest priority gets is what it gets alone."""
    key = problem.demands[index % len(problem.demands)].key
    demands = tuple(replace(d, priority=100 if d.key == key else 0) for d in problem.demands)
    own = next(d for d in demands if d.key == key)
    alone = solve(replace(problem, demands=(own,))).allocations[key]
    together = solve(replace(problem, demands=demands)).allocations[key]
    assert together.shortage <= alone.shortage + 1e-3 * own.capacity + 1e-6


@unhurried
@given(problems(), st.floats(0.0, 12.0))
def test_extending_one_keeps_the_others_and_the_inventory(problem: PlacementProblem, load: float):
    placed = solve(problem)
    running = replace(
        problem,
        demands=tuple(replace(d, current=placed.allocations[d.key].replicas) for d in problem.demands),
    )
    for demand in running.demands:
        grown = replace(
            running,
            demands=tuple(replace(d, capacity=load) if d.key == demand.key else d for d in running.demands),
        )
        allocation = extend(grown, demand.key)
        after = {d.key: dict(d.current) for d in running.demands} | {demand.key: dict(allocation.replicas)}
        assert fits(problem, after)
        assert sum(allocation.replicas.values()) <= demand.maximum
        for budget in problem.budgets:
            if demand.key in budget.keys:
                assert cost(problem, after, budget.keys) <= budget.per_hour * (1 + 1e-6) + 1e-9
