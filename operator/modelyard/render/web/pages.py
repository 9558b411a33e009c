"""The pages: fleet, cost, routes, and the decisions about one deployment or route."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar
from xml.etree import ElementTree as ET

from modelyard.api.meta import Condition
from modelyard.core.overview.explanation import ExplainReport, RouteReport
from modelyard.core.overview.model import Overview
from modelyard.core.overview.spending import Spending, SpentRow
from modelyard.core.variants import variant_label
from modelyard.render.web.frame import attention, link, notes, page, show_level
from modelyard.render.web.html import Child, definitions, el, table

T = TypeVar("T")

ROWS = 200
"""Rows of a page: what a browser lays out in an instant, and what somebody may still look through."""

UNKNOWN = "not known"

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Between two words of a camelCase name."""


def fleet_page(overview: Overview, number: int) -> str:
    """Return the fleet, trouble first. `number`: which page of deployments, from 1."""
    shown, pager = _cut(overview.deployments, number, "/")
    cost = overview.cost_per_hour
    partly = "" if overview.cost_complete else " and what has no price"
    facts = definitions(
        (
            ("Costs now", None if cost is None else f"${cost} per hour{partly}"),
            ("Operator", _operators(overview)),
            ("Spending is written down up to", _time(overview.ledger_until)),
        )
    )
    rows = [
        (
            link("deployments", row.name),
            show_level(row.level),
            f"{row.ready} of {row.wanted}",
            row.reason,
            row.accelerators,
            _money(row.cost_per_hour),
            row.requests_per_second or UNKNOWN,
            row.decision,
        )
        for row in shown
    ]
    heads = ("Name", "State", "Serve", "Reason", "Runs on", "$ per hour", "Requests/s", "Last decision")
    return page(
        "Fleet",
        "/",
        overview,
        [
            facts,
            attention(overview),
            table("deployments", "Deployments", heads, rows, "  n  nn "),
            pager,
            _accelerators(overview),
            notes(overview),
        ],
    )


def cost_page(overview: Overview, spending: Spending | None, number: int) -> str:
    """Return what is spent and on what."""
    shown, pager = _cut(overview.deployments, number, "/cost")
    budgets = [
        (
            row.name,
            show_level(row.level),
            _money(row.spent),
            f"${row.amount}",
            UNKNOWN if row.share is None else f"{float(row.share):.0%}",
            row.period,
            _time(row.resets),
            row.runs_out or "not in this period",
        )
        for row in overview.budgets
    ]
    heads = ("Budget", "State", "Spent", "Amount", "Share", "Period", "Resets", "Runs out")
    holding = [
        (
            link("deployments", row.name),
            row.accelerators,
            _money(row.cost_per_hour),
            _money(row.cost_per_million_tokens),
        )
        for row in shown
    ]
    return page(
        "Cost",
        "/cost",
        overview,
        [
            table("budgets", "Budgets", heads, budgets, "  nnn   "),
            *_spending(spending),
            table(
                "holding",
                "What deployments cost now",
                ("Deployment", "Runs on", "$ per hour", "$ per million tokens"),
                holding,
                "  nn",
            ),
            pager,
            notes(overview),
        ],
    )


def routes_page(overview: Overview, number: int) -> str:
    """Return where requests go."""
    shown, pager = _cut(overview.routes, number, "/routes")
    rows = [
        (
            link("routes", row.name),
            show_level(row.level),
            row.model,
            row.policy,
            row.goes_to,
            f"{row.spill_percent} %" if row.spill_percent else "",
            "; ".join(row.refused),
        )
        for row in shown
    ]
    heads = ("Name", "State", "Model", "Policy", "Goes to", "Spills", "Refuses")
    states: list[Child] = []
    for identity, caption, items in (
        ("providers", "Providers", overview.providers),
        ("tenants", "Tenants", overview.tenants),
    ):
        cells = [(item.name, show_level(item.level), item.reason, item.message) for item in items]
        states.append(table(identity, caption, ("Name", "State", "Reason", "Message"), cells))
    return page(
        "Routes",
        "/routes",
        overview,
        [table("routes", "Routes", heads, rows, "     n "), pager, *states, notes(overview)],
    )


def deployment_page(overview: Overview, report: ExplainReport) -> str:
    """Return the decisions about one deployment."""
    size, cost, placement = report.size, report.cost, report.placement
    facts = definitions(
        (
            ("Model", report.model),
            ("Source", report.source),
            ("Who sets the size", _mode(report)),
            ("Replicas that serve", f"{report.ready_replicas} of {report.replicas}"),
            ("Decided size", None if size is None else str(size.replicas)),
            ("Reason", None if size is None else f"{size.reason}: {size.message}"),
            ("Runs on", None if placement is None else placement.message),
            ("Costs now", None if cost is None else f"${cost.per_hour} per hour"),
            ("Per million tokens", None if cost is None else _money(cost.per_million_tokens)),
        )
    )
    variants = placement.variants if placement is not None else ()
    return page(
        f"Deployment {report.namespace}/{report.name}",
        "",
        overview,
        [
            _stale(current=report.current),
            facts,
            _numbers(size.numbers if size is not None else {}),
            table(
                "history",
                "Changes of size, the newest first",
                ("Time", "Change", "Reason", "Message"),
                [
                    (
                        _time(event.time),
                        f"{event.from_replicas} to {event.to_replicas}",
                        event.reason,
                        event.message,
                    )
                    for event in reversed(report.history)
                ],
            ),
            table(
                "variants",
                "What it runs on",
                ("Deployment", "Accelerators of a replica", "Replicas", "Serve"),
                [
                    (
                        item.deployment,
                        variant_label(
                            item.class_name, item.count, spot=item.purchase == "Spot", nodes=item.nodes
                        ),
                        str(item.replicas),
                        str(item.ready_replicas),
                    )
                    for item in variants
                ],
                "  nn",
            ),
            _conditions(report.conditions),
        ],
    )


