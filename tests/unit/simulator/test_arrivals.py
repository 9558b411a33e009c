"""Synthetic arrivals, transformations and statistics: exact small cases, and chance within 4.5 standard errors."""

import time as clock

import numpy as np
import pytest

from modelyard.simulator import arrivals as made
from modelyard.simulator import fluidload, loadstats, slices, transforms
from modelyard.simulator.arrivals import Lengths
from modelyard.simulator.scenario import Arrivals

FIXED = Lengths(100, 10)
LIMIT = 4.5
"""Standard errors. A fixed seed gives a fixed value; a right generator misses this once in 150,000 seeds."""


def at(*times, duration, tokens=None):
    count = len(times)
    tokens = np.arange(1, count + 1) if tokens is None else np.array(tokens)
    return Arrivals(
        np.array(times, dtype=float), tokens, tokens * 2, np.zeros(count, dtype=np.int64), duration, "t"
    )


@pytest.mark.parametrize("seed", range(3))
def test_poisson_has_its_rate_and_its_spread(seed):
    load = made.poisson(50.0, 4000.0, FIXED, seed)
    assert abs(len(load) - 200_000) / 200_000**0.5 < LIMIT
    counts = loadstats.count_per_window(load, 20.0)
    # Variance over mean of n Poisson counts has a standard error of sqrt(2 / (n - 1)).
    assert abs(loadstats.index_of_dispersion(load, 20.0) - 1) / (2 / (len(counts) - 1)) ** 0.5 < LIMIT
    # The CV of n exponential gaps has a standard error of 1 / sqrt(n).
    assert abs(loadstats.gap_cv(load) - 1) * len(load) ** 0.5 < LIMIT
    assert set(load.input_tokens) == {100}
    assert set(load.output_tokens) == {10}


def test_a_step_changes_the_rate_where_it_says():
    load = made.step(0.0, 20.0, 300.0, 1000.0, FIXED, 1)
    assert load.time[0] >= 300.0
    assert abs(len(load) - 14_000) / 14_000**0.5 < LIMIT
    # The middle of uniform arrivals over 700 s: the mean of n has a standard error of 700 / sqrt(12 n).
    assert abs(load.time.mean() - 650) / (700 / (12 * len(load)) ** 0.5) < LIMIT


def test_what_lies_beyond_the_end_does_not_count():
    load = made.piecewise([(0, 0.0), (50, 10.0), (500, 1e6)], 100.0, FIXED, 1)
    assert abs(len(load) - 500) / 500**0.5 < LIMIT
    assert load.time.max() < 100


def test_the_sinusoid_of_dynamo_swings_from_1_to_24_in_450_seconds():
    load = made.dynamo_sinusoid(3, duration=90_000.0)
    phase = load.time % 900.0
    for start, mean in ((0, 1.0), (450, 24.0), (225, 12.5)):
        near = np.sum(np.abs((phase - start + 450) % 900 - 450) < 5)
        assert abs(near - mean * 1000) / (mean * 1000) ** 0.5 < LIMIT + 1, start
    assert abs(len(load) - 12.5 * 90_000) / (12.5 * 90_000) ** 0.5 < LIMIT
    assert (load.input_tokens[0], load.output_tokens[0]) == (8000, 1000)


def test_the_step_of_llm_d_is_20_requests_per_second_for_600_seconds():
    load = made.llmd_step(3)
    assert load.time[0] >= 60.0
    assert load.duration == 660.0
    assert abs(len(load) - 12_000) / 12_000**0.5 < LIMIT


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_bursts_have_their_rate_and_coefficient_of_variation(cv):
    load = made.bursts(100.0, cv, 5000.0, FIXED, 7)
    # Counts of a renewal stream have a variance of cv^2 times the mean in the long run.
    assert abs(len(load) - 500_000) / (cv * 500_000**0.5) < LIMIT
    # Kurtosis of a Gamma law gives the CV's standard error: cv * sqrt((1 + 2 cv^2) / (2 n)), roughly.
    assert abs(loadstats.gap_cv(load) - cv) / (cv * ((1 + 2 * cv**2) / (2 * len(load))) ** 0.5) < LIMIT
    assert loadstats.index_of_dispersion(load, 20.0) == pytest.approx(cv**2, rel=0.3)


def test_bursts_do_not_begin_with_a_burst():
    """A stream that begins with a whole gap would have more arrivals early: (cv^2 - 1) / 2 = 12 more each."""
    first = [np.sum(made.bursts(1.0, 5.0, 50.0, FIXED, seed).time < 10) for seed in range(4000)]
    error = np.std(first, ddof=1) / 4000**0.5
    assert abs(np.mean(first) - 10) / error < LIMIT


def test_log_normal_lengths_have_their_mean_and_spread():
    drawn = made.draw_lengths(np.random.default_rng(1), 1000.0, 1.0, 400_000, limit=10**9)
    assert abs(drawn.mean() - 1000) / (1000 / 400_000**0.5) < LIMIT
    assert drawn.std() / drawn.mean() == pytest.approx(1.0, rel=0.03)
    assert abs(np.mean(np.log(drawn)) - (np.log(1000) - np.log(2) / 2)) < LIMIT * np.log(2) ** 0.5 / 632


