"""Laws of periods: they partition time, in every zone."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.budget.period import period_at
from modelyard.core.spend import HOUR
from tests.property.budgetcases import KINDS, ZONES

LONGEST = {"Day": 25 * HOUR, "Week": 169 * HOUR, "Month": 31 * 24 * HOUR + HOUR}
moments = st.floats(
    datetime(1995, 1, 1, tzinfo=UTC).timestamp(), datetime(2037, 1, 1, tzinfo=UTC).timestamp()
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(ZONES), moments)
def test_every_moment_is_in_one_period_and_the_next_begins_where_it_ends(kind: Any, zone: str, now: float):
    period = period_at(kind, zone, now)
    assert period.begin <= now < period.end
    assert period.end - period.begin <= LONGEST[kind]
    assert period_at(kind, zone, period.begin) == period
    assert period_at(kind, zone, period.end - 0.001) == period
    after = period_at(kind, zone, period.end)
    assert after.begin == period.end
    assert 0 <= period.begin - period.first_hour < HOUR
    begin = datetime.fromtimestamp(period.begin, ZoneInfo(zone))
    if kind == "Week":
        # A skipped Monday begins its week on the day after.
        assert begin.weekday() in {0, 1}
    if kind == "Month":
        assert begin.day == 1


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(ZONES), moments, moments)
def test_a_later_moment_is_in_no_earlier_period(kind: Any, zone: str, one: float, other: float):
    first, second = (period_at(kind, zone, now) for now in sorted((one, other)))
    assert first == second or first.end <= second.begin
