"""Synthetic arrivals: Poisson, piecewise constant, step, sinusoid and Gamma bursts, each fixed by its seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.simulator.scenario import Arrivals, Floats, Integers

CONTEXT_LIMIT = 131_072
"""Tokens. Default cap of a drawn length: the context of the Llama 3.1 and Qwen 3 families (their model cards)."""

Seed = int | np.random.Generator


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of requests: fixed, or log-normal around the mean. Input and output are independent."""

    input_mean: float
    output_mean: float
    input_cv: float = 0.0
    """Standard deviation over mean. 0: every request has the mean, rounded."""
    output_cv: float = 0.0
    input_limit: int = CONTEXT_LIMIT
    output_limit: int = CONTEXT_LIMIT


def draw_lengths(
    rng: np.random.Generator, mean: float | Floats, cv: float, count: int, limit: int = CONTEXT_LIMIT
) -> Integers:
    """Return `count` log-normal whole numbers from 1 to `limit` with this mean and coefficient of variation.

    Rounding and the limits move the mean a little where it is below about 5 or near the limit.
    Raises ValueError for a mean that is not positive and finite or a cv that is negative.
    """
    means = np.asarray(mean, dtype=np.float64)
    if not (np.all(np.isfinite(means)) and np.all(means > 0)):
        raise ValueError("a mean length must be positive")
    if not 0 <= cv < np.inf:
        raise ValueError(f"a coefficient of variation must be 0 or more, not {cv}")
    variance = np.log1p(cv * cv)
    values = np.broadcast_to(means, (count,))
    if cv > 0:
        normal = rng.standard_normal(count)
        values = np.exp(np.log(values) - variance / 2 + np.sqrt(variance) * normal)
    return np.clip(np.rint(values), 1, limit).astype(np.int64)


def poisson(rate: float, duration: float, lengths: Lengths, seed: Seed, name: str = "poisson") -> Arrivals:
    """Return Poisson arrivals at `rate` requests per second."""
    return piecewise([(0.0, rate)], duration, lengths, seed, name)


def step(
    before: float, after: float, at: float, duration: float, lengths: Lengths, seed: Seed, name: str = "step"
) -> Arrivals:
    """Return Poisson arrivals whose rate changes once, `at` seconds from the start."""
    return piecewise([(0.0, before), (at, after)], duration, lengths, seed, name)


def piecewise(
    rates: Sequence[tuple[float, float]],
    duration: float,
    lengths: Lengths,
    seed: Seed,
    name: str = "piecewise",
) -> Arrivals:
    """Return Poisson arrivals whose rate is constant from each (start in seconds, rate) to the next.

    Raises ValueError unless the starts begin at 0 and rise, and every rate is finite and not negative.
    """
    _check_duration(duration)
    starts = np.array([start for start, _ in rates], dtype=np.float64)
    levels = np.array([rate for _, rate in rates], dtype=np.float64)
    if not len(starts) or starts[0] != 0 or not np.all(np.diff(starts) > 0):
        raise ValueError("the starts of a piecewise rate must begin at 0 and rise")
    if not (np.all(np.isfinite(levels)) and np.all(levels >= 0)):
        raise ValueError("a rate must be finite and not negative")
    rng = np.random.default_rng(seed)
    edges = np.minimum(np.append(starts, duration), duration)
    widths = np.diff(edges)
    counts = rng.poisson(levels * widths)
    # Given their number, the arrivals of a Poisson process lie uniformly.
    times = np.repeat(edges[:-1], counts) + np.repeat(widths, counts) * rng.random(int(counts.sum()))
    return assemble(np.sort(times), duration, lengths, rng, name)


