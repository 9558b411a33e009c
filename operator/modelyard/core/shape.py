"""The mean request of a deployment, measured at the gateway: speed and capacity follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelyard.core.load import LoadShape
from modelyard.core.snapshot import GatewayReading

WINDOW = 1800.0
"""Seconds. Half an hour: long against single requests, short against a change of what clients do."""

SPACING = 60.0
"""Seconds between two samples that are kept."""

ENOUGH = 50.0
"""Requests before a mean is believed: with a coefficient of variation of 1, the mean of 50 is within 14 % (one standard
error)."""

CHANGE = 0.2
"""Relative change of a mean that makes a new shape; below it, the figures that follow stay as they are. The figure at
which llm-d's throughput analyser starts its fit again."""


@dataclass(frozen=True, slots=True)
class ShapeSample:
    """Cumulative counts at one moment."""

    time: float
    requests: float
    input_tokens: float
    output_tokens: float
    cached_tokens: float = 0.0
    """Input tokens that a cache answered; 0 where nobody counts them."""


@dataclass(frozen=True, slots=True)
class ShapeMemory:
    """What is remembered of one deployment's requests."""

    samples: tuple[ShapeSample, ...] = ()
    shape: LoadShape | None = None
    """None: not measured yet."""


def observe_shape(memory: ShapeMemory, reading: GatewayReading, deployment: str) -> ShapeMemory:
    """Return the memory with a reading taken in."""
    sample = ShapeSample(
        reading.time,
        _sum(reading.answers, deployment),
        _sum(reading.input_tokens, deployment),
        _sum(reading.output_tokens, deployment),
    )
    return add_sample(memory, sample)


def add_sample(memory: ShapeMemory, sample: ShapeSample) -> ShapeMemory:
    """Return the memory with a sample taken in."""
    samples = memory.samples
    if samples and sample.time <= samples[-1].time:
        return memory
    if samples and sample.requests < samples[-1].requests:
        samples = ()
    kept = [item for item in samples if item.time >= sample.time - WINDOW]
    if len(kept) >= 2 and kept[-1].time - kept[-2].time < SPACING:
        kept.pop()
    memory = replace(memory, samples=(*kept, sample))
    measured = _measure(memory.samples)
    if measured is None or (memory.shape is not None and not shape_changed(memory.shape, measured)):
        return memory
    return replace(memory, shape=measured)


def current_shape(memory: ShapeMemory, expected: LoadShape) -> LoadShape:
    """Return the measured mean request, or the expected one until there is any."""
    return memory.shape or expected


def shape_changed(before: LoadShape, after: LoadShape) -> bool:
    """Return whether two mean requests differ so much that what follows from them does."""
    pairs = (
        (before.input_tokens, after.input_tokens),
        (before.output_tokens, after.output_tokens),
    )
    return any(abs(new - old) > CHANGE * max(old, 1.0) for old, new in pairs)


def _sum(counts: Mapping[str, float], deployment: str) -> float:
    """Return a deployment's count, its adapters' included."""
    return sum(value for target, value in counts.items() if target.partition(":")[0] == deployment)


def _measure(samples: tuple[ShapeSample, ...]) -> LoadShape | None:
    if len(samples) < 2:
        return None
    first, last = samples[0], samples[-1]
    requests = last.requests - first.requests
    if requests < ENOUGH:
        return None
    return LoadShape(
        input_tokens=max((last.input_tokens - first.input_tokens) / requests, 1.0),
        output_tokens=max((last.output_tokens - first.output_tokens) / requests, 1.0),
    )
