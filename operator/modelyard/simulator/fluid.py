"""Plays a load as a flow under a policy: for runs of many days (`flow.py` says how a fleet answers a flow)."""

import heapq
import math
from collections import Counter

import numpy as np

from modelyard.simulator.flow import AttainmentCurve
from modelyard.simulator.fluidlevels import Levels, Pace, mix_of, pace
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.fluidsteps import COMPLETIONS, COUNTED, SECONDS, share_at, take_whole
from modelyard.simulator.ledger import Ledger
from modelyard.simulator.meters import quantiles
from modelyard.simulator.scenario import (
    Arrivals,
    Disturbances,
    Engine,
    Floats,
    Outcome,
    ScalingPolicy,
    Scenario,
    Signals,
)


def run_fluid(scenario: Scenario, load: FluidLoad, curve: AttainmentCurve, policy: ScalingPolicy) -> Outcome:
    """Play a flow under a policy. Of the scenario everything counts but its arrivals.

    A share of the requests of each step attains, by the curve; those of a step without replicas do not. Nothing is
    refused: what waits is answered late. Raises ValueError for a scenario with disturbances, which a flow cannot show.
    """
    if scenario.disturbances != Disturbances():
        raise ValueError(f"{scenario.name}: a flow knows no disturbances")
    return _FluidRun(scenario, load, curve, policy).play()


class _LastPace:
    """The speed of an engine under the load last asked for: that of 14 days takes a second."""

    def __init__(self) -> None:
        self._asked: tuple[Engine, FluidLoad, Arrivals] | None = None
        self._pace: Pace | None = None

    def of(self, scenario: Scenario, load: FluidLoad) -> Pace:
        """Return how fast one replica works on a load."""
        asked = scenario.engine, load, scenario.arrivals
        if self._asked is None or any(
            one is not other for one, other in zip(asked, self._asked, strict=True)
        ):
            self._asked, self._pace = asked, None
        if self._pace is None:
            self._pace = pace(scenario.engine, load, mix_of(load, scenario.arrivals))
        return self._pace


_LAST_PACE = _LastPace()


