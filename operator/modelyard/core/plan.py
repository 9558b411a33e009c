"""What to do, and why: the result of a decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.meta import Refusal


@dataclass(frozen=True, slots=True)
class Reason:
    """A stable code for machines and a sentence for people. Conditions, events and metrics carry both."""

    code: str
    message: str


class Code:
    """Reason codes. They are API: documented in docs/decisions.md, never renamed."""

    SUSPENDED: Final = "Suspended"
    FIXED: Final = "FixedReplicas"
    EXTERNAL: Final = "ExternalActuator"
    INITIAL: Final = "InitialSize"
    AT_MINIMUM: Final = "AtMinimum"
    AT_MAXIMUM: Final = "AtMaximum"
    OFFERED_LOAD: Final = "OfferedLoad"
    STABILIZING: Final = "Stabilizing"
    NO_DATA: Final = "NoData"
    WOKEN: Final = "Woken"
    IDLE: Final = "Idle"
    SCALED_TO_ZERO: Final = "ScaledToZero"
    SERVING: Final = "Serving"
    STARTING: Final = "Starting"
    LOADING: Final = "Loading"
    WAITING_FOR_GPU: Final = "WaitingForGPU"
    UNSCHEDULABLE: Final = "Unschedulable"
    IMAGE_PULL_FAILED: Final = "ImagePullFailed"
    ENGINE_FAILED: Final = "EngineFailed"
    START_TIMEOUT: Final = "StartTimeout"
    NOT_PROGRESSING: Final = "Complete"
    SCALING: Final = "Scaling"
    ACCELERATOR_NOT_FOUND: Final = "AcceleratorClassNotFound"
    NAME_CONFLICT: Final = "NameConflict"
    SERVED_NAME_CONFLICT: Final = "ServedNameConflict"
    ROUTED: Final = "Routed"
    ROUTED_BY_ROUTE: Final = "RoutedByLLMRoute"
    TARGET_NOT_FOUND: Final = "TargetNotFound"
    INVALID: Final = "Invalid"
    DEMAND_READ: Final = "DemandRead"
    NOT_STALLED: Final = "NotStalled"


@dataclass(frozen=True, slots=True)
class Placement:
    """The accelerators that a replica runs on."""

    accelerator: AcceleratorClass
    count: int
    capacity: float
    """Requests per second that one replica answers within its objective."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """A number of replicas, and how it came about."""

    replicas: int
    reason: Reason
    known: bool = True
    """False: demand was not known, so the present size stands."""


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """What one LLMDeployment should be."""

    key: str
    placement: Placement | None = None
    size: Size | None = None
    replicas: int | None = None
    """Replicas to write into the child Deployment. None: leave the field to whoever owns it."""
    refusal: Refusal | None = None
    """Set: nothing is applied, and the deployment is Stalled with this reason."""
    generation: int = 0
    """Generation of its cluster name in the gateway."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the fleet should be."""

    deployments: Mapping[str, DeploymentPlan] = field(default_factory=dict)
