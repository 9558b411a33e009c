"""A day whose volume crosses the break-even twice, and what the best of hindsight would have paid for it.

The best of hindsight knows every request. It is the cheapest of always self-hosting, always calling the API, and
switching between the two at the best minutes, found by dynamic programming: a minute at the API costs its requests'
tokens, a minute of the fleet its replicas, and each change to the fleet the start of its replicas, which serve nothing
yet. Leaving costs nothing there, though in truth replicas finish their requests.

The fleet in hindsight is either the one that always self-hosting had, or, stricter, the smallest that the known rate
of each minute needs: then the whole of what the size rule keeps too much counts against the decision, too.

A fleet costs whole replicas, so on its way from one to several a load may change the order of the costs more than once,
each time for some minutes. A crossing is where the cheapest switching changes for somebody who knows the rates, has the
smallest fleet, and pays for every start twice: who follows such a change one start late still gains, and who follows
any other may lose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from modelyard.core.breakeven.inputs import BreakEvenPolicy, OwnTarget, RouteLoad, Target
from modelyard.core.breakeven.load import BIN
from modelyard.core.breakeven.need import replicas_needed, work_of
from modelyard.core.scaling.rule import BURST
from modelyard.simulator.arrivals import Lengths, piecewise
from modelyard.simulator.breakeven import RoutedOutcome, play_route, request_costs
from modelyard.simulator.breakevenrules import AlwaysApi, AlwaysFleet, Api, LowestCost, RouteTerms
from modelyard.simulator.rivals.common import mean_shape
from modelyard.simulator.run import SAMPLE
from modelyard.simulator.scenario import Arrivals, Floats, Outcome, Scenario

MINUTE = 60.0
"""Seconds of a period of the dynamic programming, and of constant rate in a day."""


@dataclass(frozen=True, slots=True)
class WorkingDay:
    """A day's volume: low at night, high between a morning and an evening, each a smooth ramp. Rates are requests/s."""

    low: float
    high: float
    duration: float = 86_400.0
    """Seconds. A shorter day has the same shape and steeper ramps."""
    morning: float = 0.25
    """Share of the day at which the morning's ramp begins: 6:00."""
    evening: float = 0.75
    """Share of the day at which the evening's ramp begins: 18:00."""
    ramp: float = 1 / 12
    """Share of the day that a ramp takes: two hours."""

    def rate(self, time: float) -> float:
        """Return requests per second at a time of the day, in seconds."""
        part = time / self.duration
        up, down = (
            self._risen((part - self.morning) / self.ramp),
            self._risen((part - self.evening) / self.ramp),
        )
        return self.low + (self.high - self.low) * (up - down)

    @property
    def rates(self) -> Floats:
        """Requests per second of each minute: the rate at its middle."""
        starts = np.arange(0.0, self.duration, MINUTE)
        return np.array([self.rate(float(start) + MINUTE / 2) for start in starts])

    def arrivals(self, lengths: Lengths, seed: int) -> Arrivals:
        """Return Poisson arrivals, with the rate of each minute's middle."""
        rates = [(MINUTE * minute, float(rate)) for minute, rate in enumerate(self.rates)]
        return piecewise(rates, self.duration, lengths, seed, "working-day")

    @staticmethod
    def _risen(part: float) -> float:
        return (1 - math.cos(math.pi * min(max(part, 0.0), 1.0))) / 2


@dataclass(frozen=True, slots=True)
class Hindsight:
    """The best switching in hindsight."""

    cost: float
    """US dollars."""
    on_fleet: tuple[bool, ...]
    """Of each minute."""


def replicas_played(fleet: Outcome, minutes: int) -> Floats:
    """Return the mean replicas of each minute of a run, those that start included."""
    each = int(MINUTE / SAMPLE)
    return np.array([fleet.wanted[each * at : each * (at + 1)].mean() for at in range(minutes)])


def replicas_for(rates: Floats, capacity: float, policy: BreakEvenPolicy) -> Floats:
    """Return the fewest replicas for each minute's known rate and the bursts of Poisson arrivals, at least one."""

    def needed(rate: float) -> int:
        load = RouteLoad(rate, rate, math.sqrt(rate / (BURST * BIN)))
        return max(replicas_needed(work_of(load, rate, OwnTarget("", capacity)), policy), 1)

    return np.array([float(needed(float(rate))) for rate in rates])


def best_switching(replicas: Floats, api_cost: Floats, scenario: Scenario) -> Hindsight:
    """Find the cheapest switching between a fleet and an API.

    `replicas`: of the fleet in each minute, those that start included; `api_cost`: US dollars of each minute's
    requests. The first minute costs no start.
    """
    return _switch(replicas, api_cost, scenario, _start_cost(scenario) * replicas, np.zeros(len(replicas)))


def find_crossings(
    rates: Floats, per_request: float, scenario: Scenario, policy: BreakEvenPolicy | None = None
) -> tuple[tuple[float, bool], ...]:
    """Return when the cheaper of fleet and API changes for good, in seconds, and whether to the fleet.

    `rates`: requests per second of each minute; `per_request`: US dollars at the API. See above for what counts.
    """
    policy = policy or BreakEvenPolicy()
    replicas = replicas_for(rates, scenario.capacity, policy)
    start = policy.returns * _start_cost(scenario)
    # Whoever comes early with few replicas starts the others later: no way round a start.
    grown = start * np.maximum(np.diff(replicas, prepend=replicas[0]), 0.0)
    found = _switch(replicas, rates * per_request * MINUTE, scenario, start * replicas, grown)
    return tuple(
        (MINUTE * (minute + 1), now)
        for minute, (before, now) in enumerate(pairwise(found.on_fleet))
        if before != now
    )


