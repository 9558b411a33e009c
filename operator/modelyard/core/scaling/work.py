"""How much work a request is: load is counted in requests of the size that a replica's capacity stands for.

ServeGen's production traffic changes its mean prompt and answer by a factor of several from one ten minutes to the
next; a capacity in requests per second means little then. Tokens of finished requests tell the present size of requests
within seconds, which is early against the time that a start takes.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from modelyard.core.load import LoadShape
from modelyard.core.snapshot import GatewayReading
from modelyard.core.variants import Variant

OUTPUT_WEIGHT = 2.0
"""Prompt tokens that one answer token costs where the step-time model is not known. A token of either kind takes the
same arithmetic; an answer token also takes its share of reading the weights, which a batch at capacity divides by its
size: 1.5 for an 8B model and 0.5 for a 70B model at an objective of 40 ms."""

RECENT = 10.0
"""Seconds, time constant of the mean that shows a change: about as long as a request takes, below which short answers,
which finish first, would count for more than their share."""
STEADY = 60.0
"""Seconds, time constant of the mean that load is counted with while nothing changes: half of a usual start time. The
noise of a mean over 10 s alone asked for 5 % more replica-hours on Azure's conversation trace of 2023, 12.5 against
11.8, with 120 s starts."""
CHANGE = 3.0
"""Standard deviations between both from which requests have changed."""
SPREAD = 0.005
"""Variance of the recent mean around the steady one, relative, before it is measured: of 200 requests with CV 1."""
SPREAD_MEMORY = 900.0
"""Seconds, time constant of the measured spread, as that of the dispersion of arrivals."""
SAME = 0.02
"""Difference of the logarithm of lengths within which requests count as equal: the model's answer takes 0.3 ms, and
what it is known to is a few times as much."""
ENOUGH = 200.0
"""Requests over which it is averaged at least: with a coefficient of variation of 1, their mean is within 7 % of the
truth (one standard error)."""


class _Size(NamedTuple):
    """What the worth of a request was worked out for."""

    variant: Variant
    usual: LoadShape
    input_steps: int
    """Logarithm of its prompt tokens over those of the usual one, in steps of SAME."""
    output_steps: int


class _Weighed(NamedTuple):
    size: _Size
    worth: float


@dataclass(frozen=True, slots=True)
class WorkMemory:
    """The present mean request, and the counts up to which it is known."""

    time: float = 0.0
    requests: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    mean: LoadShape | None = None
    """None: not known yet."""
    recent: LoadShape | None = None
    """The same over a shorter time."""
    spread: float = SPREAD
    """Variance of the recent mean's work around that of the other, relative."""
    changed: float = -math.inf
    """Unix time of the last change."""
    weighed: _Weighed | None = None
    """What the last mean request was worth."""


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
    seconds = seen.time - memory.time
    mean, recent = memory.mean or expected, memory.recent or memory.mean or expected
    found = LoadShape(inputs / requests, outputs / requests, expected.cached_share)
    changed = seen.time if memory.mean is None else memory.changed
    quick = -math.expm1(-min(seconds / RECENT, requests / ENOUGH))
    # After a change the mean is that of all that came since.
    slow = min(quick, max(-math.expm1(-seconds / STEADY), seconds / (seen.time - changed + RECENT)))
    recent, mean = _move(recent, found, quick), _move(mean, found, slow)
    error = count_tokens(recent) / count_tokens(mean) - 1.0
    limit = CHANGE**2 * memory.spread
    share = -math.expm1(-seconds / SPREAD_MEMORY)
    spread = memory.spread + share * (min(error**2, limit) - memory.spread)
    seen = replace(seen, mean=mean, recent=recent, spread=spread, changed=changed)
    return replace(seen, mean=recent, changed=seen.time) if error**2 > limit else seen


def _move(mean: LoadShape, found: LoadShape, share: float) -> LoadShape:
    return LoadShape(
        mean.input_tokens + share * (found.input_tokens - mean.input_tokens),
        mean.output_tokens + share * (found.output_tokens - mean.output_tokens),
        found.cached_share,
    )


def weigh_request(
    memory: WorkMemory, variant: Variant, usual: LoadShape, request: LoadShape
) -> tuple[float, WorkMemory]:
    """Return how many requests of the usual size one is worth, and the memory with the answer.

    A replica answers fewer requests of a size that is worth more: the ratio of what it answers of both, by the
    step-time model. No linear weight of tokens does that: where prompts are long beside the answers, prefill limits the
    rate, and where answers are long, the batch does. Without the model, tokens are weighed.
    """
    size = _Size(
        variant,
        usual,
        _steps(request.input_tokens, usual.input_tokens),
        _steps(request.output_tokens, usual.output_tokens),
    )
    known = memory.weighed
    if known is not None and known.size.variant is variant and known.size[1:] == size[1:]:
        return known.worth, memory
    request = replace(
        usual,
        input_tokens=usual.input_tokens * math.exp(size.input_steps * SAME),
        output_tokens=usual.output_tokens * math.exp(size.output_steps * SAME),
    )
    worth = compare_work(variant, usual, request)
    return worth, replace(memory, weighed=_Weighed(size, worth))


def compare_work(variant: Variant, usual: LoadShape, request: LoadShape) -> float:
    """Return how many requests of the usual size one is worth on a variant."""
    many, few = variant.rate_of(usual), variant.rate_of(request)
    if many is None or few is None:
        return count_tokens(request) / count_tokens(usual)
    return many / few


def count_tokens(shape: LoadShape) -> float:
    """Return the work of a request in prompt tokens, where the step-time model is not known."""
    return shape.input_tokens * (1 - shape.cached_share) + OUTPUT_WEIGHT * shape.output_tokens


def _steps(tokens: float, usual: float) -> int:
    return round(math.log(max(tokens, 1.0) / max(usual, 1.0)) / SAME)


def _sum(value: float | None) -> float:
    return 0.0 if value is None else float(value)
