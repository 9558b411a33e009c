"""Days whose volume crosses the break-even twice: `python -m benchmarks.breakeven`.

What the decision does on many more days is told by `benchmarks.breakeven_changes`.

Each day is played request by request for 24 hours, under the operator's own decision with its own constants, always on
the own fleet, and always at the API. The best of hindsight is the cheapest of the last two and of switching between
them at the best minutes, each start paid (`modelyard.simulator.breakevenday`, which also says what a crossing is).

The fleet is Llama-3.1-8B in FP8 on H100 under vLLM, as `benchmarks.autoscaling` has it; the API is the provider of that
model with the median price in the catalogue. A day's volumes are multiples of the break-even of one replica.
"""

import datetime as dt
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from benchmarks.autoscaling.loads import MODEL, fleet
from benchmarks.autoscaling.scenarios import Goal
from modelyard.catalog.api_prices import ApiPrice, hosted_prices
from modelyard.core.breakeven.inputs import TokenPrice
from modelyard.core.load import LoadShape
from modelyard.simulator.arrivals import Lengths
from modelyard.simulator.breakevenday import DayReport, WorkingDay, play_day
from modelyard.simulator.breakevenrules import Api, RouteTerms
from modelyard.simulator.scenario import Objective, Scenario, StartTime

START = 120.0
"""Seconds of a start."""
INPUT_TOKENS, OUTPUT_TOKENS, SPREAD = 914, 155, 0.8
"""Mean request: about that of ServeGen's m-large (arXiv 2505.09999); spread of its lengths (CV) is our choice."""
LOW, HIGHS = 0.25, (2.5, 10.0)
"""Volume at night and by day, in break-evens of one replica: a day for one replica or two, and one for several."""
QUALITY = 0.7
"""Of fleet and API alike; a cheaper model of less quality is there, too, and must never be chosen."""
RATIO = 1.05
"""Bar: cost over the best of hindsight."""
SEEDS = 1


@dataclass(frozen=True, slots=True)
class Day:
    """What came of one day."""

    high: float
    """Volume by day, in break-evens."""
    seed: int
    requests: int
    cost: float
    """US dollars, like all money here."""
    self_hosted: float
    api: float
    hindsight: float
    ratio: float
    strict_ratio: float
    """Over switching in hindsight with the smallest fleet that the known rates need."""
    delays: tuple[float, ...]
    """Seconds from each crossing to the change that follows; negative: foreseen. Empty: the changes were others."""
    attainment: float

    @property
    def followed(self) -> bool:
        """Whether each crossing was followed within one start time, and nothing else changed."""
        return len(self.delays) == 2 and all(abs(delay) <= START for delay in self.delays)


