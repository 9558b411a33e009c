"""Which bounds schedules put in force, and when."""

from datetime import datetime

import pytest

from modelyard.api.scaling import Scaling, find_cron_fault
from modelyard.core.reasons import Code
from modelyard.core.scaling.schedules import (
    Bounds,
    apply_bounds,
    bounds_at,
    check_schedules,
    explain_bounds,
    lead_time,
)
from tests.unit.core.build import make_deployment

OFFICE = {
    "name": "office",
    "start": "0 8 * * 1-5",
    "duration": "10h",
    "timeZone": "Europe/Berlin",
    "min": 6,
    "max": 20,
}
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def scaling(*schedules, low=1, high=8) -> Scaling:
    return Scaling.model_validate({"min": low, "max": high, "schedules": schedules})


def window(start, zone="UTC", duration="1h", name="event", **bounds):
    bounds = bounds or {"min": 5, "max": 9}
    return {"name": name, "start": start, "duration": duration, "timeZone": zone, **bounds}


def sizes(spec: Scaling, time: str, lead: float = 0.0) -> tuple[int, int]:
    bounds = bounds_at(spec, at(time), lead)
    return bounds.min, bounds.max


def test_without_schedules_the_specs_bounds_hold_for_ever():
    assert bounds_at(scaling(), at("2026-11-24T12:00Z")) == Bounds(1, 8)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-24T06:59:59Z", (1, 8)),
        ("2026-11-24T07:00:00Z", (6, 20)),
        ("2026-11-24T16:59:59Z", (6, 20)),
        ("2026-11-24T17:00:00Z", (1, 8)),
        ("2026-11-28T12:00:00Z", (1, 8)),
    ],
    ids=["before", "start", "last second", "end", "Saturday"],
)
def test_a_window_replaces_the_bounds_from_its_start_to_its_end(time, expected):
    assert sizes(scaling(OFFICE), time) == expected


def test_what_a_schedule_leaves_out_stays_as_it_is():
    assert sizes(scaling(window("0 8 * * *", min=3)), "2026-11-24T08:30Z") == (3, 8)
    assert sizes(scaling(window("0 8 * * *", max=30)), "2026-11-24T08:30Z") == (1, 30)


def test_a_schedule_may_lower_both():
    night = window("0 22 * * *", duration="8h", min=0, max=2)
    assert sizes(scaling(night, low=2), "2026-11-24T23:00Z") == (0, 2)
    assert sizes(scaling(night, low=2), "2026-11-24T21:59Z", lead=300) == (2, 8)


def test_the_minimum_counts_ahead_and_makes_room_for_itself():
    spec, start = scaling(OFFICE | {"min": 12}), at("2026-11-24T07:00Z")
    assert bounds_at(spec, start - 160.1, 160.0).min == 1
    ahead = bounds_at(spec, start - 160.0, 160.0)
    assert ahead == Bounds(12, 12, "office", start, until=start)
    assert bounds_at(spec, start, 160.0) == Bounds(12, 20, "office", None, at("2026-11-24T17:00Z"))


def test_a_lower_minimum_ahead_lowers_nothing():
    both = scaling(OFFICE, window("0 12 * * *", name="lunch", min=2))
    assert bounds_at(both, at("2026-11-24T10:59:50Z"), 60).min == 6
    assert bounds_at(both, at("2026-11-24T12:30Z"), 60).min == 6


def test_of_windows_that_overlap_the_highest_of_each_bound_counts():
    spec = scaling(
        window("0 8 * * *", name="one", min=3, max=30),
        window("0 8 * * *", name="two", min=7),
        window("0 8 * * *", name="three", min=0, max=2),
    )
    found = bounds_at(spec, at("2026-11-24T08:30Z"))
    assert (found.min, found.max, found.schedule) == (7, 30, "two")


def test_a_maximum_gives_way_to_the_minimum_of_another_window():
    spec = scaling(window("0 8 * * *", name="low", min=0, max=2), window("0 8 * * *", name="high", min=7))
    assert sizes(spec, "2026-11-24T08:30Z") == (7, 7)


