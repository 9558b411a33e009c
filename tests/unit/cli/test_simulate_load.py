"""The traffic of a simulation: what the options and the trace's columns mean."""

import numpy as np
import pytest

from modelyard.cli.manifests import InputError
from modelyard.cli.simulateload import change_speed, parse_speed, parse_synthetic, read_arrivals
from modelyard.core.load import LoadShape
from tests.unit.cli.simulating import write_trace

SHAPE = LoadShape(1000, 100)
LABELLED = "time,input_tokens,output_tokens,deployment"


@pytest.mark.parametrize(("text", "speed"), [("2x", 2.0), ("0.5x", 0.5), ("3", 3.0), (" 1.25x ", 1.25)])
def test_speed(text, speed):
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "x", "0", "-1x", "2xx", "1e3x", "10001x", "nan"])
def test_what_is_no_speed(text):
    with pytest.raises(InputError, match="--speed"):
        parse_speed(text)


@pytest.mark.parametrize(
    ("text", "duration", "rate"),
    [
        ("poisson:rate=5,hours=1", 3600, 5),
        ("poisson:rate=5", 3600, 5),
        ("poisson:rate=5,hours=1,minutes=30", 5400, 5),
        ("step:before=0,after=10,at=1800", 3600, 5),
        ("sinusoid:low=0,high=10,period=600,minutes=60", 3600, 5),
        ("bursts:rate=5,cv=2,seconds=3600", 3600, 5),
    ],
)
def test_synthetic_traffic_has_its_rate_and_length(text, duration, rate):
    arrivals = parse_synthetic(text).build(SHAPE, seed=1)
    assert arrivals.duration == duration
    assert len(arrivals) / duration == pytest.approx(rate, rel=0.1)


def test_synthetic_requests_have_the_shape_of_the_spec_unless_told_otherwise():
    drawn = parse_synthetic("poisson:rate=20").build(SHAPE, seed=1)
    assert np.mean(drawn.input_tokens) == pytest.approx(1000, rel=0.05)
    assert np.mean(drawn.output_tokens) == pytest.approx(100, rel=0.05)
    told = parse_synthetic("poisson:rate=1,input=7,output=3,input-cv=0,output-cv=0").build(SHAPE, seed=1)
    assert (set(told.input_tokens), set(told.output_tokens)) == ({7}, {3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("square:rate=5", "'square' is none of poisson, step, sinusoid, bursts"),
        ("poisson:hours=1", "rate is missing: write poisson:rate=1,hours=1"),
        ("poisson:rate=5,days=1", "'days' is none of rate, hours"),
        ("poisson:rate=fast", "rate='fast' is no number"),
        ("poisson:rate=-1", "must be 0 or more"),
        ("poisson:rate=inf", "must be 0 or more, and finite"),
        ("poisson:rate=1000000,hours=1000", "at most a year"),
        ("poisson:rate=1,hours=9000", "at most a year"),
    ],
)
def test_what_is_no_synthetic_traffic(text, message):
    with pytest.raises(InputError, match=message):
        parse_synthetic(text)


@pytest.mark.parametrize(
    "text", ["sinusoid:low=5,high=1,period=60", "bursts:rate=1,cv=0", "poisson:rate=1,input=0"]
)
def test_values_that_cannot_be_are_named(text):
    with pytest.raises(InputError, match="--synthetic"):
        parse_synthetic(text).build(SHAPE, seed=1)


def test_a_trace_without_the_column_is_for_all(tmp_path):
    found = read_arrivals(write_trace(tmp_path, ["0,10,5", "4,10,5"]))
    assert list(found) == [None]


def test_deployments_share_the_beginning_and_the_end(tmp_path):
    rows = ["5,10,1,b", "0,20,1,a", "2,30,1,b", "9,40,1,a", "2,50,1,a"]
    found = read_arrivals(write_trace(tmp_path, rows, LABELLED))
    assert sorted(found) == ["a", "b"]
    assert [(list(item.time), list(item.input_tokens)) for item in (found["a"], found["b"])] == [
        ([0, 2, 9], [20, 50, 40]),
        ([2, 5], [30, 10]),
    ]
    assert found["a"].duration == found["b"].duration > 9


def test_deployments_by_date(tmp_path):
    rows = ["2026-01-01T00:00:10,1,1,b", "2026-01-01T00:00:00Z,2,1,a"]
    found = read_arrivals(write_trace(tmp_path, rows, LABELLED.replace("time,", "timestamp,")))
    assert (list(found["a"].time), list(found["b"].time)) == ([0.0], [10.0])


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (LABELLED, ["0,1,1,a", "1,1,1,"], "line 3, column deployment"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens,deployment", ["0,1,1,a"], "input_tokens"),
        ("a,b", ["0,1"], "columns 'a', 'b'"),
    ],
)
def test_a_wrong_trace_says_where(tmp_path, header, rows, message):
    with pytest.raises(InputError, match=message):
        read_arrivals(write_trace(tmp_path, rows, header))


def test_json_lines_that_lose_the_column(tmp_path):
    path = tmp_path / "trace.jsonl"
    row = '{"time": 0, "input_tokens": 1, "output_tokens": 1'
    path.write_text(f'{row}, "deployment": "a"}}\n{row}}}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2: column deployment is missing"):
        read_arrivals(path)


def test_too_many_requests_are_refused_before_they_are_made():
    arrivals = parse_synthetic("poisson:rate=100").build(SHAPE, seed=1)
    with pytest.raises(InputError, match="--speed"):
        change_speed(arrivals, 10_000, seed=1)
    assert change_speed(arrivals, 1.0, seed=1) is arrivals
