"""One route with an own fleet and one provider or more, played request by request under a rule that chooses.

Requests are routed at the gateway by the rule's shares: those for the fleet go through the engines of `run.py`, those
for a provider are answered with its latency and paid by the token.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelyard.core.breakeven.inputs import TOKENS, Target
from modelyard.simulator.breakevenrules import FLEET, Api, Offered, RouteRule, RouteTerms
from modelyard.simulator.records import HELD_LEVEL, NEXT_ARRIVAL, Records
from modelyard.simulator.run import Simulation
from modelyard.simulator.scenario import Floats, Integers, Outcome, Scenario, Signals


@dataclass(frozen=True, slots=True)
class RoutedOutcome:
    """What came of a run."""

    rule: str
    fleet: Outcome
    """Of the requests that the fleet got."""
    api_requests: int
    api_attained: int
    api_cost: float
    """US dollars."""
    below_quality: int
    """Requests that a target below the route's `minQuality` got."""

    @property
    def cost(self) -> float:
        """US dollars, fleet and providers."""
        return self.fleet.cost + self.api_cost

    @property
    def requests(self) -> int:
        """All requests."""
        return self.fleet.requests + self.api_requests

    @property
    def lost(self) -> int:
        """Requests that were refused or given up."""
        return self.fleet.refused + self.fleet.abandoned

    @property
    def attainment(self) -> float:
        """Share of the requests that were answered within the objective; 1 without any."""
        return (self.fleet.attained + self.api_attained) / self.requests if self.requests else 1.0


def play_route(scenario: Scenario, terms: RouteTerms, rule: RouteRule) -> RoutedOutcome:
    """Play a scenario whose arrivals are those of the route; the same input gives the same outcome.

    Raises ValueError as `run` does.
    """
    return _RoutedSimulation(scenario, terms, rule).play_route()


class _Caller:
    """The rule as a policy of the fleet's simulation."""

    def __init__(self, rule: RouteRule, offered: Callable[[float], Offered]) -> None:
        self.name, self.interval = rule.name, rule.interval
        self._rule, self._offered = rule, offered
        self.order = rule.begin()

    @property
    def reason(self) -> str:
        """Reason code of the last decision; empty for a rule that gives none."""
        return str(getattr(self._rule, "reason", ""))

    def decide(self, signals: Signals) -> int:
        """Ask the rule, and return the replicas."""
        self.order = self._rule.order(signals, self._offered(signals.time))
        return self.order.replicas


class _RoutedSimulation(Simulation):
    """A run in which the fleet gets what the rule sends to it, known only as it is sent."""

    def __init__(self, scenario: Scenario, terms: RouteTerms, rule: RouteRule) -> None:
        self._caller = _Caller(rule, self._offered)
        super().__init__(scenario, self._caller)
        self._rule, self._terms = rule, terms
        self._source: Records = self.fleet.requests.copy()
        self._tokens = [np.concatenate([[0], np.cumsum(self._source[name])]) for name in ("input", "output")]
        # What is not sent yet never comes.
        self.fleet.requests["arrival"] = np.inf
        self._routing = np.random.default_rng([scenario.seed, 3])
        self._routed = self._filled = 0
        self._diverted: list[tuple[Target, Integers]] = []

    def play_route(self) -> RoutedOutcome:
        """Play to the end."""
        self._send(0.0)
        fleet = self.play()
        attained, cost = 0, 0.0
        for target, indices in self._diverted:
            api, requests = self._terms.find(target), self._source[indices]
            cost += float(request_costs(api, requests["input"], requests["cached"], requests["output"]).sum())
            attained += self._count_attained(api, requests)
        sent = [(FLEET, self._filled), *((target, len(indices)) for target, indices in self._diverted)]
        return RoutedOutcome(
            rule=self._rule.name,
            fleet=fleet,
            api_requests=sum(len(indices) for _, indices in self._diverted),
            api_attained=attained,
            api_cost=cost,
            below_quality=sum(count for target, count in sent if not self._terms.admits(target)),
        )

    def unanswered(self) -> bool:
        """Return whether requests are still to come or to be answered."""
        if self._routed < len(self._source) or self.fleet.bounds[NEXT_ARRIVAL] < self._filled:
            return True
        return bool(self.fleet.meters.level[HELD_LEVEL] > 0.5 or self.fleet.active.sum())

    def _decide(self, number: int, now: float) -> None:
        super()._decide(number, now)
        self._send(now)

    def _outcome(self, requests: Records) -> Outcome:
        return super()._outcome(requests[: self._filled])

    def _offered(self, now: float) -> Offered:
        come = int(np.searchsorted(self._source["arrival"], now, side="right"))
        return Offered(float(come), *(float(tokens[come]) for tokens in self._tokens))

    def _send(self, now: float) -> None:
        """Route what comes until the next decision."""
        until = int(np.searchsorted(self._source["arrival"], now + self._rule.interval, side="right"))
        coming = np.arange(self._routed, until)
        self._routed = until
        shares = self._caller.order.shares
        edges = np.cumsum([part for _, part in shares])[:-1]
        chosen = np.searchsorted(edges, self._routing.random(len(coming)), side="right")
        for place, (target, _) in enumerate(shares):
            indices = coming[chosen == place]
            if target.own:
                self._fill(indices)
            elif len(indices):
                self._diverted.append((target, indices))

    def _fill(self, indices: Integers) -> None:
        """Let requests come to the fleet, at their times."""
        place = slice(self._filled, self._filled + len(indices))
        for name in ("arrival", "asked", "input", "output", "cached"):
            self.fleet.requests[name][place] = self._source[name][indices]
        self._filled += len(indices)

    def _count_attained(self, api: Api, requests: Records) -> int:
        objective = self._scenario.objective
        limit = objective.first_token_base + objective.first_token_per_input_token * requests["input"]
        if api.inter_token > objective.inter_token:
            return int(np.count_nonzero((api.first_token <= limit) & (requests["output"] == 1)))
        return int(np.count_nonzero(api.first_token <= limit))


def request_costs(api: Api, inputs: Integers, cached: Integers, outputs: Integers) -> Floats:
    """Return what a provider asks for each request, US dollars. Raises ValueError where the price is not known."""
    price = api.price
    if price is None:
        raise ValueError(f"the price of {api.name} is not known: state it")
    cheaper = price.input if price.cached is None else price.cached
    costs: Floats = ((inputs - cached) * price.input + cached * cheaper + outputs * price.output) / TOKENS
    return costs