def test_windows_of_one_schedule_may_overlap():
    spec = scaling(window("0 * * * *", duration="90m"))
    assert sizes(spec, "2026-11-24T08:59:59Z") == (5, 9)
    assert bounds_at(spec, at("2026-11-24T09:10Z")).until == at("2026-11-24T10:00Z")


def test_the_longest_window_is_seen_to_its_last_second():
    spec = scaling(window("0 0 * * 1", duration="168h"))
    assert sizes(spec, "2026-11-29T23:59:59Z") == (5, 9)


@pytest.mark.parametrize(
    ("now", "lead", "until"),
    [
        ("2026-11-24T05:00Z", 0.0, "2026-11-24T07:00Z"),
        ("2026-11-24T05:00Z", 600.0, "2026-11-24T06:50Z"),
        ("2026-11-24T06:50Z", 600.0, "2026-11-24T07:00Z"),
        ("2026-11-24T07:00Z", 600.0, "2026-11-24T17:00Z"),
        ("2026-11-27T17:00Z", 600.0, "2026-11-30T06:50Z"),
    ],
)
def test_it_says_until_when_nothing_changes(now, lead, until):
    assert bounds_at(scaling(OFFICE), at(now), lead).until == at(until)


# Clocks: Berlin goes from 02:00 to 03:00 on 29 March 2026 at 01:00 UTC and back from 03:00 to 02:00 on 25 October 2026
# at 01:00 UTC; New York on 8 March at 07:00 UTC and on 1 November at 06:00 UTC.


@pytest.mark.parametrize(
    ("zone", "start", "begins"),
    [
        (BERLIN, "30 2 29 3 *", "2026-03-29T01:00Z"),
        (NEW_YORK, "30 2 8 3 *", "2026-03-08T07:00Z"),
    ],
)
def test_a_start_that_clocks_skip_comes_when_they_have_jumped(zone, start, begins):
    spec = scaling(window(start, zone))
    begin = at(begins)
    assert bounds_at(spec, begin - 1).until == begin
    assert [bounds_at(spec, begin + late).min for late in (-1, 0, 3599, 3600)] == [1, 5, 5, 1]


@pytest.mark.parametrize(
    ("zone", "start", "begins"),
    [
        (BERLIN, "30 2 25 10 *", "2026-10-25T00:30Z"),
        (NEW_YORK, "30 1 1 11 *", "2026-11-01T05:30Z"),
    ],
)
def test_a_start_that_clocks_show_twice_comes_the_first_time_only(zone, start, begins):
    spec = scaling(window(start, zone, duration="30m"))
    begin = at(begins)
    hits = [late for late in range(-7200, 10800, 60) if bounds_at(spec, begin + late).min == 5]
    assert hits == list(range(0, 1800, 60))


@pytest.mark.parametrize(
    ("now", "until"),
    [("2026-03-28T21:30Z", "2026-03-29T07:00Z"), ("2026-10-24T20:30Z", "2026-10-25T06:00Z")],
    ids=["ends at nine", "ends at seven"],
)
def test_a_window_is_as_long_as_it_says_when_clocks_change(now, until):
    spec = scaling(window("0 22 * * *", BERLIN, duration="10h"))
    assert bounds_at(spec, at(now)) == Bounds(5, 9, "event", None, at(until))


@pytest.mark.parametrize(("time", "expected"), [("2026-03-29T06:00Z", (5, 9)), ("2026-10-25T07:00Z", (5, 9))])
def test_the_wall_clock_counts_on_the_day_of_the_change(time, expected):
    assert sizes(scaling(window("0 8 * * *", BERLIN)), time) == expected


def test_a_window_spans_the_end_of_the_year():
    spec = scaling(window("0 22 31 12 *", NEW_YORK, duration="4h"))
    found = bounds_at(spec, at("2027-01-01T04:00Z"))
    assert (found.min, found.until) == (5, at("2027-01-01T07:00Z"))
    assert bounds_at(spec, at("2027-01-01T07:00Z"), 60).until == at("2028-01-01T02:59Z")


