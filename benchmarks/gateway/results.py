"""Everything that one run measured, and the bars it is held against."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.gateway.client import Measured
from benchmarks.gateway.contenders import ASYNCIO, DIRECT, OURS, PLAIN
from benchmarks.gateway.holds import Cycles
from benchmarks.gateway.rounds import LATENCY, PROMPTS, Rounds, Spread, compare, rate
from benchmarks.gateway.tables import Table

ADDED = 0.35
"""Bar: what our gateway adds to a plain Envoy's median for a 2 KB request, in that median."""
OF_PLAIN = 0.80
"""Bar: 300 KB prompts a second, in a plain Envoy's."""
OF_ASYNCIO = 1.25
"""Bar: 300 KB prompts a second, in the asyncio proxy's."""
READY_MILLISECONDS = 50.0
"""Bar: median from the write that sets Ready to the first byte of a held request."""


@dataclass
class Results:
    """One run. What was not asked for is empty."""

    models: int
    """Models in the routing tables of our gateway and the asyncio proxy while requests were measured."""
    rounds: Mapping[str, Rounds] = field(default_factory=dict)
    """By key of the row."""
    cycles: Cycles | None = None
    release: Sequence[float] = ()
    """Milliseconds from the hand-over of the table to the first byte of a new model's held request."""
    tables: Sequence[Table] = ()
    ready: Sequence[float] = ()
    """Milliseconds from the write that sets Ready to the first byte of a held request."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """A bar, and what was reached."""

    bar: str
    reached: str
    passed: bool
    margin: str
    """Distance to the bar, to either side."""


def checks_of(results: Results) -> list[Check]:
    """Say for each bar that was tried whether it is reached."""
    return [*_requests(results), *_ready(results), *_held(results)]


def added_to_plain(rounds: Rounds) -> Spread:
    """Return by how much our median is above a plain Envoy's, in the latter."""
    return compare(rounds, lambda ours, plain: ours.p50 / plain.p50 - 1, OURS, PLAIN)


def added_again(rounds: Rounds) -> Spread:
    """Return the same in what a plain Envoy adds to no gateway at all: a stricter figure, without a bar."""

    def figure(ours: Measured, plain: Measured, direct: Measured) -> float:
        return (ours.p50 - plain.p50) / (plain.p50 - direct.p50)

    return compare(rounds, figure, OURS, PLAIN, DIRECT)


def rate_of(rounds: Rounds, other: str) -> Spread:
    """Return our answers per second in another contender's."""
    return compare(rounds, lambda ours, than: rate(ours) / rate(than), OURS, other)


def work_of(rounds: Rounds, other: str) -> Spread:
    """Return our answers per second of processor time in another contender's."""

    def figure(ours: Measured, than: Measured) -> float:
        return (than.processor_seconds / than.answered) / (ours.processor_seconds / ours.answered)

    return compare(rounds, figure, OURS, other)


def _requests(results: Results) -> Iterator[Check]:
    if rounds := results.rounds.get(LATENCY.key):
        reached = added_to_plain(rounds)
        yield _at_most(
            f"{LATENCY.title}: added to a plain Envoy's p50, at most {ADDED:.2f} x of it", reached, ADDED
        )
    if rounds := results.rounds.get(PROMPTS.key):
        for other, bar in ((PLAIN, OF_PLAIN), (ASYNCIO, OF_ASYNCIO)):
            yield _at_least(
                f"300 KB prompts a second and worker: at least {bar:.2f} x of {other}",
                rate_of(rounds, other),
                bar,
            )


def _ready(results: Results) -> Iterator[Check]:
    if results.ready:
        median = statistics.median(results.ready)
        yield Check(
            f"Ready to the first byte of a held request: p50 at most {READY_MILLISECONDS:.0f} ms",
            f"{median:.1f} ms",
            median <= READY_MILLISECONDS,
            f"{median - READY_MILLISECONDS:+.1f} ms",
        )


def _held(results: Results) -> Iterator[Check]:
    cycles = results.cycles
    if cycles is not None:
        yield Check(
            f"held requests over {len(cycles.last_milliseconds)} sleeps of each model: all {cycles.held:,} answered",
            f"{cycles.answered:,}",
            cycles.answered == cycles.held,
            f"{cycles.answered - cycles.held:+d}",
        )


def _at_most(bar: str, reached: Spread, limit: float) -> Check:
    return Check(bar, in_words(reached), reached.median <= limit, f"{reached.median - limit:+.2f} x")


def _at_least(bar: str, reached: Spread, limit: float) -> Check:
    return Check(bar, in_words(reached), reached.median >= limit, f"{reached.median - limit:+.2f} x")


def in_words(spread: Spread, digits: int = 2, unit: str = " x") -> str:
    """Return a median with its spread."""
    return f"{spread.median:,.{digits}f}{unit} ({spread.low:,.{digits}f} to {spread.high:,.{digits}f})"
