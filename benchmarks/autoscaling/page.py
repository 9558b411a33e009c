"""docs/autoscaling-results.md: the tables of results, around the words of `prose.py`."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.autoscaling.agenda import Request, Results
from benchmarks.autoscaling.checks import checks_of
from benchmarks.autoscaling.loads import MOST, fleet, servegen, servegen_shape
from benchmarks.autoscaling.policies import CLAIRVOYANT
from benchmarks.autoscaling.progress import in_words
from benchmarks.autoscaling.prose import COLUMNS, FLOW, INTRODUCTION, LIMITS
from benchmarks.autoscaling.scenarios import Case, Goal
from benchmarks.autoscaling.summary import Line, agreement_of, lines_of

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "autoscaling-results.md"
IMAGES = PAGE.parent / "autoscaling"
"""Images lie in a folder of this name beside the page, wherever it is written."""

_HEAD = (
    "policy",
    "setting",
    "attainment",
    "\u00b1 points",
    "cost",
    "\u00b1",
    "replica-hours",
    "cold starts",
    "reversals",
    "TTFT p99",
    "frontier",
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a page comes from."""

    command: str
    date: str
    machine: str
    workers: int
    partial: str = ""
    """Why this is not the whole benchmark; empty where it is."""


def render(request: Request, results: Results, origin: Origin) -> str:
    """Return the page."""
    objective, shape = Goal(), servegen_shape()
    engine, capacity = fleet().engine, fleet().capacity(*shape, objective)
    kept = len(results.done) - results.worked
    introduction = INTRODUCTION.format(
        origin="Written by `make bench-autoscaling`; not to be edited.",
        command=origin.command,
        workers=origin.workers,
        date=origin.date,
        machine=origin.machine,
        seconds=in_words(results.seconds),
        processor=in_words(results.processor_seconds),
        kept=f"; {kept} of {len(results.done)} had been worked out before" if kept else "",
        warning=f"**{origin.partial}**\n\n" if origin.partial else "",
        verdict=_verdict(request.cases, results),
        cache=engine.cache_tokens,
        sequences=engine.max_sequences,
        capacity=capacity.requests_per_second,
        inputs=shape[0],
        outputs=shape[1],
        batch=capacity.batch,
        planned=fleet().capacity(*shape, objective, planned=True).requests_per_second,
        most=MOST,
        first=objective.first_token_base,
        per=1e3 * objective.first_token_per_input_token,
        between=1e3 * objective.inter_token,
    )
    sections = [_section(case, request, results) for case in request.cases]
    return introduction + COLUMNS + "\n".join([*sections, _agreement(request.cases, results), LIMITS])


def _verdict(cases: Sequence[Case], results: Results) -> str:
    rows = [
        (
            case.name,
            check.bar,
            check.reached,
            check.margin,
            "yes" if check.passed else "**no**",
            check.reason,
        )
        for case in cases
        for check in checks_of(case, results)
    ]
    head = ("scenario", "bar", "reached", "by", "passed", "why not")
    return table(head, rows) if rows else "No bar was tried in this run.\n"


def _section(case: Case, request: Request, results: Results) -> str:
    lines = lines_of(case, results)
    text = [f"## {case.title}\n"]
    if case.load.kind == "servegen":
        rate = servegen().rate
        text.append(f"The peak is {rate.max() / rate.mean():.1f} times the mean of the 14 days.\n")
    text.append(table(_HEAD, (_cells(line) for line in lines)))
    bar = next((line for line in lines if line.policy == CLAIRVOYANT), None)
    if bar is not None:
        text.append(
            f"The clairvoyant costs $ {bar.cost:,.0f} (seeds: {bar.seeds}), {bar.to_bound:.2f} times the zero-lead "
            f"bound; an H100 is $ {fleet().price:g} an hour.\n"
        )
    text.append(f"![cost and attainment]({IMAGES.name}/{case.name}-frontier.svg)\n")
    text.append(f"![replicas over time]({IMAGES.name}/{case.name}-course.svg)\n")
    count = case.effort(full=request.full).rivals
    if count is not None and count < len(request.rivals):
        text.append(FLOW.format(count=count))
        text.append(table(_HEAD, (_cells(line) for line in lines_of(case, results, "flow"))))
    if days := lines_of(case, results, "days"):
        text.append("### All 14 days, as a flow\n")
        text.append(table(_HEAD, (_cells(line) for line in days)))
    return "\n".join(text)


def _cells(line: Line) -> tuple[str, ...]:
    several = line.seeds > 1
    return (
        f"**{line.policy}**" if line.undominated else line.policy,
        line.setting,
        f"{line.attainment:.2%}",
        f"{100 * line.attainment_spread:.2f}" if several else "",
        "" if math.isnan(line.to_clairvoyant) else f"{line.to_clairvoyant:.3f} x",
        f"{line.to_clairvoyant_spread:.3f}" if several and not math.isnan(line.to_clairvoyant) else "",
        f"{line.replica_hours:,.1f}",
        f"{line.cold_starts:.0f}",
        f"{line.reversals:.0f}",
        "" if math.isnan(line.first_token_p99) else f"{line.first_token_p99:.2f} s",
        "yes" if line.undominated else "",
    )


def _agreement(cases: Sequence[Case], results: Results) -> str:
    text = [
        "## Flow against request level\n",
        "The same policies on the same requests, both ways: difference of attainment in points.\n",
    ]
    rows = []
    for case in cases:
        found = agreement_of(case, results)
        if found:
            limit = case.bars.agreement or 0.02
            inside = sum(row.difference <= limit for row in found)
            middle = sorted(row.difference for row in found)[len(found) // 2]
            far = found[0]
            rows.append(
                (
                    case.name,
                    f"{inside} of {len(found)} within {100 * limit:g}",
                    f"{100 * middle:.2f}",
                    f"{far.label} ({far.part}): {far.requests:.2%}, as a flow {far.flow:.2%}",
                )
            )
    text.append(table(("scenario", "agree", "median", "farthest"), rows))
    return "\n".join(text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines: Iterator[Sequence[str]] = iter((head, ("---",) * len(head), *rows))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def as_json(request: Request, results: Results, origin: Origin) -> Mapping[str, object]:
    """Return all figures, for other programs."""
    return {
        "origin": asdict(origin),
        "seconds": results.seconds,
        "scenarios": {
            case.name: {
                "title": case.title,
                "checks": [asdict(check) for check in checks_of(case, results)],
                "requests": [_fields(line) for line in lines_of(case, results)],
                "flow": [_fields(line) for line in lines_of(case, results, "flow")],
                "days": [_fields(line) for line in lines_of(case, results, "days")],
            }
            for case in request.cases
        },
    }


def _fields(line: Line) -> Mapping[str, object]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(line).items()
    }
