"""What `modelyard simulate` does: reads, plays with a progress bar, and writes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from modelyard.cli.gather import LIVE, PlanOptions, build_question
from modelyard.cli.inventory import split_namespace
from modelyard.cli.manifests import InputError, Reading, read_files
from modelyard.cli.plan import silence_solver
from modelyard.cli.planformat import PlanFormat
from modelyard.cli.simulatebuild import Asked, Track, build_simulation
from modelyard.cli.simulatedisturb import check_times
from modelyard.cli.simulateformat import format_simulation
from modelyard.cli.simulateload import (
    change_speed,
    find_beginning,
    parse_speed,
    parse_synthetic,
    read_arrivals,
)
from modelyard.cli.simulatereport import PAGE, prepare_folder, write_report
from modelyard.core.choice import expected_shape
from modelyard.core.report.build import Question
from modelyard.core.report.model import EXIT_CODES
from modelyard.simulator.fleetrun import OWN, POLICIES
from modelyard.simulator.modelyard import EPOCH
from modelyard.simulator.scenario import Arrivals, Disturbances


@dataclass(frozen=True, slots=True)
class Simulate:
    """The options of the command."""

    files: Sequence[Path]
    trace: Path | None = None
    synthetic: str | None = None
    deployments: tuple[str, ...] = ()
    speed: str = "1x"
    policies: tuple[str, ...] = ()
    seed: int = 0
    start_time: float | None = None
    begin: float | None = None
    """Unix time at which the traffic begins; None: as the trace says, or EPOCH."""
    disturbances: Disturbances = field(default_factory=Disturbances)
    image_pull: float = 0.0
    against: str | None = None
    output: PlanFormat = PlanFormat.TABLE
    report: Path | None = None
    offline: bool = False
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str = "default"


def run_simulation(options: Simulate) -> int:
    """Simulate, print the report, and return the exit code.

    Raises InputError for options and files that are not as they should be, and ApiError for a cluster that cannot be
    read.
    """
    policies = _check_policies(options.policies)
    speed = parse_speed(options.speed)
    if options.against not in (None, LIVE) and not Path(options.against or "").is_file():
        raise InputError(f"--against: {options.against!r} is neither {LIVE} nor a file")
    reading = read_files(options.files, options.namespace)
    if reading.invalid:
        for line in _problems(reading):
            typer.echo(line, err=True)
        return EXIT_CODES["Invalid"]
    question = build_question(
        reading,
        PlanOptions(
            namespace=options.namespace,
            against=options.against,
            kubeconfig=options.kubeconfig,
            context=options.context,
            offline=options.offline,
        ),
    )
    chosen = _choose(question, options)
    arrivals, notes = _load(question, chosen, options)
    check_times(options.disturbances, max(item.duration for item in arrivals.values()))
    arrivals = {key: change_speed(item, speed, options.seed) for key, item in arrivals.items()}
    if options.report is not None:
        prepare_folder(options.report)
    asked = Asked(
        question=question,
        arrivals=arrivals,
        policies=policies,
        seed=options.seed,
        speed=speed,
        start_time=options.start_time,
        begin=_begin(question, arrivals, options),
        disturbances=options.disturbances,
        image_pull=options.image_pull,
        notes=notes,
    )
    with silence_solver(), _progress(arrivals, policies) as track:
        report = build_simulation(asked, track)
    typer.echo(format_simulation(report, options.output).rstrip("\n"))
    for line in (*(f"Note: {note}" for note in report.notes), *_problems(reading)):
        typer.echo(line, err=True)
    if options.report is not None:
        write_report(report, options.report)
        typer.echo(f"Report: {options.report / PAGE}", err=True)
    return report.exit_code


@contextmanager
def _progress(arrivals: Mapping[str, Arrivals], policies: Sequence[str]) -> Iterator[Track]:
    """Show how far the runs are, on standard error if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        total = sum(item.duration for item in arrivals.values()) * len(policies)
        task = bar.add_task("simulating", total=total)
        order = [(key, policy) for key in sorted(arrivals) for policy in policies]
        before = dict(zip(order, _sums(arrivals[key].duration for key, _ in order), strict=True))

        def track(key: str, policy: str, seconds: float) -> None:
            bar.update(task, completed=before[key, policy] + seconds, description=f"{key} under {policy}")

        yield track


def _sums(values: Iterable[float]) -> Iterator[float]:
    """Yield the sum of all values before each."""
    total = 0.0
    for value in values:
        yield total
        total += value


def _check_policies(names: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise InputError(f"--policy: {unknown[0]!r} is none of {', '.join(POLICIES)}")
    return tuple(dict.fromkeys(names)) or (OWN,)


def _choose(question: Question, options: Simulate) -> tuple[str, ...]:
    """Return the deployments to simulate. Raises InputError if there is none, or one that is asked for is missing."""
    planned = tuple(sorted(question.planned))
    if not planned:
        raise InputError("--file: no LLMDeployment is in the files")
    wanted = [split_namespace(name, options.namespace) for name in options.deployments]
    missing = [name for name in wanted if name not in planned]
    if missing:
        raise InputError(f"--deployment: {missing[0]} is none of {', '.join(planned)}")
    return tuple(key for key in planned if not wanted or key in wanted)


def _load(
    question: Question, chosen: Sequence[str], options: Simulate
) -> tuple[dict[str, Arrivals], tuple[str, ...]]:
    """Return what comes to each deployment, and notes."""
    if (options.trace is None) == (options.synthetic is None):
        raise InputError("give exactly one of --trace and --synthetic")
    if options.synthetic is not None:
        synthetic = parse_synthetic(options.synthetic)
        deployments = question.snapshot.deployments
        return {key: synthetic.build(expected_shape(deployments[key]), options.seed) for key in chosen}, ()
    found = read_arrivals(options.trace or Path())
    if None in found:
        return dict.fromkeys(chosen, found[None]), ()
    named = {
        split_namespace(name, options.namespace): item for name, item in found.items() if name is not None
    }
    without = [key for key in chosen if key not in named]
    notes = [f"--trace: it has no requests for {key}, which is left out" for key in without]
    strange = sorted(set(named) - question.planned)
    notes += [f"--trace: {key} is no deployment here: its requests are not used" for key in strange]
    arrivals = {key: named[key] for key in chosen if key in named}
    if not arrivals:
        raise InputError(
            f"--trace: column deployment names none of {', '.join(chosen)}, but {', '.join(strange[:5])}"
        )
    return arrivals, tuple(notes)


def _begin(question: Question, chosen: Iterable[str], options: Simulate) -> float:
    """Return the Unix time at which the traffic begins. Only schedules ask: else a trace is not read again for it."""
    if options.begin is not None:
        return options.begin
    specs = (question.snapshot.deployments[key].spec.scaling for key in chosen)
    recorded = None
    if options.trace is not None and any(scaling is not None and scaling.schedules for scaling in specs):
        recorded = find_beginning(options.trace)
    return EPOCH if recorded is None else recorded


def _problems(reading: Reading) -> list[str]:
    return [
        ": ".join(part for part in (item.file, item.severity, item.object, item.field, item.message) if part)
        for item in reading.problems
    ]
