"""`modelyard simulate` with schedules: when the traffic begins, and what a window does."""

import numpy as np
import pytest

from modelyard.cli.simulateload import find_beginning
from tests.unit.cli.simulating import chat, only_run, simulate, simulated, write_trace

QUIET = "poisson:rate=0.1,minutes=90"
WINDOW = {"name": "lesson", "start": "0 9 * * 1", "duration": "30m", "min": 4, "max": 8}


def scheduled(**changes):
    return chat(scaling={"min": 1, "max": 6, "schedules": [WINDOW | changes]})


def replicas(report, field="ready"):
    """Replicas by minute of the run."""
    series = only_run(report)["series"]
    return dict(zip((np.array(series["time"]) / 60).round(2), series[field], strict=True))


def test_replicas_serve_when_a_window_starts_and_leave_after_its_end(tmp_path):
    # Starts take what the decision assumes before it has seen one: with longer ones the first window comes late.
    report = simulated(tmp_path, [scheduled()], "--synthetic", QUIET, "--begin", "2027-01-18T08:30")
    setting, ready = report["deployments"][0]["setting"], replicas(report)
    assert (setting["begin"], setting["minimum"], setting["maximum"]) == ("2027-01-18T08:30:00Z", 1, 8)
    assert all(count < 4 for minute, count in ready.items() if minute < 27)
    assert all(count >= 4 for minute, count in ready.items() if 30 <= minute < 60)
    assert ready[max(ready)] < 4
    first = only_run(report)["decisions"][0]
    assert (first["reason"], first["toReplicas"]) == ("Scheduled", 4)
    assert "schedule lesson, which starts at 2027-01-18T09:00:00Z" in first["message"]


def test_a_sleeping_model_is_awake_for_its_window_and_sleeps_again(tmp_path):
    item = chat(scaling={"min": 0, "max": 6, "idleAfter": "5m", "schedules": [WINDOW]})
    trace = write_trace(tmp_path, ["0.0,500,50", "5400,500,50"])
    report = simulated(tmp_path, [item], "--trace", trace, "--begin", "2027-01-18T08:30")
    ready = replicas(report)
    assert ready[20.0] == 0
    assert all(count >= 4 for minute, count in ready.items() if 30 <= minute < 60)
    assert ready[85.0] == 0


def test_a_run_that_begins_in_a_window_begins_with_its_replicas(tmp_path):
    report = simulated(tmp_path, [scheduled()], "--synthetic", QUIET, "--begin", "2027-01-18T09:10Z")
    assert report["deployments"][0]["setting"]["initial"] == 4


def test_without_a_date_the_traffic_begins_on_a_monday(tmp_path):
    report = simulated(tmp_path, [scheduled()], "--synthetic", QUIET)
    assert report["deployments"][0]["setting"]["begin"] == "2027-01-18T00:00:00Z"


def test_without_schedules_no_date_is_told(tmp_path):
    report = simulated(tmp_path, [chat()], "--synthetic", "poisson:rate=1,minutes=5")
    assert "begin" not in report["deployments"][0]["setting"]


def test_the_date_of_the_trace_counts(tmp_path):
    rows = ["2024-05-06T08:50:10Z,500,50", "2024-05-06T08:40:00Z,500,50", "2024-05-06T09:20:00Z,500,50"]
    report = simulated(tmp_path, [scheduled()], "--trace", write_trace(tmp_path, rows))
    assert report["deployments"][0]["setting"]["begin"] == "2024-05-06T08:40:00Z"
    assert (
        "schedule lesson" in simulate(tmp_path, [scheduled()], "--trace", write_trace(tmp_path, rows)).stdout
    )


@pytest.mark.parametrize(
    ("header", "rows", "expected"),
    [
        ("timestamp,input_tokens,output_tokens", ["1715000000.5,1,1", "1714999999,1,1"], 1714999999.0),
        ("timestamp,input_tokens,output_tokens", ["5,1,1"], None),
        ("time,input_tokens,output_tokens", ["1715000000,1,1"], None),
        ("TIMESTAMP,ContextTokens,GeneratedTokens", ["2023-11-16 18:17:03.97,1,1"], 1700158623.97),
        ("Timestamp,Request tokens,Response tokens", ["1715000000,1,1"], None),
        ("timestamp,input_length,output_length", ["1715000000000,1,1"], None),
    ],
)
def test_which_times_are_dates(tmp_path, header, rows, expected):
    assert find_beginning(write_trace(tmp_path, rows, header)) == expected


@pytest.mark.parametrize("date", ["monday", "1969-01-01", "2027-01-18T25:00"])
def test_a_wrong_date_is_named(tmp_path, date):
    result = simulate(tmp_path, [chat()], "--synthetic", "poisson:rate=1", "--begin", date)
    assert result.exit_code == 2
    assert "--begin" in result.output


def test_the_variant_is_chosen_for_what_a_schedule_allows(tmp_path):
    """At 30 requests/s, more than the spec's own bounds allow: the window's maximum carries them."""
    item = chat(scaling={"min": 1, "max": 2, "schedules": [WINDOW | {"min": 12, "max": 30}]})
    load = "poisson:rate=30,minutes=15,input=300,output=50"
    report = simulated(tmp_path, [item], "--synthetic", load, "--begin", "2027-01-18T09:00")
    run = only_run(report)
    assert run["peakReplicas"] >= 12
    assert report["deployments"][0]["setting"]["initial"] >= 12
