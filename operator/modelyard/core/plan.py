"""What to do, and why: the result of a decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.api.meta import Refusal
from modelyard.core.reasons import Code, Reason
from modelyard.core.variants import Variant

__all__ = ["Code", "DeploymentPlan", "Placement", "Plan", "Reason", "Size", "VariantPlan"]


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """How many replicas run in one way."""

    variant: Variant
    wanted: int
    """Replicas that the placement gives it."""
    replicas: int | None
    """Replicas to write into its child Deployment: `wanted`, or more while others do not serve yet. None: leave the
    field to whoever owns it."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a deployment runs."""

    main: Variant
    """The variant of most replicas."""
    variants: tuple[VariantPlan, ...]
    """Those that have a child Deployment, the main one first."""
    remove: tuple[str, ...] = ()
    """Names of variants whose child Deployments go."""
    preferred: Reason | None = None
    """Set where it does not run as it should for its price and objective: what it waits for."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """A number of replicas, and how it came about."""

    replicas: int
    reason: Reason
    known: bool = True
    """False: demand was not known, so the present size stands."""
    capacity: float = 0.0
    """Requests per second that the replicas must answer in all, whatever they run on. 0: only their number counts."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What it was worked out from, by name."""


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """What one LLMDeployment should be."""

    key: str
    placement: Placement | None = None
    size: Size | None = None
    replicas: int | None = None
    """Replicas over all child Deployments. None: their number is left to whoever owns it."""
    refusal: Refusal | None = None
    """Set: nothing is applied, and the deployment is Stalled with this reason."""
    generation: int = 0
    """Generation of its cluster name in the gateway."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the fleet should be."""

    deployments: Mapping[str, DeploymentPlan] = field(default_factory=dict)
