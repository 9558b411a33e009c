"""A token bucket in whole numbers: what a minute allows is there at once, and flows back evenly.

In any time t at most `limit * (1 + t / minute)` is taken, plus the debt of one amount that was not known before.
"""

from dataclasses import dataclass, replace
from typing import Final

MINUTE: Final = 60 * 10**9
"""Nanoseconds."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit per minute, and what is left of it. Times are nanoseconds of a clock that never goes back."""

    limit: int
    """Requests or tokens per minute, at least 1."""
    level: int
    """What may be taken, in parts of 1/MINUTE, so that a nanosecond's inflow is a whole number. Negative: debt."""
    at: int
    """When the level was worked out."""

    @property
    def capacity(self) -> int:
        """The highest level."""
        return self.limit * MINUTE


def fill(limit: int, now: int) -> Bucket:
    """Return a full bucket."""
    return Bucket(limit, limit * MINUTE, now)


def advance(bucket: Bucket, now: int) -> Bucket:
    """Return the bucket with what has flowed back by `now`; a time before the last one changes nothing."""
    elapsed = max(0, now - bucket.at)
    level = min(bucket.capacity, bucket.level + elapsed * bucket.limit)
    return replace(bucket, level=level, at=bucket.at + elapsed)


def take(bucket: Bucket, amount: int, now: int) -> Bucket:
    """Return the bucket without an amount, whether it is there or not: what lacks is a debt."""
    current = advance(bucket, now)
    return replace(current, level=current.level - amount * MINUTE)


def resize(bucket: Bucket, limit: int, now: int) -> Bucket:
    """Return the bucket under another limit. What was used stays used."""
    current = advance(bucket, now)
    used = current.capacity - current.level
    return Bucket(limit, limit * MINUTE - used, current.at)


def remaining(bucket: Bucket) -> int:
    """Return how many whole ones may be taken."""
    return max(0, bucket.level // MINUTE)


def wait(bucket: Bucket, level: int) -> int:
    """Return the nanoseconds from `bucket.at` until its level is reached, if nothing is taken meanwhile."""
    return max(0, -((bucket.level - level) // bucket.limit))
