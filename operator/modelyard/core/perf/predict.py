"""What one replica answers: latencies and rates at a batch, and the largest batch that keeps the objective."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from modelyard.core.load import LoadShape, Objective
from modelyard.core.perf.step import StepTime

Limit = Literal["context", "memory", "interTokenLatency", "timeToFirstToken", "maxSequences"]

PLANNING_SCORE = 1.0
"""Standard deviations above the median at which latencies are planned: with a log-normal error the true latency is
below that with probability 0.84. A wider uncertainty therefore gives a smaller batch and a lower rate."""

_LIMITS: dict[Limit, str] = {
    "context": "the context length",
    "memory": "memory for the key-value cache",
    "interTokenLatency": "the latency between tokens",
    "timeToFirstToken": "the time to first token",
    "maxSequences": "the engine's limit on sequences",
}


@dataclass(frozen=True, slots=True)
class Performance:
    """What a replica gives while a number of sequences run."""

    inter_token_latency: float
    """Seconds, mean."""
    time_to_first_token: float
    """Seconds, mean, of a request that is admitted at once."""
    requests_per_second: float
    output_tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a replica answers within an objective. No margin for the randomness of arrivals is in it."""

    requests_per_second: float
    """At the planned latencies; 0 if even one request at a time misses the objective."""
    batch: int
    """Sequences that run at once; 0 if even one misses the objective."""
    limit: Limit
    """What keeps the batch from being larger."""
    performance: Performance
    """Expected (the median) at that batch, or for one sequence, the best there is, if that misses the objective."""
    planned: Performance
    """The same at the planned quantile."""
    objective: Objective
    uncertainty: float
    """Of the latency between tokens: relative, one standard deviation."""

    @property
    def feasible(self) -> bool:
        """Whether at least one request at a time is answered within the objective."""
        return self.batch > 0

    def explain(self) -> str:
        """Say in a sentence what limits, and what there is."""
        if self.feasible:
            return (
                f"{self.requests_per_second:.2f} requests/s with {self.batch} at a time, limited by "
                f"{_LIMITS[self.limit]}: {_figures(self.performance)} expected, "
                f"{_figures(self.planned)} planned (+-{self.uncertainty:.0%})"
            )
        if self.limit == "context":
            return (
                "the mean request is longer than the context: raise model.contextLength, lower spec.load, or choose a "
                "model with a longer context"
            )
        if self.limit == "memory":
            return "the key-value cache does not hold one request of this length"
        if self.limit == "maxSequences":
            return "the engine may not run a single sequence"
        return (
            f"even one request at a time misses {_LIMITS[self.limit]}: {_figures(self.planned)} planned, "
            f"{_figures(self.performance)} expected, against "
            f"{_milliseconds(self.objective.inter_token_latency)} between tokens and "
            f"{_milliseconds(self.objective.time_to_first_token)} to the first"
        )


def predict(step: StepTime, shape: LoadShape, batch: float, score: float = 0.0) -> Performance:
    """Predict what a replica gives while `batch` sequences run (at least 1), in a steady state.

    `score`: standard deviations above the median at which the latencies are taken.
    """
    batch = max(1.0, batch)
    latency = step.inter_token_latency(shape, batch) * math.exp(score * step.uncertainty)
    first = step.time_to_first_token(shape, batch) * math.exp(score * step.first_token_uncertainty)
    service = first + max(0.0, shape.output_tokens - 1) * latency
    rate = batch / service
    return Performance(latency, first, rate, rate * shape.output_tokens)


def sustainable(
    step: StepTime,
    shape: LoadShape,
    objective: Objective,
    cache_tokens: float,
    max_sequences: int,
    context_length: int | None = None,
) -> Capacity:
    """Find the largest batch within memory and objective, where every token takes the same room.

    `cache_tokens`: tokens that all running sequences may hold in all. A running sequence holds its prompt, less what
    the prefix cache shares, and on average half of its answer; the cache must hold one whole request. With sliding
    windows the number of tokens depends on the sequences' length: see `Fit.requests_held` and `largest_capacity`.
    """
    held = shape.input_tokens * (1 - shape.cached_share) + shape.output_tokens / 2
    whole = shape.input_tokens + shape.output_tokens
    in_memory = math.floor(cache_tokens / max(held, 1.0)) if cache_tokens >= whole else 0
    return largest_capacity(step, shape, objective, in_memory, max_sequences, context_length)


def largest_capacity(
    step: StepTime,
    shape: LoadShape,
    objective: Objective,
    in_memory: int,
    max_sequences: int,
    context_length: int | None = None,
) -> Capacity:
    """Find the largest batch within memory and objective, and the rate at it: batch / service time.

    `in_memory`: requests that the cache holds at a time; 0: not even one. `context_length`: longest prompt plus
    answer; None: not limited.
    """
    too_long = context_length is not None and shape.input_tokens + shape.output_tokens > context_length
    top = 0 if too_long else max(0, min(in_memory, max_sequences))
    limits: dict[Limit, int] = {"context": 0} if too_long else {}
    limits |= {"memory": in_memory, "maxSequences": max_sequences}
    limits["interTokenLatency"] = _largest(
        top, lambda batch: _planned(step, shape, batch).inter_token_latency <= objective.inter_token_latency
    )
    limits["timeToFirstToken"] = _largest(
        top, lambda batch: _planned(step, shape, batch).time_to_first_token <= objective.time_to_first_token
    )
    # Of equal limits the first counts: below `top`, latencies limit; at `top`, memory or the engine does.
    limit = min(limits, key=lambda name: limits[name])
    batch = max(0, limits[limit])
    planned = _planned(step, shape, batch)
    return Capacity(
        requests_per_second=planned.requests_per_second if batch else 0.0,
        batch=batch,
        limit=limit,
        performance=predict(step, shape, batch),
        planned=planned,
        objective=objective,
        uncertainty=step.uncertainty,
    )


def _planned(step: StepTime, shape: LoadShape, batch: int) -> Performance:
    return predict(step, shape, batch, PLANNING_SCORE)


def _largest(top: int, holds: Callable[[int], bool]) -> int:
    """Return the largest batch up to `top` for which a condition holds that, once lost, stays lost; 0: none."""
    low, high = 0, top
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _figures(performance: Performance) -> str:
    return (
        f"{_milliseconds(performance.inter_token_latency)} between tokens, "
        f"{_milliseconds(performance.time_to_first_token)} to the first"
    )


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
