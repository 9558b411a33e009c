"""docs/gateway-results.md: what was measured, and how."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gateway.bodies import STREAM_INTERVAL
from benchmarks.gateway.client import Measured
from benchmarks.gateway.contenders import ASYNCIO, DIRECT, LIMITED, OURS, PLAIN
from benchmarks.gateway.holds import Cycles
from benchmarks.gateway.results import (
    Results,
    added_again,
    added_to_plain,
    checks_of,
    in_words,
    rate_of,
    work_of,
)
from benchmarks.gateway.rounds import (
    CROWD,
    LATENCY,
    PROMPTS,
    STREAMS,
    Rounds,
    Row,
    Spread,
    busy,
    compare,
    events,
    figures,
    microseconds,
    rate,
)
from benchmarks.gateway.tables import Table

PAGE = Path(__file__).parent.parent.parent / "docs" / "gateway-results.md"

_TIMES = ("p50, ms", "p99, ms", "p50 added, ms", "p99 added, ms")

_INTRODUCTION = """\
# Gateway: what it costs

Our gateway, a plain Envoy, a bare asyncio proxy and no gateway at all, in one run on one machine. Written by
`make bench-gateway`; not to be edited.

- Command: `{command}`
- Date: {date}
- Machine: {machine}
- Took {seconds:.0f} s

{warning}## Bars

{verdict}
## How it is measured

- **Contenders**: {direct}, the client on the engine's own port; {plain} 1.40 with a router and nothing else;
  {ours}, the same Envoy with the configuration that the operator gives it, fed over delta ADS, with {models:,} models
  and requests for the last of them; {asyncio}, aiohttp on both sides, which parses the body, looks the model up and
  passes everything on. Each has one worker thread.
- **What ours does on top of the plain Envoy**: it reads the whole body, checks it as JSON and finds the model in it,
  routes by it, writes the engine's own model name into the body, counts the arrival before any hold, holds requests of
  sleeping models, retries on another pod, reads the usage out of the answer and counts requests and tokens by route,
  model and deployment.
- **"{limited}"** is the same gateway, whose operator is asked before each request whether its tenant may send it, and
  told afterwards what the answer used. The limits are never reached.
- **Load generator**: closed loop on a fixed number of HTTP/1.1 connections that stay open, one process a measurement.
  It and the engine's stand-in are single threads on epoll; the rows of "{direct}" show what they can do by themselves.
- **Rounds**: in each round every contender gets every load, and each round begins with another contender. Figures are
  medians over the rounds, in brackets the lowest and the highest; ratios are taken within a round.
- **Processor time** is that of all threads of the process in between, without the load generator and the engine.
- **Proof of work**: the stand-in answers only a body that is one of the benchmark's to the last byte, and says which
  model it was asked for. The load generator compares every answer with the one that is due. One that is missing or
  wrong ends the run, and nothing is written.
- Bodies have the model name at their end, where OpenAI's Python client writes it. A 300 KB prompt is a conversation of
  40 messages with line breaks and some quotes.
"""

_LIMITS = """\
## Limits

