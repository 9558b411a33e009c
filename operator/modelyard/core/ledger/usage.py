"""What was used, and what of it is new: each Envoy counts from its own start, and the ledger must count once.

A process that started again counts from zero, so all that it says is new. It is recognised by its age: a process that
goes on is older than the time since it was read last. Counts that fell are new too, whatever the age says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache

from modelyard.core.load import LoadShape
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.core.spend import SpendKey

YOUNG = 10
"""Seconds. A process that was younger when it was read last is judged by its counts alone: Envoy tells its age every
5 s (`stats_flush_interval`), so that the age of a young one says nothing. What such a process counted is lost if it
crashes, and its successor counts as much before it is read."""

SKEW = 2.0
"""Seconds by which the clocks of two operators may differ: far above what NTP leaves."""


@dataclass(frozen=True, slots=True)
class Use:
    """Requests and tokens, so far or in some time."""

    requests: int = 0
    """Answered well, or left by the client."""
    prompt: int = 0
    """Tokens of prompts as answers told, cached ones included."""
    cached: int = 0
    """Of them, those that were found in a cache."""
    completion: int = 0
    estimated_requests: int = 0
    """Requests whose answer ended before it told its usage. They are part of `requests`, their tokens are not part of
    the tokens above."""
    estimated_prompt: int = 0
    estimated_completion: int = 0

    def __add__(self, other: "Use") -> "Use":
        """Return the sum."""
        return Use(*(left + right for left, right in zip(self.values, other.values, strict=True)))

    def __bool__(self) -> bool:
        """Whether anything was used."""
        return any(self.values)

    @property
    def values(self) -> tuple[int, ...]:
        """The numbers in the order of the fields."""
        return (
            self.requests,
            self.prompt,
            self.cached,
            self.completion,
            self.estimated_requests,
            self.estimated_prompt,
            self.estimated_completion,
        )

    def since(self, before: "Use") -> "Use":
        """Return what is new; a count that fell has begun again at zero."""
        return Use(
            *(
                now - last if now >= last else now
                for now, last in zip(self.values, before.values, strict=True)
            )
        )


NOTHING = Use()
"""Nothing used."""

_USUAL = LoadShape()
"""What is charged where nothing is known of a request but that it was sent."""


def unknown_answers(count: int) -> Use:
    """Return what is charged for answers that never came, beside their prompts."""
    return Use(estimated_completion=round(count * _USUAL.output_tokens))


def lost_use(count: int) -> Use:
    """Return what is charged for attempts that were sent, and of which nothing else is known."""
    prompt = round(count * _USUAL.input_tokens)
    return Use(requests=count, estimated_requests=count, estimated_prompt=prompt) + unknown_answers(count)


USE_FIELDS = tuple(field.name for field in fields(Use))
"""Names of the numbers of `Use.values`."""


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """What one Envoy said: counts since its start."""

    time: float
    """Unix time of the reading."""
    uptime: float | None
    """Seconds since the process started, up to 5 s less; None: not known."""
    counts: Mapping[SpendKey, Use] | None
    """None: forgotten, because it was not there for long."""


@lru_cache(maxsize=1 << 16)
def spend_key(tenant: str, route: str, target: str) -> SpendKey:
    """Return the key of what was used of a target; adapters count for their deployment.

    Kept: the hours of a month have the same ones.
    """
    if not target.startswith(EXTERNAL_PREFIX):
        target = target.partition(":")[0]
    return SpendKey(tenant, (route or target).partition("/")[0], route, target)


def find_new(before: NodeCounts | None, now: NodeCounts) -> dict[SpendKey, Use]:
    """Return what an Envoy counted since it was read last.

    Of one whose counts were forgotten and that comes back without a restart, what it counted meanwhile is not known: it
    counts from here.
    """
    counts = now.counts or {}
    if before is None or _restarted(before, now):
        return {key: use for key, use in counts.items() if use}
    if before.counts is None:
        return {}
    found = {key: use.since(before.counts.get(key, NOTHING)) for key, use in counts.items()}
    return {key: use for key, use in found.items() if use}


def keep_reading(pending: tuple[NodeCounts, ...], reading: NodeCounts) -> tuple[NodeCounts, ...]:
    """Return the readings of one Envoy that are to be taken in: a newer one takes the place of the last.

    Unless the process started again in between, or a counter did: then both are needed.
    """
    if not pending:
        return (reading,)
    last = pending[-1]
    kept = pending if _restarted(last, reading) or _fell(last, reading) else pending[:-1]
    return (*kept, reading)


def _fell(before: NodeCounts, now: NodeCounts) -> bool:
    counts = now.counts or {}
    return any(
        value < last
        for key, use in (before.counts or {}).items()
        for value, last in zip(counts.get(key, NOTHING).values, use.values, strict=True)
    )


def _restarted(before: NodeCounts, now: NodeCounts) -> bool:
    """Return whether another process than before answered, as far as ages tell."""
    if before.uptime is None or now.uptime is None:
        return False
    if now.uptime < before.uptime:
        return True
    return before.uptime >= YOUNG and now.uptime < now.time - before.time + SKEW
