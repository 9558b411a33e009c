"""The report of a simulation as tables for a terminal, as data, or as markdown."""

import io
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.api.meta import wire
from modelyard.cli.data import to_json, to_yaml
from modelyard.cli.planformat import PlanFormat
from modelyard.cli.planmarkdown import code, escape
from modelyard.cli.simulatemodel import Decision, PolicyRun, SimulatedDeployment, SimulationReport
from modelyard.cli.simulatewords import (
    HEADERS,
    TOTAL_HEADERS,
    describe_decision,
    describe_decisions,
    describe_outcome,
    describe_run,
    describe_total,
    explain_setting,
)

MARKER: Final = "<!-- modelyard simulate -->"
"""First line of the comment: a pipeline finds its own comment by it, and updates that."""
MOST_DECISIONS: Final = 40
"""Decisions of one run that are listed: the newest. All are in json and yaml, and in the report."""
LARGEST_COMMENT: Final = 60_000
"""Characters. GitHub takes 65,536 in one comment."""

_WIDE = 1000
"""Columns of the page: wide enough that nothing is wrapped, so that the same report is always the same text."""


def format_simulation(report: SimulationReport, output: PlanFormat) -> str:
    """Return the report as text."""
    if output is PlanFormat.JSON:
        return to_json(wire(report))
    if output is PlanFormat.YAML:
        return to_yaml(wire(report))
    if output is PlanFormat.MARKDOWN:
        return _format_markdown(report)
    return _format_table(report)


def _format_table(report: SimulationReport) -> str:
    parts = ["\n".join(_deployment_lines(item)) for item in report.deployments]
    if len(report.deployments) > 1 and report.totals:
        rows = [describe_total(total) for total in report.totals]
        parts.append("\n".join(["all deployments", *_table(TOTAL_HEADERS, rows)]))
    parts.append(f"result: {describe_outcome(report)}")
    return "\n\n".join(parts)


def _deployment_lines(deployment: SimulatedDeployment) -> Iterator[str]:
    yield deployment.key
    before = ""
    for heading, sentence in explain_setting(deployment):
        yield f"  {('' if heading == before else heading).ljust(9)}  {sentence}"
        before = heading
    if not deployment.runs:
        return
    yield ""
    yield from _table(HEADERS, [describe_run(run) for run in deployment.runs])
    for run in deployment.runs:
        yield ""
        yield f"  {run.policy}: {describe_decisions(run)}"
        shown, more = _newest(run)
        if more:
            yield f"    {more:,} earlier ones: -o json, or decisions.csv of --report"
        rows = [describe_decision(decision) for decision in shown]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            yield f"    {'  '.join((*cells, row[3]))}".rstrip()


def _newest(run: PolicyRun) -> tuple[Sequence[Decision], int]:
    return run.decisions[-MOST_DECISIONS:], max(0, len(run.decisions) - MOST_DECISIONS)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=True, header_style="")
    for header in headers:
        table.add_column(header, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    page = io.StringIO()
    Console(file=page, width=_WIDE, color_system=None, force_terminal=False, legacy_windows=False).print(
        table
    )
    return [f"  {line}".rstrip() for line in page.getvalue().splitlines()]


def _format_markdown(report: SimulationReport) -> str:
    """Return a comment for a pull request. Nothing of what others wrote is markup in it."""
    head = [MARKER, f"### Modelyard simulate: {escape(describe_outcome(report))}", ""]
    parts = ["\n".join(_deployment_markdown(item)) for item in report.deployments]
    if len(report.deployments) > 1 and report.totals:
        rows = [describe_total(total) for total in report.totals]
        parts.append("\n".join(["**all deployments**", "", *_markdown_table(TOTAL_HEADERS, rows), ""]))
    room = LARGEST_COMMENT - sum(len(line) + 1 for line in head)
    shown: list[str] = []
    for part in parts:
        room -= len(part) + 1
        if room < 0:
            shown.append(f"{len(parts) - len(shown)} more parts do not fit here: see the simulation's JSON.")
            break
        shown.append(part)
    return "\n".join([*head, *shown])


def _deployment_markdown(deployment: SimulatedDeployment) -> Iterator[str]:
    yield f"**{code(deployment.key)}**"
    yield ""
    for heading, sentence in explain_setting(deployment):
        yield f"- **{heading}**: {escape(sentence)}"
    yield ""
    if not deployment.runs:
        return
    yield from _markdown_table(HEADERS, [describe_run(run) for run in deployment.runs])
    yield ""
    for run in deployment.runs:
        yield f"<details><summary>{code(run.policy)}: {escape(describe_decisions(run))}</summary>"
        yield ""
        shown, more = _newest(run)
        if more:
            yield f"The {len(shown)} newest; {more:,} earlier ones are in the simulation's JSON."
            yield ""
        if shown:
            rows = [describe_decision(decision) for decision in shown]
            yield from _markdown_table(("time", "replicas", "reason", "why"), rows)
            yield ""
        yield "</details>"
        yield ""


def _markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield f"|{'|'.join([' --- '] * len(headers))}|"
    for row in rows:
        yield f"| {' | '.join(escape(cell) for cell in row)} |"
