"""What a choice of targets costs, for routes that share deployments together, and the choice that costs least.

A replica is shared, so what a route saves by leaving depends on who stays: two routes may each be cheaper at a
provider and both together cheaper on one replica. Routes that share no deployment, not even through others, are
decided apart.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from modelyard.core.breakeven.allowed import Allowed
from modelyard.core.breakeven.inputs import (
    BreakEvenPolicy,
    DeploymentInput,
    RouteInput,
    RouteLoad,
    Target,
)
from modelyard.core.breakeven.need import Work, other_work, replicas_needed, replicas_planned, work_of

SECONDS_PER_HOUR = 3600.0
EXACT = 512
"""Choices up to which every one is tried: 9 routes with two targets each, 10 ms. Beyond it a local search decides."""
ROUNDS = 32
"""Rounds of the local search at most; each makes the sum smaller, and few are needed."""

Assignment = Mapping[str, Target]
"""Target of each route; a route without one is not in it."""
Choices = Mapping[str, Sequence[Target]]
"""Targets that each route may be given."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What a choice costs beyond what runs in any case."""

    waiting: float
    """Requests per second that nothing answers."""
    fleet: Mapping[str, float]
    """US dollars per hour of each deployment's replicas, as far as they could go."""
    spent: Mapping[str, float]
    """US dollars per hour of each route at its provider, spilled requests included."""
    replicas: Mapping[str, int]
    """Replicas of each deployment that the load needs, at least its minimum; may exceed its maximum."""

    @property
    def cost(self) -> float:
        """US dollars per hour."""
        return math.fsum((*self.fleet.values(), *self.spent.values()))


@dataclass(frozen=True, slots=True)
class Group:
    """Routes that share deployments."""

    routes: tuple[RouteInput, ...]
    allowed: Mapping[str, Allowed]
    loads: Mapping[str, RouteLoad]
    """Load of each route that counts: the last one known where there is none."""
    deployments: Mapping[str, DeploymentInput]
    policy: BreakEvenPolicy
    _needs: dict[tuple[str, frozenset[str]], tuple[int, float]] = field(default_factory=dict)

    def at_loads(self, loads: Mapping[str, RouteLoad]) -> "Group":
        """Return the same under other loads."""
        return replace(self, loads=loads, _needs={})

    def work(self, name: str, routes: Iterable[str]) -> Work:
        """Return the work of a deployment while these routes send to it."""
        total = other_work(self.deployments[name])
        for route in sorted(routes):
            target = self.allowed[route].find(Target("Deployment", name))
            if target is not None:
                total += work_of(self.loads[route], self.loads[route].ahead, target)
        return total

    def need(self, name: str, routes: frozenset[str]) -> tuple[int, float]:
        """Return the replicas of a deployment while these routes send to it, and the share of work that they answer.

        A route keeps at least one: its next request is to be answered at once.
        """
        found = self._needs.get((name, routes))
        if found is None:
            deployment, work = self.deployments[name], self.work(name, routes)
            policy = deployment.plan(self.policy)
            count = max(replicas_needed(work, policy), deployment.minimum, 1 if routes else 0)
            served = 1.0
            if count > deployment.maximum:
                served = min(1.0, deployment.maximum / max(replicas_planned(work, policy), 1e-9))
            found = self._needs[name, routes] = (count, served)
        return found

    def bill(self, assignment: Assignment) -> Bill:
        """Return what a choice costs."""
        fleet: dict[str, float] = {}
        replicas: dict[str, int] = {}
        served: dict[str, float] = {}
        for name, deployment in self.deployments.items():
            here = frozenset(
                route for route, target in assignment.items() if target.own and target.name == name
            )
            count, served[name] = self.need(name, here)
            least, _ = self.need(name, frozenset())
            kept = min(count, deployment.maximum) - min(least, deployment.maximum)
            fleet[name], replicas[name] = kept * deployment.avoidable, count
        spent: dict[str, float] = {}
        waiting = 0.0
        for route in self.routes:
            target, allowed = assignment.get(route.name), self.allowed[route.name]
            rate = self.loads[route.name].ahead
            share = 0.0 if target is None else 1.0 - served[target.name] if target.own else 1.0
            if target is None:
                waiting += rate
            elif target.own and not (route.spill and allowed.provider):
                waiting, share = waiting + rate * share, 0.0
            spent[route.name] = share * rate * allowed.per_request * SECONDS_PER_HOUR
        return Bill(waiting, fleet, spent, replicas)