class _FluidRun:
    def __init__(
        self, scenario: Scenario, load: FluidLoad, curve: AttainmentCurve, policy: ScalingPolicy
    ) -> None:
        self._scenario, self._load, self._policy = scenario, load, policy
        self._pace = _LAST_PACE.of(scenario, load)
        self._curve = curve
        self._ledger = Ledger(scenario, np.random.default_rng([scenario.seed, 2]))
        self._serving: list[int] = [self._ledger.start(0.0, initial=True) for _ in range(scenario.initial)]
        self._pending: list[int] = []
        self._ready: list[tuple[float, int]] = []
        self._wanted = scenario.initial
        self._levels = Levels(scenario.initial)
        self._drained: list[float] = []
        """When each group of leaving replicas is gone."""
        self._since = np.zeros(COUNTED)
        """What was counted since the policy's last look."""
        self._level = np.zeros(len(load))
        """Unfinished requests at the replica that requests come to, mean of each step."""
        self._level_now = 0.0
        speed = self._pace
        self._table = np.column_stack(
            [
                speed.base,
                speed.slope,
                speed.output,
                speed.limit,
                load.rate,
                load.input_tokens,
                load.output_tokens,
            ]
        )
        """The columns that `play_until` reads."""
        self._reasons: Counter[str] = Counter()

    def play(self) -> Outcome:
        number, now, decision, interval = 0, 0.0, 1, float(self._policy.interval)
        self._note(now)
        while True:
            until = min([decision * interval, *self._drained, *(time for time, _ in self._ready[:1])])
            number, now, self._level_now = self._levels.play(
                len(self._serving), self._table, self._load.step, number, now, until, self._since, self._level,
                self._level_now,
            )  # fmt: skip
            if number == len(self._load):
                return self._outcome()
            self._change(now)
            if now >= decision * interval:
                self._decide(number, now)
                decision += 1
            self._note(now)

    def _change(self, now: float) -> None:
        """Replicas whose start is over serve; those that have drained are gone."""
        while self._ready and self._ready[0][0] <= now:
            entry = heapq.heappop(self._ready)[1]
            if entry in self._pending:
                self._pending.remove(entry)
                self._serving.append(entry)
                self._levels.add(1)
        for place in range(len(self._drained) - 1, -1, -1):
            if self._drained[place] <= now:
                self._levels.forget(place)
                del self._drained[place]

    def _decide(self, number: int, now: float) -> None:
        signals = self._signals(number, now)
        wanted = self._policy.decide(signals)
        reason = getattr(self._policy, "reason", None)
        if reason:
            self._reasons[str(reason)] += 1
        self._wanted = max(self._scenario.minimum, min(self._scenario.maximum, wanted))
        while len(self._pending) + len(self._serving) < self._wanted:
            entry = self._ledger.start(now)
            self._pending.append(entry)
            heapq.heappush(self._ready, (self._ledger.ready_at(entry), entry))
        while self._pending and len(self._pending) + len(self._serving) > self._wanted:
            self._ledger.end(self._pending.pop(), now)
        for level, count in self._levels.leave(max(len(self._serving) - self._wanted, 0)):
            gone = now + self._drain_seconds(number, level)
            self._drained.append(gone)
            for _ in range(count):
                self._ledger.end(self._serving.pop(), gone)

    def _drain_seconds(self, number: int, level: float) -> float:
        """Seconds until the last of a replica's answers ends: of exponential lengths the longest of a batch."""
        speed, limit = self._pace, float(self._pace.limit[number])
        batch = min(level, limit)
        service = float(speed.output[number] * (speed.base[number] + speed.slope[number] * batch))
        return min(self._scenario.drain, service * ((level - batch) / limit + math.log1p(batch)))

    def _signals(self, number: int, now: float) -> Signals:
        speed, since, replicas = self._pace, self._since, len(self._serving)
        limit, held, cache = (
            float(speed.limit[number]),
            float(speed.held[number]),
            self._scenario.engine.cache_tokens,
        )
        unfinished, running, fullest = self._levels.look(limit)
        waiting = unfinished - running
        batch = running / replicas if replicas else 0.0
        latency = float(speed.base[number] + speed.slope[number] * batch)
        # A full replica frees a place each service time / limit; what waits takes places in order.
        wait = waiting * float(speed.output[number]) * latency / running if running else 0.0
        first = float(speed.first_base[number] + speed.first_slope[number] * batch) + wait
        any_token = bool(since[COMPLETIONS] >= 1)
        elapsed, ran, waited, busy = since[SECONDS:].tolist()
        arrivals, inputs, outputs, done, done_inputs, done_outputs = take_whole(since)
        return Signals(
            time=now, elapsed=elapsed, ready=replicas, pending=len(self._pending),
            arrivals=arrivals, arrived_input_tokens=inputs, arrived_output_tokens=outputs, completions=done,
            completed_input_tokens=done_inputs, completed_output_tokens=done_outputs,
            running=running, waiting=waiting, gateway_waiting=self._levels.held,
            cache_usage=min(1.0, batch * held / cache), cache_usage_max=min(1.0, fullest * held / cache),
            tokens_held=running * held, mean_running=ran / elapsed, mean_waiting=waited / elapsed,
            busy=busy / elapsed,
            first_token_p90=first * 1.5 if any_token else None,
            inter_token_p90=latency * 1.2 if any_token else None, inter_token_mean=latency if any_token else None,
            first_token_mean=first if any_token else None, missed=self._missed_share(number) * done,
        )  # fmt: skip

    def _missed_share(self, number: int) -> float:
        """Return the share of requests that miss the objective at the present level."""
        ratio = self._pace.slow_latency_at(number, self._level_now) / self._scenario.objective.inter_token
        return 1.0 - share_at(ratio, self._curve.ratio, self._curve.share) if math.isfinite(ratio) else 1.0

    def _note(self, now: float) -> None:
        self._ledger.note(now, ready=len(self._serving), wanted=self._wanted)

    def _outcome(self) -> Outcome:
        load, scenario = self._load, self._scenario
        ratio = self._pace.slow_latency(self._level) / scenario.objective.inter_token
        share = self._curve(ratio) * np.isfinite(ratio)
        time: Floats = load.step * np.arange(len(load), dtype=np.float64)
        ready, wanted = self._ledger.series(time)
        seconds = self._ledger.billed(load.duration)
        latency = self._pace.latency(self._level)
        # Without replicas there are no tokens, and so nothing between them.
        answered = np.isfinite(latency)
        counts = np.minimum(np.rint(load.rate), 50).astype(np.int64)
        seen = np.repeat(latency[answered], counts[answered])
        requests = round(load.requests)
        shares = (0.5, 0.9, 0.95, 0.99)
        return Outcome(
            policy=self._policy.name, scenario=scenario.name, seed=scenario.seed, requests=requests,
            attained=round(float((share * load.rate).sum() * load.step)), refused=0, abandoned=0, completed=requests,
            replica_seconds=seconds, cost=seconds / 3600 * scenario.price,
            cold_starts=self._ledger.cold_starts(load.duration),
            reversals=self._ledger.reversals(load.duration), time=time, ready=ready, wanted=wanted,
            arrival_rate=load.rate, attained_share=np.where(load.rate > 0, share, np.nan),
            first_token=np.full(len(shares), np.nan), inter_token=quantiles(seen, shares),
            reasons=dict(self._reasons),
        )  # fmt: skip
