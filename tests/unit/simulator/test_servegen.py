"""ServeGen's tables and what is made of them; the whole trace once, small tables for the rest."""

from pathlib import Path

import numpy as np
import pytest

from modelyard.simulator import loadstats, servegen, slices
from modelyard.simulator.tracefiles import TraceError

DATA = Path(__file__).resolve().parents[3] / "benchmarks" / "data" / "traces"
LIMIT = 4.5
"""Standard errors."""
WINDOWS = "t_s,rate_rps,active_clients,share_with_lengths,mean_input_tokens,mean_output_tokens\n"
CLIENTS = "client,t_s,rate_rps,iat_cv,iat_dist,p1,p2\n"


@pytest.fixture(scope="module")
def large():
    return servegen.load_servegen(DATA / "m-large-10min.csv.gz", DATA / "m-large-clients.csv.gz", "m-large")


def small(folder, windows, clients):
    (folder / "windows.csv").write_text(WINDOWS + windows)
    (folder / "clients.csv").write_text(CLIENTS + clients)
    return servegen.load_servegen(folder / "windows.csv", folder / "clients.csv")


def test_the_trace_is_14_days_of_237_million_requests(large):
    assert large.duration == 14 * 86_400
    assert large.peak == pytest.approx(582.99, abs=0.01)
    assert servegen.to_flow(large).requests == pytest.approx(236.9e6, rel=1e-3)
    assert len(set(large.clients.client)) == 162


def test_clients_add_up_to_the_windows(large):
    total = np.bincount(large.clients.window, weights=large.clients.rate, minlength=len(large.rate))
    assert np.abs(total - large.rate).max() < 0.01


def test_the_shape_of_a_gamma_law_is_the_measured_spread(large):
    """p1 is the shape: a Gamma law's CV is 1 / sqrt(shape), and the fits were made to the measured one."""
    gamma = ~large.clients.weibull
    ratio = large.clients.shape[gamma] ** -0.5 / large.clients.cv[gamma]
    assert np.abs(np.quantile(ratio, [0.01, 0.99]) - 1).max() < 0.001


def test_the_law_of_a_weibull_row_is_calmer_than_what_was_measured(large):
    rows = large.clients
    ratio = servegen.weibull_cv(rows.shape[rows.weibull]) / rows.cv[rows.weibull]
    assert np.median(ratio) == pytest.approx(0.80, abs=0.01)
    assert np.quantile(ratio, 0.1) == pytest.approx(0.34, abs=0.01)


def test_weibull_with_shape_one_is_exponential():
    assert servegen.weibull_cv(1.0) == pytest.approx(1.0)
    # sqrt(Gamma(2) / Gamma(1.5)^2 - 1) = sqrt(4 / pi - 1), and sqrt(24 / 4 - 1).
    assert servegen.weibull_cv(2.0) == pytest.approx((4 / np.pi - 1) ** 0.5)
    assert servegen.weibull_cv(0.5) == pytest.approx(5**0.5)


@pytest.mark.parametrize(
    ("weibull", "shape", "cv"),
    [(False, 1.0, 1.0), (False, 0.25, 2.0), (False, 4.0, 0.5), (True, 0.5, 5**0.5), (True, 1.0, 1.0)],
)
def test_a_window_has_its_count_and_its_law(weibull, shape, cv):
    seen, middles = [], []
    for seed in range(200):
        times = servegen.draw_window(np.random.default_rng(seed), 2000, weibull, shape)
        assert len(times) == 2000
        assert 0 <= times.min() <= times.max() < 600
        gaps = np.diff(np.sort(times))
        seen.append(gaps.std() / gaps.mean())
        middles.append(np.sum((times >= 250) & (times < 350)))
    error = np.std(seen, ddof=1) / 200**0.5
    # A sample's CV is a little low on the average where the law has a long tail: by about 1 percent here.
    assert abs(np.mean(seen) - cv) < LIMIT * error + 0.01 * cv
    # Each moment is as likely as any other: a sixth of the requests in a sixth of the window.
    assert abs(np.mean(middles) - 2000 / 6) < LIMIT * np.std(middles, ddof=1) / 200**0.5


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_window_of_a_nearly_silent_client_can_be_drawn(count):
    for seed in range(200):
        times = servegen.draw_window(np.random.default_rng(seed), count, False, 0.0108)
        assert len(times) == count
        assert np.all((times >= 0) & (times < 600))


