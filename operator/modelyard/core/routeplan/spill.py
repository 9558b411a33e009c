"""Where requests go while replicas are missing: as much as the serving replicas have room for stays, the rest spills.

Room is the offered load, held against the capacity of what serves, as the size rule plans it. A breaker in the gateway
cannot do this: what it refuses is not tried elsewhere.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from modelyard.core.breakeven.inputs import BreakEvenPolicy, OwnTarget, RouteLoad
from modelyard.core.breakeven.need import Work, answered, replicas_planned, work_of
from modelyard.core.breakeven.spill import PARTS
from modelyard.core.reasons import Code, Reason
from modelyard.core.routeplan.views import DeploymentView
from modelyard.core.routing import deployment_key


@dataclass
class Rooms:
    """How much of what comes each deployment's serving replicas can take, and what is taken of it."""

    deployments: Mapping[str, DeploymentView]
    policy: BreakEvenPolicy
    work: dict[str, Work] = field(default_factory=dict)
    """Present work of each deployment, in replicas at capacity."""

    def tenths(self, key: str) -> int:
        """Return how many tenths of its requests a deployment has serving replicas for."""
        view = self.deployments[key]
        if view.serving < 1:
            return 0
        planned = self.planned(key)
        if not view.measured or planned <= view.serving * (1 + 1e-9):
            return PARTS
        # A load that one replica is planned for needs a whole one, whatever the fraction.
        return math.floor(view.serving / planned * PARTS + 1e-9)

    def planned(self, key: str) -> float:
        """Return how many replicas the present load is planned for, headroom included."""
        return replicas_planned(self.work.get(key, Work()), self.deployments[key].plan(self.policy))

    def take(self, key: str, load: RouteLoad | None, rate: float, target: OwnTarget) -> int:
        """Return how many tenths of so many further requests per second a deployment takes, and count them.

        It must have room for all that is its own.
        """
        view = self.deployments[key]
        if self.tenths(key) < PARTS:
            return 0
        if load is None or rate <= 0 or not view.measured:
            return PARTS
        free = answered(load, target, self.work.get(key, Work()), view.serving, view.plan(self.policy))
        tenths = min(math.floor(free / rate * PARTS + 1e-9), PARTS)
        if tenths:
            taken = work_of(load, rate * tenths / PARTS, target)
            self.work[key] = self.work.get(key, Work()) + taken
        return tenths

    def explain(self, key: str) -> Reason:
        """Return why a deployment does not take all."""
        view = self.deployments[key]
        if view.serving < 1:
            return Reason(Code.STARTING, f"no replica of {key} serves yet")
        return Reason(
            Code.SATURATED,
            f"{key} has {view.serving} serving replica{'s' if view.serving > 1 else ''}, and the present load is "
            f"planned for {self.planned(key):.1f}",
        )


@dataclass(frozen=True, slots=True)
class Spilled:
    """What comes first to each target of a route."""

    weights: Mapping[str, int]
    """Tenths of the wanted weights."""
    part: float
    """Of the requests that goes elsewhere than it should, 0 to 1."""
    reason: Reason | None
    """Why something does."""


def spill(
    wanted: Mapping[str, int],
    order: Iterable[str],
    own: Mapping[str, OwnTarget],
    load: RouteLoad | None,
    rooms: Rooms,
    closed: Collection[str] = (),
) -> Spilled:
    """Return where the requests of one route go first.

    `wanted`: weight of each target that should get requests; `order`: all targets that may, as they are tried one after
    the other; `own`: the deployments among them, which adapters share with the model itself. A provider takes all that
    comes, unless it is one of `closed`. What nobody has room for stays, and waits.
    """
    order = tuple(order)
    rate = load.now if load is not None else 0.0
    total = sum(wanted.values())
    weights = dict.fromkeys(order, 0)
    moved, reason = 0, None
    for place, key in enumerate(order):
        units = wanted.get(key, 0) * PARTS
        here = deployment_key(key)
        tenths = rooms.tenths(here) if here in own and units else PARTS
        left = wanted.get(key, 0) * (PARTS - tenths)
        for other in _others(order, place):
            if not left:
                break
            if other in closed:
                continue
            taken, there = left, deployment_key(other)
            if there in own:
                each = rate * left / (total * PARTS)
                taken = left * rooms.take(there, load, each, own[there]) // PARTS
            if taken:
                reason = reason or rooms.explain(here)
            weights[other], moved, left = weights[other] + taken, moved + taken, left - taken
        weights[key] += wanted.get(key, 0) * tenths + left
    return Spilled(weights, moved / (total * PARTS) if total else 0.0, reason)


def _others(order: tuple[str, ...], place: int) -> Iterator[str]:
    """Yield the targets after one, then those before it: as failed requests are sent on."""
    yield from order[place + 1 :]
    yield from order[:place]
