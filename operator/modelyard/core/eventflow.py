"""Which Kubernetes Events are written: what repeats is counted, and one object cannot flood the API server.

The numbers are those of the recorder that Kubernetes' own controllers use
(https://github.com/kubernetes/client-go/blob/v0.37.0/tools/record/events_cache.go).
"""

from dataclasses import dataclass, replace
from typing import Literal

WINDOW = 600.0
"""Seconds within which an Event repeats an earlier one."""
SIMILAR = 10
"""Events of one object, type and reason but different messages within the window, before further ones are counted on
the newest of them."""
BURST = 25
"""Writes of Events of one object at once."""
REFILL_SECONDS = 300.0
"""Seconds until one more may be written."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What an Event says."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Standing:
    """An Event that was written."""

    topic: Topic
    last: float
    """Unix time of its last occurrence."""
    name: str = ""
    """Name of the object; empty until it is known."""
    count: int = 1
    """Occurrences, those that were not written included."""


@dataclass(frozen=True, slots=True)
class EventFlow:
    """What was written about one object lately."""

    tokens: float = BURST
    """Writes that are left."""
    counted_at: float = 0.0
    """Unix time of that number."""
    standing: tuple[Standing, ...] = ()
    """Oldest first."""


Action = Literal["create", "repeat", "suppress"]


def admit(flow: EventFlow, topic: Topic, now: float) -> tuple[EventFlow, Action, Standing]:
    """Return what to do with an Event, and the state after it. The Standing is the one to create or to write again.

    `now`: Unix time in seconds, that of the last call or later.
    """
    standing = tuple(item for item in flow.standing if now - item.last <= WINDOW)
    tokens = min(flow.tokens + max(now - flow.counted_at, 0.0) / REFILL_SECONDS, BURST)
    earlier = _find_earlier(standing, topic)
    after = Standing(topic, now) if earlier is None else replace(earlier, last=now, count=earlier.count + 1)
    others = tuple(item for item in standing if item is not earlier)
    if tokens < 1:
        # Occurrences of what stands are written with the next one; what is new has nothing to stand on.
        kept = standing if earlier is None else (*others, after)
        return EventFlow(tokens, now, kept), "suppress", after
    after = replace(after, topic=topic)
    action: Action = "repeat" if after.name else "create"
    return EventFlow(tokens - 1, now, (*others, after)), action, after


def name_event(flow: EventFlow, topic: Topic, name: str) -> EventFlow:
    """Return the state with the name of the Event that stands for a topic; an empty name: none does."""
    named = (replace(item, name=name) if item.topic == topic else item for item in flow.standing)
    return replace(flow, standing=tuple(item for item in named if item.name))


def _find_earlier(standing: tuple[Standing, ...], topic: Topic) -> Standing | None:
    """Return what an Event repeats: the same one, or the newest where there are many that are similar."""
    for item in standing:
        if item.topic == topic:
            return item
    similar = [
        item for item in standing if (item.topic.type, item.topic.reason) == (topic.type, topic.reason)
    ]
    return similar[-1] if len(similar) >= SIMILAR else None
