"""The ledger added up: one row for each tenant, route, deployment or namespace."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from modelyard.core.ledger.settle import Line
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.core.spend import SpendKey

By = Literal["tenant", "route", "deployment", "namespace"]
Basis = Literal["allocation", "marginal"]

ANONYMOUS = "(anonymous)"
"""Row of requests without an LLMTenant. No object can have this name."""

IDLE = "(not used)"
"""Row of accelerators that were held in hours in which nobody used them."""

_KEYS: Mapping[By, Callable[[SpendKey], str]] = {
    "tenant": lambda key: key.tenant or ANONYMOUS,
    "route": lambda key: key.route,
    "deployment": lambda key: key.target,
    "namespace": lambda key: key.namespace,
}


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one name used and spent."""

    name: str
    """As `By` says it; `ANONYMOUS` or `IDLE`."""
    provider: str
    """Name of the LLMProvider that is paid; empty: own accelerators. Empty in sums over both."""
    line: Line
    """The sum; its key means nothing."""

    def dollars(self, basis: Basis) -> float | None:
        """Return US dollars as far as they are known; None if nothing is known."""
        known = self.line.dollars if basis == "allocation" else self.line.marginal
        return None if known == 0 and not self.complete(basis) else known

    def complete(self, basis: Basis) -> bool:
        """Return whether everything in it has a price."""
        return not (self.line.unpriced if basis == "allocation" else self.line.unmeasured)


def add_up_rows(
    periods: Iterable[tuple[int, Iterable[Line]]],
    by: By,
    basis: Basis,
    since: int,
    until: int,
    *,
    split: bool = False,
) -> tuple[CostRow, ...]:
    """Return the rows of what began from `since` to before `until`, the dearest first.

    `split`: a row of its own for what is paid to each provider and for what own accelerators cost.
    """
    sums: dict[tuple[str, str], Line] = {}
    for start, lines in periods:
        if not since <= start < until:
            continue
        for line in lines:
            key = (_name(line, by), _provider(line) if split else "")
            before = sums.get(key)
            sums[key] = line if before is None else before + line
    rows = (CostRow(name, provider, line) for (name, provider), line in sums.items())
    return tuple(sorted(rows, key=lambda row: (-(row.dollars(basis) or 0), row.name, row.provider)))


def total_of(rows: Iterable[CostRow]) -> CostRow:
    """Return the sum of rows."""
    line = Line(SpendKey())
    for row in rows:
        line += row.line
    return CostRow("total", "", line)


def _name(line: Line, by: By) -> str:
    idle = not line.key.route and not line.use
    return IDLE if idle and by in {"tenant", "route"} else _KEYS[by](line.key)


def _provider(line: Line) -> str:
    target = line.key.target
    return target.removeprefix(EXTERNAL_PREFIX).partition("/")[0] if line.kind == "Provider" else ""
