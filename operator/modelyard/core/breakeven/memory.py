"""What the choice remembers, and what it says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.core.breakeven.crossings import Crossing
from modelyard.core.breakeven.inputs import RouteLoad, Target
from modelyard.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class TargetShare:
    """A part of a route's requests."""

    target: Target
    part: float
    """Above 0, to 1."""


@dataclass(frozen=True, slots=True)
class RouteMemory:
    """What is remembered of one route."""

    target: Target
    since: float
    """Unix time of the last change of the target."""
    time: float
    """Unix time of the last decision that knew the load."""
    load: RouteLoad | None = None
    """The last one known."""
    shares: tuple[TargetShare, ...] = ()
    unrest: float = 0.0
    """Changes of late (`hysteresis.add_unrest`)."""
    excess: float = 0.0
    """US dollars that the present targets of its group have cost more than the cheapest ones, beyond the band."""


@dataclass(frozen=True, slots=True)
class BreakEvenMemory:
    """What is remembered of every route that has a target."""

    routes: Mapping[str, RouteMemory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TargetCost:
    """What a route would cost at one target while the others stay."""

    target: Target
    hourly: float | None
    """US dollars per hour; None: it may not be used."""
    replicas: int = 0
    """Replicas of the deployment that the load would need, other routes' included; 0 of a provider."""
    per_request: float | None = None
    """US dollars for the mean request at a provider; None of a deployment, where it depends on the load."""
    refusal: Reason | None = None


@dataclass(frozen=True, slots=True)
class RouteChoice:
    """Where the requests of one route go."""

    route: str
    target: Target | None
    """None: nothing may be used; requests are refused."""
    shares: tuple[TargetShare, ...]
    """Where they go now, while replicas are missing or not; the parts add up to 1."""
    reason: Reason
    costs: tuple[TargetCost, ...] = ()
    crossings: tuple[Crossing, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Requests and tokens as the names say; money in US dollars."""
    known: bool = True
    """Whether the load is."""


@dataclass(frozen=True, slots=True)
class DeploymentChoice:
    """What the routes ask of one deployment."""

    deployment: str
    replicas: int
    """Replicas that there should be at least, within its bounds: what runs in any case needs, and what routes need that
    came because it costs less. All that is present, while a sender's load is not known. A route that has no other
    target adds nothing: how long its deployment runs without requests is the size rule's question."""
    may_sleep: bool
    """Whether nobody sends to it any more, so that it need not wait until it has been idle."""


@dataclass(frozen=True, slots=True)
class BreakEvenChoice:
    """The decision."""

    routes: Mapping[str, RouteChoice]
    deployments: Mapping[str, DeploymentChoice]
