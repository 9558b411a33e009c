"""What holds for all schedules, at all times, in all zones."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api.scaling import Scaling, find_cron_fault
from modelyard.api.validation import validate
from modelyard.core.scaling.schedules import bounds_at
from tests.apiserver.manifests import manifest

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Atlantic/Azores",
    "America/Havana",
)
"""Offsets of whole hours and others, changes of an hour and of half an hour, at midnight and later."""

times = st.floats(
    datetime(2024, 1, 1, tzinfo=UTC).timestamp(), datetime(2031, 1, 1, tzinfo=UTC).timestamp()
).map(lambda value: round(value * 4) / 4)
leads = st.sampled_from([0.0, 37.5, 160.0, 4000.0])
minutes = st.sampled_from(["0", "30", "*/15", "59", "7,37"])
hours = st.sampled_from(["0", "2", "23", "*", "8-18/2", "1,2,3"])
days = st.sampled_from(["*", "1", "29", "31", "1-7"])
months = st.sampled_from(["*", "2", "3,10,11", "12"])
weekdays = st.sampled_from(["*", "1-5", "SUN", "0,3", "6-7"])
expressions = st.tuples(minutes, hours, days, months, weekdays).map(" ".join)


@st.composite
def schedules(draw: st.DrawFn, name: str) -> dict[str, object]:
    low = draw(st.none() | st.integers(0, 9))
    high = draw(st.integers(10, 20) if low is None else st.none() | st.integers(max(low, 1), 20))
    return {
        "name": name,
        "start": draw(expressions),
        "duration": draw(st.sampled_from(["1m", "45m", "10h", "168h"])),
        "timeZone": draw(st.sampled_from(ZONES)),
        **({} if low is None else {"min": low}),
        **({} if high is None else {"max": high}),
    }


@st.composite
def scalings(draw: st.DrawFn) -> Scaling:
    names = ("one", "two", "three")[: draw(st.integers(0, 3))]
    document = {"min": draw(st.integers(0, 9)), "max": 9, "schedules": [draw(schedules(n)) for n in names]}
    document["schedules"] = [item for item in document["schedules"] if not find_cron_fault(item["start"])]
    return Scaling.model_validate(document)


# A first look at a day of an expression takes longer than later ones, and longer on a busy machine.
unhurried = settings(deadline=None, max_examples=150)


@unhurried
@given(scalings(), times, leads)
def test_bounds_are_bounds_and_stay_within_the_widest(scaling, now, lead):
    found = bounds_at(scaling, now, lead)
    assert 0 <= found.min <= found.max
    assert scaling.lowest_min <= found.min
    assert found.max <= max(scaling.highest_max, found.min)
    if not found.schedule:
        assert (found.min, found.max) == (scaling.min, scaling.max)


@unhurried
@given(scalings(), times, leads, st.floats(0, 1, exclude_max=True))
def test_nothing_changes_before_the_time_that_is_said(scaling, now, lead, part):
    found = bounds_at(scaling, now, lead)
    assert found.until > now
    later = now + min(found.until - now, 1e8) * part
    if later < found.until:
        again = bounds_at(scaling, later, lead)
        assert (again.min, again.max, again.schedule) == (found.min, found.max, found.schedule)
        assert again.until == found.until


@unhurried
@given(scalings(), times, leads, st.floats(0, 1))
def test_a_minimum_holds_already_one_lead_before_a_window_asks_for_it(scaling, now, lead, part):
    asked = bounds_at(scaling, now)
    before = bounds_at(scaling, now - lead * part, lead)
    assert bounds_at(scaling, now, lead).min >= asked.min
    if asked.schedule and asked.min > scaling.min:
        assert before.min >= asked.min


@unhurried
@given(scalings(), times, leads)
def test_looking_again_says_the_same(scaling, now, lead):
    assert bounds_at(scaling, now, lead) == bounds_at(scaling, now, lead)


@settings(deadline=None, max_examples=300)
@given(
    st.dates(date(2024, 1, 1), date(2030, 12, 30)),
    st.integers(0, 23),
    st.integers(0, 59),
    st.sampled_from(ZONES),
    st.integers(-7200, 7200),
)
def test_a_fixed_time_of_day_starts_once_a_day_and_in_a_gap_at_its_end(day, hour, minute, zone, late):
    """Against the time zone database alone: where a local time does not exist, both its readings miss it."""
    schedule = {
        "name": "daily",
        "start": f"{minute} {hour} * * *",
        "duration": "30m",
        "timeZone": zone,
        "min": 5,
    }
    scaling = Scaling.model_validate({"min": 1, "max": 9, "schedules": [schedule]})
    now = first_moment(datetime.combine(day, time(hour, minute)), ZoneInfo(zone)) + late
    begun = [
        first_moment(datetime.combine(day + timedelta(days=offset), time(hour, minute)), ZoneInfo(zone))
        for offset in (-1, 0, 1)
    ]
    expected = 5 if any(start <= now < start + 1800 for start in begun) else 1
    assert bounds_at(scaling, now).min == expected


def first_moment(local: datetime, zone: ZoneInfo) -> float:
    """Return the first Unix time at which clocks in the zone show this or, having skipped it, something later."""
    while local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        local += timedelta(minutes=1)
    return local.replace(tzinfo=zone, fold=0).timestamp()


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="0123456789*/,- LFRISUN#@?", min_size=9, max_size=24) | expressions)
def test_a_start_that_validation_takes_can_be_followed(start):
    document = manifest(
        "LLMDeployment",
        "any",
        model={"source": "hf://org/repository"},
        scaling={"max": 2, "schedules": [{"name": "a", "start": start, "duration": "1h", "min": 2}]},
    )
    accepted = not validate(document)
    assert accepted == (find_cron_fault(start) is None)
    if accepted:
        scaling = Scaling.model_validate(document["spec"]["scaling"])
        assert bounds_at(scaling, datetime(2026, 1, 1, tzinfo=UTC).timestamp()).until < float("inf")
