import bisect
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.enginemetrics import parse_engine
from modelyard.core.load import Objective
from modelyard.core.servicequality import count_missed, share_above, subtract
from tests.unit.core.enginepages import FIXTURE, Engine

READING = parse_engine("vLLM", FIXTURE, 0.0)
FIRST_TOKEN = tuple(edge for edge, _ in READING.first_token_buckets)
PACE = tuple(edge for edge, _ in READING.answer_pace_buckets)
EDGES = st.sampled_from([FIRST_TOKEN, PACE])
SECONDS = st.floats(1e-4, 1e4)


def bucket(edges, values):
    """The histogram of values."""
    ordered = sorted(values)
    return tuple((edge, float(bisect.bisect_right(ordered, edge))) for edge in edges)


def estimate(edges, values, limit):
    return share_above(bucket(edges, values), sum(values), limit)


def share_of(values, limit):
    return sum(value > limit for value in values) / len(values)


def sample(median, deviation, count=5000, seed=0):
    return (median * np.exp(np.random.default_rng(seed).normal(0.0, deviation, count))).tolist()


@given(edges=EDGES, values=st.lists(SECONDS, min_size=1, max_size=60), limits=st.lists(SECONDS, min_size=2))
def test_the_share_never_rises_with_the_limit(edges, values, limits):
    shares = [estimate(edges, values, limit) for limit in sorted([*limits, *edges[:-1]])]
    assert all(0 <= share <= 1 for share in shares)
    assert shares == sorted(shares, reverse=True)


@given(edges=EDGES, values=st.lists(SECONDS, min_size=1, max_size=60))
def test_the_share_is_exact_at_edges(edges, values):
    for edge in edges[:-1]:
        assert estimate(edges, values, edge) == pytest.approx(share_of(values, edge), abs=1e-12)


@given(edges=EDGES, values=st.lists(SECONDS, min_size=1, max_size=60), limit=SECONDS)
def test_the_share_is_between_those_at_the_edges_around(edges, values, limit):
    upper = next(edge for edge in edges if limit < edge or edge == math.inf)
    lower = max((edge for edge in edges if edge <= limit), default=0.0)
    share = estimate(edges, values, limit)
    assert share_of(values, upper) - 1e-12 <= share <= share_of(values, lower) + 1e-12


@settings(max_examples=60)
@given(
    edges=EDGES,
    limit=st.floats(0.05, 5.0),
    deviation=st.floats(0.3, 1.2),
    distance=st.floats(-3.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_log_normal_latencies_are_recovered(edges, limit, deviation, distance, seed):
    values = sample(limit * math.exp(distance * deviation), deviation, seed=seed)
    assert estimate(edges, values, limit) == pytest.approx(share_of(values, limit), abs=0.05)


@pytest.mark.parametrize("count", [30, 300, 5000])
@pytest.mark.parametrize(
    ("median", "deviation", "error"),
    [
        (0.028, 0.05, 0.002),
        (0.030, 0.08, 0.002),
        (0.034, 0.08, 0.05),
        (0.039, 0.08, 0.05),
        (0.046, 0.08, 0.03),
    ],
)
def test_latencies_within_one_bucket_are_told_by_their_mean(count, median, deviation, error):
    samples = [sample(median, deviation, count, seed) for seed in range(50)]
    estimated = np.mean([estimate(PACE, values, 0.04) for values in samples])
    assert estimated == pytest.approx(np.mean([share_of(values, 0.04) for values in samples]), abs=error)


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_answers_that_all_take_the_same_are_good_below_the_limit_and_missed_above(count):
    assert estimate(PACE, [0.030] * count, 0.04) < 0.001
    assert estimate(PACE, [0.048] * count, 0.04) > 0.99


def test_nothing_counted_is_nothing_missed():
    assert share_above((), 0.0, 1.0) == 0
    assert share_above(tuple((edge, 0.0) for edge in PACE), 0.0, 0.04) == 0


def test_beyond_the_last_edge_everything_is_missed():
    values = [1.0, 1.0, 100.0, 200.0]
    assert estimate(PACE, values, 80.0) == estimate(PACE, values, 150.0) == 0.5
    assert estimate((math.inf,), values, 150.0) == 1


def test_below_the_first_edge_the_mean_tells():
    assert estimate(PACE, [0.004] * 100, 0.008) < 0.02
    assert estimate(PACE, [0.008] * 100, 0.004) > 0.98
    assert estimate(PACE, [0.008] * 100, 0.001) == 1


def test_an_impossible_mean_leaves_the_line_through_the_edges():
    histogram = bucket(PACE, [0.01] * 50 + [0.03] * 50)
    shares = [share_above(histogram, total, 0.04) for total in (0.0, 1e-9, 1e9)]
    assert shares[0] == shares[1] == shares[2]
    assert 0 < shares[0] < 0.1


COUNT = st.floats(0, 100) | st.floats(0) | st.sampled_from([5e-324, 1e-300, 2.0**53, 2.0**53 + 2, 1e308])


@settings(max_examples=500)
@given(
    counts=st.lists(COUNT.filter(math.isfinite), min_size=len(PACE), max_size=len(PACE)),
    total=COUNT.filter(math.isfinite),
    limit=SECONDS,
)
def test_no_histogram_makes_more_than_all_missed(counts, total, limit):
    assert 0 <= share_above(tuple(zip(PACE, counts, strict=True)), total, limit) <= 1


def serve(engine, seconds=60.0):
    """Two readings of one engine."""
    engine.work(1000.0)
    before = parse_engine("vLLM", engine.page(), 0.0)
    engine.work(seconds)
    return before, parse_engine("vLLM", engine.page(), seconds)


def test_what_was_served_between_two_readings_counts():
    before, after = serve(Engine(batch=8, inter_token=0.02, first_token=1.5, output_tokens=100))
    served = count_missed(before, after, Objective(2.0, 1.0))
    late = 1 - Engine(batch=8, inter_token=0.02).share_below(1.5, 2.0)
    assert served.requests == pytest.approx(8 * 60 / 0.02 / 100)
    assert served.missed == pytest.approx(late * served.requests, rel=0.02)


@pytest.mark.parametrize(
    ("objective", "mean", "limit"),
    [
        (Objective(2.0, 1.0), 1.5, 2.0),
        (Objective(60.0, 0.04), 0.035, 0.04),
        (Objective(2.0, 0.04), 0.035, 0.04),
    ],
)
def test_the_larger_share_counts(objective, mean, limit):
    engine = Engine(batch=8, inter_token=0.035, first_token=1.5)
    served = count_missed(*serve(engine), objective)
    expected = 1 - engine.share_below(mean, limit)
    assert served.missed / served.requests == pytest.approx(expected, rel=0.05)


def test_an_engine_that_did_nothing_served_nothing():
    before, _ = serve(Engine(batch=8, inter_token=0.02))
    assert count_missed(before, replace(before, time=60.0), Objective()) == (0, 0, 0)


@pytest.mark.parametrize("name", ["first_token_buckets", "answer_pace_buckets"])
def test_a_page_without_histograms_tells_nothing(name):
    before, after = (replace(reading, **{name: ()}) for reading in serve(Engine(batch=8, inter_token=0.02)))
    assert count_missed(before, after, Objective()) is None


def test_counts_of_one_histogram_are_subtracted():
    assert subtract(((1.0, 1.0), (math.inf, 2.0)), ((1.0, 4.0), (math.inf, 9.0))) == (
        (1.0, 3.0),
        (math.inf, 7.0),
    )
