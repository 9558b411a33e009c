"""Our decision, published rules and a clairvoyant planner: `python -m benchmarks.autoscaling`."""

import datetime as dt
import json
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as Grid

from benchmarks.autoscaling.agenda import Request, Results, verify
from benchmarks.autoscaling.checks import checks_of
from benchmarks.autoscaling.estimate import budget_of
from benchmarks.autoscaling.jobs import WorkMissingError, require
from benchmarks.autoscaling.page import IMAGES, PAGE, Origin, as_json, render
from benchmarks.autoscaling.plots import plot_course, plot_frontier
from benchmarks.autoscaling.policies import NAMES
from benchmarks.autoscaling.progress import in_words
from benchmarks.autoscaling.run import execute
from benchmarks.autoscaling.scenarios import load_cases, quick_cases
from benchmarks.autoscaling.store import Store
from benchmarks.autoscaling.summary import lines_of

DEFAULT_OUTPUT = Path("report/autoscaling")
SMOKE = "A smoke run on shortened loads: no figure of it is a result."
PART = "A part of the benchmark only."


def main(
    full: Annotated[
        bool, typer.Option("--full", help="More seeds, every rule request by request; takes many hours.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CASE", help="Only this scenario; may be given several times.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this rule beside the clairvoyant; may be given several times."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="So many seeds of ours and the clairvoyant in every scenario.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute on shortened loads: shows that it runs, no results.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done and how long it would take.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where a bar is missed.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 2,
    output: Annotated[
        Path, typer.Option(help="Folder of results. What is in it from the same sources is not done again.")
    ] = DEFAULT_OUTPUT,
) -> None:
    """Measure how far our autoscaling is from a planner that knows the future, and how far everybody else's is.

    Plays recorded and made loads in the simulator under our decision, under every published rule (as documented, and
    tuned) and under the clairvoyant. The complete run takes up to an hour on two cores and writes
    docs/autoscaling-results.md and docs/autoscaling/; with --only, --policy, --seeds or --quick it writes to the
    output folder alone.

    Interrupt it at any time with Ctrl-C: the same command goes on where it was. Once the simulator, the decision or a
    trace changes, everything is done anew.

    Exits with 0 also where a bar is missed (see --check), and with 1 where a run did not do all its work.
    """
    console = Console(stderr=True)
    known = quick_cases() if quick else load_cases()
    for name, allowed in [*((one, known) for one in only or ()), *((one, NAMES) for one in policy or ())]:
        if name not in allowed:
            raise typer.BadParameter(f"{name} is none of {', '.join(allowed)}")
    cases = [known[name] for name in known if not only or name in only]
    request = Request(cases, full, tuple(name for name in NAMES if not policy or name in policy), seeds)
    if plan:
        _show_plan(request, processes, console)
        return
    store = Store.open(output / "cache")
    try:
        results = execute(request, store, console, processes)
        require(Store.open(store.folder) == store, "the sources changed during the run: run it again")
        verify(request, results)
    except KeyboardInterrupt:
        console.print(f"Interrupted. The same command goes on from what is in {output}.", soft_wrap=True)
        raise typer.Exit(130) from None
    except WorkMissingError as error:
        console.print(f"[red]The benchmark itself is wrong:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
    partial = SMOKE if quick else PART if only or policy or seeds else ""
    origin = Origin(_command(), dt.datetime.now(dt.UTC).date().isoformat(), _machine(), processes, partial)
    _write(request, results, origin, output / ("quick" if quick else "results"))
    if not partial:
        shutil.copy(output / "results" / PAGE.name, PAGE)
        shutil.copytree(output / "results" / IMAGES.name, IMAGES, dirs_exist_ok=True)
        console.print(f"Wrote {PAGE} and {IMAGES}.", soft_wrap=True)
    passed = _show_checks(request, results, console)
    console.print(
        f"{results.worked} results in {in_words(results.seconds)}; all figures are in {output}. {partial}",
        soft_wrap=True,
    )
    if check and not passed:
        raise typer.Exit(1)


def _show_plan(request: Request, processes: int, console: Console) -> None:
    budget = budget_of(request)
    grid = Grid("scenario", "work", "jobs", "minutes of one core")
    for (case, kind), (jobs, seconds) in budget.items():
        grid.add_row(case, kind, str(jobs), f"{seconds / 60:.1f}")
    console.print(grid)
    total = sum(seconds for _, seconds in budget.values())
    console.print(f"About {in_words(total / processes)} on {processes} cores.")


def _show_checks(request: Request, results: Results, console: Console) -> bool:
    passed = True
    for case in request.cases:
        for check in checks_of(case, results):
            passed &= check.passed
            word = "[green]passed[/]" if check.passed else "[red]missed[/]"
            console.print(
                f"{word} {case.name}: {check.bar}; reached {check.reached} ({check.margin}) {check.reason}",
                soft_wrap=True,
            )
    return passed


def _write(request: Request, results: Results, origin: Origin, folder: Path) -> None:
    for case in request.cases:
        lines = lines_of(case, results) or lines_of(case, results, "flow")
        plot_frontier(case, lines, results, folder / IMAGES.name / f"{case.name}-frontier.svg")
        plot_course(case, results, folder / IMAGES.name / f"{case.name}-course.svg")
    (folder / PAGE.name).write_text(render(request, results, origin), encoding="utf-8")
    figures = json.dumps(as_json(request, results, origin), indent=1)
    (folder / "results.json").write_text(figures, encoding="utf-8")


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks.autoscaling", *sys.argv[1:]])


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    typer.run(main)