def choose_price() -> ApiPrice:
    """Return the median of the model's providers."""
    prices = hosted_prices(MODEL)
    return prices[len(prices) // 2]


def play(high: float, seed: int, hours: float) -> Day:
    """Play one day. Raises RuntimeError where a request is missing, was lost or went below the quality asked for."""
    price, goal = choose_price(), Goal()
    tokens = TokenPrice(float(price.input_per_million), float(price.output_per_million))
    each = tokens.per_request(LoadShape(INPUT_TOKENS, OUTPUT_TOKENS))
    break_even = fleet().price / 3600 / each
    day = WorkingDay(LOW * break_even, high * break_even, duration=hours * 3600)
    arrivals = day.arrivals(Lengths(INPUT_TOKENS, OUTPUT_TOKENS, SPREAD, SPREAD), seed)
    shape = float(arrivals.input_tokens.mean()), float(arrivals.output_tokens.mean())
    scenario = Scenario(
        name=f"day of {high:g} break-evens",
        arrivals=arrivals,
        engine=fleet().engine,
        capacity=fleet().capacity(*shape, goal).requests_per_second,
        minimum=0,
        initial=0,
        start=StartTime(START),
        price=fleet().price,
        objective=Objective(**goal.model_dump()),
        seed=seed,
    )
    poor = Api("small", TokenPrice(tokens.input / 10, tokens.output / 10), quality=QUALITY / 2)
    terms = RouteTerms((Api("api", tokens, quality=QUALITY), poor), QUALITY, QUALITY)
    return _check(play_day(day, scenario, terms), high, seed, len(arrivals))


def _check(report: DayReport, high: float, seed: int, expected: int) -> Day:
    decided = report.decided
    if decided.requests != expected or decided.lost or decided.below_quality:
        raise RuntimeError(
            f"day of {high:g} break-evens, seed {seed}: {decided.requests} of {expected} requests routed, "
            f"{decided.lost} lost, {decided.below_quality} below the quality"
        )
    return Day(
        high=high,
        seed=seed,
        requests=expected,
        cost=decided.cost,
        self_hosted=report.self_hosted.cost,
        api=report.api.cost,
        hindsight=report.hindsight.cost,
        ratio=report.ratio,
        strict_ratio=report.strict_ratio,
        delays=report.delays,
        attainment=decided.attainment,
    )


def main(
    seeds: Annotated[int, typer.Option(min=1, max=50, help="Days of each kind.")] = SEEDS,
    hours: Annotated[
        float, typer.Option(min=1, max=24, help="Length of a day; shorter ones have steeper ramps.")
    ] = 24.0,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a bar is missed.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the figures.")] = Path(
        "report/breakeven"
    ),
) -> None:
    """Play days whose volume crosses the break-even twice, and hold their cost against the best of hindsight.

    Exits with 1 where a request was lost or went to a target of too little quality, and, with --check, where a bar is
    missed.
    """
    console, began = Console(stderr=True), time.monotonic()
    if not console.is_terminal:
        # A log has no width; the table needs this much.
        console = Console(stderr=True, width=140)
    jobs = [(high, seed, hours) for high in HIGHS for seed in range(1, seeds + 1)]
    days: list[Day] = []
    with (
        ProcessPoolExecutor(os.cpu_count()) as pool,
        Progress(
            BarColumn(),
            TextColumn("{task.completed} of {task.total} days {task.description}"),
            console=console,
        ) as bar,
    ):
        task = bar.add_task("played", total=len(jobs))
        for future in as_completed([pool.submit(play, *job) for job in jobs]):
            days.append(future.result())
            bar.advance(task)
    days.sort(key=lambda day: (day.high, day.seed))
    passed = _show(days, console)
    output.mkdir(parents=True, exist_ok=True)
    results = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "seconds": round(time.monotonic() - began),
        "hours": hours,
        "days": [asdict(day) for day in days],
    }
    (output / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    console.print(f"{results['seconds']} s; all figures are in {output}/results.json.")
    if check and not passed:
        raise typer.Exit(1)


def _show(days: Sequence[Day], console: Console) -> bool:
    table = Table(title=f"Days that cross the break-even twice, starts of {START:.0f} s")
    heads = ("by day", "seed", "requests", "cost", "always self-host", "always API", "switching", "of the best",
             "strict", "delays", "attain")  # fmt: skip
    for name in heads:
        table.add_column(name, justify="right")
    for day in days:
        table.add_row(
            f"{day.high:g} x",
            str(day.seed),
            f"{day.requests:,}",
            *(f"{money:.2f}" for money in (day.cost, day.self_hosted, day.api, day.hindsight)),
            f"{day.ratio:.3f} x",
            f"{day.strict_ratio:.3f} x",
            ", ".join(f"{delay:+.0f} s" for delay in day.delays) or "other changes",
            f"{day.attainment:.2%}",
        )
    console.print(table)
    median = statistics.median(day.ratio for day in days)
    cheap = all(day.ratio <= RATIO for day in days)
    followed = sum(day.followed for day in days)
    console.print(
        f"Cost over the best of hindsight: {median:.3f} x (median), {max(day.ratio for day in days):.3f} x at most; "
        f"bar {RATIO:.2f} x: {'passed' if cheap else 'missed'}. Both crossings followed within one start time, and "
        f"nothing else changed: {followed} of {len(days)} days."
    )
    return cheap and followed == len(days)


if __name__ == "__main__":
    typer.run(main)
