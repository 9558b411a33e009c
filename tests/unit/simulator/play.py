"""Scenarios for the tests of the simulator, engines whose theory is known, and closed-loop load."""

import math
from dataclasses import dataclass, field

import numpy as np

from modelyard.core.load import LoadShape
from modelyard.core.perf.step import FirstToken, StepTime
from modelyard.simulator.fleet import run_until, serve
from modelyard.simulator.records import (
    COMPLETED,
    COMPLETIONS,
    NEXT_ARRIVAL,
    RUNNING,
    Records,
    make_fleet,
    request_records,
    speed,
)
from modelyard.simulator.scenario import Arrivals, Engine, Scenario, Signals

NO_FRONT_END = FirstToken(base=0.0, prompt=0.0, queue=0.0, step=0.0, sequence=0.0)


def make_step(**changes: float | FirstToken) -> StepTime:
    """Times that nothing changes: no batch, no context, no prompt. Change what a test is about."""
    values: dict[str, float | FirstToken] = {
        "fixed": 0.001,
        "experts": 0.0,
        "expert_share": 0.0,
        "per_sequence": 0.0,
        "per_context_token": 0.0,
        "prefill_fixed": 0.0,
        "prefill_token": 0.0,
        "prefill_token_squared": 0.0,
        "first_token": NO_FRONT_END,
        "uncertainty": 0.2,
        "first_token_uncertainty": 0.4,
    }
    return StepTime(**(values | changes), origin="roofline")  # type: ignore[arg-type]


LLAMA_8B = make_step(
    fixed=6.73e-3,
    per_sequence=1e-5,
    per_context_token=3.9e-8,
    prefill_token=2.4e-5,
    first_token=FirstToken(base=0.025, prompt=1.0, queue=0.063, step=2.12, sequence=4.9e-4),
)
"""About an 8B model on an H100 under vLLM."""


def make_arrivals(times, inputs, outputs, *, cached=0, duration: float | None = None) -> Arrivals:
    count = len(times)
    return Arrivals(
        np.asarray(times, dtype=np.float64),
        np.broadcast_to(np.asarray(inputs, dtype=np.int64), count),
        np.broadcast_to(np.asarray(outputs, dtype=np.int64), count),
        np.broadcast_to(np.asarray(cached, dtype=np.int64), count),
        float(duration if duration is not None else times[-1] + 1.0),
    )


def random_arrivals(
    rate: float, duration: float, seed: int, inputs: float = 914, outputs: float = 155
) -> Arrivals:
    """Poisson arrivals with log-normal prompts and exponential answers."""
    chance = np.random.default_rng(seed)
    count = chance.poisson(rate * duration)
    return make_arrivals(
        np.sort(chance.uniform(0, duration, count)),
        np.maximum(1, chance.lognormal(math.log(inputs) - 0.5, 1.0, count)).astype(np.int64).clip(1, 30_000),
        np.maximum(1, chance.exponential(outputs, count)).astype(np.int64),
        duration=duration,
    )


def make_scenario(arrivals: Arrivals, step: StepTime = LLAMA_8B, **changes) -> Scenario:
    engine = {"cache_tokens": 400_000, "max_sequences": 256, "max_batched_tokens": 8192}
    engine |= {name: changes.pop(name) for name in tuple(changes) if name in engine}
    return Scenario("test", arrivals, Engine(step, **engine), capacity=28.0, **changes)


@dataclass
class Script:
    """Wants what it is told at each look, the last for ever, and keeps what it saw."""

    wanted: list[int]
    interval: float = 15.0
    name: str = "script"
    seen: list[Signals] = field(default_factory=list)

    def decide(self, signals: Signals) -> int:
        self.seen.append(signals)
        return self.wanted[min(len(self.seen), len(self.wanted)) - 1]


@dataclass
class ClosedLoop:
    """What a fixed number of clients saw, each of which asks again as soon as it is answered."""

    requests: Records
    batch: float
    """Mean number of running sequences."""

    @property
    def inter_token(self) -> float:
        """Mean seconds over all tokens but the first."""
        seconds = self.requests["done"] - self.requests["first"]
        return float(seconds.sum() / (self.requests["output"] - 1).sum())

    @property
    def first_token(self) -> float:
        return float((self.requests["first"] - self.requests["arrival"]).mean())


def closed_loop(
    engine: Engine, shape: LoadShape, clients: int, rounds: int = 30, spread: float = 0.5
) -> ClosedLoop:
    """Play clients that come one after the other over about one answer's time; the first two rounds do not count.

    Lengths are drawn evenly from 1 - spread to 1 + spread times the mean: clients would stay in step otherwise.
    """
    count = clients * rounds
    chance = np.random.default_rng(clients)
    inputs = shape.input_tokens * chance.uniform(1 - spread, 1 + spread, count)
    outputs = shape.output_tokens * chance.uniform(1 - spread, 1 + spread, count)
    service = engine.step.inter_token_latency(shape, clients) * shape.output_tokens
    times = np.concatenate([np.sort(chance.uniform(0, service, clients)), np.full(count - clients, np.inf)])
    cached = np.round(inputs * shape.cached_share)
    current = speed(engine)
    requests = request_records(
        make_arrivals(times, np.round(inputs), np.maximum(2, np.round(outputs)), cached=cached, duration=0.0)
    )
    fleet = make_fleet(requests, current, 1, 1, False, 0)
    serve(fleet, 0, 0.0)
    come, answered, since, area_before = clients, 0, 0.0, 0.0
    while True:
        known = fleet.bounds[NEXT_ARRIVAL]
        now = min(float(fleet.due[0]), float(requests["arrival"][known]) if known < count else math.inf)
        run_until(fleet, current, math.inf, 1, now)
        completed = int(fleet.meters.counter[COMPLETIONS])
        for _ in range(answered, completed):
            if come < count:
                requests["arrival"][come] = now
                come += 1
        if answered < 2 * clients <= completed:
            since, area_before = now, fleet.meters.level[RUNNING] * now - fleet.meters.moment[RUNNING]
        answered = completed
        if come == count:
            break
    area = fleet.meters.level[RUNNING] * now - fleet.meters.moment[RUNNING] - area_before
    counted = (requests["state"] == COMPLETED) & (requests["arrival"] > since)
    return ClosedLoop(requests[counted], area / (now - since))
