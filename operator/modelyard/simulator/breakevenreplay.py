"""One route under a rule, from counts of arrivals alone: a hundred times as fast as request by request.

There are no engines and no requests. Arrivals are drawn as counts between two decisions, replicas serve one start after
they were asked for, and what comes to replicas near their capacity is missed as the size rule's own model has it. Costs
are those of `breakeven.py` but for the time that a leaving replica takes to finish what it runs, which is not billed
here. What a day costs is told by playing its requests; this tells when a rule changes, on many days.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelyard.core.scaling.attainment import MissPolicy, missed_share
from modelyard.simulator.breakevenrules import Offered, RouteRule, RouteTerms
from modelyard.simulator.rivals.common import mean_shape
from modelyard.simulator.scenario import Floats, Scenario, Signals

MISSES = MissPolicy()


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay."""

    cost: float
    """US dollars, fleet and providers."""
    replicas: Floats
    """Billed at each decision, those that start included."""
    starts: int
    """Replicas that were started."""


@dataclass
class _Fleet:
    """Replicas: those that serve, and when each of the others will."""

    serving: int
    start: float
    due: list[float]
    started: int = 0

    def advance(self, now: float) -> None:
        while self.due and self.due[0] <= now:
            self.due.pop(0)
            self.serving += 1

    def resize(self, wanted: int, now: float) -> None:
        """Start what is missing; let go first what starts, the newest first."""
        while self.serving + len(self.due) < wanted:
            self.due.append(now + self.start)
            self.started += 1
        while self.serving + len(self.due) > wanted:
            if self.due:
                self.due.pop()
            else:
                self.serving -= 1


def replay(
    rate: Callable[[float], float], duration: float, scenario: Scenario, terms: RouteTerms, rule: RouteRule
) -> Replayed:
    """Play a route whose requests come at `rate(seconds)` per second, Poisson, of the scenario's mean request.

    `scenario`: its arrivals say the mean request and nothing else; price, capacity, start and seed are its own.
    """
    chance, shape = np.random.default_rng(scenario.seed), mean_shape(scenario.arrivals)
    step, steps = rule.interval, math.ceil(duration / rule.interval)
    start = scenario.start.median + scenario.start.provision
    each = {api.name: api.price.per_request(shape) for api in terms.providers if api.price is not None}
    fleet = _Fleet(scenario.initial, start, [])
    order = rule.begin()
    fleet.resize(order.replicas, 0.0)
    counts = chance.poisson([rate((at + 0.5) * step) * step for at in range(steps)])
    come, cost, billed = 0, 0.0, np.zeros(steps)
    for at in range(steps):
        now, arrivals = (at + 1) * step, int(counts[at])
        sent = {target: arrivals * part for target, part in order.shares}
        own = sum(count for target, count in sent.items() if target.own)
        cost += sum(count * each[target.name] for target, count in sent.items() if not target.own)
        billed[at] = fleet.serving + len(fleet.due)
        cost += billed[at] * scenario.price * step / 3600
        room = fleet.serving * scenario.capacity * step
        fleet.advance(now)
        come += arrivals
        signals = _signals(now, step, fleet, shape.input_tokens, shape.output_tokens, own, room)
        order = rule.order(signals, Offered(come, come * shape.input_tokens, come * shape.output_tokens))
        fleet.resize(min(max(order.replicas, scenario.minimum), scenario.maximum), now)
    return Replayed(cost, billed, fleet.started)


def _signals(
    now: float, step: float, fleet: _Fleet, inputs: float, outputs: float, own: float, room: float
) -> Signals:
    done = min(own, room)
    missed = done * missed_share(own / room, MISSES) if room else 0.0
    return Signals(
        time=now,
        elapsed=step,
        ready=fleet.serving,
        pending=len(fleet.due),
        arrivals=round(own),
        arrived_input_tokens=round(own * inputs),
        arrived_output_tokens=round(own * outputs),
        completions=round(done),
        completed_input_tokens=round(done * inputs),
        completed_output_tokens=round(done * outputs),
        running=done / step,
        waiting=0.0,
        gateway_waiting=0.0,
        cache_usage=0.0,
        cache_usage_max=0.0,
        tokens_held=0.0,
        mean_running=done / step,
        mean_waiting=0.0,
        busy=min(own / room, 1.0) if room else 0.0,
        first_token_p90=None,
        inter_token_p90=None,
        inter_token_mean=None,
        first_token_mean=None,
        missed=missed,
    )
