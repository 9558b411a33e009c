"""What a placement costs: prices, the charge for switching, and penalties for what could not be placed.

Both solvers minimise the sum that `evaluate` works out, so that their answers can be compared with each other and with
a bound.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.core.placement.packing import Shelf
from modelyard.core.placement.problem import Candidate, PlacementDemand, PlacementPolicy, PlacementProblem

LOAD_PENALTY = 1000.0
"""US dollars per hour, per dollar of the dearest replica's price, when nothing of the load is placed. A thousandth of
the load is thus worth one replica: less than that is beyond what a load can be measured to."""
PROPORTIONAL_PENALTY = 4.0
"""By how much the penalty exceeds the price of the missing capacity at the dearest candidate, however large the
load. Above 2, so that half of it (exposure) still outweighs money."""
EXPOSURE_SHARE = 0.5
"""Penalty for load that the loss of a zone would leave unserved, as a share of that for load that is not served."""
REPLICA_PENALTY = 10.0
"""Per missing replica of the minimum, in prices of the dearest replica; above 1, so that it outweighs money."""
BASE_PENALTY = 5.0
"""Per missing replica of the on-demand base, likewise. A replica of the wrong kind is better than none."""
PRICE_FLOOR = 0.001
"""US dollars per hour and accelerator: what a replica counts at the least, so that free ones are not wasted."""
MAX_SWITCHING_SHARE = 0.5
"""Most of a replica's price that its removal is charged, so that an unneeded one always goes."""
PRIORITY_WEIGHT = 10.0
"""Penalty of one priority over that of the next lower one in the problem. The searches settle the penalties of one
priority after the other anyway; the weight makes the prices of inventory that lead there."""
MAX_PRIORITY_STEPS = 4
"""Priorities above the lowest that are weighted: more would leave the range in which HiGHS is accurate."""
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate as the solvers see it."""

    name: str
    pool: str
    size: int
    """Accelerators."""
    capacity: float
    """Requests per second; no more than the whole load."""
    price: float
    """US dollars per hour that it counts: its price, or the floor."""
    cost: float
    """US dollars per hour that it costs."""
    spot: bool
    most: int
    """More replicas than this are not allowed or never of use."""
    ceiling: int | None
    current: int
    removal: float
    """Charge for each replica fewer than now, US dollars per hour."""
    addition: float
    """Charge for each replica more than now, US dollars per hour: for the time that it starts later than others."""
    shelves: tuple[int, ...]
    """Indexes of the shelves that it may use."""
    label: str
    """How people read it."""
    nodes: str
    """How people read its pool."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A demand as the solvers see it."""

    key: str
    options: tuple[Option, ...]
    capacity: float
    minimum: int
    maximum: int
    priority: int
    base: int
    load_penalty: float
    """US dollars per hour for the whole load."""
    scale: float
    """What penalties are counted in: price of the dearest option, times the weight of the priority."""


Counts = dict[str, dict[int, int]]
"""Replicas of one deployment by option and shelf."""


@dataclass(frozen=True, slots=True)
class Score:
    """What one deployment's replicas amount to."""

    cost: float
    """US dollars per hour."""
    money: float
    """Prices (with the floor) and switching charge, US dollars per hour."""
    penalty: float
    """US dollars per hour."""
    shortage: float
    """Requests per second."""


def state_terms(problem: PlacementProblem, shelves: Sequence[Shelf] | None) -> tuple[Terms, ...]:
    """Return the terms of every demand, by key."""
    delays: dict[str, float] = {}
    for group in problem.groups or ():
        for pool in group.pools:
            if any(group.free):
                delays[pool] = min(group.delay, delays.get(pool, math.inf))
    ordered = sorted(problem.demands, key=lambda demand: demand.key)
    priorities = sorted({demand.priority for demand in ordered})
    weights = {
        priority: PRIORITY_WEIGHT ** min(step, MAX_PRIORITY_STEPS) for step, priority in enumerate(priorities)
    }
    return tuple(
        _terms(demand, shelves, delays, problem.policy, weights[demand.priority]) for demand in ordered
    )


