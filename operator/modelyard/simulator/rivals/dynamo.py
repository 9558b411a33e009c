"""NVIDIA Dynamo's planner: throughput mode, with or without load mode.

Sources: ai-dynamo/dynamo components/src/dynamo/planner: core/throughput_scaling.py and core/load_scaling.py (the
rules), config/defaults.py (180 s, 5 s, sensitivity 80 %, one replica at least), core/perf_model/agg.py (rate of an
engine within its objectives); pull request 8861 (requests are counted when they complete).

Dynamo sizes prefill and decode apart, or aggregated engines as one pool. Replicas here are aggregated, so its
aggregated mode is taken: one rate within both objectives, and in load mode the larger of what prefill and decode ask
for. Its regressions on forward passes are replaced by the engine's true step times, its GPU budget by the scenario's
maximum, its objectives (defaults 500 ms and 50 ms) by the scenario's. It never goes to zero.
"""

import math
from dataclasses import dataclass
from typing import Literal

from modelyard.core.load import LoadShape
from modelyard.simulator.rivals.common import (
    ROUNDING,
    PublishedRule,
    best_rate,
    first_token_objective,
    round_up,
)
from modelyard.simulator.rivals.forecasts import Kind, predictor
from modelyard.simulator.scenario import Scenario, Signals

EASY_UP, EASY_DOWN = 1.0, 0.6
"""Shares of the cache, queued prompts included, above and below which the `throughput` target adds and removes."""


@dataclass(frozen=True, slots=True)
class DynamoSettings:
    """The planner's configuration; times in seconds."""

    predictor: Kind = "arima"
    load_mode: bool = False
    load_target: Literal["sla", "throughput"] = "sla"
    """`sla`: estimated latencies. `throughput`: static shares of the cache."""
    throughput_interval: float = 180.0
    load_interval: float = 5.0
    down_sensitivity: float = 0.8
    """Share of the objective that must suffice after a removal."""


class Dynamo(PublishedRule):
    """Every 180 s: forecast rate and lengths / rate of one engine. With load mode that is only the lower bound."""

    def __init__(self, name: str, scenario: Scenario, settings: DynamoSettings) -> None:
        interval = settings.load_interval if settings.load_mode else settings.throughput_interval
        super().__init__(name, interval, scenario, to_zero=False)
        self._settings = settings
        self._scenario = scenario
        self._rate, self._input, self._output = (predictor(settings.predictor) for _ in range(3))
        self._elapsed = 0.0
        self._counted = [0, 0, 0]
        """Requests, input and output tokens completed in this interval."""
        self._shape: LoadShape | None = None
        self._lower_bound = 1

    def desired(self, signals: Signals, replicas: int) -> int:
        """Count, forecast if it is time, and in load mode correct by what the engines show."""
        self._elapsed += signals.elapsed
        self._counted[0] += signals.completions
        self._counted[1] += signals.completed_input_tokens
        self._counted[2] += signals.completed_output_tokens
        if self._elapsed >= self._settings.throughput_interval - ROUNDING:
            bound = self._forecast()
            if bound is not None:
                self._lower_bound = bound
                if not self._settings.load_mode:
                    return bound
        if not self._settings.load_mode or self._shape is None or signals.ready == 0:
            return replicas
        if signals.pending > 0 or signals.ready != replicas:
            return replicas  # A change is under way: the planner only observes.
        return max(replicas + self._correction(signals, self._shape), self._lower_bound)

    def _forecast(self) -> int | None:
        """Return the replicas for the next interval; None without a request in this one."""
        (count, input_tokens, output_tokens), elapsed = self._counted, self._elapsed
        self._counted, self._elapsed = [0, 0, 0], 0.0
        if count == 0:
            return None  # The planner skips an interval without requests, and keeps its size.
        self._rate.add(count * self._settings.throughput_interval / elapsed)
        self._input.add(input_tokens / count)
        self._output.add(output_tokens / count)
        shape = LoadShape(max(1.0, self._input.predict()), max(1.0, self._output.predict()))
        self._shape = LoadShape(input_tokens / count, output_tokens / count)
        rate = best_rate(
            self._scenario.engine,
            shape,
            first_token_objective(self._scenario, shape.input_tokens),
            self._scenario.objective.inter_token,
        )
        demand = self._rate.predict() / self._settings.throughput_interval
        return max(1, round_up(demand / rate))

    def _correction(self, signals: Signals, shape: LoadShape) -> int:
        """Return one replica more, one fewer or none. Engines count as evenly loaded."""
        load = EngineLoad(
            running=signals.running / signals.ready,
            queued_tokens=max(0.0, signals.waiting - signals.gateway_waiting)
            * shape.input_tokens
            / signals.ready,
            held_tokens=signals.tokens_held / signals.ready,
        )
        if self._settings.load_target == "throughput":
            usage = (load.held_tokens + load.queued_tokens) / self._scenario.engine.cache_tokens
            down = usage < EASY_DOWN and signals.ready > 1
            return 1 if usage > EASY_UP else -1 if down else 0
        first_token = first_token_objective(self._scenario, shape.input_tokens)
        inter_token = self._scenario.objective.inter_token
        if (
            self._first_token(load, shape) > first_token
            or self._inter_token(load.running, shape) > inter_token
        ):
            return 1
        return -1 if signals.ready > 1 and self._removable(signals.ready, load, shape) else 0

    def _removable(self, ready: int, load: "EngineLoad", shape: LoadShape) -> bool:
        """Whether the others would keep the objectives with a margin if they took one replica's load."""
        more, sensitivity = ready / (ready - 1), self._settings.down_sensitivity
        alone = self._first_token(EngineLoad(load.running * more, 0.0, 0.0), shape)
        budget = (first_token_objective(self._scenario, shape.input_tokens) - alone) * sensitivity
        queued = EngineLoad(load.running * more, load.queued_tokens * more, 0.0)
        if self._first_token(queued, shape) - alone >= budget:
            return False
        held = (load.held_tokens + load.queued_tokens) * more
        if held >= self._scenario.engine.cache_tokens:
            return False
        each = shape.input_tokens + shape.output_tokens / 2
        running = max(load.running * more, held / each)
        return self._inter_token(running, shape) < self._scenario.objective.inter_token * sensitivity

    def _first_token(self, load: "EngineLoad", shape: LoadShape) -> float:
        """Estimate the time to first token: the queue's prompts and its own, in steps that others decode in."""
        engine = self._scenario.engine
        total, step = load.queued_tokens + shape.input_tokens, engine.max_batched_tokens
        context = shape.input_tokens + shape.output_tokens / 2
        steps, rest = math.ceil(total / step), total % step
        whole = steps - 1 if rest else steps
        prefill = whole * engine.step.prefill(step) + (engine.step.prefill(rest) if rest else 0.0)
        return prefill + steps * engine.step.decode(load.running, context)

    def _inter_token(self, running: float, shape: LoadShape) -> float:
        return self._scenario.engine.step.inter_token_latency(shape, max(1.0, running))


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What one engine holds."""

    running: float
    """Sequences."""
    queued_tokens: float
    """Of prompts that wait."""
    held_tokens: float
    """Of sequences that run."""
