"""What was spent, by whom and on what: the lines that the ledger keeps and that reports and budgets add up."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

HOUR = 3600
"""Seconds: one line sums up one hour, which begins at a whole hour of UTC."""


OTHER_TENANTS = "_other"
"""Tenant of all pairs of a tenant and a route beyond those that have counters of their own (`MAX_PAIRS` in
`request_scan.lua`). No object can have this name. Without a route: of attempts at a provider that were lost before
another target answered, of which nobody knows whose they were."""


@dataclass(frozen=True, slots=True, order=True)
class SpendKey:
    """Who spent on what. Every field may be empty: not known, or (tenant) anonymous."""

    tenant: str = ""
    """Name of the LLMTenant that called."""
    namespace: str = ""
    """Namespace of the route, or of the deployment where there is no route."""
    route: str = ""
    """`Route.name`."""
    target: str = ""
    """`namespace/name` of the LLMDeployment, or `external_key` of the provider's model."""


@dataclass(frozen=True, slots=True)
class SpendLine:
    """What one key spent in one hour."""

    hour: int
    """Unix time at which the hour begins."""
    key: SpendKey
    kind: Literal["Provider", "Own"]
    """Paid to a provider by token, or for accelerators that the fleet held (allocation basis: idle included)."""
    dollars: float
    """US dollars, estimates included."""
    estimated: float = 0.0
    """Of them, those for answers that ended before the usage was told."""


@dataclass(frozen=True, slots=True, eq=False)
class Archived:
    """What was spent in hours that do not change any more: one object for as long as they are the same ones."""

    hours: tuple[int, ...] = ()
    """Unix times at which they begin, ascending, of those in which something was spent."""
    lines: tuple[tuple[SpendLine, ...], ...] = ()
    """Those of each hour."""

    def since(self, begin: float) -> Iterator[SpendLine]:
        """Return the lines of the hours that begin at or after a moment."""
        return chain.from_iterable(self.lines[bisect_left(self.hours, begin) :])


NOTHING_ARCHIVED = Archived()
"""No hour is over."""


@dataclass(frozen=True, slots=True)
class Spend:
    """Everything that is known of what was spent: one line for each key, kind and hour of the kept time."""

    time: float
    """Unix time up to which it is complete."""
    recent: tuple[SpendLine, ...]
    """What every reading changes. Hours that are archived may have lines here too: they add up."""
    archived: Archived = NOTHING_ARCHIVED
    """There may be a million lines in it, so that nobody looks at all of them at every reading."""

    @property
    def lines(self) -> tuple[SpendLine, ...]:
        """All of them."""
        return (*chain.from_iterable(self.archived.lines), *self.recent)

    def since(self, begin: float) -> Iterator[SpendLine]:
        """Yield the lines of the hours that begin at or after a moment."""
        yield from self.archived.since(begin)
        for line in self.recent:
            if line.hour >= begin:
                yield line