def sinusoid(
    low: float,
    high: float,
    period: float,
    duration: float,
    lengths: Lengths,
    seed: Seed,
    name: str = "sinusoid",
) -> Arrivals:
    """Return Poisson arrivals whose rate swings between `low` and `high`; it begins at `low`.

    Raises ValueError unless 0 <= low <= high and the period is positive.
    """
    _check_duration(duration)
    if not (0 <= low <= high < np.inf and 0 < period < np.inf):
        raise ValueError("a sinusoid needs 0 <= low <= high and a positive period")
    rng = np.random.default_rng(seed)
    # Arrivals at the highest rate, each kept with the share that the rate has of it then: exact.
    times = np.sort(rng.random(rng.poisson(high * duration)) * duration)
    rate = low + (high - low) * (1 - np.cos(2 * np.pi * times / period)) / 2
    kept = times[rng.random(len(times)) * high < rate]
    return assemble(kept, duration, lengths, rng, name)


def bursts(
    rate: float, cv: float, duration: float, lengths: Lengths, seed: Seed, name: str = "bursts"
) -> Arrivals:
    """Return a stationary stream whose gaps are Gamma distributed with this coefficient of variation.

    1 is Poisson, more is burstier; the index of dispersion of counts tends to the square of `cv`.
    Raises ValueError unless the rate is not negative and the cv positive.
    """
    _check_duration(duration)
    if not (0 <= rate < np.inf and 0 < cv < np.inf):
        raise ValueError("bursts need a rate of 0 or more and a positive coefficient of variation")
    rng = np.random.default_rng(seed)
    if rate == 0:
        return assemble(np.empty(0), duration, lengths, rng, name)
    shape, scale = 1 / cv**2, cv**2 / rate
    # An observer meets a gap with odds in proportion to its length (Gamma with shape + 1), anywhere in it.
    # To begin with a whole gap instead would begin every trace right after an arrival.
    parts = [np.array([rng.gamma(shape + 1, scale) * rng.random()])]
    reached = parts[0][0]
    expected = rate * duration
    batch = int(expected + 4 * cv * np.sqrt(expected)) + 16
    while reached < duration:
        times = reached + np.cumsum(rng.gamma(shape, scale, batch))
        parts.append(times)
        reached = times[-1]
    times = np.concatenate(parts)
    return assemble(times[times < duration], duration, lengths, rng, name)


def dynamo_sinusoid(seed: Seed, duration: float = 2100.0) -> Arrivals:
    """Return the load of github.com/ai-dynamo/dynamo/issues/10528, for its 35 minutes unless told otherwise.

    1 to 24 requests per second with a period of 900 s, 8,000 tokens in and 1,000 out.
    """
    return sinusoid(1.0, 24.0, 900.0, duration, Lengths(8000, 1000), seed, "dynamo-sinusoid")


def llmd_step(
    seed: Seed, *, before: float = 0.0, at: float = 60.0, duration: float = 660.0, input_tokens: int = 4000
) -> Arrivals:
    """Return the load of github.com/llm-d/llm-d-autoscaling/issues/1412: from `before` to 20 requests per second.

    1,000 tokens out; 4,000 in ("prefill heavy") or 1,000 ("symmetrical"). There the 20 requests per second last
    600 s, as in pull request 1063.
    """
    return step(before, 20.0, at, duration, Lengths(input_tokens, 1000), seed, "llm-d-step")


def assemble(
    times: Floats, duration: float, lengths: Lengths, rng: np.random.Generator, name: str
) -> Arrivals:
    """Return requests at these sorted times with drawn lengths and nothing cached."""
    count = len(times)
    return Arrivals(
        time=times,
        input_tokens=draw_lengths(rng, lengths.input_mean, lengths.input_cv, count, lengths.input_limit),
        output_tokens=draw_lengths(rng, lengths.output_mean, lengths.output_cv, count, lengths.output_limit),
        cached_tokens=np.zeros(count, dtype=np.int64),
        duration=duration,
        name=name,
    )


def _check_duration(duration: float) -> None:
    if not 0 < duration < np.inf:
        raise ValueError(f"a duration must be positive, not {duration}")
