"""The report of costs: a table, data, or CSV with the columns of FOCUS.

FOCUS is the FinOps Foundation's format of cost and usage (https://focus.finops.org/focus-specification/v1-2/); columns
of our own begin with `x_`, as it prescribes.
"""

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from modelyard.cli.data import to_json, to_yaml
from modelyard.core.ledger.report import Basis, By, CostRow, total_of

_WIDE = 1000
"""Columns of the table's page: wide enough that nothing is wrapped, whatever the terminal."""

UNKNOWN = "not known"
"""Dollars without a price: never 0."""


class CostFormat(StrEnum):
    """How a report is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True)
class CostReport:
    """What is written."""

    by: By
    basis: Basis
    since: int
    """Unix time, a whole hour."""
    until: int
    """Unix time, before which it ends."""
    complete_until: float
    """Unix time up to which the ledger is complete."""
    rows: tuple[CostRow, ...]
    """One for each name; for CSV one for each name and provider."""


def format_cost(report: CostReport, output: CostFormat) -> str:
    """Return the report as text."""
    if output is CostFormat.CSV:
        return format_csv(report)
    if output is CostFormat.TABLE:
        return format_table(report)
    data = build_data(report)
    if output is CostFormat.JSON:
        return to_json(data)
    return to_yaml(data).rstrip("\n")


def format_table(report: CostReport) -> str:
    """Return the report for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=bool(report.rows))
    total = total_of(report.rows)
    columns = [_cells(row, report.basis) for row in (total, *report.rows)]
    heads = (report.by, "requests", "prompt", "cached", "output", "estimated", "accelerator h", "dollars")
    for number, head in enumerate(heads):
        justify = "left" if number == 0 else "right"
        table.add_column(head, footer=columns[0][number], justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for cells in columns[1:]:
        table.add_row(*cells)
    sink = io.StringIO()
    Console(file=sink, width=_WIDE, color_system=None, legacy_windows=False).print(table)
    lines = [line.rstrip() for line in sink.getvalue().splitlines() if line.strip()]
    period = f"{_time(report.since)} to {_time(report.until)}, {report.basis} basis, US dollars"
    return "\n".join([period, "", *lines, "", *_notes(report, total)]).rstrip()


def build_data(report: CostReport) -> dict[str, Any]:
    """Return the report as data."""
    total = total_of(report.rows)
    return {
        "since": _time(report.since),
        "until": _time(report.until),
        "completeUntil": _time(report.complete_until),
        "by": report.by,
        "basis": report.basis,
        "currency": "USD",
        "rows": [{"name": row.name, **_fields(row, report.basis)} for row in report.rows],
        "total": _fields(total, report.basis),
    }


def format_csv(report: CostReport) -> str:
    """Return the report as CSV, each row a charge in the sense of FOCUS."""
    sink = io.StringIO()
    rows = [_charge(row, report) for row in report.rows]
    names = list(_charge(total_of(()), report))
    writer = csv.DictWriter(sink, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().rstrip("\n")


def _cells(row: CostRow, basis: Basis) -> tuple[str, ...]:
    use = row.line.use
    dollars = row.dollars(basis)
    known = UNKNOWN if dollars is None else f"{dollars:,.4f}"
    partly = "" if dollars is None or row.complete(basis) else " + not known"
    estimated = use.estimated_prompt + use.estimated_completion
    counts = (use.requests, use.prompt, use.cached, use.completion, estimated)
    return (row.name, *(f"{count:,}" for count in counts), f"{row.line.hours:,.2f}", known + partly)


def _notes(report: CostReport, total: CostRow) -> list[str]:
    notes = []
    if not report.rows:
        notes.append("Nothing is written for this time.")
    if report.complete_until < report.until:
        written = "nothing yet" if not report.complete_until else f"up to {_time(report.complete_until)}"
        notes.append(f"The ledger is written {written}.")
    if total.line.use.estimated_requests:
        count = total.line.use.estimated_requests
        notes.append(
            f"{count:,} requests ended before they told their usage: tokens of the column `estimated`, "
            f"{total.line.estimated:,.4f} of the dollars on the allocation basis."
        )
    if not total.complete(report.basis):
        cause = (
            "no price: give the LLMProvider's model or the AcceleratorClass one"
            if report.basis == "allocation"
            else "no price, or the capacity of a deployment is not known"
        )
        notes.append(f"{UNKNOWN}: {cause}.")
    return notes


def _fields(row: CostRow, basis: Basis) -> dict[str, Any]:
    use = row.line.use
    dollars = row.dollars(basis)
    return {
        "requests": use.requests,
        "promptTokens": use.prompt,
        "cachedTokens": use.cached,
        "completionTokens": use.completion,
        "estimatedRequests": use.estimated_requests,
        "estimatedPromptTokens": use.estimated_prompt,
        "estimatedCompletionTokens": use.estimated_completion,
        "acceleratorHours": round(row.line.hours, 4),
        "dollars": None if dollars is None else round(dollars, 6),
        "estimatedDollars": round(row.line.estimated, 6),
        "complete": row.complete(basis),
    }


def _charge(row: CostRow, report: CostReport) -> dict[str, object]:
    """Return a row of FOCUS. Costs without a price are empty, which its consumers read as not known."""
    use = row.line.use
    dollars = row.dollars(report.basis)
    cost = "" if dollars is None else f"{dollars:.9f}".rstrip("0").rstrip(".")
    tokens = use.prompt + use.completion + use.estimated_prompt + use.estimated_completion
    own = not row.provider
    begin, end = _time(report.since), _time(report.until)
    account = row.name if report.by in {"tenant", "namespace"} else ""
    resource = row.name if report.by in {"route", "deployment"} else ""
    kind = {"route": "LLMRoute", "deployment": "LLMDeployment"}.get(report.by, "") if resource else ""
    return {
        "BilledCost": cost,
        "BillingAccountId": "modelyard",
        "BillingAccountName": "modelyard",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": end,
        "BillingPeriodStart": begin,
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": "Accelerators held, shared out by use" if own else "Tokens of an API",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": end,
        "ChargePeriodStart": begin,
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": row.provider or "modelyard",
        "ListCost": cost,
        "PricingQuantity": f"{row.line.hours:.6f}".rstrip("0").rstrip(".") if own else tokens,
        "PricingUnit": "Hours" if own else "Tokens",
        "ProviderName": row.provider or "modelyard",
        "PublisherName": row.provider or "modelyard",
        "ResourceId": resource,
        "ResourceName": resource,
        "ResourceType": kind,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "LLM inference",
        "ServiceSubcategory": "Generative AI",
        "SubAccountId": account,
        "SubAccountName": account,
        "SubAccountType": {"tenant": "LLMTenant", "namespace": "Namespace"}.get(report.by, ""),
        "x_Basis": report.basis,
        "x_Complete": str(row.complete(report.basis)).lower(),
        "x_Requests": use.requests,
        "x_PromptTokens": use.prompt,
        "x_CachedTokens": use.cached,
        "x_CompletionTokens": use.completion,
        "x_EstimatedRequests": use.estimated_requests,
        "x_EstimatedTokens": use.estimated_prompt + use.estimated_completion,
        "x_EstimatedCost": f"{row.line.estimated:.9f}".rstrip("0").rstrip("."),
    }


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
