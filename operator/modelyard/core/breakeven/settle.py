"""The choice for routes that share deployments: what is cheapest now, and whether it is time to change to it."""

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.core.breakeven.hysteresis import Excess, Past, add_excess, longest_start
from modelyard.core.breakeven.inputs import RouteInput, RouteLoad, Target
from modelyard.core.breakeven.joint import Assignment, Group, find_cheapest
from modelyard.core.breakeven.memory import BreakEvenMemory, RouteMemory
from modelyard.core.breakeven.outlook import Outlook, foresee

UNKNOWN_LOAD = RouteLoad(0.0, 0.0, 0.0)
"""Of a route that was never counted: it keeps one replica of its deployment, and no more is asked for."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The choice for one group."""

    assignment: Assignment
    """Routes without any target are not in it."""
    changed: frozenset[str]
    """Routes that go elsewhere than before, or are new."""
    alternative: Assignment | None
    """The cheapest of the other choices; None: there is none."""
    excess: Excess


def load_of(route: RouteInput, before: RouteMemory | None) -> RouteLoad:
    """Return the load that counts: the last known one where the counters are not known."""
    if route.load is not None:
        return route.load
    return before.load if before is not None and before.load is not None else UNKNOWN_LOAD


def settle(group: Group, memory: BreakEvenMemory, now: float) -> Settled:
    """Return the choice for one group.

    A target that may not be used any more is left at once, whatever the cost; all else waits for its time.
    """
    present = {
        route.name: before.target
        for route in group.routes
        if (before := memory.routes.get(route.name)) is not None
        and before.target in group.allowed[route.name].targets
    }
    known = {name: memory.routes[name] for name in present}
    choices = {route.name: _choices(group, route, known.get(route.name)) for route in group.routes}
    fresh = frozenset(name for name, targets in choices.items() if targets and name not in present)
    total = max((before.excess for before in known.values()), default=0.0)
    if fresh:
        fixed = {name: (present[name],) if name in present else targets for name, targets in choices.items()}
        return Settled(find_cheapest(group, fixed, present) or {}, fresh, None, Excess(total, 0.0, False))
    alternative = find_cheapest(group, choices, present, other_than=present)
    if alternative is None:
        return Settled(present, frozenset(), None, Excess(total, 0.0, False))
    moving = frozenset(name for name in present if alternative[name] != present[name])
    past = Past(
        elapsed=now - max(before.time for before in known.values()),
        unchanged=now - max(known[name].since for name in moving),
        unrest=max(known[name].unrest for name in moving),
    )
    outlook = foresee(group, present, alternative)
    excess = add_excess(group, present, alternative, total, past, foreseen=outlook is Outlook.PAYS)
    settling = any(now - known[name].since < longest_start(group, name) for name in moving)
    if excess.reached and not settling and (excess.proven or outlook is not Outlook.TURNS):
        return Settled(alternative, moving, present, Excess(0.0, excess.threshold, excess.urgent))
    return Settled(present, frozenset(), alternative, excess)


def _choices(group: Group, route: RouteInput, before: RouteMemory | None) -> tuple[Target, ...]:
    """Return what a route may be given: without data only its present target."""
    targets = group.allowed[route.name].targets
    if before is None:
        return targets if route.load is not None else _hold(group, targets)
    return targets if route.load is not None else (before.target,)


def _hold(group: Group, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return the target of a route of which nothing is known.

    What serves stays in use; without that, a provider costs nothing while nothing comes.
    """
    serving: Mapping[str, int] = {name: item.serving for name, item in group.deployments.items()}
    own = [target for target in targets if target.own]
    best = max(own, key=lambda target: serving[target.name], default=None)
    if best is not None and serving[best.name]:
        return (best,)
    return targets[-1:]
