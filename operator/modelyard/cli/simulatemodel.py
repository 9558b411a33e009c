"""The report of a simulation: typed values whose JSON form is a stable interface (docs/simulate.md).

Money is in US dollars and a decimal string on the wire, as in the report of a plan. Absent figures are left out.
"""

from decimal import Decimal
from typing import Final, Literal

from pydantic import Field

from modelyard.api.meta import ApiModel

SCHEMA_VERSION: Final = "1"
"""Raised when a field is renamed, removed or changes its meaning. A new field leaves it as it is."""

Outcome = Literal["Ok", "DoesNotFit"]
EXIT_CODES: Final[dict[Outcome, int]] = {"Ok": 0, "DoesNotFit": 3}


class Quantiles(ApiModel):
    """Seconds over the requests that were measured; a field is absent where there was none."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


class RunCost(ApiModel):
    """What the replicas cost, from the decision to start one until it is gone."""

    total: Decimal
    per_hour: Decimal
    per_million_tokens: Decimal | None = None
    """Of input and output of the answered requests; absent if there was none."""


class Decision(ApiModel):
    """A decision that changed the size."""

    time: float
    """Seconds from the start."""
    from_replicas: int
    to_replicas: int
    reason: str = ""
    """Reason code; empty for a policy that gives none."""
    message: str = ""
    numbers: dict[str, float] | None = None
    """What it was worked out from, by name; absent for a policy that does not say."""


class Series(ApiModel):
    """What happened over time, in steps of equal length. All lists have the same length."""

    step: float
    """Seconds."""
    time: tuple[float, ...]
    """Seconds from the start, at the beginning of each step."""
    requests_per_second: tuple[float, ...]
    ready: tuple[float, ...]
    """Replicas that serve, mean over the step."""
    wanted: tuple[int, ...]
    """Replicas wanted, the most in the step."""
    attained: tuple[float | None, ...]
    """Share of the requests that came in the step and were answered within the objective; null without any."""


class PolicyRun(ApiModel):
    """One deployment under one policy."""

    policy: str
    requests: int
    attained: int
    """Requests answered within the objective."""
    attainment: float
    """Share of the requests, 0 to 1."""
    completed: int
    refused: int
    abandoned: int
    first_token: Quantiles
    inter_token: Quantiles
    cost: RunCost | None = None
    """Absent where the price is not known."""
    replica_hours: float
    peak_replicas: int
    """The most that were wanted."""
    cold_starts: int
    reversals: int
    """Changes of direction within one start time."""
    decisions: tuple[Decision, ...] = ()
    reasons: dict[str, int] = Field(default_factory=dict)
    """All decisions, those that changed nothing too, by reason code."""
    series: Series


class SimulatedLoad(ApiModel):
    """What came."""

    trace: str
    requests: int
    duration: float
    """Seconds."""
    mean_requests_per_second: float
    peak_requests_per_second: float
    """The highest mean over ten minutes."""
    input_tokens: float
    """Mean of a request."""
    output_tokens: float


class LostMetrics(ApiModel):
    """A time in which no metric is read, in seconds from the start."""

    start: float
    end: float


class SpotLoss(ApiModel):
    """Replicas that are taken away at once."""

    time: float
    """Seconds from the start."""
    replicas: int


class SimulatedSetting(ApiModel):
    """What one replica is, and how many there may be."""

    runs_on: str
    """`1 x l4 spot`."""
    capacity_per_minute: float
    """Requests per minute and replica within the objective, as the decision has it."""
    basis: str
    """Where the capacity comes from."""
    price_per_hour: Decimal | None = None
    """Of one replica."""
    minimum: int
    maximum: int
    initial: int
    """Replicas at the start."""
    start_time: float
    """Median seconds of a start, without a new node."""
    provision_time: float
    """Seconds that a new node takes, where one is needed."""
    image_pull_time: float | None = None
    """Seconds that a node takes to pull the image, where it has not had a replica yet; absent: none are counted."""
    first_token: float
    """Objective, seconds."""
    inter_token: float
    abandon_after: float | None = None
    """Seconds that a client waits for the first token; absent: for ever."""
    retries: int | None = None
    """Times that a client asks again after it gave up; absent: never."""
    scrape_delay: float | None = None
    """Seconds by which metrics are old; absent: none."""
    lost_metrics: tuple[LostMetrics, ...] | None = None
    spot_losses: tuple[SpotLoss, ...] | None = None
    begin: str | None = None
    """When the traffic begins, RFC 3339, which schedules follow; absent without any."""


class SimulatedDeployment(ApiModel):
    """One deployment under every policy."""

    namespace: str
    name: str
    model: str
    refusal: str = ""
    """Why it was not simulated; empty if it was."""
    load: SimulatedLoad
    setting: SimulatedSetting | None = None
    runs: tuple[PolicyRun, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


class PolicyTotal(ApiModel):
    """All deployments under one policy."""

    policy: str
    requests: int
    attained: int
    attainment: float
    refused: int
    abandoned: int
    cost: RunCost | None = None
    """Absent where the price of any is not known."""
    replica_hours: float
    cold_starts: int


class SimulationReport(ApiModel):
    """The whole report."""

    version: str = SCHEMA_VERSION
    outcome: Outcome
    exit_code: int
    seed: int
    speed: float
    """Times the recorded rate."""
    deployments: tuple[SimulatedDeployment, ...]
    totals: tuple[PolicyTotal, ...]
    """One for each policy, in the order of the command line; none where nothing was simulated."""
    notes: tuple[str, ...] = ()
