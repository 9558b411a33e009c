"""When the present choice is left for a cheaper one.

What the present targets cost too much is added up, as the ski-rental rule does, and they are left when that has reached
a part of the cost of the start that a change throws away: the whole of it right after a change, less and less until
one decision horizon has passed since, a longer one where changes have come one after the other. So a load that has
really crossed is followed soon after a calm time, and a load that stays at the break-even cannot make replicas start
again and again. A change that will not last (`outlook.py`) waits until twice the start's cost has been paid too much.
What is within the band, noise for the most part, lowers the sum. Within one start time of a change
nothing is changed back.
"""

import math
from dataclasses import dataclass

from modelyard.core.breakeven.inputs import BreakEvenPolicy
from modelyard.core.breakeven.joint import SECONDS_PER_HOUR, Assignment, Bill, Group

UNANSWERED = 1e-6
"""Requests per second below which nothing counts as waiting."""


@dataclass(frozen=True, slots=True)
class Excess:
    """What the present targets cost too much."""

    total: float
    """US dollars since the last change, beyond the band."""
    threshold: float
    """US dollars from which they are left."""
    urgent: bool
    """Whether requests wait that would not with the cheapest targets."""
    enough: float = 0.0
    """US dollars from which they are left whatever is foretold."""

    @property
    def reached(self) -> bool:
        """Whether it is time to change, if the change will last."""
        return self.urgent or (self.total > 0 and self.total >= self.threshold)

    @property
    def proven(self) -> bool:
        """Whether it is time to change in any case."""
        return self.urgent or (self.reached and self.total >= self.enough)


@dataclass(frozen=True, slots=True)
class Past:
    """When there were changes."""

    elapsed: float
    """Seconds since the last decision."""
    unchanged: float
    """Seconds since the last change."""
    unrest: float
    """Changes of late, older ones counting less: 1 after a change that followed a long calm, 0 after
    none."""


def add_unrest(before: float, seconds: float, policy: BreakEvenPolicy) -> float:
    """Return the changes of late after one more, which came so many seconds after the one before."""
    return 1.0 + before * math.exp(-max(seconds, 0.0) / policy.calm)


def add_excess(
    group: Group,
    present: Assignment,
    cheapest: Assignment,
    before: float,
    past: Past,
    *,
    foreseen: bool = False,
) -> Excess:
    """Return the sum after some more seconds.

    `before`: the sum until now; `past`: of the routes that would change; `foreseen`: whether the trend of the load
    foretells that the change will pay: then nothing is left to the band.
    """
    policy = group.policy
    old, new = group.bill(present), group.bill(cheapest)
    band, evidence = 0.0 if foreseen else policy.band, policy.evidence
    rate = _compare(old, new, band)
    if _works_at_once(present, cheapest):
        # Replicas are wanted one start from now; what leaves them does so now, must be cheaper now, and pays no start.
        evidence = policy.foreseen if foreseen else evidence
        if rate > 0:
            here = group.at_loads({name: load.at_once() for name, load in group.loads.items()})
            rate = min(rate, _compare(here.bill(present), here.bill(cheapest), band))
    gap = past.elapsed if 0.0 < past.elapsed <= policy.longest_gap else 0.0
    total = max(before + rate * gap / SECONDS_PER_HOUR, 0.0)
    # A first choice throws no start away.
    horizon = policy.horizon * 2.0 ** (past.unrest - 1.0) if past.unrest > 0 else 0.0
    recent = max(0.0, 1.0 - past.unchanged / horizon) if horizon > 0 else 0.0
    part = evidence + (1.0 - evidence) * recent
    start = start_cost(group, old, new)
    return Excess(total, part * start, new.waiting < old.waiting - UNANSWERED, policy.returns * start)


def longest_start(group: Group, route: str) -> float:
    """Return the longest start time, in seconds, of the deployments that a route may use; 0 without any."""
    return max(
        (group.deployments[item.deployment].start_time for item in group.allowed[route].own), default=0.0
    )


def _works_at_once(present: Assignment, cheapest: Assignment) -> bool:
    """Say whether no route comes to a deployment."""
    return not any(target.own and present.get(name) != target for name, target in cheapest.items())


def _compare(old: Bill, new: Bill, band: float) -> float:
    """Return what a change saves, in US dollars per hour, beyond a share of what it saves at all.

    What stays the same is not in it.
    """
    saved = added = 0.0
    for before, after in ((old.fleet, new.fleet), (old.spent, new.spent)):
        for name in before:
            change = after[name] - before[name]
            saved, added = saved + max(-change, 0.0), added + max(change, 0.0)
    return saved - added - band * saved


def start_cost(group: Group, old: Bill, new: Bill) -> float:
    """Return what the starts cost that a change asks for or throws away, in US dollars."""
    return sum(
        abs(min(new.replicas[name], item.maximum) - min(old.replicas[name], item.maximum))
        * item.avoidable
        * item.start_time
        / SECONDS_PER_HOUR
        for name, item in group.deployments.items()
    )