def test_the_generated_spread_of_clients_is_the_published_one(large):
    """Of Gamma rows with enough requests for their CV to show: 2,000 of them, each drawn once."""
    rows = large.clients
    counts = np.rint(rows.rate * 600).astype(int)
    chosen = np.flatnonzero(~rows.weibull & (counts > 2000) & (rows.cv < 3))[:2000]
    ratio = []
    for index in chosen:
        times = servegen.draw_window(
            np.random.default_rng([1, index]), counts[index], False, rows.shape[index]
        )
        gaps = np.diff(np.sort(times))
        ratio.append(gaps.std() / gaps.mean() / rows.cv[index])
    assert len(chosen) == 2000
    assert abs(np.mean(ratio) - 1) < LIMIT * np.std(ratio, ddof=1) / len(ratio) ** 0.5 + 0.003


def test_every_window_has_the_requests_that_were_counted(large):
    load = servegen.generate(large, 0, 6 * 600, seed=1)
    expected = np.rint(large.rate[:6] * 600)
    # The table of windows is rounded to four digits of a rate.
    assert np.abs(loadstats.count_per_window(load, 600) - expected).max() <= 3
    assert (np.diff(load.time) >= 0).all()
    assert load.duration == 3600


def test_lengths_have_the_mean_of_their_window(large):
    load = servegen.generate(large, 0, 3 * 600, seed=2)
    for window in range(3):
        within = (load.time >= window * 600) & (load.time < (window + 1) * 600)
        for tokens, mean, cv in (
            (load.input_tokens, large.input_mean[window], servegen.INPUT_CV),
            (load.output_tokens, large.output_mean[window], servegen.OUTPUT_CV),
        ):
            error = cv * mean / within.sum() ** 0.5
            # Half a percent for rounding and the cap at the longest length published.
            assert abs(tokens[within].mean() - mean) < LIMIT * error + 0.005 * mean


def test_a_slice_is_a_part_of_the_whole(large):
    whole = servegen.generate(large, 0, 4 * 600, seed=3)
    part = servegen.generate(large, 2 * 600, 3 * 600, seed=3)
    within = (whole.time >= 1200) & (whole.time < 1800)
    np.testing.assert_allclose(part.time, whole.time[within] - 1200, atol=1e-9)
    assert (part.input_tokens == whole.input_tokens[within]).all()
    assert (part.output_tokens == whole.output_tokens[within]).all()


def test_another_seed_gives_other_requests(large):
    first, second = (servegen.generate(large, 0, 600, seed) for seed in (1, 2))
    assert len(first) == len(second)
    assert not np.array_equal(first.time, second.time)


def test_measured_gaps_are_burstier_than_the_fitted_law(large):
    law = servegen.generate(large, 0, 3600, seed=1)
    measured = servegen.generate(large, 0, 3600, seed=1, gaps="measured")
    assert len(law) == len(measured)
    assert loadstats.excess_cv(measured, 20, 600) > 1.1 * loadstats.excess_cv(law, 20, 600)


def test_measured_gaps_take_the_shape_that_has_the_measured_spread(tmp_path):
    """A Weibull row with CV sqrt(5), whatever the fit says, has the shape 0.5."""
    trace = small(tmp_path, "0,10,1,1,100,10\n", "0,0,10,2.2360680,W,1.0,1\n1,0,10,1,G,1.0,1\n")
    np.testing.assert_allclose(servegen._shapes(trace.clients, "measured"), [0.5, 1.0], rtol=1e-4)
    assert servegen._shapes(trace.clients, "law").tolist() == [1.0, 1.0]


