"""The load and the mean request of one route, from its counters."""

import numpy as np
import pytest

from modelyard.core.breakeven.load import LoadHistory, count_arrivals, expect_load, mean_request
from modelyard.core.load import LoadShape
from modelyard.core.shape import ShapeMemory, ShapeSample, add_sample, observe_shape
from modelyard.core.snapshot import GatewayReading

NOW = 1_800_000_000.0
LEAD = 120.0


def play(rates, history: LoadHistory | None = None, now: float = NOW, total: float = 0.0, tick: float = 2.0):
    """Count so many requests per second in each tick."""
    history = history or LoadHistory()
    for rate in rates:
        now, total = now + tick, total + rate * tick
        history = count_arrivals(history, now, total, LEAD)
    return history, now, total


def test_a_steady_load_is_expected_to_stay():
    history, now, _ = play([5.0] * 300)
    load = expect_load(history, now, LEAD)
    assert load is not None
    assert load.now == pytest.approx(5.0)
    assert load.ahead == pytest.approx(5.0)
    assert 0.0 < load.deviation < 5.0


def test_a_ramp_is_expected_to_go_on():
    history, now, _ = play([5.0] * 300 + [5.0 + 0.05 * step for step in range(300)])
    load = expect_load(history, now, LEAD)
    assert load is not None
    assert load.ahead > load.now > 18.0


def play_noise(rates, seed: int, tick: float = 2.0):
    """Poisson counts of these rates, and where the forecast stands in the end."""
    chance = np.random.default_rng(seed)
    return play(chance.poisson(np.asarray(rates) * tick) / tick)


def test_a_slow_ramp_that_noise_hides_from_the_slopes_is_told_by_the_trend():
    # 20 requests/s, and 0.4 more with each minute for half an hour: 2 % of it.
    rates = [20.0] * 900 + [20.0 + 0.4 / 60 * 2.0 * step for step in range(900)]
    found = []
    for seed in range(20):
        history, now, _ = play_noise(rates, seed)
        load = expect_load(history, now, LEAD)
        assert load is not None
        assert load.trend == pytest.approx(0.4 / 60, rel=0.4)
        found.append(load.ahead)
    # 32 requests/s now, and 32.8 one start from now.
    assert np.mean(found) == pytest.approx(32.8, abs=0.5)


def test_a_steady_load_has_hardly_any_trend_whatever_its_noise():
    loads = []
    for seed in range(20):
        history, now, _ = play_noise([20.0] * 1800, seed)
        loads.append(expect_load(history, now, LEAD))
    # What stands out by chance: one in twenty.
    assert sum(load.trend == 0.0 for load in loads) >= 15
    assert np.mean([load.ahead for load in loads]) == pytest.approx(20.0, abs=0.4)


def test_a_jump_is_a_new_level_and_no_trend():
    loads = []
    for seed in range(20):
        history, now, _ = play_noise([20.0] * 900 + [40.0] * 60, seed)
        loads.append(expect_load(history, now, LEAD))
    # Two minutes after it means that do not move with it differ by 8.2: 0.023 a second. A third of that is left, of the
    # bin in which nobody knew yet.
    assert np.mean([load.trend for load in loads]) < 0.012
    assert np.mean([load.ahead for load in loads]) == pytest.approx(40.0, rel=0.04)


def test_slopes_that_stand_out_against_the_trend_have_seen_it_end():
    rates = [20.0 + 0.02 * step for step in range(900)] + [38.0 - 0.2 * step for step in range(30)]
    history, now, _ = play(rates)
    load = expect_load(history, now, LEAD)
    assert load is not None
    assert load.trend > 0.0
    assert load.ahead < load.now < 35.0


def test_too_little_or_too_old_says_nothing():
    assert expect_load(LoadHistory(), NOW, LEAD) is None
    short, now, _ = play([5.0] * 10)
    assert expect_load(short, now, LEAD) is None
    history, now, _ = play([5.0] * 300)
    assert expect_load(history, now + 30.0, LEAD) is not None
    assert expect_load(history, now + 31.0, LEAD) is None


@pytest.mark.parametrize("total", [0.0, 1e6], ids=["began again", "what came meanwhile"])
def test_after_a_hole_the_forecast_goes_on_from_the_next_reading(total):
    history, now, _ = play([5.0] * 300)
    after, now, _ = play([5.0] * 30, history, now + 600.0, total)
    load = expect_load(after, now, LEAD)
    assert load is not None
    assert load.now == pytest.approx(5.0)


def test_the_mean_request_follows_a_small_change_that_capacities_do_not():
    expected, memory = LoadShape(900.0, 100.0, 0.3), ShapeMemory()
    assert mean_request(memory, expected) == expected
    requests = inputs = outputs = 0.0
    for minute in range(120):
        each = 1000.0 if minute < 60 else 1100.0
        requests, inputs, outputs = requests + 60.0, inputs + 60.0 * each, outputs + 60.0 * 150.0
        totals = [{"team/chat": value} for value in (requests, outputs, inputs)]
        memory = observe_shape(memory, GatewayReading(NOW + 60.0 * minute, {}, {}, *totals), "team/chat")
    found = mean_request(memory, expected)
    assert (found.input_tokens, found.output_tokens, found.cached_share) == pytest.approx(
        (1100.0, 150.0, 0.3)
    )
    assert memory.shape is not None
    assert memory.shape.input_tokens == pytest.approx(1000.0)


def test_cached_tokens_are_a_share_of_the_mean_request_once_somebody_counts_them():
    memory = ShapeMemory()
    for minute in range(3):
        requests = 100.0 * minute
        memory = add_sample(
            memory,
            ShapeSample(NOW + 60.0 * minute, requests, 1000 * requests, 100 * requests, 400 * requests),
        )
    assert mean_request(memory, LoadShape()) == LoadShape(1000.0, 100.0, 0.4)
