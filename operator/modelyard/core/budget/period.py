"""Periods of the calendar: days, weeks and months as the clocks of a time zone show them.

They partition time: each moment is in exactly one period of a kind and zone. A day has 23 or 25 hours where clocks
change, and one that a zone skipped (Apia, 30 December 2011) has none.

What was spent is known by whole hours of UTC. In zones whose offset is no whole number of hours a period begins within
one of them; that hour counts for both periods, so the sum is never too low, and too high by one hour's spend at most.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from modelyard.core.spend import HOUR

PeriodKind = Literal["Day", "Week", "Month"]


@dataclass(frozen=True, slots=True)
class Period:
    """From `begin` up to and without `end`, Unix times."""

    begin: float
    end: float

    @property
    def first_hour(self) -> float:
        """Unix time at which the first hour of UTC begins that has a part in the period."""
        return self.begin - self.begin % HOUR


@lru_cache(maxsize=1024)
def _period_of(kind: PeriodKind, zone: str, day: date) -> Period:
    """Return the period that a day of the calendar belongs to."""
    first = _first_day(kind, day)
    return Period(_midnight(first, zone), _midnight(_following(kind, first), zone))


def period_at(kind: PeriodKind, zone: str, now: float) -> Period:
    """Return the period that a moment, Unix time, lies in.

    Raises zoneinfo.ZoneInfoNotFoundError for a zone that is not known here.
    """
    day = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(zone)).date()
    period = _period_of(kind, zone, day)
    # Where clocks jump over midnight, the first minutes that show the new day may lie before what counts as its begin.
    while now < period.begin:
        day = _first_day(kind, day) - timedelta(days=1)
        period = _period_of(kind, zone, day)
    while now >= period.end:
        day = _following(kind, _first_day(kind, day))
        period = _period_of(kind, zone, day)
    return period


def _first_day(kind: PeriodKind, day: date) -> date:
    if kind == "Week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if kind == "Month" else day


def _following(kind: PeriodKind, first: date) -> date:
    """Return the first day of the next period."""
    if kind == "Month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if kind == "Week" else 1)


def _midnight(day: date, zone: str) -> float:
    """Return the Unix time of a day's 00:00: the first of two, and the moment of the jump where there is none."""
    return datetime.combine(day, time(), tzinfo=ZoneInfo(zone)).timestamp()
