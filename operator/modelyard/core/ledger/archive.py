"""Which objects the ledger has, and when hours become days.

One object is open and changes. Each hour that is over has one that never changes, whoever writes it: it is made from
what is settled. After `KEPT_DAYS` the hours of a day become its sum; the day is written before its hours are deleted,
and hours of which there is a day are not counted.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from modelyard.core.ledger.book import Ledger
from modelyard.core.ledger.codec import Archive
from modelyard.core.ledger.settle import Line, sum_lines
from modelyard.core.spend import HOUR, SpendLine

OPEN_NAME = "modelyard-ledger"
"""Name of the object that changes."""

DAY = 24 * HOUR
"""Seconds."""

KEPT_DAYS = 35
"""Days whose hours are kept: a month of 31, and some to look at it."""

KEPT_SUMS = 400
"""Days whose sums are kept: a year, and a month to compare."""


Period = tuple[int, int]
"""Start and length of an archive, in Unix time and seconds."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next thing to do with archives. At most one of the three is set."""

    write: Archive | None = None
    add_up: tuple[Period, ...] = ()
    """Hours of one day that become its sum."""
    delete: tuple[Period, ...] = ()


def archive_name(start: int, seconds: int) -> str:
    """Return the name of the object of an hour or a day, in UTC."""
    begin = datetime.fromtimestamp(start, UTC)
    return f"{OPEN_NAME}-{begin:%Y-%m-%d}" + (f"-{begin:%H}" if seconds == HOUR else "")


def next_step(ledger: Ledger, known: Collection[Period], now: float) -> Step:
    """Return what is to be done next; an empty step if nothing is. `known` are the archives that exist."""
    for item in ledger.settled:
        if (item.start, HOUR) not in known:
            return Step(write=Archive(item.start, HOUR, item.lines))
    oldest = (int(now // DAY) - KEPT_DAYS) * DAY
    open_days = {find_day(item.start) for item in ledger.settled}
    for start, seconds in sorted(known):
        day = find_day(start)
        if seconds == HOUR and day < oldest and day not in open_days:
            hours = tuple(sorted(item for item in known if item[1] == HOUR and find_day(item[0]) == day))
            return Step(delete=hours) if (day, DAY) in known else Step(add_up=hours)
        if seconds == DAY and start < oldest - KEPT_SUMS * DAY:
            return Step(delete=((start, DAY),))
    return Step()


def add_up(hours: Iterable[Archive]) -> Archive:
    """Return the sum of the day that some hours, at least one, belong to."""
    found = list(hours)
    lines = sum_lines(line for item in found for line in item.lines)
    return Archive(find_day(found[0].start), DAY, lines)


def find_day(start: int) -> int:
    """Return when the day of an hour begins, in UTC."""
    return start - start % DAY


def select_counted(known: Collection[Period], ledger: Ledger) -> list[Period]:
    """Return the archives that count, oldest first: no hour of a day that has its sum, none that the open part has.

    Archives may have been read after the open part, when what was open then was archived already.
    """
    settled = {(item.start, HOUR) for item in ledger.settled}
    end = math.inf if ledger.hour is None else ledger.hour.start
    return sorted(
        item
        for item in known
        if item[0] < end and item not in settled and (item[1] == DAY or (find_day(item[0]), DAY) not in known)
    )


def spend_lines(start: int, lines: Iterable[Line]) -> tuple[SpendLine, ...]:
    """Return settled lines as budgets read them. What has no price is not among them: it is not known."""
    return tuple(
        SpendLine(start, line.key, line.kind, line.dollars, line.estimated) for line in lines if line.dollars
    )
