"""The report of a plan: typed values whose JSON form is a stable interface (docs/plan.md).

Money is in US dollars and a decimal string on the wire, as in the API: no figure of a bill is a float.
"""

from datetime import date
from decimal import Decimal
from typing import Final, Literal

from pydantic import Field

from modelyard.api.meta import ApiModel

SCHEMA_VERSION: Final = "1"
"""Raised when a field is renamed, removed or changes its meaning. A new field leaves it as it is."""

CENT: Final = Decimal("0.01")
FINE: Final = Decimal("0.0001")
"""Steps of a dollar in which prices of an hour, and of tokens, are told."""

Outcome = Literal["Ok", "Invalid", "DoesNotFit", "OverBudget"]
EXIT_CODES: Final[dict[Outcome, int]] = {"Ok": 0, "Invalid": 2, "DoesNotFit": 3, "OverBudget": 4}
"""Exit code of each outcome. Of several the first in the order Invalid, DoesNotFit, OverBudget counts."""


def round_figure(value: float) -> float:
    """Return a figure with two decimals, and with three digits where it is smaller than that: never a plain zero."""
    return round(value, 2) if value >= 1 else float(f"{value:.3g}")


class Problem(ApiModel):
    """Something that the API server would refuse (Error) or drop (Warning)."""

    file: str
    object: str = ""
    """Kind and name; empty where there is none."""
    field: str = ""
    message: str
    severity: Literal["Error", "Warning"] = "Error"


class Memory(ApiModel):
    """The sum on one accelerator, in bytes."""

    total: int
    usable: int
    """What the engine may take of it."""
    weights: int
    cache_per_token: int
    overhead: int
    cache: int
    """What is set aside for keys and values."""
    context_length: int
    """Tokens of the longest sequence that can run."""
    cache_tokens: int
    """Tokens that all running sequences may hold together."""


class FitReport(ApiModel):
    """Whether the model can run at all."""

    verdict: Literal["Fits", "Unknown", "DoesNotFit", "Refused"]
    reason: str = ""
    """Reason code of a refusal."""
    message: str
    """The sum, what is not known and how to make it known, or the refusal and its remedies."""
    memory: Memory | None = None


class LoadReport(ApiModel):
    """The load that replicas and prices are worked out for."""

    source: Literal["Spec", "File", "None"]
    """Where the rate comes from. None: there is no rate, and the size is the smallest, or the present one."""
    requests_per_minute: float | None = None
    input_tokens: float
    output_tokens: float


class SizeReport(ApiModel):
    """How the number of replicas came about."""

    reason: str
    message: str


class VariantReport(ApiModel):
    """One way of running the model."""

    class_name: str = Field(alias="class")
    count: int
    """Accelerators of one replica."""
    nodes: int | None = None
    """Nodes that it spans, where they are several."""
    purchase: Literal["OnDemand", "Spot"]
    tensor: int
    pipeline: int
    replicas: int
    per_hour: Decimal | None = None
    """All of these replicas. None: the price is not known."""
    requests_per_minute: float
    """What one replica answers within the objective."""
    basis: str
    """Where that figure comes from."""


class RunnerUp(ApiModel):
    """The next best variant, at the same load."""

    variant: VariantReport
    reason: str


class RejectedReport(ApiModel):
    """A class, or a size of replica on it, that cannot be used."""

    option: str
    reason: str
    message: str


class Cost(ApiModel):
    """What the replicas cost, used or not."""

    per_hour: Decimal
    per_day: Decimal
    per_million_tokens: Decimal | None = None
    """Input and output tokens alike, at the stated load. None: no load is stated."""


class Crossing(ApiModel):
    """The volume from which the deployment costs less than an API."""

    requests_per_minute: float
    """The first volume at which it costs less."""
    tokens_per_day: float
    """Input and output tokens at that volume."""
    runs_on: str
    """The variant that costs least there."""
    crossings: int
    """How often the deployment gets cheaper: each further replica is a step that may lift it above the API again."""
    always_from_requests_per_minute: float
    """From here on it costs less at every volume up to the next figure."""
    until_requests_per_minute: float | None = None
    """Absent: as far as its replicas go."""


