"""How much work a request is: load is counted in requests of the size that a replica's capacity stands for.

ServeGen's production traffic changes its mean prompt and answer by a factor of several from one ten minutes to the
next; a capacity in requests per second means little then. Tokens of finished requests tell the present size of requests
within seconds, which is early against the time that a start takes.
"""

import math
from dataclasses import dataclass, replace

from modelyard.core.load import LoadShape
from modelyard.core.perf.step import StepTime
from modelyard.core.snapshot import GatewayReading

OUTPUT_WEIGHT = 2.0
"""Prompt tokens that one answer token costs where the step-time model is not known. A token of either kind takes the
same arithmetic; an answer token also takes its share of reading the weights, which a batch at capacity divides by its
size: 1.5 for an 8B model and 0.5 for a 70B model at an objective of 40 ms."""

TIME_CONSTANT = 10.0
"""Seconds over which the size of requests is averaged: about as long as a request takes, below which short answers,
which finish first, would count for more than their share."""
ENOUGH = 200.0
"""Requests over which it is averaged at least: with a coefficient of variation of 1, their mean is within 7 % of the
truth (one standard error)."""


@dataclass(frozen=True, slots=True)
class WorkMemory:
    """The present mean request, and the counts up to which it is known."""

    time: float = 0.0
    requests: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    mean: LoadShape | None = None
    """None: not known yet."""


def observe_work(
    memory: WorkMemory, reading: GatewayReading | None, deployment: str, expected: LoadShape
) -> WorkMemory:
    """Return the memory with a reading taken in. Before the first requests have finished, they are as expected."""
    if reading is None or reading.time <= memory.time:
        return memory
    seen = replace(
        memory,
        time=reading.time,
        requests=_sum(reading.answers.get(deployment)),
        input_tokens=_sum(reading.input_tokens.get(deployment)),
        output_tokens=_sum(reading.output_tokens.get(deployment)),
    )
    requests = seen.requests - memory.requests
    inputs, outputs = seen.input_tokens - memory.input_tokens, seen.output_tokens - memory.output_tokens
    if memory.time == 0.0 or requests <= 0 or inputs < 0 or outputs < 0:
        return seen
    mean = memory.mean or expected
    share = -math.expm1(-min((seen.time - memory.time) / TIME_CONSTANT, requests / ENOUGH))
    share = min(share, 1.0)
    return replace(
        seen,
        mean=LoadShape(
            mean.input_tokens + share * (inputs / requests - mean.input_tokens),
            mean.output_tokens + share * (outputs / requests - mean.output_tokens),
            mean.cached_share,
        ),
    )


def output_weight(step: StepTime | None, shape: LoadShape, batch: float) -> float:
    """Return the prompt tokens that one answer token costs at a batch."""
    if step is None or batch < 1:
        return OUTPUT_WEIGHT
    answer = step.decode(batch, shape.input_tokens + shape.output_tokens / 2) / batch
    prompt = step.prefill(shape.input_tokens, shape.input_tokens * shape.cached_share) / max(
        shape.input_tokens, 1.0
    )
    return answer / prompt if prompt > 0 else OUTPUT_WEIGHT


def work(shape: LoadShape, weight: float) -> float:
    """Return the work of a request, in prompt tokens."""
    return shape.input_tokens * (1 - shape.cached_share) + weight * shape.output_tokens


def _sum(value: float | None) -> float:
    return 0.0 if value is None else float(value)