def _start_cost(scenario: Scenario) -> float:
    """Return what one replica's start costs, US dollars."""
    return scenario.price * (scenario.start.median + scenario.start.provision) / 3600


def _switch(
    replicas: Floats, api_cost: Floats, scenario: Scenario, start: Floats, grown: Floats
) -> Hindsight:
    """Find the cheapest switching. `start`: US dollars to come to the fleet in each minute; `grown`: to stay there."""
    running = replicas * scenario.price * MINUTE / 3600
    api, own = float(api_cost[0]), float(running[0])
    came: list[tuple[bool, bool]] = []
    """For each later minute, whether it was on the fleet before, if it is at the API now and if on the fleet."""
    for at in range(1, len(api_cost)):
        stay, come = own + float(grown[at]), api + float(start[at])
        came.append((own < api, stay <= come))
        api, own = min(api, own) + float(api_cost[at]), min(stay, come) + float(running[at])
    now = own < api
    path = [now]
    for if_api, if_own in reversed(came):
        now = if_own if now else if_api
        path.append(now)
    return Hindsight(min(api, own), tuple(reversed(path)))


def api_cost_per_minute(api: Api, arrivals: Arrivals) -> Floats:
    """Return what each minute's requests would cost at a provider, US dollars."""
    costs = request_costs(api, arrivals.input_tokens, arrivals.cached_tokens, arrivals.output_tokens)
    minutes = math.ceil(arrivals.duration / MINUTE)
    place = np.minimum((arrivals.time / MINUTE).astype(np.int64), minutes - 1)
    return np.bincount(place, costs, minlength=minutes).astype(np.float64)


@dataclass(frozen=True, slots=True)
class DayReport:
    """What came of a day. Money in US dollars, times in seconds from its beginning."""

    decided: RoutedOutcome
    self_hosted: RoutedOutcome
    api: RoutedOutcome
    hindsight: Hindsight
    """With the fleet that always self-hosting had."""
    clairvoyant: Hindsight
    """With the smallest fleet that the known rates need."""
    break_even: float
    """Requests per second at which one replica costs what the API does at the day's mean request."""
    crossings: tuple[tuple[float, bool], ...]
    """When the order of the costs changes for good, and whether to the fleet (`find_crossings`)."""
    changes: tuple[tuple[float, bool], ...]
    """When the route changed, and whether to the fleet; without its first choice."""

    @property
    def best(self) -> float:
        """What the best of hindsight costs."""
        return min(self.self_hosted.cost, self.api.cost, self.hindsight.cost)

    @property
    def ratio(self) -> float:
        """Cost over the best of hindsight."""
        return self.decided.cost / self.best

    @property
    def strict_ratio(self) -> float:
        """Cost over that of switching in hindsight between the API and the smallest fleet."""
        return self.decided.cost / self.clairvoyant.cost

    @property
    def delays(self) -> tuple[float, ...]:
        """Seconds from each crossing to the change that follows it, negative: it was foreseen.

        Empty where the route changed oftener or more seldom, or the other way.
        """
        return find_delays(self.crossings, self.changes)


def find_delays(
    crossings: Sequence[tuple[float, bool]], changes: Sequence[tuple[float, bool]]
) -> tuple[float, ...]:
    """Return the seconds from each crossing to its change; nothing where the two do not go together."""
    if [to_fleet for _, to_fleet in crossings] != [to_fleet for _, to_fleet in changes]:
        return ()
    return tuple(change - crossing for (crossing, _), (change, _) in zip(crossings, changes, strict=True))


def play_day(
    day: WorkingDay, scenario: Scenario, terms: RouteTerms, policy: BreakEvenPolicy | None = None
) -> DayReport:
    """Play a day three times: as the cluster decides, always on the own fleet, always at the cheapest allowed API.

    `scenario`: its arrivals are those of the day (`WorkingDay.arrivals`). Raises ValueError where no provider may be
    used.
    """
    shape = mean_shape(scenario.arrivals)
    usable = [
        (item.price.per_request(shape), item)
        for item in terms.providers
        if item.price is not None and terms.admits(Target("Provider", item.name))
    ]
    if not usable:
        raise ValueError("no provider has a price and the quality that minQuality asks for: add one")
    each, api = min(usable, key=lambda found: found[0])
    break_even = scenario.price / 3600 / each
    rule = LowestCost(scenario, terms, policy)
    decided = play_route(scenario, terms, rule)
    self_hosted = play_route(
        replace(scenario, initial=max(scenario.initial, 1)), terms, AlwaysFleet(scenario)
    )
    always_api = play_route(replace(scenario, initial=0), terms, AlwaysApi(api))
    api_cost = api_cost_per_minute(api, scenario.arrivals)
    minutes = len(api_cost)
    smallest = replicas_for(day.rates, scenario.capacity, policy or BreakEvenPolicy())
    return DayReport(
        decided=decided,
        self_hosted=self_hosted,
        api=always_api,
        hindsight=best_switching(replicas_played(self_hosted.fleet, minutes), api_cost, scenario),
        clairvoyant=best_switching(smallest, api_cost, scenario),
        break_even=break_even,
        crossings=find_crossings(day.rates, each, scenario, policy),
        changes=tuple((time, target.own) for time, target in rule.changes[1:]),
    )
