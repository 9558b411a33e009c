"""A day whose volume crosses the break-even twice, and what the best of hindsight would have paid for it.

The best of hindsight knows every request. It is the cheapest of always self-hosting, always calling the API, and
switching between the two at the best minutes, found by dynamic programming: a minute at the API costs its requests'
tokens, a minute of the fleet its replicas, and each change to the fleet the start of its replicas, which serve nothing
yet. Leaving costs nothing there, though in truth replicas finish their requests.

The fleet in hindsight is either the one that always self-hosting had, or, stricter, the smallest that the known rate
of each minute needs: then the whole of what the size rule keeps too much counts against the decision, too.
"""

import math
from dataclasses import dataclass, replace

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

    def crossings(self, rate: float) -> tuple[float, float]:
        """Return when the volume rises above a rate and falls below it again, in seconds.

        Raises ValueError for a rate that is not between low and high.
        """
        if not self.low < rate < self.high:
            raise ValueError(f"the rate must be between low {self.low} and high {self.high}, not {rate}")
        # The inverse of the ramp's cosine.
        part = math.acos(1 - 2 * (rate - self.low) / (self.high - self.low)) / math.pi * self.ramp
        return (self.morning + part) * self.duration, (self.evening + self.ramp - part) * self.duration

    def arrivals(self, lengths: Lengths, seed: int) -> Arrivals:
        """Return Poisson arrivals, with the rate of each minute's middle."""
        starts = np.arange(0.0, self.duration, MINUTE)
        rates = [(float(start), self.rate(float(start) + MINUTE / 2)) for start in starts]
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


def replicas_for(day: WorkingDay, capacity: float, minutes: int, policy: BreakEvenPolicy) -> Floats:
    """Return the fewest replicas for each minute's known rate and the bursts of Poisson arrivals, at least one."""

    def needed(rate: float) -> int:
        load = RouteLoad(rate, rate, math.sqrt(rate / (BURST * BIN)))
        return max(replicas_needed(work_of(load, rate, OwnTarget("", capacity)), policy), 1)

    return np.array([float(needed(day.rate((at + 0.5) * MINUTE))) for at in range(minutes)])


def best_switching(replicas: Floats, api_cost: Floats, scenario: Scenario) -> Hindsight:
    """Find the cheapest switching between a fleet and an API.

    `replicas`: of the fleet in each minute; `api_cost`: US dollars of each minute's requests. The first minute costs no
    start.
    """
    running = replicas * scenario.price * MINUTE / 3600
    start = replicas * scenario.price * (scenario.start.median + scenario.start.provision) / 3600
    api, own = float(api_cost[0]), float(running[0])
    came: list[tuple[bool, bool]] = []
    """For each later minute, whether it was on the fleet before, if it is at the API now and if on the fleet."""
    for at in range(1, len(api_cost)):
        came.append((own < api, own <= api + start[at]))
        api, own = min(api, own) + float(api_cost[at]), min(own, api + start[at]) + float(running[at])
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
    crossings: tuple[float, float]
    """When the volume crosses it, as somebody sees who knows the rates."""
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
        """Seconds from each crossing to the change that follows it; negative: it was foreseen."""
        return tuple(
            change - crossing for (change, _), crossing in zip(self.changes, self.crossings, strict=False)
        )


def play_day(
    day: WorkingDay, scenario: Scenario, terms: RouteTerms, policy: BreakEvenPolicy | None = None
) -> DayReport:
    """Play a day three times: as the cluster decides, always on the own fleet, always at the cheapest allowed API.

    `scenario`: its arrivals are those of the day (`WorkingDay.arrivals`). Raises ValueError where no provider may be
    used, or the day does not cross the break-even.
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
    smallest = replicas_for(day, scenario.capacity, minutes, policy or BreakEvenPolicy())
    return DayReport(
        decided=decided,
        self_hosted=self_hosted,
        api=always_api,
        hindsight=best_switching(replicas_played(self_hosted.fleet, minutes), api_cost, scenario),
        clairvoyant=best_switching(smallest, api_cost, scenario),
        break_even=break_even,
        crossings=day.crossings(break_even),
        changes=tuple((time, target.own) for time, target in rule.changes[1:]),
    )
