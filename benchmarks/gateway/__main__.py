"""The gateway's bars: `python -m benchmarks.gateway` (`make bench-gateway`)."""

import asyncio
import datetime as dt
import json
import logging
import os
import platform
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from benchmarks.gateway import contenders
from benchmarks.gateway.contenders import CONTENDERS
from benchmarks.gateway.holds import cycle_models, release_one_by_one
from benchmarks.gateway.page import PAGE, Origin, as_json, render
from benchmarks.gateway.ready import ready_to_first_byte
from benchmarks.gateway.results import Results, checks_of
from benchmarks.gateway.rounds import ROWS, WorkMissingError, play
from benchmarks.gateway.tables import measure_table

DEFAULT_OUTPUT = Path("report/gateway")
SMOKE = "A smoke run with a few requests: no figure of it is a result."
PART = "A part of the benchmark only."
EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""


class Part(StrEnum):
    """What can be run alone."""

    REQUESTS = "requests"
    HOLDS = "holds"
    TABLES = "tables"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done."""

    rounds: int
    models: int
    """Models in the tables while requests are measured, and beside the new one that is released."""
    released: int
    """New models whose held request is released, one after the other."""
    sleepers: int
    """Models that sleep and wake."""
    cycles: int
    held: int
    """Requests for each of them that wait in one cycle."""
    tables: tuple[int, ...]
    more: int
    """Further models, each in a table of its own."""
    ready: int
    """Models that become Ready in a cluster."""


FULL = Effort(9, 200, 100, 20, 5, 20, (500, 2000), 20, 100)
"""20 models x 5 cycles x 20 requests: the 2,000 of the bar."""
QUICK = Effort(2, 3, 2, 2, 2, 3, (5, 10), 2, 2)


def main(
    only: Annotated[
        list[Part] | None, typer.Option(help="Only this part; may be given several times.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=100, help="So many rounds of the requests.", show_default="9")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few requests of everything: shows that it runs, no results.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a bar is missed.")] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the page and the figures.")
    ] = DEFAULT_OUTPUT,
) -> None:
    """Measure what our gateway adds to a plain Envoy and to a bare asyncio proxy, and how it holds requests.

    Takes about nine minutes on two idle cores, and writes docs/gateway-results.md; with --only, --rounds or --quick it
    writes to the output folder alone. Exits with 0 also where a bar is missed (see --check), and with 1 where an answer
    was missing or wrong.
    """
    console = Console(stderr=True)
    # That an Envoy leaves is no news here.
    logging.getLogger("modelyard").setLevel(logging.ERROR)
    parts = tuple(only or Part)
    effort = QUICK if quick else FULL
    signal.signal(signal.SIGTERM, _interrupt)
    began, busy_before = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as temporary:
        folder = Path(temporary)
        try:
            results = asyncio.run(_measure(folder, parts, effort, rounds, console, quick=quick))
            # asyncio gave SIGTERM its default back, which would leave everything behind.
            signal.signal(signal.SIGTERM, _interrupt)
            if Part.READY in parts:
                console.print("Starting control plane, operator, Envoy and a stand-in engine ...")
                results.ready = ready_to_first_byte(folder / "cluster", effort.ready, console)
        except WorkMissingError as error:
            console.print(f"[red]Not everything was answered as it had to be:[/] {error}", soft_wrap=True)
            raise typer.Exit(1) from None
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("Interrupted; nothing was written.")
            raise typer.Exit(130) from None
    results.seconds = time.monotonic() - began
    partial = SMOKE if quick else PART if only or rounds else ""
    origin = Origin(_command(), dt.datetime.now(dt.UTC).date().isoformat(), _machine(busy_before), partial)
    _write(results, origin, output)
    if not partial:
        PAGE.write_text(render(results, origin), encoding="utf-8")
        console.print(f"Wrote {PAGE}.", soft_wrap=True)
    passed = _show_checks(results, console)
    console.print(f"All figures are in {output}. {partial}", soft_wrap=True)
    if check and not passed:
        raise typer.Exit(1)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt


async def _measure(
    folder: Path, parts: Sequence[Part], effort: Effort, rounds: int | None, console: Console, *, quick: bool
) -> Results:
    """Measure everything that needs no cluster; SIGTERM cancels it, also where SIGINT is ignored."""
    if measuring := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)
    rounds = rounds or effort.rounds
    rows = [row.shortened() for row in ROWS] if quick else list(ROWS)
    results = Results(effort.models)
    steps = {
        Part.REQUESTS: rounds * len(rows) * CONTENDERS,
        Part.HOLDS: effort.cycles + effort.released,
        Part.TABLES: len(effort.tables) * (1 + effort.more),
        Part.READY: 0,
    }
    with _Display(console, sum(steps[part] for part in parts)) as display:
        async with contenders.upstream(folder) as engine:
            if Part.REQUESTS in parts:
                async with contenders.contenders(folder, engine, effort.models) as all_of_them:
                    results.rounds = await play(rows, all_of_them, rounds, effort.models, display.told)
            if Part.HOLDS in parts:
                results.cycles = await cycle_models(
                    folder / "holds", engine, effort.sleepers, effort.cycles, effort.held, display.told
                )
                results.release = await release_one_by_one(
                    folder / "release", engine, effort.released, effort.models, display.told
                )
            if Part.TABLES in parts:
                results.tables = [
                    await measure_table(folder / f"table-{size}", engine, size, effort.more, display.told)
                    for size in effort.tables
                ]
    return results


class _Display:
    """A line that says how far the run is; without a terminal a new one now and then."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._bar = Progress(
            BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.description}"), console=console
        )
        self._task = self._bar.add_task("starting", total=max(total, 1))
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def told(self, what: str) -> None:
        """Take note that a step is done."""
        self._bar.update(self._task, advance=1, description=what)
        if not self._console.is_terminal and time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            self._console.print(f"{self._bar.tasks[0].percentage:.0f} % done: {what}", soft_wrap=True)


def _write(results: Results, origin: Origin, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE.name).write_text(render(results, origin), encoding="utf-8")
    figures = json.dumps(as_json(results, origin), indent=1)
    (folder / "results.json").write_text(figures, encoding="utf-8")


def _show_checks(results: Results, console: Console) -> bool:
    passed = True
    for check in checks_of(results):
        passed &= check.passed
        word = "[green]passed[/]" if check.passed else "[red]missed[/]"
        console.print(f"{word} {check.bar}; reached {check.reached} ({check.margin})", soft_wrap=True)
    return passed


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks.gateway", *sys.argv[1:]])


def _machine(busy_before: float) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; load average {busy_before:.1f} before the run"
    )


def _processor() -> str:
    """Return the processor's name (proc(5), cpuinfo), or else its architecture."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    typer.run(main)