def form_groups(
    routes: Sequence[RouteInput], allowed: Mapping[str, Allowed]
) -> Iterator[tuple[RouteInput, ...]]:
    """Yield the routes that share deployments, directly or through others; in the order of their first."""
    above = list(range(len(routes)))
    """Of each route an earlier one of its group, or itself."""

    def first_of(place: int) -> int:
        while above[place] != place:
            above[place] = place = above[above[place]]
        return place

    seen: dict[str, int] = {}
    for place, route in enumerate(routes):
        for item in allowed[route.name].own:
            one, other = first_of(place), first_of(seen.setdefault(item.deployment, place))
            above[max(one, other)] = min(one, other)
    groups: dict[int, list[RouteInput]] = {}
    for place, route in enumerate(routes):
        groups.setdefault(first_of(place), []).append(route)
    yield from (tuple(members) for members in groups.values())


def find_cheapest(
    group: Group, choices: Choices, start: Assignment, *, other_than: Assignment | None = None
) -> dict[str, Target] | None:
    """Return the choice that leaves fewest requests waiting and of those costs least.

    `choices`: what each route may be given, in the order in which equal ones are preferred; `start`: where a search
    begins if there are too many to try all; `other_than`: a choice that does not count. None: there is no other.
    """
    choices = {route: choices[route] for route in sorted(choices) if choices[route]}
    trials: Iterable[dict[str, Target]]
    if math.prod(len(targets) for targets in choices.values()) <= EXACT:
        trials = (dict(zip(choices, found, strict=True)) for found in product(*choices.values()))
    elif other_than is not None:
        trials = _neighbours(group, choices, {**_first(choices), **other_than})
    else:
        begins = (
            {
                name: start[name] if start.get(name) in targets else targets[0]
                for name, targets in choices.items()
            },
            _first(choices),
            {name: targets[-1] for name, targets in choices.items()},
        )
        trials = [_improve(group, choices, begin) for begin in begins]
    return min(
        (trial for trial in trials if trial != other_than),
        key=lambda trial: _rank(group, trial),
        default=None,
    )


def _first(choices: Choices) -> dict[str, Target]:
    return {name: targets[0] for name, targets in choices.items()}


def _rank(group: Group, assignment: Assignment) -> tuple[float, float]:
    bill = group.bill(assignment)
    # Sums of the same figures in another order differ in the last digits.
    return round(bill.waiting, 9), round(bill.cost, 9)


def _improve(group: Group, choices: Choices, begin: dict[str, Target]) -> dict[str, Target]:
    """Return what no change of one route, and none of all that may use a deployment, makes cheaper."""
    best, rank = begin, _rank(group, begin)
    for _ in range(ROUNDS):
        score, trial = min(
            ((_rank(group, trial), trial) for trial in _neighbours(group, choices, best)),
            key=lambda item: item[0],
            default=(rank, best),
        )
        if score >= rank:
            break
        best, rank = trial, score
    return best


def _neighbours(group: Group, choices: Choices, current: Assignment) -> Iterator[dict[str, Target]]:
    for name, targets in choices.items():
        for target in targets:
            if target != current[name]:
                yield {**current, name: target}
    for deployment in group.deployments:
        here = Target("Deployment", deployment)
        yield {name: here if here in targets else current[name] for name, targets in choices.items()}
        yield {
            name: targets[-1] if current[name] == here else current[name] for name, targets in choices.items()
        }
