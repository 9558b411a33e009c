"""What the decision remembers between calls, and what tunes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.core.allocation import AllocationMemory
from modelyard.core.availability import AvailabilityMemory, AvailabilityPolicy
from modelyard.core.breakeven.inputs import BreakEvenPolicy
from modelyard.core.choice import ChoiceMemory, VariantPolicy
from modelyard.core.demand import DemandMemory, DemandPolicy
from modelyard.core.perf.learning import SpeedMemory
from modelyard.core.placement.problem import PlacementPolicy
from modelyard.core.replicas import SizeMemory, SizePolicy
from modelyard.core.shape import ShapeMemory


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that tunes the decision. The defaults are for production; the demo plays time faster."""

    demand: DemandPolicy = field(default_factory=DemandPolicy)
    size: SizePolicy = field(default_factory=SizePolicy)
    variants: VariantPolicy = field(default_factory=VariantPolicy)
    availability: AvailabilityPolicy = field(default_factory=AvailabilityPolicy)
    placement: PlacementPolicy = field(default_factory=PlacementPolicy)
    breakeven: BreakEvenPolicy = field(default_factory=BreakEvenPolicy)
    hold: float = 600.0
    """Seconds that a request may wait for a sleeping model."""


@dataclass(frozen=True, slots=True)
class DeploymentMemory:
    """What the decision remembers of one deployment."""

    size: SizeMemory
    demand: DemandMemory = field(default_factory=DemandMemory)
    shape: ShapeMemory = field(default_factory=ShapeMemory)
    availability: AvailabilityMemory = field(default_factory=AvailabilityMemory)
    choice: ChoiceMemory | None = None
    allocation: AllocationMemory | None = None
    speeds: Mapping[str, SpeedMemory] = field(default_factory=dict)
    """What was learned of each variant's speed, by `Variant.name`."""
    serving: bool | None = None
    """Whether it had an endpoint at the last decision; None before the first."""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decision remembers between calls."""

    deployments: Mapping[str, DeploymentMemory] = field(default_factory=dict)
