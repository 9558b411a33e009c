"""Plays a scenario under a policy, request by request."""

import heapq
import math
from collections import Counter
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from modelyard.simulator.fleet import forget, leave, release, run_until, serve, take_away
from modelyard.simulator.ledger import Ledger
from modelyard.simulator.meters import Reader, quantiles, unknown
from modelyard.simulator.records import (
    ABANDONED,
    COMPLETED,
    FREE,
    HELD_LEVEL,
    NEXT_ARRIVAL,
    REFUSED,
    Fleet,
    Records,
    grown,
    make_fleet,
    request_records,
    speed,
)
from modelyard.simulator.scenario import Floats, Objective, Outcome, ScalingPolicy, Scenario, Signals

SAMPLE = 10.0
"""Seconds between the samples of an outcome."""
TAIL = 3600.0
"""Seconds after the trace's end in which requests may still be answered: what is not by then counts as refused."""
PLACES = 16
"""Replicas that there is room for at first; there are more as they are needed."""


class Event(IntEnum):
    """What happens outside engines and gateway. In this order where it does so at the same time."""

    READY = 0
    LOSS = 1
    DRAINED = 2
    LOOK = 3
    DECISION = 4
    END = 5
    """Of the trace."""


@dataclass(slots=True, eq=False)
class _Replica:
    entry: int
    """Its number in the ledger."""
    slot: int = -1
    """Its place among the engines once it serves."""
    cancelled: bool = False


def run(scenario: Scenario, policy: ScalingPolicy) -> Outcome:
    """Play a scenario; the same scenario and policy give the same outcome.

    The policy decides first after its first interval. After the trace's end the run goes on until everything is
    answered, under the policy, but nothing is billed any more.

    Raises ValueError for arrivals out of order, or an engine that could not work.
    """
    return Simulation(scenario, policy).play()


