"""What was spent, by whom and on what: the lines that the ledger keeps and that reports and budgets add up."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Spend:
    """Everything that is known of what was spent."""

    time: float
    """Unix time up to which it is complete."""
    lines: tuple[SpendLine, ...]
    """One for each key, kind and hour of the kept time."""
