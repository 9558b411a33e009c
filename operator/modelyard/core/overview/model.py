"""The overview as values. Every text comes from an object of the cluster: whoever shows it escapes it."""

from typing import Final, Literal

from pydantic import Field

from modelyard.api.meta import ApiModel

SCHEMA_VERSION: Final = "1"
"""Raised when a field is renamed, removed or changes its meaning. A new field leaves it as it is."""

Level = Literal["Stalled", "NotReady", "Warning", "Changing", "Healthy", "Asleep", "Off"]
"""How much something asks for attention, the most first.

Stalled: it does not go on until a person acts. NotReady: requests are not answered, or something is not in force.
Warning: it works, but not as it should. Changing: it is on its way. Healthy. Asleep: a request wakes it. Off: switched
off in its spec.
"""

LEVELS: Final[tuple[Level, ...]] = (
    "Stalled",
    "NotReady",
    "Warning",
    "Changing",
    "Healthy",
    "Asleep",
    "Off",
)

WORDS: Final[dict[Level, str]] = {
    "Stalled": "stalled",
    "NotReady": "not ready",
    "Warning": "warning",
    "Changing": "changing",
    "Healthy": "healthy",
    "Asleep": "asleep",
    "Off": "off",
}
"""The levels as people read them, in the terminal and on the web page."""
TROUBLE: Final[frozenset[Level]] = frozenset({"Stalled", "NotReady"})
"""Levels that somebody is woken for."""


class Judged(ApiModel):
    """Anything with a level. Keys name objects."""

    name: str
    """`namespace/name`; of cluster-scoped kinds and those of the gateway's namespace the name alone."""
    level: Level
    reason: str = ""
    """Code of the condition that the level comes from."""
    message: str = ""
    since: str = ""
    """RFC 3339 time since which that condition stands."""


class DeploymentRow(Judged):
    """An LLMDeployment."""

    model: str
    ready: int
    wanted: int
    """Replicas that were decided; without a decision those that there are."""
    accelerators: str = ""
    """What it runs on, such as `2 x h100, 1 x l4 spot`."""
    cost_per_hour: str | None = None
    """US dollars for the accelerators held; None: not known."""
    cost_per_million_tokens: str | None = None
    """US dollars."""
    requests_per_second: str | None = None
    """Offered. From status: as it was at the last decision. None: not known."""
    waiting: str | None = None
    """Requests that waited beyond what the replicas answer, as they were at the last decision."""
    decision: str = ""
    """Reason code of the last decision about its size."""
    decision_message: str = ""
    decided_at: str = ""
    """RFC 3339 time of the last change of size; empty if there was none."""


class RouteRow(Judged):
    """An LLMRoute."""

    model: str
    policy: str
    goes_to: str = ""
    """Where its requests go first."""
    spill_percent: int | None = None
    """Share of the requests that goes elsewhere because replicas are missing."""
    refused: tuple[str, ...] = ()
    """Which budgets have requests refused, and whose."""


class BudgetRow(Judged):
    """An LLMBudget."""

    amount: str
    """US dollars for one period."""
    spent: str | None = None
    """US dollars; None: not known."""
    share: str | None = None
    """Of the amount."""
    period: str = ""
    resets: str = ""
    """RFC 3339 time at which the period ends."""
    runs_out: str | None = None
    """Day on which the amount is spent if money goes on as it does now."""


class AcceleratorRow(ApiModel):
    """An AcceleratorClass, and how many accelerators of its nodes are free."""

    name: str
    on_demand: str | None = None
    """US dollars per accelerator and hour."""
    spot: str | None = None
    nodes: int | None = None
    """None: nodes are not read, or the class has no accelerators to count."""
    total: int | None = None
    used: int | None = None
    free: int | None = None
    """Of nodes that take new pods."""


class OperatorRow(ApiModel):
    """A pod of the operator."""

    name: str
    ready: bool
    active: bool
    """Whether it decides. With one pod: that one."""
    version: str = ""
    """Tag of its image, or the version of the process; empty: not known."""


class Overview(ApiModel):
    """Everything, within each kind the worst first."""

    version: str = SCHEMA_VERSION
    time: str
    """RFC 3339 time of the reading."""
    deployments: tuple[DeploymentRow, ...] = ()
    routes: tuple[RouteRow, ...] = ()
    budgets: tuple[BudgetRow, ...] = ()
    tenants: tuple[Judged, ...] = ()
    providers: tuple[Judged, ...] = ()
    accelerators: tuple[AcceleratorRow, ...] = ()
    free_is_upper_bound: bool = False
    """True: pods of others are not read, so fewer accelerators may be free."""
    cost_per_hour: str | None = None
    """US dollars of all deployments whose cost is known; None: of none."""
    cost_complete: bool = True
    """Whether the cost of every deployment is known."""
    operators: tuple[OperatorRow, ...] | None = None
    """None: the operator's namespace was not read."""
    ledger_until: str | None = None
    """RFC 3339 time up to which spending is written down."""
    notes: tuple[str, ...] = Field(default=(), description="What is missing here, and why.")

    @property
    def judged(self) -> tuple[Judged, ...]:
        """Everything that has a level."""
        return (*self.deployments, *self.routes, *self.budgets, *self.tenants, *self.providers)

    @property
    def troubled(self) -> tuple[Judged, ...]:
        """What somebody is woken for."""
        return tuple(item for item in self.judged if item.level in TROUBLE)
