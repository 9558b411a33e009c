"""The overview for a terminal. What a level means is always written; colour only repeats it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelyard.cli.planwords import clean
from modelyard.core.names import unix_time
from modelyard.core.overview.model import LEVELS, WORDS, Judged, Level, Overview

_STYLES: Final[dict[Level, str]] = {
    "Stalled": "bold red",
    "NotReady": "red",
    "Warning": "yellow",
    "Changing": "cyan",
    "Healthy": "green",
    "Asleep": "dim",
    "Off": "dim",
}
_TOLD: Final[frozenset[Level]] = frozenset({"Stalled", "NotReady", "Warning"})
"""Levels whose sentence is shown."""
_UNKNOWN = "-"


def format_overview(overview: Overview) -> RenderableType:
    """Return the overview as something that rich prints."""
    now = unix_time(overview.time)
    parts: list[RenderableType] = [Text(_headline(overview))]
    parts += [Text(line) for line in _operator_lines(overview)]
    told = [(kind, item) for kind, items in _kinds(overview) for item in items if item.level in _TOLD]
    if told:
        parts += [Text(), Text("needs attention", style="bold")]
        told.sort(key=lambda pair: LEVELS.index(pair[1].level))
        parts += [line for kind, item in told for line in _tell(kind, item, now)]
    parts += _tables(overview, now)
    if overview.notes:
        parts += [Text(), Text("not shown", style="bold")]
        parts += [Text(f"  {clean(note)}") for note in overview.notes]
    return Group(*parts)


def age(since: str, now: float) -> str:
    """Return how long ago an RFC 3339 time is, in the largest unit that is whole; empty for an empty one."""
    if not since:
        return ""
    seconds = max(int(now - unix_time(since)), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (size == 60 and seconds >= 60):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _headline(overview: Overview) -> str:
    items = overview.judged
    counts = {level: sum(item.level == level for item in items) for level in LEVELS}
    told = ", ".join(f"{count} {WORDS[level]}" for level, count in counts.items() if count)
    cost = "" if overview.cost_per_hour is None else f"; ${overview.cost_per_hour}/h"
    if cost and not overview.cost_complete:
        cost += " and what has no price"
    return f"{_local(overview.time)}: {told or 'nothing is here'}{cost}"


def _local(time: str) -> str:
    return datetime.fromtimestamp(unix_time(time), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _operator_lines(overview: Overview) -> Iterable[str]:
    if overview.operators is not None:
        if not overview.operators:
            yield "operator: no pod of it runs in its namespace (or it runs outside the cluster)"
        for row in overview.operators:
            state = ("active" if row.active else "standby") if row.ready else "not ready"
            version = f" {clean(row.version)}" if row.version else ""
            yield f"operator: {clean(row.name)}{version}, {state}"
    if overview.ledger_until is not None:
        yield f"ledger: spending is written down up to {_local(overview.ledger_until)}"


def _kinds(overview: Overview) -> tuple[tuple[str, Sequence[Judged]], ...]:
    return (
        ("LLMDeployment", overview.deployments),
        ("LLMRoute", overview.routes),
        ("LLMBudget", overview.budgets),
        ("LLMTenant", overview.tenants),
        ("LLMProvider", overview.providers),
    )


def _tell(kind: str, item: Judged, now: float) -> Iterable[Text]:
    since = f" since {age(item.since, now)}" if item.since else ""
    line = Text("  ")
    line.append(WORDS[item.level].ljust(10), style=_STYLES[item.level])
    line.append(f"{kind} {clean(item.name)}: {clean(item.reason)}{since}")
    yield line
    if item.message:
        yield Text(f"            {clean(item.message)}")


def _tables(overview: Overview, now: float) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for title, table in (
        ("deployments", _deployments(overview, now)),
        ("routes", _routes(overview)),
        ("budgets", _budgets(overview)),
        ("accelerators", _accelerators(overview)),
    ):
        if table is not None:
            parts += [Text(), Text(title, style="bold"), table]
    for title, items in (("tenants", overview.tenants), ("providers", overview.providers)):
        if items:
            ready = sum(item.level == "Healthy" for item in items)
            parts += [Text(), Text(f"{title}: {ready} of {len(items)} ready")]
    return parts


def _deployments(overview: Overview, now: float) -> Table | None:
    if not overview.deployments:
        return None
    table = _table(
        "name", "state", "ready >", "reason", "runs on", "$/h >", "requests/s >", "waiting >", "last decision"
    )
    for row in overview.deployments:
        when = f" {age(row.decided_at, now)} ago" if row.decided_at else ""
        cells = (
            f"{row.ready}/{row.wanted}",
            row.reason,
            row.accelerators,
            _number(row.cost_per_hour),
            _number(row.requests_per_second),
            _number(row.waiting),
            f"{row.decision}{when}",
        )
        table.add_row(Text(clean(row.name)), _state(row.level), *(Text(clean(cell)) for cell in cells))
    return table


def _routes(overview: Overview) -> Table | None:
    if not overview.routes:
        return None
    table = _table("name", "state", "model", "policy", "goes to", "spills >", "refuses")
    for row in overview.routes:
        spills = "" if not row.spill_percent else f"{row.spill_percent} %"
        cells = (row.model, row.policy, row.goes_to, spills, "; ".join(row.refused))
        table.add_row(Text(clean(row.name)), _state(row.level), *(Text(clean(cell)) for cell in cells))
    return table


def _budgets(overview: Overview) -> Table | None:
    if not overview.budgets:
        return None
    table = _table("name", "state", "spent >", "of >", "share >", "period", "resets", "runs out")
    for row in overview.budgets:
        share = _UNKNOWN if row.share is None else f"{float(row.share):.0%}"
        spent = _UNKNOWN if row.spent is None else f"${row.spent}"
        cells = (spent, f"${row.amount}", share, row.period, row.resets, row.runs_out or "")
        table.add_row(Text(clean(row.name)), _state(row.level), *(Text(clean(cell)) for cell in cells))
    return table


def _accelerators(overview: Overview) -> Table | None:
    if not overview.accelerators:
        return None
    free = "free, at most >" if overview.free_is_upper_bound else "free >"
    table = _table("class", "nodes >", "accelerators >", "used >", free, "$/h on demand >", "$/h spot >")
    for row in overview.accelerators:
        counts = (_count(row.nodes), _count(row.total), _count(row.used), _count(row.free))
        prices = (_number(row.on_demand), _number(row.spot))
        table.add_row(*(Text(clean(cell)) for cell in (row.name, *counts, *prices)))
    return table


def _table(*heads: str) -> Table:
    """Return an empty table; a head that ends in ` >` is of a column of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in heads:
        name = head.removesuffix(" >")
        table.add_column(name, justify="right" if name != head else "left", overflow="fold")
    return table


def _state(level: Level) -> Text:
    return Text(WORDS[level], style=_STYLES[level])


def _number(value: str | None) -> str:
    if value is None:
        return _UNKNOWN
    return value if len(value.partition(".")[2]) <= 2 else f"{float(value):.2f}"


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else str(value)
