"""Whether a cheaper choice stays the cheaper one for long enough.

A GPU costs the same until one more is needed. So on its way through the loads of the first replicas a growing load
makes the fleet the cheaper one, then the provider again, then the fleet, each for some minutes. To follow all of that
costs more starts than it saves. The load is taken to go on with its trend, and a change waits whose savings would be
lost again before they have paid for two starts. Where no trend stands out, no return is foreseen and nothing waits.
"""

from enum import Enum, auto

from modelyard.core.breakeven.hysteresis import start_cost
from modelyard.core.breakeven.joint import SECONDS_PER_HOUR, Assignment, Group

POINTS = 60
"""Loads that are looked at over one horizon: one a minute. A load that doubles in an hour grows by 1 % between two."""


class Outlook(Enum):
    """What the trend of the load makes of a change."""

    OPEN = auto()
    """Nothing is foretold: there is no trend, or its way is not long enough to tell."""
    PAYS = auto()
    """It will have saved what it must be worth."""
    TURNS = auto()
    """What it saves is lost again before that, or it saves nothing."""


def foresee(group: Group, present: Assignment, cheaper: Assignment) -> Outlook:
    """Say whether a change pays before the trend of the loads turns the order of the costs round.

    What is saved is added up along the trend, for one horizon, until it is worth `returns` starts or all lost again.
    """
    policy = group.policy
    old, new = group.bill(present), group.bill(cheaper)
    if new.cost >= old.cost:
        return Outlook.TURNS
    if not any(group.loads[route.name].trend for route in group.routes):
        return Outlook.OPEN
    price = policy.returns * start_cost(group, old, new)
    each = policy.horizon / POINTS
    saved, turned = 0.0, False
    for point in range(POINTS):
        later = group.at_loads({name: load.after(point * each) for name, load in group.loads.items()})
        less = (later.bill(present).cost - later.bill(cheaper).cost) * each / SECONDS_PER_HOUR
        saved, turned = saved + less, turned or less < 0
        if saved >= price:
            return Outlook.PAYS
        if turned and saved <= 0:
            return Outlook.TURNS
    return Outlook.TURNS if turned else Outlook.OPEN