def test_the_flow_is_the_mean_of_the_requests(large):
    flow = servegen.to_flow(large, 0, 1200)
    assert (flow.step, len(flow), flow.duration) == (10.0, 120, 1200.0)
    assert set(flow.rate[:60]) == {large.rate[0]}
    assert set(flow.input_tokens[60:]) == {large.input_mean[1]}
    load = servegen.generate(large, 0, 1200, seed=1)
    assert flow.requests == pytest.approx(len(load), abs=3)


def test_the_four_slices_of_the_trace(large):
    chosen = {part.rule: part for part in slices.choose_slices(large.rate, servegen.WINDOW)}
    assert {rule: part.start / 86_400 for rule, part in chosen.items()} == {
        "highest": 0.75,
        "steepest": 9.75,
        "lowest": 12.0,
        "median": 1.75,
    }
    assert {part.end - part.start for part in chosen.values()} == {21_600.0}


def test_windows_without_lengths_take_those_before_them(tmp_path):
    trace = small(
        tmp_path, "0,1,1,0,,\n600,1,1,1,100,10\n1200,0,0,0,0,0\n", "5,600,1,1,G,1,1\n5,0,1,1,W,1,1\n"
    )
    assert trace.input_mean.tolist() == [100, 100, 100]
    assert trace.output_mean.tolist() == [10, 10, 10]
    assert trace.clients.window.tolist() == [0, 1]
    assert trace.clients.weibull.tolist() == [True, False]
    assert loadstats.count_per_window(servegen.generate(trace, 0, 1800, 1), 600).tolist() == [600, 600, 0]


@pytest.mark.parametrize(("start", "end"), [(0, 300), (300, 600), (600, 600), (-600, 600), (0, 1800)])
def test_only_whole_windows_of_the_trace_can_be_generated(tmp_path, start, end):
    trace = small(tmp_path, "0,1,1,1,100,10\n600,1,1,1,100,10\n", "0,0,1,1,G,1,1\n")
    with pytest.raises(ValueError, match="whole windows"):
        servegen.generate(trace, start, end, 1)
    with pytest.raises(ValueError, match="whole windows"):
        servegen.to_flow(trace, start, end)


def test_a_step_must_divide_a_window(tmp_path):
    trace = small(tmp_path, "0,1,1,1,100,10\n", "0,0,1,1,G,1,1\n")
    with pytest.raises(ValueError, match="does not divide"):
        servegen.to_flow(trace, step=7)


@pytest.mark.parametrize(
    ("windows", "clients", "message"),
    [
        ("0,1,1,1,100,10\n", "0,0,nan,1,G,1,1\n", r"line 2, column rate_rps: 'nan'"),
        ("0,1,1,1,100,10\n", "0,0,1,1,X,1,1\n", r"line 2, column iat_dist: 'X' is neither"),
        ("0,1,1,1,100,10\n", "0,0,1,1,G,0,1\n", r"line 2, column p1: '0'"),
        ("0,1,1,1,100,10\n", "0,0,-1,1,G,1,1\n", r"line 2, column rate_rps: '-1'"),
        ("0,1,1,1,100,10\n", "0,5,1,1,G,1,1\n", r"column t_s: a time is no window"),
        ("0,1,1,1,100,10\n", "0,600,1,1,G,1,1\n", r"column t_s: a time is no window"),
        ("0,1,1,1,100,10\n1200,1,1,1,1,1\n", "0,0,1,1,G,1,1\n", r"column t_s: windows must follow"),
        ("0,inf,1,1,100,10\n", "0,0,1,1,G,1,1\n", r"line 2, column rate_rps: 'inf'"),
    ],
)
def test_errors_name_line_and_column(tmp_path, windows, clients, message):
    with pytest.raises(TraceError, match=message):
        small(tmp_path, windows, clients)


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "windows.csv").write_text("t_s,rate\n0,1\n")
    with pytest.raises(TraceError, match="line 2: column rate_rps is missing"):
        servegen.load_servegen(tmp_path / "windows.csv", tmp_path / "windows.csv")
