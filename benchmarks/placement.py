"""Placement of a whole fleet: `python -m benchmarks.placement`.

50 models with 12 variants each on 400 nodes, for several seeds and three levels of supply: with room to spare, tight,
and short, where not everything fits and priorities decide. Timed are the decision from nothing and the next one,
after loads and prices have moved. In the same run HiGHS proves the exact optimum, or where that takes too long a
lower bound on it, and the greedy answer is worked out.

Prices are those of catalogues (see `OFFERS`). Capacities follow from memory bandwidth, which bounds decoding, with a
random factor for each model and accelerator: what matters here is their spread.
"""

import datetime as dt
import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from modelyard.core.placement.greedy import extend, place_greedily
from modelyard.core.placement.problem import (
    Candidate,
    NodeGroup,
    PlacementDemand,
    PlacementProblem,
    PlacementResult,
)
from modelyard.core.placement.solve import prove_bound, solve

MODELS = 50
VARIANTS = 12
NODES = 400
SECONDS = 1.0
"""Bar of one decision."""
OPTIMUM = 0.05
"""Bar of the distance to the optimum."""
ZONES = ("a", "b", "c")
NODE_SIZE = 8
"""Accelerators of one node."""


@dataclass(frozen=True)
class Offer:
    """An accelerator as it is sold."""

    name: str
    on_demand: float
    """US dollars per hour."""
    spot: float
    """US dollars per hour."""
    bandwidth: float
    """GB/s."""
    memory: float
    """GB."""


OFFERS = (
    Offer("L4", 0.805, 0.478, 300, 24),
    Offer("A10G", 1.006, 0.755, 600, 24),
    Offer("L40S", 1.861, 0.832, 864, 48),
    Offer("A100-80", 3.43, 1.485, 2039, 80),
    Offer("H100", 6.88, 3.456, 3350, 80),
)
"""Prices: AWS us-east-1 on demand (instances g6.xlarge, g5.xlarge, g6e.xlarge; per GPU of p4de and p5) and the median
of its spot prices over all regions, as catalogued by SkyPilot (https://github.com/skypilot-org/skypilot-catalog,
2026-06). Bandwidth and memory: NVIDIA's data sheets."""
MODEL_SIZES = ((8, 16), (14, 28), (32, 64), (70, 140))
"""Billions of parameters, and GB of their bf16 weights."""


LEVELS = {"loose": 3.0, "tight": 1.0, "short": 0.3}
"""Share of the accelerators that are free on a node, at the middle; each node's is random around it, and at most 1."""


@dataclass(frozen=True)
class Case:
    """What was measured of one problem."""

    supply: str
    seed: int
    seconds: float
    """Decision from nothing."""
    next_seconds: float
    """Decision after loads and prices have moved."""
    greedy_seconds: float
    extend_milliseconds: float
    """Mean over all models."""
    proof: str
    """What the distances are to. `optimum`: HiGHS proved it, gap 0. `bound`: a lower bound, which HiGHS proved with
    each model's own problem solved at gap 0; the distance to the optimum is smaller."""
    proof_seconds: float
    distance: float
    """Of the objective, relative, with equal priorities: with others, a sum is not what is minimised."""
    greedy_distance: float
    """Of the greedy objective, relative."""
    cost: float
    """US dollars per hour."""
    served: float
    """Share of the load that is placed."""
    moved: int
    """Replicas that the next decision adds or removes."""
    replicas: int
    saving: float
    """Of mixed accelerators and spot against the best single accelerator on demand with its number unlimited; nan if
    none serves all models."""


def make_problem(seed: int, supply: float, variants: int | None = VARIANTS) -> PlacementProblem:
    """Return a fleet with the best variants of each model; `supply` is a share of free accelerators, see `LEVELS`."""
    rng = random.Random(seed)
    demands = tuple(_make_demand(rng, index, variants) for index in range(MODELS))
    groups: list[NodeGroup] = []
    for offer in OFFERS:
        for zone in ZONES:
            for spot in (False, True):
                name = f"{offer.name}{'-spot' if spot else ''}"
                nodes = NODES // (len(OFFERS) * len(ZONES) * 2) + (len(groups) < NODES % (len(OFFERS) * 6))
                free = tuple(
                    min(NODE_SIZE, max(0, round(rng.uniform(0.3, 1.7) * NODE_SIZE * supply)))
                    for _ in range(nodes)
                )
                groups.append(
                    NodeGroup(
                        f"{name}-{zone}",
                        frozenset({name}),
                        free,
                        zone,
                        delay=0.0 if rng.random() < 0.8 else 150.0,
                    )
                )
    return PlacementProblem(demands, tuple(groups))