def test_lengths_stay_within_one_and_the_limit():
    drawn = made.draw_lengths(np.random.default_rng(1), 5.0, 3.0, 10_000, limit=50)
    assert (drawn.min(), drawn.max()) == (1, 50)


@pytest.mark.parametrize(
    "build",
    [
        lambda: made.poisson(-1, 10, FIXED, 0),
        lambda: made.poisson(float("nan"), 10, FIXED, 0),
        lambda: made.poisson(1, 0, FIXED, 0),
        lambda: made.poisson(1, float("inf"), FIXED, 0),
        lambda: made.piecewise([], 10, FIXED, 0),
        lambda: made.piecewise([(1, 1)], 10, FIXED, 0),
        lambda: made.piecewise([(0, 1), (0, 2)], 10, FIXED, 0),
        lambda: made.sinusoid(5, 2, 10, 10, FIXED, 0),
        lambda: made.sinusoid(1, 2, 0, 10, FIXED, 0),
        lambda: made.bursts(1, 0, 10, FIXED, 0),
        lambda: made.poisson(1, 10, Lengths(0, 1), 0),
        lambda: made.poisson(1, 10, Lengths(1, 1, input_cv=-1), 0),
        lambda: transforms.scale_rate(at(1, duration=2), -1, 0),
        lambda: transforms.scale_rate(at(1, duration=2), 1, 0, jitter=float("nan")),
        lambda: transforms.scale_to_peak(at(duration=2), 1, 0),
        lambda: transforms.slice_time(at(1, duration=2), 1, 3),
        lambda: transforms.speed_up(at(1, duration=2), 0),
        lambda: transforms.spread_ticks(at(1, duration=2), 0, 0),
        lambda: transforms.concatenate(),
        lambda: loadstats.count_per_window(at(1, duration=2), 0),
        lambda: loadstats.excess_cv(at(1, duration=2), 20, 30),
        lambda: loadstats.autocorrelation(np.arange(5.0), 4),
        lambda: fluidload.to_fluid(at(duration=50)),
        lambda: slices.choose_slices(np.ones(12), 600, 1800.0 + 1),
        lambda: slices.choose_slices(np.ones(9), 600, 1800.0),
    ],
)
def test_nonsense_is_refused(build):
    with pytest.raises(ValueError, match=r".+"):
        build()


def test_windows_count_from_the_start_and_leave_out_the_rest():
    load = at(0, 5, 9.99, 10, 24, duration=25)
    assert loadstats.count_per_window(load, 10).tolist() == [3, 1]
    assert loadstats.rate_per_window(load, 10).tolist() == [0.3, 0.1]
    assert loadstats.peak_rate(load, 10) == 0.3
    # Shorter than one window of ten minutes: the mean of the whole.
    assert loadstats.peak_rate(load) == 5 / 25


def test_statistics_of_small_cases():
    load = at(0, 1, 2, 3, 10, 12, duration=20)
    # Counts 4 and 2: mean 3, variance 2.
    assert loadstats.index_of_dispersion(load, 10) == pytest.approx(2 / 3)
    assert loadstats.excess_cv(load, 10) == 0.0
    assert loadstats.gap_cv(at(0, 1, 4, duration=5)) == pytest.approx(2**0.5 / 2)
    # Counts 9 and 1: mean 5, variance 32, so (32 - 5) / 25.
    burst = at(*np.linspace(0, 9, 9), 15, duration=20)
    assert loadstats.excess_cv(burst, 10) == pytest.approx((27 / 25) ** 0.5)
    assert loadstats.autocorrelation(np.array([1.0, -1, 1, -1, 1]), 1) == pytest.approx(-1)
    assert loadstats.autocorrelation(np.array([1.0, -1, 1, -1, 1]), 2) == pytest.approx(1)


def test_statistics_without_data_are_nan():
    empty = at(duration=100)
    assert np.isnan(loadstats.index_of_dispersion(empty))
    assert np.isnan(loadstats.excess_cv(empty))
    assert np.isnan(loadstats.gap_cv(empty))
    assert np.isnan(loadstats.autocorrelation(np.ones(5), 1))


def test_a_trend_is_left_out_of_the_excess():
    ramp = made.piecewise([(600 * i, 20.0 * (i + 1)) for i in range(20)], 12_000, FIXED, 5)
    assert loadstats.excess_cv(ramp, 20) > 0.5
    assert loadstats.excess_cv(ramp, 20, 600) < 0.02


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.7, 4.0])
def test_another_rate_keeps_the_burstiness(factor):
    load = made.bursts(50.0, 12.0, 40_000.0, FIXED, 11)
    scaled = transforms.scale_rate(load, factor, 12)
    share = factor % 1
    assert abs(len(scaled) - factor * len(load)) < LIMIT * (share * (1 - share) * len(load)) ** 0.5 + 1
    # The excess is sqrt(144 - 1) / sqrt(50 * 20) = 0.38; its standard error over 2,000 windows is about 2 percent.
    assert loadstats.excess_cv(scaled) == pytest.approx(loadstats.excess_cv(load), rel=0.05)