class Simulation:
    """One run."""

    def __init__(self, scenario: Scenario, policy: ScalingPolicy) -> None:
        if np.any(np.diff(scenario.arrivals.time) < 0):
            raise ValueError(f"the arrivals of {scenario.name} are not sorted by time")
        if policy.interval <= 0:
            raise ValueError(f"the interval of {policy.name} must be above 0, not {policy.interval}")
        self._scenario = scenario
        self._policy = policy
        objective = scenario.objective
        prompt = float(scenario.arrivals.input_tokens.mean()) if len(scenario.arrivals) else 0.0
        # An engine's own page counts against one limit, whatever the prompt: that of the mean one.
        late_after = objective.first_token_base + objective.first_token_per_input_token * prompt
        self._speed = speed(scenario.engine, late_after, objective.inter_token)
        disturbances = scenario.disturbances
        self._asks = 1 + disturbances.retries
        self._patience = math.inf if disturbances.abandon_after is None else disturbances.abandon_after
        self.fleet: Fleet = make_fleet(
            request_records(scenario.arrivals),
            self._speed,
            PLACES,
            self._asks,
            disturbances.abandon_after is not None,
            scenario.seed,
        )
        self._chance = np.random.default_rng([scenario.seed, 1])
        self.ledger = Ledger(scenario, np.random.default_rng([scenario.seed, 2]))
        self._reader = Reader(self._speed)
        self._pending: list[_Replica] = []
        self._serving: list[_Replica] = []
        self._draining: list[_Replica] = []
        self._events: list[tuple[float, int, int, _Replica | int | None]] = []
        self._order = 0
        self._readings: dict[int, Signals] = {}
        self._last: Signals | None = None
        self._wanted = scenario.initial
        self._reasons: Counter[str] = Counter()

    def play(self) -> Outcome:
        """Play to the end."""
        scenario = self._scenario
        for _ in range(scenario.initial):
            self._serve(_Replica(self.ledger.start(0.0, initial=True)), 0.0)
        self.ledger.note(0.0, ready=len(self._serving), wanted=self._wanted)
        for time, count in scenario.disturbances.spot_losses:
            self._plan(time, Event.LOSS, count)
        end = scenario.arrivals.duration
        self._plan(end, Event.END)
        self._plan_look(max(1, math.ceil(scenario.disturbances.reading_delay / self._policy.interval)))
        self._plan(self._policy.interval, Event.DECISION, 1)
        while self._events:
            now, event, _, subject = heapq.heappop(self._events)
            if now > end and not self.unanswered():
                break
            if now > end + TAIL:
                self._run_until(end + TAIL)
                break
            self._run_until(now)
            self._handle(Event(event), subject, now)
        requests = self.fleet.requests
        requests["state"][requests["state"] < COMPLETED] = REFUSED
        return self._outcome(requests)

    def unanswered(self) -> bool:
        """Return whether requests are still to come or to be answered."""
        to_come = self.fleet.bounds[NEXT_ARRIVAL] < len(self.fleet.requests)
        held = self.fleet.meters.level[HELD_LEVEL] > 0.5
        return bool(to_come or held or self.fleet.active.sum())

    def _handle(self, event: Event, subject: _Replica | int | None, now: float) -> None:
        match event, subject:
            case Event.READY, _Replica() if not subject.cancelled:
                self._pending.remove(subject)
                self._serve(subject, now)
            case Event.LOSS, int():
                self._lose(subject, now)
            case Event.DRAINED, _Replica() if subject in self._draining:
                take_away(self.fleet, self._speed, subject.slot, self._asks, now)
                self._draining.remove(subject)
                self.ledger.end(subject.entry, now)
            case Event.LOOK, int():
                self._look(subject, now)
                self._plan_look(subject + 1)
            case Event.DECISION, int():
                self._decide(subject, now)
                self._plan((subject + 1) * self._policy.interval, Event.DECISION, subject + 1)
        self.ledger.note(now, ready=len(self._serving), wanted=self._wanted)

    def _run_until(self, now: float) -> None:
        run_until(self.fleet, self._speed, self._patience, self._asks, now)
        for replica in [one for one in self._draining if self._gone_at(one) < math.inf]:
            self.ledger.end(replica.entry, self._gone_at(replica))
            self._draining.remove(replica)
            forget(self.fleet, replica.slot)

    def _gone_at(self, replica: _Replica) -> float:
        return float(self.fleet.replicas["gone_at"][replica.slot])

    def _plan(self, time: float, event: Event, subject: _Replica | int | None = None) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, event, self._order, subject))

    def _plan_look(self, number: int) -> None:
        """Plan the look that the decision of this number sees."""
        look = number * self._policy.interval - self._scenario.disturbances.reading_delay
        self._plan(look, Event.LOOK, number)

    def _look(self, number: int, now: float) -> None:
        if not any(start <= now < end for start, end in self._scenario.disturbances.lost_readings):
            reading = self._reader.read(self.fleet, now, len(self._serving), len(self._pending))
            self._readings[number] = reading

    def _decide(self, number: int, now: float) -> None:
        reading = self._readings.pop(number, None)
        if reading is None:
            signals = unknown(self._last, now, len(self._serving))
        else:
            # The cluster's own state is watched, not scraped: it is never old.
            signals = replace(reading, time=now, ready=len(self._serving), pending=len(self._pending))
            self._last = signals
        wanted = self._policy.decide(signals)
        reason = getattr(self._policy, "reason", None)
        if reason and now <= self._scenario.arrivals.duration:
            self._reasons[str(reason)] += 1
        self._wanted = max(self._scenario.minimum, min(self._scenario.maximum, wanted))
        self._reconcile(now)

    def _reconcile(self, now: float) -> None:
        """Start or stop replicas: starting ones first, then the newest, as a ReplicaSet does."""
        while len(self._pending) + len(self._serving) < self._wanted:
            replica = _Replica(self.ledger.start(now))
            self._pending.append(replica)
            self._plan(self.ledger.ready_at(replica.entry), Event.READY, replica)
        while self._pending and len(self._pending) + len(self._serving) > self._wanted:
            replica = self._pending.pop()
            replica.cancelled = True
            self.ledger.end(replica.entry, now)
        while len(self._serving) > self._wanted:
            replica = self._serving.pop()
            leave(self.fleet, replica.slot, now)
            self._draining.append(replica)
            self._plan(now + self._scenario.drain, Event.DRAINED, replica)

    def _serve(self, replica: _Replica, now: float) -> None:
        free = np.flatnonzero(self.fleet.replicas["state"] == FREE)
        if not len(free):
            free = np.array([len(self.fleet.replicas)])
            self.fleet = grown(self.fleet, len(self.fleet.replicas))
        replica.slot = int(free[0])
        self._serving.append(replica)
        serve(self.fleet, replica.slot, now)
        release(self.fleet, self._speed, now)

    def _lose(self, count: int, now: float) -> None:
        chosen = self._chance.choice(len(self._serving), min(count, len(self._serving)), replace=False)
        lost = [self._serving[place] for place in sorted(chosen)]
        for replica in lost:
            self._serving.remove(replica)
            leave(self.fleet, replica.slot, now)
        for replica in lost:
            take_away(self.fleet, self._speed, replica.slot, self._asks, now)
            self.ledger.end(replica.entry, now, node_lost=True)
        self._reconcile(now)

    def _outcome(self, requests: Records) -> Outcome:
        scenario = self._scenario
        state = requests["state"]
        completed = state == COMPLETED
        between = mean_inter_token(requests)
        attained = completed & attains(requests, scenario.objective, between)
        end = scenario.arrivals.duration
        time = np.arange(0.0, end, SAMPLE)
        sample = np.minimum((requests["arrival"] / SAMPLE).astype(np.int64), max(len(time) - 1, 0))
        arrived = np.bincount(sample, minlength=len(time)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            share = np.bincount(sample, attained, minlength=len(time)) / arrived
        ready, wanted = self.ledger.series(time)
        first = requests["first"] - requests["arrival"]
        longer = completed & (requests["output"] > 1)
        shares = (0.5, 0.9, 0.95, 0.99)
        seconds = self.ledger.billed(end)
        return Outcome(
            policy=self._policy.name,
            scenario=scenario.name,
            seed=scenario.seed,
            requests=len(requests),
            attained=int(attained.sum()),
            refused=int((state == REFUSED).sum()),
            abandoned=int((state == ABANDONED).sum()),
            completed=int(completed.sum()),
            replica_seconds=seconds,
            cost=seconds / 3600 * scenario.price,
            cold_starts=self.ledger.cold_starts(end),
            reversals=self.ledger.reversals(end),
            time=time,
            ready=ready,
            wanted=wanted,
            arrival_rate=arrived / SAMPLE,
            attained_share=share,
            first_token=quantiles(first[~np.isnan(first)], shares),
            inter_token=quantiles(between[longer], shares),
            reasons=dict(self._reasons),
        )


def mean_inter_token(requests: Records) -> Floats:
    """Return the mean seconds between the tokens of answered requests; NaN of those with one token."""
    with np.errstate(invalid="ignore", divide="ignore"):
        seconds: Floats = (requests["done"] - requests["first"]) / (requests["output"] - 1)
    return seconds


def attains(requests: Records, objective: Objective, between: Floats | None = None) -> NDArray[np.bool_]:
    """Say of answered requests whether they were answered within the objective, from when the client first asked.

    `between`: their mean seconds between tokens, where they are known.
    """
    between = mean_inter_token(requests) if between is None else between
    limit = objective.first_token_base + objective.first_token_per_input_token * requests["input"]
    in_time = requests["first"] - requests["arrival"] <= limit
    answered: NDArray[np.bool_] = in_time & ~(between > objective.inter_token)
    return answered