def test_a_leap_day_comes_in_leap_years():
    spec = scaling(window("0 8 29 2 *", BERLIN))
    assert bounds_at(spec, at("2026-03-01T00:00Z")).until == at("2028-02-29T07:00Z")
    assert sizes(spec, "2028-02-29T07:30Z") == (5, 9)
    assert sizes(spec, "2027-02-28T07:30Z") == sizes(spec, "2027-03-01T07:30Z") == (1, 8)


def test_day_of_month_or_day_of_week_may_match():
    spec = scaling(window("0 8 1 * 1"))
    assert sizes(spec, "2026-11-01T08:30Z") == sizes(spec, "2026-11-02T08:30Z") == (5, 9)
    assert sizes(spec, "2026-11-03T08:30Z") == (1, 8)


@pytest.mark.parametrize(
    ("start", "fault"),
    [
        ("@daily", "not five cron fields"),
        ("0 8 * *", "not five cron fields"),
        ("0 8 L * *", "not five cron fields"),
        ("0 8 * * 5-1", "day-of-week"),
        ("0 8 30 2 *", "day-of-month"),
        ("0 8 31 4,6 *", "day-of-month"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said(start, fault):
    assert fault in (find_cron_fault(start) or "")


@pytest.mark.parametrize(
    "start", ["0 8 * * 1-5", "0 8 29 FEB *", "*/15 0-23/2 1,15 jan-MAR sun", "0 8 31 4 1"]
)
def test_nothing_is_wrong_with_what_comes(start):
    assert find_cron_fault(start) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "0 8 * * 5-1"}, "start '0 8 * * 5-1': Bad day-of-week"),
        ({"start": "0 8 30 2 *"}, "start '0 8 30 2 *': Bad day-of-month"),
        ({"timeZone": "Europe/Bonn"}, "timeZone Europe/Bonn"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_told_and_changes_nothing(change, words):
    spec = scaling(OFFICE | {"name": "broken"} | change, window("0 8 * * *", min=3))
    refusal = check_schedules(spec)
    assert refusal is not None
    assert refusal.reason == Code.INVALID_PARAMETER
    assert "schedule broken" in refusal.message
    assert words in refusal.message
    assert sizes(spec, "2026-11-24T08:30Z") == (3, 8)


def test_schedules_that_can_be_read_are_no_refusal():
    assert check_schedules(scaling(OFFICE)) is None


def test_replicas_start_a_start_time_and_more_ahead():
    assert lead_time(120.0) == pytest.approx(160.0)


def test_where_bounds_come_from_is_said():
    assert explain_bounds(Bounds(1, 8)) == ""
    assert explain_bounds(Bounds(6, 8, "office")) == "by schedule office"
    ahead = Bounds(6, 8, "office", at("2026-11-24T07:00Z"))
    assert explain_bounds(ahead) == "by schedule office, which starts at 2026-11-24T07:00:00Z"


def test_bounds_replace_those_of_a_deployment():
    plain = {"min": 0, "max": 4, "idleAfter": "5m"}
    deployment = make_deployment(scaling=plain | {"schedules": [OFFICE]})
    changed = apply_bounds(deployment, Bounds(3, 9, "office"))
    assert changed.spec.scaling is not None
    assert (changed.spec.scaling.min, changed.spec.scaling.max) == (3, 9)
    assert changed.spec.scaling.idle_after == "5m"
    assert changed.spec.scaling.schedules == ()
    assert apply_bounds(deployment, Bounds(0, 4)) == make_deployment(scaling=plain)
    assert apply_bounds(make_deployment(scaling=plain), Bounds(0, 3)).spec.scaling.max == 3
    unchanged = make_deployment(scaling=plain)
    assert apply_bounds(unchanged, Bounds(0, 4)) is unchanged
    fixed = make_deployment(replicas=2)
    assert apply_bounds(fixed, Bounds(3, 9)) is fixed


def test_the_widest_bounds_are_those_of_spec_and_schedules_together():
    spec = scaling(window("0 8 * * *", name="a", min=0), window("0 8 * * *", name="b", max=30), low=2)
    assert (spec.lowest_min, spec.highest_max) == (0, 30)
    assert (scaling().lowest_min, scaling().highest_max) == (1, 8)
