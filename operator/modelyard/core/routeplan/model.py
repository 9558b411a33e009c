"""What is decided about routes, and what is remembered for the next decision. Plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.core.breakeven.load import LoadHistory
from modelyard.core.breakeven.memory import BreakEvenMemory, RouteChoice
from modelyard.core.demand import Share
from modelyard.core.reasons import Reason
from modelyard.core.routing import WeightedTarget
from modelyard.core.scaling.work import WorkMemory
from modelyard.core.shape import ShapeMemory
from modelyard.core.snapshot import Asked


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Where the requests of one LLMRoute go."""

    targets: tuple[WeightedTarget, ...]
    """In the order in which they are tried: all that may be used, and no other."""
    priority: bool = False
    """Whether only the first of them gets requests first (`Route.priority`)."""
    spilled: float = 0.0
    """Part of the requests that goes elsewhere than it should, 0 to 1."""
    spill: Reason | None = None
    """Why; None: nothing does, or nothing could."""
    may_spill: bool = False
    known: bool = True
    """Whether its load is."""
    choice: RouteChoice | None = None
    """None: the policy is not LowestCost."""
    since: float = 0.0
    """Unix time of the last change of the choice."""


@dataclass(frozen=True, slots=True)
class RoutesPlan:
    """Where the requests of all LLMRoutes go, as far as more than their specs decides."""

    routes: Mapping[str, RoutePlan] = field(default_factory=dict)
    """By `namespace/name` of the LLMRoute; those whose targets follow from their specs alone are not in it."""
    asked: Mapping[str, Asked] = field(default_factory=dict)
    """By `namespace/name` of the LLMDeployment."""


@dataclass(frozen=True, slots=True)
class RouteWatch:
    """What is remembered of one LLMRoute's requests."""

    load: LoadHistory = field(default_factory=LoadHistory)
    shape: ShapeMemory = field(default_factory=ShapeMemory)
    weighed: Mapping[str, WorkMemory] = field(default_factory=dict)
    """What one of its requests is worth at each deployment, worked out again only when something changed."""


@dataclass(frozen=True, slots=True)
class OthersWatch:
    """What is remembered of the requests to one deployment that come through no watched LLMRoute."""

    shares: tuple[Share, ...] = ()
    load: LoadHistory = field(default_factory=LoadHistory)
    last_arrival: float | None = None
    """Unix time of the newest reading that showed a new one."""


@dataclass(frozen=True, slots=True)
class RoutesMemory:
    """What the decision about routes remembers between calls."""

    routes: Mapping[str, RouteWatch] = field(default_factory=dict)
    """By `namespace/name` of the LLMRoute."""
    others: Mapping[str, OthersWatch] = field(default_factory=dict)
    """By `namespace/name` of the LLMDeployment."""
    breakeven: BreakEvenMemory = field(default_factory=BreakEvenMemory)
