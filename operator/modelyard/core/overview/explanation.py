"""What the status of an LLMDeployment or LLMRoute says of the last decision, as values."""

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field

from modelyard.api.llmdeployment import CostStatus, LLMDeployment, PlacementStatus, ScalingEvent
from modelyard.api.llmroute import LLMRoute
from modelyard.api.meta import ApiModel, Condition
from modelyard.api.routechoice import ChoiceStatus

SCHEMA_VERSION: Final = "1"
"""Raised when a field is renamed, removed or changes its meaning. A new field leaves it as it is."""


class ExplainedSize(ApiModel):
    """The last decision about the size."""

    replicas: int
    reason: str
    message: str = ""
    numbers: Mapping[str, str] = Field(default_factory=dict)
    """Figures behind it, by name, as decimal strings; empty where the operator writes none."""


class PodRow(ApiModel):
    """A pod of a deployment."""

    name: str
    state: str
    """`serves`, `not ready`, `leaves`, or its phase."""
    why: str = ""
    """Why it waits, and how it ended before; empty if there is nothing to tell."""
    node: str = ""
    """Empty until it is scheduled."""
    restarts: int = 0
    created: str = ""
    """RFC 3339."""


class EventRow(ApiModel):
    """An Event of Kubernetes."""

    time: str
    """RFC 3339 time at which it was seen last."""
    about: str
    """Kind and name."""
    severity: str
    reason: str
    message: str = ""
    count: int = 1


class ExplainReport(ApiModel):
    """The last decision about a deployment, and what is of it."""

    version: str = SCHEMA_VERSION
    namespace: str
    name: str
    model: str
    source: str
    mode: Literal["Active", "Advise", "External", "Fixed", "Suspended"]
    minimum: int
    maximum: int
    replicas: int
    """Pods that are not on their way out."""
    ready_replicas: int
    current: bool
    """Whether the status is of the newest spec."""
    size: ExplainedSize | None = None
    """Absent before the first decision."""
    history: tuple[ScalingEvent, ...] = ()
    """Changes of size, the newest last."""
    placement: PlacementStatus | None = None
    cost: CostStatus | None = None
    conditions: tuple[Condition, ...] = ()
    pods: tuple[PodRow, ...] | None = None
    """Absent where they were not read."""
    events: tuple[EventRow, ...] | None = None
    """Of the deployment and its pods, the newest last. Absent where they were not read."""
    notes: tuple[str, ...] = ()
    """What is missing here, and why."""


def build_explanation(deployment: LLMDeployment, numbers: Mapping[str, str]) -> ExplainReport:
    """Return what the object says. `numbers`: the figures behind the last decision."""
    spec, status, scaling = deployment.spec, deployment.status, deployment.spec.scaling
    fixed = spec.replicas or 0
    decided = status.scaling
    return ExplainReport(
        namespace=deployment.metadata.namespace,
        name=deployment.metadata.name,
        model=status.model or deployment.served_name,
        source=spec.model.source,
        mode=_find_mode(deployment),
        minimum=fixed if scaling is None else scaling.min,
        maximum=fixed if scaling is None else scaling.max,
        replicas=status.replicas,
        ready_replicas=status.ready_replicas,
        current=status.observed_generation == deployment.metadata.generation,
        size=None
        if decided is None
        else ExplainedSize(
            replicas=decided.desired_replicas,
            reason=decided.reason,
            message=decided.message,
            numbers=dict(numbers),
        ),
        history=decided.history if decided is not None else (),
        placement=status.placement,
        cost=status.cost,
        conditions=status.conditions,
    )


def _find_mode(deployment: LLMDeployment) -> Literal["Active", "Advise", "External", "Fixed", "Suspended"]:
    spec = deployment.spec
    if spec.suspend:
        return "Suspended"
    if spec.scaling is None:
        return "Fixed"
    return "External" if spec.scaling.actuator == "External" else spec.scaling.mode


class RouteReport(ApiModel):
    """The last decision about a route."""

    version: str = SCHEMA_VERSION
    namespace: str
    name: str
    model: str
    policy: str
    targets: int
    """Of the spec."""
    current: bool
    """Whether the status is of the newest spec."""
    choice: ChoiceStatus | None = None
    """Absent where cost does not decide, and before the first decision."""
    spill_percent: int | None = None
    """Absent where nothing can spill."""
    conditions: tuple[Condition, ...] = ()


def build_route_report(route: LLMRoute) -> RouteReport:
    """Return what the object says."""
    status = route.status
    return RouteReport(
        namespace=route.metadata.namespace,
        name=route.metadata.name,
        model=route.spec.model,
        policy=route.spec.policy,
        targets=len(route.spec.targets),
        current=status.observed_generation == route.metadata.generation,
        choice=status.choice,
        spill_percent=status.spill_percent,
        conditions=status.conditions,
    )
