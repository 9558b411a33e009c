"""Which bounds are in force: those of the spec, or those of `scaling.schedules` whose window has begun.

A window runs from its start to `duration` later, in seconds that pass: one of ten hours stays that long when clocks
change meanwhile. A start follows the wall clock of its zone as Debian's cron does: one that clocks skip comes when they
have jumped, one that they show twice comes the first time. With `*` or `*/n` as minute or hour it comes as often as the
clock shows it: the skipped not at all, the repeated twice.

Replicas take time to start, so a minimum that is higher than the one in force counts `lead` seconds ahead. Nothing else
does: bounds that allow less or more begin with the window.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.api.quantities import parse_duration
from modelyard.api.scaling import Scaling, Schedule, find_cron_fault, known_time_zones
from modelyard.core.reasons import Code

DAY = 86_400
"""Seconds. Starts are looked up a day at a time, in UTC, and remembered."""
REMEMBERED = 32_768
"""Days that are remembered over all expressions and zones: two or three of each are asked for at a time."""

LEAD_FACTOR = 1.25
"""Start times that replicas start ahead: of starts that scatter by a tenth around their median (log-normal), 98.7 in
100 take no longer than this."""
LEAD_MARGIN = 10.0
"""Seconds beyond: until the decision is taken, its pods are made, and the gateway sends to what has become ready. Each
of the three comes within a few seconds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many replicas there may be, and for how long that holds."""

    min: int
    max: int
    schedule: str = ""
    """Name of the schedule that they come from, that of `min` if they come from two; empty: from none."""
    starts_at: float | None = None
    """Unix time at which the window of that schedule starts, where `min` counts ahead of it."""
    until: float = math.inf
    """Unix time before which they stay as they are; infinite where no schedule will change them."""
    budget: str = ""
    """Names of the budgets that lowered `max`; empty: none did."""


def lead_time(start_time: float) -> float:
    """Return how many seconds ahead of a window its replicas must start, where one start takes `start_time`."""
    return LEAD_FACTOR * start_time + LEAD_MARGIN


def bounds_at(scaling: Scaling, now: float, lead: float = 0.0) -> Bounds:
    """Return the bounds in force at `now`, Unix time; a higher minimum counts `lead` seconds before its window.

    Of what overlapping windows say of `min` the highest counts, and so of `max`, which is never below `min`. A schedule
    that cannot be read (`check_schedules`) changes nothing.
    """
    if not scaling.schedules:
        return Bounds(scaling.min, scaling.max)
    views = [_look(schedule, now) for schedule in scaling.schedules if _find_fault(schedule) is None]
    begun = [view.schedule for view in views if view.ends_at is not None]
    lowest = max((item for item in begun if item.min is not None), key=_minimum, default=None)
    highest = max((item for item in begun if item.max is not None), key=_maximum, default=None)
    low = scaling.min if lowest is None else _minimum(lowest)
    high = scaling.max if highest is None else _maximum(highest)
    source = lowest or highest
    name, starts_at = "" if source is None else source.name, None
    for view in views:
        if view.next_start - lead <= now and view.schedule.min is not None and view.schedule.min > low:
            low, name, starts_at = view.schedule.min, view.schedule.name, view.next_start
    return Bounds(low, max(low, high), name, starts_at, min(_changes(views, now, lead), default=math.inf))


def apply_bounds(deployment: LLMDeployment, bounds: Bounds) -> LLMDeployment:
    """Return the deployment as if its `scaling` had only these bounds, at all times, and no schedules."""
    spec, own = deployment.spec, deployment.spec.scaling
    if own is None or (not own.schedules and (own.min, own.max) == (bounds.min, bounds.max)):
        return deployment
    scaling = own.model_copy(update={"min": bounds.min, "max": bounds.max, "schedules": ()})
    return deployment.model_copy(update={"spec": spec.model_copy(update={"scaling": scaling})})


def check_schedules(scaling: Scaling) -> Refusal | None:
    """Return why a schedule cannot be followed, None if all can: what the API server's rules cannot tell."""
    for schedule in scaling.schedules:
        fault = _find_fault(schedule)
        if fault is not None:
            return Refusal(Code.INVALID_PARAMETER, f"schedule {schedule.name} of scaling.schedules: {fault}")
    return None


def explain_bounds(bounds: Bounds) -> str:
    """Return in a few words where the bounds come from: `by schedule sale, which starts at 2026-11-27T07:00:00Z`."""
    if not bounds.schedule:
        return ""
    ahead = ""
    if bounds.starts_at is not None:
        ahead = f", which starts at {datetime.fromtimestamp(bounds.starts_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return f"by schedule {bounds.schedule}{ahead}"


@dataclass(frozen=True, slots=True)
class _View:
    """A schedule at one moment."""

    schedule: Schedule
    ends_at: float | None
    """Unix time at which the window ends that has begun; None: none has."""
    next_start: float
    """Unix time; infinite if there is none any more."""


def _look(schedule: Schedule, now: float) -> _View:
    start, zone, day = schedule.start, schedule.time_zone, int(now // DAY)
    today = _starts(start, zone, day)
    place = bisect_right(today, now)
    following = today[place] if place < len(today) else _next_start(start, zone, day)
    duration = _seconds(schedule.duration)
    latest = today[place - 1] if place else None
    while latest is None and day * DAY > now - duration:
        day -= 1
        latest = max(_starts(start, zone, day), default=None)
    ends_at = None if latest is None or latest + duration <= now else latest + duration
    return _View(schedule, ends_at, following)


def _changes(views: Iterable[_View], now: float, lead: float) -> Iterator[float]:
    """Yield the times after `now` at which a window ends, starts, or begins to count ahead."""
    for view in views:
        if view.ends_at is not None:
            yield view.ends_at
        ahead = view.next_start - lead
        yield ahead if ahead > now else view.next_start


@lru_cache(maxsize=REMEMBERED)
def _starts(start: str, zone: str, day: int) -> tuple[float, ...]:
    """Return the starts of one UTC day, Unix times that rise."""
    return tuple(itertools.takewhile(lambda time: time < (day + 1) * DAY, _starts_from(start, zone, day)))


@lru_cache(maxsize=REMEMBERED)
def _next_start(start: str, zone: str, day: int) -> float:
    """Return the first start after a UTC day."""
    return next(_starts_from(start, zone, day + 1), math.inf)


def _starts_from(start: str, zone: str, day: int) -> Iterator[float]:
    """Yield the starts from the beginning of a UTC day on."""
    begin = day * DAY
    # The library looks for what comes after a moment. In an hour that is repeated, it begins with the first pass.
    moments = CronSim(start, datetime.fromtimestamp(begin - 1, ZoneInfo(zone)))
    return (time for time in (moment.timestamp() for moment in moments) if time >= begin)


_seconds = lru_cache(maxsize=1024)(parse_duration)


def _find_fault(schedule: Schedule) -> str | None:
    """Return what is wrong with a schedule that the API server took, None if nothing is."""
    if schedule.time_zone not in known_time_zones():
        return f"timeZone {schedule.time_zone} is not known here"
    fault = find_cron_fault(schedule.start)
    return None if fault is None else f"start {schedule.start!r}: {fault}"


def _minimum(schedule: Schedule) -> int:
    return schedule.min or 0


def _maximum(schedule: Schedule) -> int:
    return schedule.max or 0