def _terms(
    demand: PlacementDemand,
    shelves: Sequence[Shelf] | None,
    delays: Mapping[str, float],
    policy: PlacementPolicy,
    weight: float,
) -> Terms:
    candidates = sorted(demand.candidates, key=lambda each: each.name)
    # One that answers nothing within the objective is a last resort for the minimum.
    able = [each for each in candidates if each.capacity > 0] or candidates
    starts = {each.name: each.start_time + delays.get(each.pool, 0.0) for each in able}
    quickest = min(starts.values(), default=0.0)
    load = max(0.0, demand.capacity)
    maximum = max(0, demand.maximum)
    minimum = min(max(0, demand.minimum), maximum)

    def amortise(seconds: float) -> float:
        hours = seconds / SECONDS_PER_HOUR
        if policy.switching_hours <= 0:
            return MAX_SWITCHING_SHARE if hours > 0 else 0.0
        return min(hours / policy.switching_hours, MAX_SWITCHING_SHARE)

    def state(candidate: Candidate) -> Option:
        usable = tuple(i for i, shelf in enumerate(shelves or ()) if candidate.pool in shelf.pools)
        places: tuple[int, ...] = usable if shelves is not None else (0,)
        zones = len({shelves[i].zone for i in places}) if shelves else 1
        capacity = min(candidate.capacity, load) if load > 0 else max(0.0, candidate.capacity)
        price = max(candidate.price, PRICE_FLOOR * max(1, candidate.accelerators))
        share = min(max(policy.hysteresis, amortise(quickest)), MAX_SWITCHING_SHARE)
        return Option(
            name=candidate.name,
            pool=candidate.pool,
            size=max(1, candidate.accelerators),
            capacity=capacity,
            price=price,
            cost=candidate.price,
            spot=candidate.spot,
            most=_most_useful(candidate, capacity, load, (minimum, maximum, demand.on_demand_base), zones),
            ceiling=candidate.ceiling,
            current=demand.current.get(candidate.name, 0),
            removal=price * share,
            addition=price * amortise(starts[candidate.name] - quickest)
            if any(demand.current.values())
            else 0.0,
            shelves=places,
            label=candidate.label or candidate.name,
            nodes=candidate.nodes or f"nodes of pool {candidate.pool}",
        )

    options = tuple(state(each) for each in able)
    dearest = max((each.price for each in options), default=PRICE_FLOOR)
    rates = [each.price / each.capacity for each in options if each.capacity > 0]
    return Terms(
        key=demand.key,
        options=options,
        capacity=load,
        minimum=minimum,
        maximum=maximum,
        priority=demand.priority,
        base=max(0, demand.on_demand_base),
        load_penalty=weight
        * (LOAD_PENALTY * dearest + PROPORTIONAL_PENALTY * load * max(rates, default=0.0)),
        scale=weight * dearest,
    )


def _most_useful(
    candidate: Candidate, capacity: float, load: float, bounds: tuple[int, int, int], zones: int
) -> int:
    minimum, maximum, base = bounds
    limit = maximum if candidate.ceiling is None else min(maximum, max(0, candidate.ceiling))
    needed = 0.0 if load == 0 or capacity <= 0 else math.ceil(min(load / capacity, 1e9))
    if candidate.spot and zones > 1:
        # As many must be left when the zone with the most of them is lost.
        needed *= 2
    return int(min(limit, max(needed, minimum, 0 if candidate.spot else base)))


def price_shortage(terms: Terms, load: float, safe: float, on_demand: int, spot: int) -> float:
    """Return the penalty, in US dollars per hour.

    `load` is the capacity placed, `safe` what is left of it whichever zone loses its spot replicas, both in requests
    per second.
    """
    penalty = REPLICA_PENALTY * terms.scale * max(0, terms.minimum - on_demand - spot)
    if spot:
        penalty += BASE_PENALTY * terms.scale * max(0, terms.base - on_demand)
    if terms.capacity > 0:
        unserved = max(0.0, 1 - load / terms.capacity)
        exposed = max(0.0, 1 - safe / terms.capacity)
        if any(option.spot for option in terms.options):
            unserved += EXPOSURE_SHARE * exposed
        penalty += terms.load_penalty * unserved
    return penalty


def peak(placed: Mapping[int, int], shelves: Sequence[Shelf] | None) -> int:
    """Return the most replicas in one zone; all of them where zones are not known."""
    if shelves is None:
        return sum(placed.values())
    zones: dict[str, int] = {}
    for shelf, count in placed.items():
        zones[shelves[shelf].zone] = zones.get(shelves[shelf].zone, 0) + count
    return max(zones.values(), default=0)


def evaluate(terms: Terms, counts: Counts, shelves: Sequence[Shelf] | None) -> Score:
    """Return what one deployment's replicas amount to."""
    cost = money = load = safe = 0.0
    on_demand = spot = 0
    for option in terms.options:
        placed = counts.get(option.name, {})
        count = sum(placed.values())
        cost += option.cost * count
        money += option.price * count
        money += option.removal * max(0, option.current - count) + option.addition * max(
            0, count - option.current
        )
        load += option.capacity * count
        if option.spot:
            spot += count
            safe += option.capacity * (count - peak(placed, shelves))
        else:
            on_demand += count
            safe += option.capacity * count
    penalty = price_shortage(terms, load, safe, on_demand, spot)
    shortage = max(0.0, terms.capacity - load)
    # Rounding of sums is no shortage.
    return Score(cost, money, penalty, shortage if shortage > 1e-9 * terms.capacity else 0.0)
