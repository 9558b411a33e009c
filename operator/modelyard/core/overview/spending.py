"""What was spent lately, by whom and on what, from the ledger that the operator holds in memory."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from modelyard.api.meta import ApiModel
from modelyard.core.ledger.report import ANONYMOUS, IDLE
from modelyard.core.overview.model import SCHEMA_VERSION
from modelyard.core.spend import HOUR, Spend, SpendLine
from modelyard.core.status import format_time

RECENT_HOURS = 24
"""Whole hours of UTC that count, the one that runs included: a day."""


class SpentRow(ApiModel):
    """What one name spent."""

    name: str
    dollars: float
    """US dollars, allocation basis: idle accelerators included."""
    estimated: float
    """Of them, those for answers that ended before they told their usage."""


class Spending(ApiModel):
    """What was spent in the last hours."""

    version: str = SCHEMA_VERSION
    since: str
    """RFC 3339."""
    until: str
    """RFC 3339 time up to which it is complete."""
    total: float
    """US dollars."""
    tenants: tuple[SpentRow, ...] = ()
    targets: tuple[SpentRow, ...] = ()


def build_spending(spend: Spend | None, now: float) -> Spending | None:
    """Return what was spent in the last `RECENT_HOURS`; None where it is not known. `now`: Unix time."""
    if spend is None:
        return None
    since = (int(now) // HOUR - RECENT_HOURS + 1) * HOUR
    lines = list(spend.since(since))
    return Spending(
        since=format_time(since),
        until=format_time(spend.time),
        total=_figure(sum(line.dollars for line in lines)),
        tenants=_add_up(lines, _tenant),
        targets=_add_up(lines, lambda line: line.key.target or IDLE),
    )


def _tenant(line: SpendLine) -> str:
    if line.kind == "Own" and not line.key.route:
        return IDLE
    return line.key.tenant or ANONYMOUS


def _add_up(lines: Iterable[SpendLine], name: Callable[[SpendLine], str]) -> tuple[SpentRow, ...]:
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for line in lines:
        total = sums[name(line)]
        total[0] += line.dollars
        total[1] += line.estimated
    rows = (
        SpentRow(name=key, dollars=_figure(dollars), estimated=_figure(estimated))
        for key, (dollars, estimated) in sums.items()
    )
    return tuple(sorted(rows, key=lambda row: (-row.dollars, row.name)))


def _figure(dollars: float) -> float:
    """Return US dollars with as many decimals as a small price per token needs."""
    return round(dollars, 6)