- Client, gateway and engine share one machine and its cores, over loopback. Real networks add the same to all.
- Plain HTTP/1.1: no TLS, no HTTP/2.
- One engine pod behind each model, so load balancing and retries have nothing to do.
- All bodies of a row are alike. Envoy's Lua keeps equal strings once, so bodies that differ cost ours somewhat more.
- The stand-in answers at once: with a real engine, whose requests take seconds, these differences do not show.
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a page comes from."""

    command: str
    date: str
    machine: str
    partial: str = ""
    """Why this is not the whole benchmark; empty where it is."""


def render(results: Results, origin: Origin) -> str:
    """Return the page."""
    text = [
        _INTRODUCTION.format(
            command=origin.command,
            date=origin.date,
            machine=origin.machine,
            seconds=results.seconds,
            warning=f"**{origin.partial}**\n\n" if origin.partial else "",
            verdict=_verdict(results),
            models=results.models,
            direct=DIRECT,
            plain=PLAIN,
            ours=OURS,
            limited=LIMITED,
            asyncio=ASYNCIO,
        )
    ]
    for row in (LATENCY, CROWD, PROMPTS):
        text += [_unary(row, results.rounds[row.key])] if row.key in results.rounds else []
    if rounds := results.rounds.get(STREAMS.key):
        text.append(_streams(rounds))
    text += _sleep(results)
    if results.tables:
        text.append(_tables(results.tables))
    text.append(_LIMITS)
    return "\n".join(text)


def _verdict(results: Results) -> str:
    rows = [
        (check.bar, check.reached, check.margin, "yes" if check.passed else "**no**")
        for check in checks_of(results)
    ]
    return table(("bar", "reached", "by", "passed"), rows) if rows else "No bar was tried in this run.\n"


def _unary(row: Row, rounds: Rounds) -> str:
    head = ("", *_TIMES, "requests/s", "processor us a request", "core used")
    cells = [
        (
            name,
            *_times(rounds, name),
            in_words(figures(measured, rate), 0, ""),
            "" if name == DIRECT else in_words(figures(measured, microseconds), 0, ""),
            "" if name == DIRECT else f"{figures(measured, busy).median:.0%}",
        )
        for name, measured in rounds.items()
    ]
    count = sum(len(measured) * measured[0].answered for measured in rounds.values())
    note = f'"Added" is the difference to {DIRECT} in the same round.\n'
    counted = f"{count:,} requests in {len(rounds[OURS])} rounds, all answered. {note}"
    text = [f"## {row.title}\n", table(head, cells), counted]
    if row == LATENCY:
        text.append(
            f"{OURS} adds {in_words(added_to_plain(rounds))} of {PLAIN}'s p50. In what {PLAIN} adds to {DIRECT}, "
            f"which is a smaller measure, that is {in_words(added_again(rounds))}.\n"
        )
    else:
        text.append(
            f"{OURS} answers {in_words(rate_of(rounds, PLAIN))} of {PLAIN}'s requests per second and "
            f"{in_words(rate_of(rounds, ASYNCIO))} of the {ASYNCIO}'s. Per second of processor time it is "
            f"{in_words(work_of(rounds, PLAIN))} and {in_words(work_of(rounds, ASYNCIO))}: where a contender leaves "
            "its core partly idle, load generator and engine had a share in its requests per second.\n"
        )
    return "\n".join(text)


def _streams(rounds: Rounds) -> str:
    head = (
        "",
        *_TIMES,
        "stretched p99, ms",
        "processor us an event",
    )
    cells = [
        (
            name,
            *_times(rounds, name),
            in_words(figures(measured, lambda one: one.stretch_p99), 3, ""),
            ""
            if name == DIRECT
            else in_words(figures(measured, lambda one: 1e6 * one.processor_seconds / events(one)), 1, ""),
        )
        for name, measured in rounds.items()
    ]
    count = sum(len(measured) * events(measured[0]) for measured in rounds.values())
    note = (
        f"{count:,} events, one each {1000 * STREAM_INTERVAL:.0f} ms in every stream. Times are those that an event "
        "takes from the engine's send to the client's receive; stretched is by how much two events were further apart "
        "at the client than at the engine.\n"
    )
    return "\n".join([f"## {STREAMS.title}\n", table(head, cells), note])


def _sleep(results: Results) -> Iterator[str]:
    if not (results.cycles or results.release or results.ready):
        return
    yield "## Sleeping models\n"
    if results.cycles is not None:
        yield _cycles(results.cycles)
    rows = []
    if results.release:
        rows.append(
            ("the gateway's part: hand-over of the table to the first byte", *_quantiles(results.release))
        )
    if results.ready:
        rows.append(
            (
                "the whole way: reply to the write that sets Ready to the first byte, with API server and operator",
                *_quantiles(results.ready),
            )
        )
    if rows:
        yield "One held request of a new model:\n"
        yield table(("", "n", "p50, ms", "p90, ms", "p99, ms", "longest, ms"), rows)


def _cycles(cycles: Cycles) -> str:
    last = sorted(cycles.last_milliseconds)
    return (
        f"{cycles.answered:,} of {cycles.held:,} held requests answered, by the right model, over "
        f"{len(last)} cycles of sleep and wake; {cycles.signals} signals that a model is wanted, {cycles.sleeps} were "
        f"needed. All {cycles.held // len(last)} requests of one cycle were answered {statistics.median(last):.0f} ms "
        f"({last[0]:.0f} to {last[-1]:.0f}) after the table with the pods was handed over.\n"
    )


def _tables(tables: Sequence[Table]) -> str:
    head = (
        "models",
        "first table, ms",
        "of it encoding, ms",
        "routes, MB",
        "Envoy's memory, MB",
        "one more model, ms",
        "of it encoding, ms",
    )
    rows = [
        (
            f"{one.models:,}",
            f"{one.first:.0f}",
            f"{one.build:.0f}",
            f"{one.routes_bytes / 1e6:.1f}",
            f"+{one.memory_bytes / 1e6:.0f}",
            in_words(one.more, 0, ""),
            in_words(one.more_build, 0, ""),
        )
        for one in tables
    ]
    note = (
        "The first table is complete when Envoy has accepted every cluster, its endpoints and the routes. One more "
        "model is timed until its first request is answered. Every new model answered.\n"
    )
    return "\n".join(["## Large tables\n", table(head, rows), note])


def _times(rounds: Rounds, name: str) -> tuple[str, ...]:
    """Return the cells under `_TIMES`."""

    def p50(one: Measured) -> float:
        return one.p50

    def p99(one: Measured) -> float:
        return one.p99

    def added(figure: Callable[[Measured], float]) -> Spread:
        return compare(rounds, lambda one, direct: figure(one) - figure(direct), name, DIRECT)

    measured = [figures(rounds[name], p50), figures(rounds[name], p99)]
    if name != DIRECT:
        measured += [added(p50), added(p99)]
    cells = [in_words(spread, 3, "") for spread in measured]
    return (*cells, *("",) * (len(_TIMES) - len(cells)))


def _quantiles(values: Sequence[float]) -> tuple[str, ...]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return (str(len(values)), *(f"{value:.1f}" for value in (cuts[49], cuts[89], cuts[98], max(values))))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = (head, ("---",) * len(head), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def as_json(results: Results, origin: Origin) -> Mapping[str, object]:
    """Return all figures, for other programs."""

    def plain(measured: Measured) -> dict[str, float]:
        return asdict(measured)

    return {
        "origin": asdict(origin),
        "seconds": results.seconds,
        "models": results.models,
        "checks": [asdict(check) for check in checks_of(results)],
        "rounds": {
            key: {name: [plain(one) for one in measured] for name, measured in rounds.items()}
            for key, rounds in results.rounds.items()
        },
        "cycles": asdict(results.cycles) if results.cycles else None,
        "release_milliseconds": list(results.release),
        "ready_milliseconds": list(results.ready),
        "tables": [asdict(one) for one in results.tables],
    }