def _make_demand(rng: random.Random, index: int, variants: int | None) -> PlacementDemand:
    billions, weights = rng.choice(MODEL_SIZES)
    everything = []
    for offer in OFFERS:
        # Weights in at most 70 % of the memory, so that a cache fits too.
        smallest = next((n for n in (1, 2, 4, 8) if n * offer.memory * 0.7 >= weights), None)
        for count in (1, 2, 4, 8):
            if smallest is None or count < smallest or count > smallest * 2:
                continue
            rate = 28 * (8 / billions) * (offer.bandwidth / 3350) * count**0.9 * rng.uniform(0.6, 1.4)
            for spot in (False, True):
                price = (offer.spot if spot else offer.on_demand) * count
                pool = f"{offer.name}{'-spot' if spot else ''}"
                name = f"{pool}-x{count}"
                everything.append(
                    Candidate(name, pool, count, rate, price, spot, start_time=rng.uniform(40, 300))
                )
    everything.sort(key=lambda c: (c.price / c.capacity, c.name))
    load = rng.paretovariate(1.2) * 8 * (8 / billions) ** 0.5
    return PlacementDemand(
        key=f"team-{index % 5}/model-{index:02}",
        candidates=tuple(everything[:variants]),
        capacity=min(load, 400.0),
        minimum=1,
        maximum=200,
        priority=rng.choice((0, 0, 0, 100)),
        on_demand_base=rng.choice((0, 0, 1)),
    )


def move(problem: PlacementProblem, result: PlacementResult, seed: int) -> PlacementProblem:
    """Return the problem a while later: the answer runs, loads moved by up to 20 %, prices by 2 %."""
    rng = random.Random(seed)
    demands = []
    for demand in problem.demands:
        candidates = tuple(replace(c, price=c.price * rng.uniform(0.99, 1.01)) for c in demand.candidates)
        load = demand.capacity * rng.uniform(0.8, 1.2)
        held = result.allocations[demand.key].replicas
        demands.append(replace(demand, candidates=candidates, capacity=load, current=held))
    return replace(problem, demands=tuple(demands))


def check(problem: PlacementProblem, result: PlacementResult) -> None:
    """Assert that the answer is one: every deployment is decided, within its bounds and the accelerators that exist."""
    assert set(result.allocations) == {demand.key for demand in problem.demands}
    used: dict[str, int] = {}
    for demand in problem.demands:
        replicas = result.allocations[demand.key].replicas
        assert sum(replicas.values()) <= demand.maximum
        by_name = {candidate.name: candidate for candidate in demand.candidates}
        placed = sum(by_name[name].capacity * count for name, count in replicas.items())
        assert placed + result.allocations[demand.key].shortage >= demand.capacity * (1 - 1e-6)
        for name, count in replicas.items():
            used[by_name[name].pool] = used.get(by_name[name].pool, 0) + count * by_name[name].accelerators
    for pool, accelerators in used.items():
        assert accelerators <= sum(sum(group.free) for group in problem.groups or () if pool in group.pools)


def cheapest_single(problem: PlacementProblem) -> float:
    """Return the cost with the best single accelerator, on demand and without limits; nan if none fits all."""
    costs = []
    for offer in OFFERS:
        demands = tuple(
            replace(d, candidates=tuple(c for c in _on_demand(d) if c.pool == offer.name))
            for d in problem.demands
        )
        if all(demand.candidates for demand in demands):
            costs.append(solve(PlacementProblem(demands, None)).cost)
    return min(costs, default=math.nan)


def _on_demand(demand: PlacementDemand) -> list[Candidate]:
    return [candidate for candidate in demand.candidates if not candidate.spot]


