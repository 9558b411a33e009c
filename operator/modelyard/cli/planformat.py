"""The report of a plan as a table for a terminal, as data, or as markdown."""

import io
from collections.abc import Iterable
from enum import StrEnum

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.api.meta import wire
from modelyard.cli.data import to_json, to_yaml
from modelyard.cli.planmarkdown import format_markdown
from modelyard.cli.planwords import (
    clean,
    describe_api,
    describe_change,
    describe_comparison,
    describe_fit,
    describe_origin,
    describe_totals,
    describe_variants,
    dollars,
    explain_deployment,
    find_changes,
)
from modelyard.core.report.model import ApiComparison, DeploymentReport, PlanReport

_WIDE = 1000
"""Columns of the table's page: wide enough that nothing is wrapped, whatever the terminal, so that the same plan is
always the same text."""


class PlanFormat(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"


def format_plan(report: PlanReport, output: PlanFormat) -> str:
    """Return the report as text."""
    if output is PlanFormat.JSON:
        return to_json(wire(report))
    if output is PlanFormat.YAML:
        return to_yaml(wire(report))
    if output is PlanFormat.MARKDOWN:
        return format_markdown(report)
    return format_table(report)


def format_table(report: PlanReport) -> str:
    """Return the report for a terminal: one row for each deployment, then why."""
    parts = [_render(_summary(report))]
    parts += ["\n".join(_explain(deployment)) for deployment in report.deployments]
    others = [
        f"{change.namespace}/{change.name}: {describe_change(change)}"
        for change in report.changes
        if not change.in_files and change.kind != "Unchanged"
    ]
    if others:
        parts.append("\n".join(["beside the files:", *(f"  {clean(line)}" for line in others)]))
    parts.append("\n".join(describe_totals(report)))
    return "\n\n".join(parts)


def _summary(report: PlanReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=True, header_style="")
    headers = ["DEPLOYMENT", "FIT", "RUNS ON", "REPLICAS", "USD/H", "USD/DAY", "USD/1M TOKENS"]
    changes = find_changes(report)
    if report.changes:
        headers.append("CHANGE")
    for header in headers:
        table.add_column(header, no_wrap=True)
    for item in report.deployments:
        cost = item.cost
        row = [
            item.key,
            describe_fit(item),
            describe_variants(item) if item.variants else "-",
            "-" if item.replicas is None else str(item.replicas),
            "?" if cost is None else dollars(cost.per_hour),
            "?" if cost is None else dollars(cost.per_day),
            "-" if cost is None or cost.per_million_tokens is None else dollars(cost.per_million_tokens),
        ]
        if report.changes:
            row.append(changes[item.key].kind.lower() if item.key in changes else "-")
        table.add_row(*(Text(clean(cell)) for cell in row))
    return table


def _render(table: Table) -> str:
    page = io.StringIO()
    Console(file=page, width=_WIDE, color_system=None, force_terminal=False, legacy_windows=False).print(
        table
    )
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def _explain(deployment: DeploymentReport) -> Iterable[str]:
    lines = list(explain_deployment(deployment))
    lines += [("break-even", _compare(item)) for item in deployment.comparisons]
    yield clean(deployment.key)
    width = max(len(heading) for heading, _ in lines)
    before = ""
    for heading, sentence in lines:
        shown = "" if heading == before else heading
        yield f"  {shown.ljust(width)}  {clean(sentence)}"
        before = heading


def _compare(item: ApiComparison) -> str:
    prices = f"{dollars(item.input_per_million)} in, {dollars(item.output_per_million)} out"
    return f"{describe_api(item)}, {prices}, {describe_origin(item)}: {describe_comparison(item)}"