def route_page(overview: Overview, report: RouteReport) -> str:
    """Return the last decision about one route."""
    choice = report.choice
    facts = definitions(
        (
            ("Model", report.model),
            ("Policy", report.policy),
            ("Goes to", None if choice is None else choice.target or "nowhere"),
            ("Since", None if choice is None else _time(choice.since)),
            ("Reason", None if choice is None else f"{choice.reason}: {choice.message}"),
            ("Spills", None if report.spill_percent is None else f"{report.spill_percent} %"),
        )
    )
    costs = choice.costs if choice is not None else ()
    crossings = choice.crossings if choice is not None else ()
    return page(
        f"Route {report.namespace}/{report.name}",
        "",
        overview,
        [
            _stale(current=report.current),
            facts,
            _numbers((choice.numbers if choice is not None else None) or {}),
            table(
                "costs",
                "What each target would cost",
                ("Target", "$ per hour", "$ per million tokens", "Why not"),
                [
                    (
                        cost.target,
                        _money(cost.per_hour),
                        _money(cost.per_million_tokens),
                        "" if cost.reason is None else f"{cost.reason}: {cost.message or ''}",
                    )
                    for cost in costs
                ],
                " nn ",
            ),
            table(
                "crossings",
                "Loads at which another target becomes the cheapest",
                ("Requests per minute", "Cheapest below", "Cheapest above"),
                [(item.requests_per_minute, item.before, item.after) for item in crossings],
            ),
            _conditions(report.conditions),
        ],
    )


def _accelerators(overview: Overview) -> ET.Element:
    free = "Free, at most" if overview.free_is_upper_bound else "Free"
    heads = ("Class", "Nodes", "Accelerators", "Used", free, "$ per hour", "$ per hour, spot")
    rows = [
        (
            row.name,
            *(
                UNKNOWN if count is None else str(count)
                for count in (row.nodes, row.total, row.used, row.free)
            ),
            _money(row.on_demand),
            _money(row.spot) if row.spot is not None else "no spot",
        )
        for row in overview.accelerators
    ]
    return table("accelerators", "Accelerators", heads, rows, " nnnnnn")


def _operators(overview: Overview) -> str:
    return ", ".join(
        f"{row.name} {row.version} ({'active' if row.active else 'standby'})"
        for row in overview.operators or ()
    )


def _spending(spending: Spending | None) -> list[Child]:
    if spending is None:
        return [el("p", "What was spent is not known: the ledger has not been read.")]
    line = el(
        "p",
        f"${spending.total:,.2f} were spent since ",
        _time(spending.since),
        ", idle accelerators included, up to ",
        _time(spending.until),
        ".",
    )
    return [
        line,
        _spent("tenants", "Spent in the last 24 hours, by tenant", "Tenant", spending.tenants),
        _spent("targets", "Spent in the last 24 hours, by what answered", "Target", spending.targets),
    ]


def _spent(identity: str, caption: str, head: str, rows: Sequence[SpentRow]) -> ET.Element:
    cells = [(row.name, f"{row.dollars:,.4f}", f"{row.estimated:,.4f}") for row in rows[:ROWS]]
    left = len(rows) - len(cells)
    title = f"{caption} (and {left} more: modelyard cost)" if left > 0 else caption
    return table(identity, title, (head, "$", "Of that, estimated"), cells, " nn")


def _conditions(found: Iterable[Condition]) -> ET.Element:
    rows = [
        (item.type, item.status, item.reason, _time(item.last_transition_time), item.message)
        for item in found
    ]
    return table("conditions", "Conditions", ("Condition", "Status", "Reason", "Since", "Message"), rows)


def _numbers(numbers: Mapping[str, str]) -> Child:
    if not numbers:
        return None
    rows = [(_WORD.sub(" ", name).lower(), value) for name, value in sorted(numbers.items())]
    return table("numbers", "Figures of the last decision", ("Figure", "Value"), rows, " n")


def _mode(report: ExplainReport) -> str:
    bounds = f"between {report.minimum} and {report.maximum}"
    return {
        "Active": f"Modelyard, {bounds}",
        "Advise": f"its spec; Modelyard advises, {bounds}",
        "External": f"an outside autoscaler, {bounds}",
        "Fixed": "spec.replicas",
        "Suspended": "suspend is true",
    }[report.mode]


def _stale(*, current: bool) -> Child:
    text = "The spec is newer than this status: it has not been decided about yet."
    return None if current else el("p", text)


def _money(value: str | None) -> str:
    return UNKNOWN if value is None else f"${value}"


def _time(value: str | None) -> Child:
    return el("time", value, datetime=value) if value else None


def _cut(items: Sequence[T], number: int, path: str) -> tuple[list[T], Child]:
    """Return the rows of one page, and links to the pages beside it."""
    pages = max(-(-len(items) // ROWS), 1)
    number = min(max(number, 1), pages)
    shown = list(islice(items, (number - 1) * ROWS, number * ROWS))
    if pages == 1:
        return shown, None
    links: list[Child] = []
    if number > 1:
        links.append(el("a", "Previous page", href=f"{path}?page={number - 1}"))
    links.append(f" Page {number} of {pages} ")
    if number < pages:
        links.append(el("a", "Next page", href=f"{path}?page={number + 1}"))
    return shown, el("nav", el("p", links), aria_label="Pages of this table")