def test_independent_copies_would_calm_it():
    """Why scaling up does not superpose independent copies."""
    parts = [made.bursts(50.0, 12.0, 40_000.0, FIXED, seed) for seed in range(4)]
    time = np.sort(np.concatenate([part.time for part in parts]))
    tokens = np.full(len(time), 10)
    merged = Arrivals(time, tokens, tokens, np.zeros_like(tokens), 40_000.0)
    assert loadstats.excess_cv(merged) == pytest.approx(loadstats.excess_cv(parts[0]) / 2, rel=0.1)


def test_scaling_up_keeps_the_originals_and_their_lengths():
    load = at(0, 5, 9.9, duration=10, tokens=[7, 8, 9])
    scaled = transforms.scale_rate(load, 3, 1)
    assert len(scaled) == 9
    assert set(load.time) <= set(scaled.time)
    assert sorted(scaled.input_tokens) == [7, 7, 7, 8, 8, 8, 9, 9, 9]
    assert (scaled.output_tokens == 2 * scaled.input_tokens).all()
    for original, tokens in zip(load.time, load.input_tokens, strict=True):
        assert np.all(np.abs(scaled.time[scaled.input_tokens == tokens] - original) <= 1.0)
    assert scaled.time.min() >= 0
    assert scaled.time.max() < 10


def test_a_factor_of_one_changes_nothing():
    load = made.poisson(5, 100, Lengths(100, 10, 1, 1), 1)
    same = transforms.scale_rate(load, 1.0, 2)
    assert (same.time == load.time).all()
    assert (same.input_tokens == load.input_tokens).all()


def test_scaling_to_a_peak_is_by_the_highest_ten_minutes():
    load = made.piecewise([(0, 10.0), (600, 40.0), (1200, 10.0)], 1800, FIXED, 1)
    scaled = transforms.scale_to_peak(load, 100.0, 2)
    assert loadstats.peak_rate(scaled) == pytest.approx(100.0, rel=0.02)


def test_slices_speed_and_concatenation():
    load = at(0, 5, 10, 15, duration=20)
    part = transforms.slice_time(load, 5, 15)
    assert part.time.tolist() == [0, 5]
    assert part.input_tokens.tolist() == [2, 3]
    assert part.duration == 10
    fast = transforms.speed_up(load, 2)
    assert fast.time.tolist() == [0, 2.5, 5, 7.5]
    assert fast.duration == 10
    both = transforms.concatenate(part, fast)
    assert both.time.tolist() == [0, 5, 10, 12.5, 15, 17.5]
    assert both.input_tokens.tolist() == [2, 3, 1, 2, 3, 4]
    assert both.duration == 20
    assert both.name == "t+t"


def test_ticks_are_spread_over_their_length():
    load = at(*np.repeat(np.arange(0, 3000, 3.0), 20), duration=2998)
    spread = transforms.spread_ticks(load, 3.0, 1)
    assert (np.diff(spread.time) >= 0).all()
    assert spread.time.max() < spread.duration == 3000
    assert loadstats.count_per_window(spread, 3.0).tolist() == [20] * 1000
    assert abs(np.mean(spread.time % 3.0) - 1.5) / (3 / (12 * 20_000) ** 0.5) < LIMIT


def test_a_flow_has_the_rates_and_means_of_its_requests():
    load = at(1, 2, 25, 29, duration=35, tokens=[10, 20, 40, 80])
    flow = fluidload.to_fluid(load, 10)
    assert flow.rate.tolist() == [0.2, 0.0, 0.2]
    assert flow.input_tokens.tolist() == [15, 15, 60]
    assert flow.output_tokens.tolist() == [30, 30, 120]
    assert (len(flow), flow.duration, flow.requests) == (3, 30, 4)
    assert fluidload.scale_fluid(flow, 2.0).rate.tolist() == [0.4, 0.0, 0.4]
    late = fluidload.to_fluid(at(15, duration=20, tokens=[9]), 10)
    assert late.input_tokens.tolist() == [9, 9]


def test_slices_are_chosen_by_rule():
    #        highest  steepest lowest   a gap    median   left
    rates = [9, 9, 9, 2, 7, 2, 1, 1, 1, 5, 0, 5, 3, 3, 3, 5, 5, 5]
    chosen = slices.choose_slices(np.array(rates, dtype=float), 600, 1800)
    assert [(part.rule, part.start, part.end) for part in chosen] == [
        ("highest", 0, 1800),
        ("steepest", 1800, 3600),
        ("lowest", 3600, 5400),
        ("median", 7200, 9000),
    ]


def test_five_million_requests_take_seconds():
    started = clock.process_time()
    load = made.bursts(500.0, 3.0, 10_000.0, Lengths(900, 150, 1.0, 1.5), 1)
    assert len(load) > 4_900_000
    assert clock.process_time() - started < 10