class ApiComparison(ApiModel):
    """The deployment against one price of an API."""

    provider: str
    model: str
    kind: Literal["SameModel", "Reference", "Own"]
    """SameModel: hosts the same open model. Reference: a well-known model. Own: from a file of the user's."""
    note: str = ""
    """`cheapest` or `dearest`, of several that host the same model."""
    input_per_million: Decimal
    output_per_million: Decimal
    per_million_tokens: Decimal
    """At the load's mix of input and output."""
    per_day: Decimal | None = None
    """At the stated load."""
    cheaper: Literal["Deployment", "Api"] | None = None
    """At the stated load."""
    break_even: Crossing | None = None
    """None: the API costs less at every volume that the deployment can answer."""
    source: str
    date: date


class DeploymentReport(ApiModel):
    """What is decided about one LLMDeployment."""

    namespace: str
    name: str
    model: str
    """The name that clients send."""
    source: str
    fit: FitReport
    load: LoadReport
    replicas: int | None = None
    """None: nothing runs, or their number is left to an outside autoscaler."""
    size: SizeReport | None = None
    variants: tuple[VariantReport, ...] = ()
    """The main one first."""
    reason: str = ""
    """Why these variants."""
    runner_up: RunnerUp | None = None
    rejected: tuple[RejectedReport, ...] = ()
    cost: Cost | None = None
    comparisons: tuple[ApiComparison, ...] = ()
    misses_objective: bool = False
    """What was chosen answers outside `scaling.slo` even one request at a time: nothing that it may use is faster."""
    missing_replicas: int = 0
    """Replicas for which the nodes have no room, and for which none can be had."""
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def runs(self) -> bool:
        """Whether all of it can run, as far as is known."""
        return self.fit.verdict in {"Fits", "Unknown"} and not self.missing_replicas


class VariantState(ApiModel):
    """Replicas of one variant, before or after."""

    class_name: str = Field(alias="class")
    count: int
    """Accelerators of one replica."""
    nodes: int | None = None
    """Nodes that it spans, where they are several."""
    purchase: Literal["OnDemand", "Spot"]
    replicas: int


class State(ApiModel):
    """How a deployment runs, before or after."""

    replicas: int
    variants: tuple[VariantState, ...] = ()
    per_day: Decimal | None = None
    """None: a price is not known."""


ChangeKind = Literal["Added", "Removed", "Changed", "Unchanged", "Refused"]
"""Refused: it cannot run as its file says, so what runs of it, if anything, stays."""


class Change(ApiModel):
    """What becomes of one deployment."""

    namespace: str
    name: str
    kind: ChangeKind
    in_files: bool
    """Whether a file names it."""
    before: State | None = None
    after: State | None = None
    fields: tuple[str, ...] = ()
    """Fields of the spec that differ from what runs, such as `model.source`; only a cluster tells."""


class Totals(ApiModel):
    """All deployments together: those of the files, and those that run beside them."""

    per_hour: Decimal
    per_day: Decimal
    before_per_day: Decimal | None = None
    """What runs now; None: not asked."""
    change_per_day: Decimal | None = None
    unpriced: tuple[str, ...] = ()
    """Deployments whose price is not known, `namespace/name`: the totals leave them out."""


class BudgetReport(ApiModel):
    """The limit that was asked for."""

    per_day: Decimal
    exceeded: bool


class PlanReport(ApiModel):
    """The whole report."""

    version: str = SCHEMA_VERSION
    outcome: Outcome
    exit_code: int
    deployments: tuple[DeploymentReport, ...] = ()
    changes: tuple[Change, ...] = ()
    """Against what runs now; empty if that was not asked."""
    totals: Totals
    budget: BudgetReport | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
