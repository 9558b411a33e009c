"""When a route changes its target, on many days: `python -m benchmarks.breakeven_changes`.

`benchmarks.breakeven` plays two days request by request, for what they cost. Here days of other heights, ramps, prices
and seeds are played from counts alone (`modelyard.simulator.breakevenreplay`) under the same decision with the same
constants, for when it changes: nights and noons are shortened to what a change needs to be forgotten. Days that stay
near the break-even must not start replicas again and again.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.autoscaling.loads import fleet
from benchmarks.autoscaling.scenarios import Goal
from benchmarks.breakeven import INPUT_TOKENS, LOW, OUTPUT_TOKENS, QUALITY, START, choose_price
from modelyard.core.breakeven.inputs import TokenPrice
from modelyard.core.breakeven.load import BIN
from modelyard.core.load import LoadShape
from modelyard.simulator.arrivals import Lengths, poisson
from modelyard.simulator.breakevenday import MINUTE, WorkingDay, find_crossings, find_delays
from modelyard.simulator.breakevenreplay import replay
from modelyard.simulator.breakevenrules import Api, LowestCost, RouteTerms
from modelyard.simulator.scenario import Objective, Scenario, StartTime

REST = 2.0
"""Hours of steady load before and after each ramp."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Days that differ in their seeds only. Volumes in break-evens of one replica."""

    high: float
    ramp: float
    """Hours."""
    dearer: float = 1.0
    """Price of the API, in medians of the catalogue."""
    low: float = LOW

    @property
    def hours(self) -> float:
        """Length."""
        return 3 * REST + 2 * self.ramp

    @property
    def day(self) -> WorkingDay:
        """Return the day, with volumes for its rates."""
        return WorkingDay(
            self.low,
            self.high,
            duration=self.hours * 3600,
            morning=REST / self.hours,
            evening=(2 * REST + self.ramp) / self.hours,
            ramp=self.ramp / self.hours,
        )


KINDS = (
    Kind(2.5, 2.0),
    Kind(2.5, 1.0),
    Kind(2.5, 4.0),
    Kind(5.0, 2.0),
    Kind(10.0, 2.0),
    Kind(10.0, 1.0),
    Kind(10.0, 4.0),
    Kind(2.5, 2.0, dearer=2.0),
    Kind(10.0, 2.0, dearer=2.0),
    Kind(1.1, 2.0, low=0.9),
    Kind(1.02, 2.0, low=0.98),
)
"""Days that cross for good, and two that wander about the break-even."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What came of one day."""

    crossings: int
    delays: tuple[float, ...]
    """Seconds; empty where the changes were others."""
    changes: tuple[tuple[float, float, bool], ...]
    """Hour, volume and whether to the fleet, of each."""

    @property
    def followed(self) -> bool:
        """Whether each crossing was followed within one start time, and nothing else changed."""
        return len(self.delays) == self.crossings == len(self.changes) and all(
            abs(delay) <= START for delay in self.delays
        )


def play(kind: Kind, seed: int) -> Changes:
    """Play one day."""
    price = choose_price()
    tokens = TokenPrice(
        kind.dearer * float(price.input_per_million), kind.dearer * float(price.output_per_million)
    )
    each = tokens.per_request(LoadShape(INPUT_TOKENS, OUTPUT_TOKENS))
    unit = fleet().price / 3600 / each
    goal = Goal()
    scenario = Scenario(
        name="counts",
        # For the mean request alone.
        arrivals=poisson(1.0, MINUTE, Lengths(INPUT_TOKENS, OUTPUT_TOKENS), seed),
        engine=fleet().engine,
        capacity=fleet().capacity(INPUT_TOKENS, OUTPUT_TOKENS, goal).requests_per_second,
        minimum=0,
        initial=0,
        start=StartTime(START),
        price=fleet().price,
        objective=Objective(**goal.model_dump()),
        seed=seed,
    )
    day = kind.day
    rate: Callable[[float], float] = lambda time: unit * day.rate(time)  # noqa: E731 a rate, not a step
    terms = RouteTerms((Api("api", tokens, quality=QUALITY),), QUALITY, QUALITY)
    rule = LowestCost(scenario, terms, interval=BIN)
    replay(rate, day.duration, scenario, terms, rule)
    minutes = np.arange(0.0, day.duration, MINUTE) + MINUTE / 2
    crossings = find_crossings(np.array([rate(float(at)) for at in minutes]), each, scenario)
    changes = tuple((time, target.own) for time, target in rule.changes[1:])
    return Changes(
        len(crossings),
        find_delays(crossings, changes),
        tuple((time / 3600, day.rate(time), own) for time, own in changes),
    )


def main(
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Days of each kind.")] = 5,
    kinds: Annotated[int, typer.Option(min=1, max=len(KINDS), help="The first so many kinds only.")] = len(
        KINDS
    ),
) -> None:
    """Say on how many days every crossing was followed within one start time, and nothing else changed."""
    console = Console(width=140)
    jobs = [(kind, seed) for kind in KINDS[:kinds] for seed in range(1, seeds + 1)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        days = list(pool.map(play, *zip(*jobs, strict=True)))
    table = Table(title=f"Changes of the target, starts of {START:.0f} s, {seeds} days of each kind")
    for name in ("volumes", "ramp", "API", "crossings", "followed", "delays of the first day", "its changes"):
        table.add_column(name, justify="right")
    for kind in KINDS[:kinds]:
        found = [day for (of, _), day in zip(jobs, days, strict=True) if of == kind]
        first = found[0]
        table.add_row(
            f"{kind.low:g} to {kind.high:g}",
            f"{kind.ramp:g} h",
            f"{kind.dearer:g} x",
            str(first.crossings),
            f"{sum(day.followed for day in found)} of {len(found)}",
            ", ".join(f"{delay:+.0f} s" for delay in first.delays) or "others",
            ", ".join(
                f"{hour:.2f} h {'fleet' if own else 'API'} at {volume:.2f}"
                for hour, volume, own in first.changes
            ),
        )
    console.print(table)
    followed = sum(day.followed for day in days)
    most = max(len(day.changes) for day in days)
    console.print(f"Followed on {followed} of {len(days)} days; {most} changes a day at most.")


if __name__ == "__main__":
    typer.run(main)
