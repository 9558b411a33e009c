"""Plays a load as a flow under a policy: for runs of many days (`flow.py` says how a fleet answers a flow)."""

import heapq
import math
from collections import Counter

import numpy as np

from modelyard.simulator.flow import AttainmentCurve
from modelyard.simulator.fluidlevels import Levels, mix_of, pace
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.ledger import Ledger
from modelyard.simulator.meters import quantiles
from modelyard.simulator.scenario import Disturbances, Floats, Outcome, ScalingPolicy, Scenario, Signals


def run_fluid(scenario: Scenario, load: FluidLoad, curve: AttainmentCurve, policy: ScalingPolicy) -> Outcome:
    """Play a flow under a policy. Of the scenario everything counts but its arrivals.

    A share of the requests of each step attains, by the curve; those of a step without replicas do not. Nothing is
    refused: what waits is answered late. Raises ValueError for a scenario with disturbances, which a flow cannot show.
    """
    if scenario.disturbances != Disturbances():
        raise ValueError(f"{scenario.name}: a flow knows no disturbances")
    return _FluidRun(scenario, load, curve, policy).play()


class _FluidRun:
    def __init__(
        self, scenario: Scenario, load: FluidLoad, curve: AttainmentCurve, policy: ScalingPolicy
    ) -> None:
        self._scenario, self._load, self._policy = scenario, load, policy
        self._pace = pace(scenario.engine, load, mix_of(load, scenario.arrivals))
        self._curve = curve
        self._ledger = Ledger(scenario, np.random.default_rng([scenario.seed, 2]))
        self._serving: list[int] = [self._ledger.start(0.0, initial=True) for _ in range(scenario.initial)]
        self._pending: list[int] = []
        self._ready: list[tuple[float, int]] = []
        self._wanted = scenario.initial
        self._levels = Levels(scenario.initial)
        self._drained: list[float] = []
        """When each group of leaving replicas is gone."""
        self._since = _Count()
        self._level = np.zeros(len(load))
        """Unfinished requests at the replica that requests come to, mean of each step."""
        self._level_now = 0.0
        self._reasons: Counter[str] = Counter()

    def play(self) -> Outcome:
        now, decision, interval = 0.0, 1, self._policy.interval
        self._note(now)
        for number in range(len(self._load)):
            edge = (number + 1) * self._load.step
            while now < edge:
                ahead = min(
                    [edge, decision * interval, *self._drained, *(time for time, _ in self._ready[:1])]
                )
                self._flow(number, max(ahead - now, 0.0))
                now = max(now, ahead)
                self._change(now)
                if now >= decision * interval:
                    self._decide(number, now)
                    decision += 1
                self._note(now)
        return self._outcome()

    def _flow(self, number: int, seconds: float) -> None:
        if not seconds:
            return
        speed, levels, rate = self._pace, self._levels, float(self._load.rate[number])
        before = levels.unfinished
        level, unfinished, running = levels.advance(
            rate, speed.base[number], speed.slope[number], speed.output[number], speed.limit[number], seconds
        )
        self._level[number] += level * seconds / self._load.step
        self._level_now = level
        done = rate * seconds + before - levels.unfinished
        self._since.add(self._load, number, seconds, done, running, unfinished, len(self._serving))

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
        speed, since, levels, replicas = self._pace, self._since, self._levels, len(self._serving)
        limit, held = float(speed.limit[number]), float(speed.held[number])
        running, cache = levels.running(limit), self._scenario.engine.cache_tokens
        waiting = levels.unfinished - running
        batch = running / replicas if replicas else 0.0
        latency = float(speed.base[number] + speed.slope[number] * batch)
        # A full replica frees a place each service time / limit; what waits takes places in order.
        wait = waiting * float(speed.output[number]) * latency / running if running else 0.0
        first = float(speed.first_base[number] + speed.first_slope[number] * batch) + wait
        any_token = since.completions >= 1
        done = since.take("completions")
        signals = Signals(
            time=now, elapsed=since.seconds, ready=replicas, pending=len(self._pending),
            arrivals=since.take("arrivals"), arrived_input_tokens=since.take("input"),
            arrived_output_tokens=since.take("output"), completions=done,
            completed_input_tokens=since.take("done_input"), completed_output_tokens=since.take("done_output"),
            running=running, waiting=waiting, gateway_waiting=levels.held,
            cache_usage=min(1.0, batch * held / cache), cache_usage_max=min(1.0, levels.fullest() * held / cache),
            tokens_held=running * held, mean_running=since.running / since.seconds,
            mean_waiting=since.waiting / since.seconds, busy=since.busy / since.seconds,
            first_token_p90=first * 1.5 if any_token else None,
            inter_token_p90=latency * 1.2 if any_token else None, inter_token_mean=latency if any_token else None,
            first_token_mean=first if any_token else None, missed=self._missed_share(number) * done,
        )  # fmt: skip
        since.begin()
        return signals

    def _missed_share(self, number: int) -> float:
        """Return the share of requests that miss the objective at the present level."""
        ratio = self._pace.slow_latency_at(number, self._level_now) / self._scenario.objective.inter_token
        return 1.0 - float(self._curve(ratio)[0]) if math.isfinite(ratio) else 1.0

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


class _Count:
    """Sums since a policy's last look. Whole requests are handed out; fractions stay for the next look."""

    def __init__(self) -> None:
        self._left: dict[str, float] = dict.fromkeys(
            ("arrivals", "input", "output", "completions", "done_input", "done_output"), 0.0
        )
        self.begin()

    def begin(self) -> None:
        self.seconds = self.running = self.waiting = self.busy = 0.0

    @property
    def completions(self) -> float:
        return self._left["completions"]

    def add(
        self, load: FluidLoad, number: int, seconds: float, done: float, running: float, unfinished: float,
        replicas: int,
    ) -> None:  # fmt: skip
        came = float(load.rate[number]) * seconds
        inputs, outputs = float(load.input_tokens[number]), float(load.output_tokens[number])
        left = self._left
        left["arrivals"] += came
        left["input"] += came * inputs
        left["output"] += came * outputs
        left["completions"] += done
        left["done_input"] += done * inputs
        left["done_output"] += done * outputs
        self.seconds += seconds
        self.running += running * seconds
        self.waiting += (unfinished - running) * seconds
        # An engine runs a step while it has any sequence; the number that it has is about Poisson.
        self.busy += (1 - math.exp(-running / replicas)) * seconds if replicas else 0.0

    def take(self, name: str) -> int:
        whole = int(self._left[name] + 1e-9)
        self._left[name] -= whole
        return whole