def measure(supply: str, seed: int, *, prove: bool) -> Case:
    """Measure one problem; `prove` computes the exact optimum."""
    problem = make_problem(seed, LEVELS[supply])
    assert len(problem.demands) == MODELS
    assert sum(len(group.free) for group in problem.groups or ()) == NODES
    result, seconds = _timed(lambda: solve(problem))
    later = move(problem, result, seed)
    following, next_seconds = _timed(lambda: solve(later))
    greedy, greedy_seconds = _timed(lambda: place_greedily(problem))
    equal = replace(problem, demands=tuple(replace(demand, priority=0) for demand in problem.demands))
    start = time.perf_counter()
    if prove:
        exact = solve(equal, exact=True)
        check(equal, exact)
        assert exact.method == "optimal", exact.method
        least = exact.objective
    else:
        least = prove_bound(equal)
    proof_seconds = time.perf_counter() - start
    aim, greedy_aim = solve(equal), place_greedily(equal)
    for each, answer in (
        (problem, result),
        (later, following),
        (problem, greedy),
        (equal, aim),
        (equal, greedy_aim),
    ):
        check(each, answer)
    assert solve(problem) == result, "the same problem got another answer"
    start = time.perf_counter()
    for demand in later.demands:
        extend(later, demand.key)
    extend_milliseconds = (time.perf_counter() - start) * 1000 / MODELS
    load = sum(demand.capacity for demand in problem.demands)
    return Case(
        supply=supply,
        seed=seed,
        seconds=seconds,
        next_seconds=next_seconds,
        greedy_seconds=greedy_seconds,
        extend_milliseconds=extend_milliseconds,
        proof="optimum" if prove else "bound",
        proof_seconds=proof_seconds,
        distance=aim.objective / least - 1,
        greedy_distance=greedy_aim.objective / least - 1,
        cost=result.cost,
        served=1 - sum(each.shortage for each in result.allocations.values()) / load,
        moved=_moves(later, following),
        replicas=sum(sum(each.replicas.values()) for each in following.allocations.values()),
        saving=1 - result.cost / cheapest_single(make_problem(seed, LEVELS[supply], None)),
    )


def _moves(problem: PlacementProblem, result: PlacementResult) -> int:
    changes = 0
    for demand in problem.demands:
        after = result.allocations[demand.key].replicas
        names = {*after, *demand.current}
        changes += sum(abs(after.get(name, 0) - demand.current.get(name, 0)) for name in names)
    return changes


def _timed(decide: Callable[[], PlacementResult]) -> tuple[PlacementResult, float]:
    start = time.perf_counter()
    result = decide()
    return result, time.perf_counter() - start


def show(cases: Sequence[Case], console: Console) -> None:
    """Print a table."""
    table = Table(title=f"{MODELS} models, {VARIANTS} variants each, {NODES} nodes")
    titles = (
        "supply",
        "seed",
        "decide",
        "next",
        "greedy",
        "extend",
        "distance",
        "greedy's",
        "to",
        "proof",
        "served",
    )
    for title in (*titles, "moved", "$/h", "saving"):
        table.add_column(title, justify="right")
    for case in cases:
        table.add_row(
            case.supply,
            str(case.seed),
            f"{case.seconds:.2f} s",
            f"{case.next_seconds:.2f} s",
            f"{case.greedy_seconds:.2f} s",
            f"{case.extend_milliseconds:.1f} ms",
            f"{case.distance:.2%}",
            f"{case.greedy_distance:.1%}",
            case.proof,
            f"{case.proof_seconds:.0f} s" if case.proof_seconds else "",
            f"{case.served:.1%}",
            f"{case.moved} of {case.replicas}",
            f"{case.cost:.0f}",
            "" if math.isnan(case.saving) else f"{case.saving:.0%}",
        )
    console.print(table)


def main(
    seeds: Annotated[int, typer.Option(help="Problems for each level of supply.")] = 3,
    prove: Annotated[
        str,
        typer.Option(
            help="Levels whose exact optimum is computed, comma-separated; minutes for each tight one."
        ),
    ] = "loose,tight",
    output: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
) -> None:
    """Measure the placement of a fleet and check it against its bars."""
    console = Console(width=180)
    proven = prove.split(",")
    cases = [
        measure(supply, seed, prove=supply in proven)
        for supply in LEVELS
        for seed in track(range(seeds), description=supply, console=Console(stderr=True))
    ]
    show(cases, console)
    document = {
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "processor": platform.processor() or platform.machine(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        },
        "bars": {"seconds": SECONDS, "distance": OPTIMUM},
        "slowest": max(max(case.seconds, case.next_seconds) for case in cases),
        "median_seconds": statistics.median(case.seconds for case in cases),
        "farthest_from_optimum": max(
            (case.distance for case in cases if case.proof == "optimum"), default=None
        ),
        "cases": [asdict(case) for case in cases],
    }
    text = json.dumps(document, indent=2)
    if output is None:
        console.print_json(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
    for case in cases:
        assert case.seconds < SECONDS, case
        assert case.next_seconds < SECONDS, case
        assert case.proof == "bound" or case.distance <= OPTIMUM, case


if __name__ == "__main__":
    typer.run(main)
