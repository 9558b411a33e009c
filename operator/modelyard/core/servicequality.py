"""How many requests an engine served outside the objective, from the histograms on its page.

An engine counts latencies in buckets, and an objective is rarely at an edge. Between two edges the distribution is
taken as log-normal, so that the normal quantile of the share below is linear in the logarithm of the seconds: latencies
are positive and skewed, and a bucket reaches from one edge to two and a half times that. Linear interpolation takes a
bucket as evenly filled: of answers that all take around 30 ms per token, counted between edges at 25 and 50 ms, it
calls two fifths slower than 40 ms, although none is.

Where nothing was counted on the far side of an edge, that edge does not say where the distribution ends: what is drawn
through it depends on how many values there are. The mean, which the page has exactly, stands in for it, and the edge
only bounds how wide the distribution may be. Of thousands of log-normal values the share above a limit is within 0.05
of the truth where the deviation of the logarithm is 0.3 or more. Where it is less, nearly all values may be in one
bucket, and nothing tells how narrow they are: the share is rather too high then, by up to 0.2, where the mean is within
15 % of the limit. An objective at an edge (25, 50, 75 or 100 ms between tokens) has no such error.
"""

import math
import sys
from statistics import NormalDist
from typing import NamedTuple

from modelyard.core.enginemetrics import Buckets, EngineReading
from modelyard.core.load import Objective

EMPTY_TAIL = 3.0
"""Standard deviations from the median at which an edge is taken to be if nothing was counted beyond it: 0.13 % of a
normal distribution lie farther out, half a value of 370. Of more values, it is where half a value lies beyond."""
LOWEST_EDGE = 0.1
"""Where the first bucket begins, relative to its upper edge. vLLM's first edges are 1 ms for the first token and 10 ms
for the time per output token, and no objective may be below 50 ms and 1 ms."""

_NORMAL = NormalDist()


class Served(NamedTuple):
    """Requests of one engine, or many."""

    requests: float
    """Answered."""
    missed: float
    """Of them, those outside the objective."""
    waiting: float = 0.0
    """Requests in the queue at the second reading."""


def count_missed(before: EngineReading, after: EngineReading, objective: Objective) -> Served | None:
    """Return the requests that finished between two readings of one pod, and how many of them missed the objective.

    There must be no restart between the readings. None: the page has no histograms.

    A page does not tell which slow answer had a late first token. Both come from too much load, so that mostly the same
    requests are late and slow: the larger of both shares counts.
    """
    if not after.first_token_buckets or not after.answer_pace_buckets:
        return None
    requests = after.finished - before.finished
    late = share_above(
        subtract(before.first_token_buckets, after.first_token_buckets),
        after.first_token_seconds - before.first_token_seconds,
        objective.time_to_first_token,
    )
    slow = share_above(
        subtract(before.answer_pace_buckets, after.answer_pace_buckets),
        after.answer_pace_seconds - before.answer_pace_seconds,
        objective.inter_token_latency,
    )
    return Served(requests, max(late, slow) * requests, after.waiting)


def subtract(before: Buckets, after: Buckets) -> Buckets:
    """Return what was counted between two states of one histogram."""
    return tuple((edge, count - known) for (_, known), (edge, count) in zip(before, after, strict=True))


def share_above(buckets: Buckets, total: float, limit: float) -> float:
    """Return the share of values in a histogram that are above a limit in seconds, of values that sum up to `total`.

    It never rises with the limit, and is exact at an edge. Of nothing, nothing is above. Beyond the last finite edge
    everything is above any limit, since nothing tells how far: vLLM's last edges, 2560 s and 80 s, are beyond every
    objective.
    """
    count = buckets[-1][1] if buckets else 0.0
    if count <= 0:
        return 0.0
    lower, below = buckets[0][0] * LOWEST_EDGE, 0.0
    for upper, reached in buckets:
        if limit < upper:
            break
        lower, below = upper, reached
    most = max(1.0 - below / count, 0.0)
    least = max(1.0 - reached / count, 0.0)
    if limit <= lower or upper == math.inf or most <= least:
        return most
    deviations = _interpolate(_Bucket(lower, below, upper, reached), count, total / count, limit)
    return min(max(_NORMAL.cdf(-deviations), least), most)


class _Bucket(NamedTuple):
    lower: float
    below: float
    """Values at or below the lower edge."""
    upper: float
    reached: float
    """Values at or below the upper edge."""


def _interpolate(bucket: _Bucket, count: float, mean: float, limit: float) -> float:
    """Return how many standard deviations a limit within a bucket is above the median."""
    tail = max(EMPTY_TAIL, -_quantile(0.5 / count))
    empty_below, empty_above = bucket.below <= 0, bucket.reached >= count
    at_lower = -tail if empty_below else _quantile(bucket.below / count)
    at_upper = tail if empty_above else _quantile(bucket.reached / count)
    least, most = bucket.lower if empty_below else 0.0, bucket.upper if empty_above else math.inf
    possible = least < mean < most
    if possible and (empty_below or empty_above):
        by_lower = _fit_deviation(bucket.lower, mean, at_lower)
        by_upper = _fit_deviation(bucket.upper, mean, at_upper)
        # An edge with nothing beyond only says how wide the distribution may be.
        fits = (by_lower is not None or empty_below) and (by_upper is not None or empty_above)
        deviation = min((item for item in (by_lower, by_upper) if item is not None), default=None)
        if fits and deviation:
            return math.log(limit / mean) / deviation + deviation / 2.0
    position = math.log(limit / bucket.lower) / math.log(bucket.upper / bucket.lower)
    return at_lower + (at_upper - at_lower) * position


def _quantile(share: float) -> float:
    """Return the normal quantile of a share, finite for a share that is 0 or 1 but for rounding."""
    return _NORMAL.inv_cdf(min(max(share, sys.float_info.min), 1.0 - sys.float_info.epsilon))


def _fit_deviation(edge: float, mean: float, deviations: float) -> float | None:
    """Return the deviation of the logarithm of seconds at which an edge is so many deviations above the median.

    None: no log-normal distribution with this mean has that. One with deviation s has its median at
    mean * exp(-s^2 / 2), so that (ln(edge / mean) + s^2 / 2) / s is what was counted. Of two solutions the narrower.
    """
    above = math.log(edge / mean)
    square = deviations**2 - 2.0 * above
    if square < 0:
        return None
    deviation = deviations - math.copysign(math.sqrt(square), above)
    return deviation if deviation > 0 else None
