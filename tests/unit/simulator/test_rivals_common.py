import math

import pytest

from modelyard.core.load import LoadShape
from modelyard.simulator.rivals.common import (
    PublishedRule,
    Target,
    Window,
    best_rate,
    capacity_batch,
    clean,
    first_token_objective,
    largest_batch,
    round_down,
    round_up,
)
from tests.unit.simulator.rivals_support import arrivals, scenario, signals


class Asks(PublishedRule):
    def __init__(self, *counts, to_zero=False, **changes):
        super().__init__("asks", 15.0, scenario(**changes), to_zero=to_zero)
        self.counts = list(counts)
        self.seen = []

    def desired(self, signals, replicas):
        self.seen.append(replicas)
        return self.counts.pop(0)


def test_a_rule_starts_from_what_runs_and_remembers_what_it_asked_for():
    rule = Asks(5, 6)
    assert rule.decide(signals(ready=2, pending=1)) == 5
    # Two were taken away: the rule still asks for 5, as spec.replicas does.
    assert rule.decide(signals(ready=1, pending=2)) == 6
    assert rule.seen == [3, 5]


def test_a_rule_keeps_its_count_without_a_reading():
    rule = Asks(7)
    assert rule.decide(signals(ready=4, known=False)) == 4
    assert rule.decide(signals(ready=4)) == 7
    assert rule.decide(signals(ready=4, known=False)) == 7


@pytest.mark.parametrize(
    ("to_zero", "minimum", "asked", "given"),
    [(False, 0, 0, 1), (True, 0, 0, 0), (True, 2, 0, 2), (False, 1, 200, 100)],
)
def test_bounds(to_zero, minimum, asked, given):
    assert Asks(asked, to_zero=to_zero, minimum=minimum).decide(signals()) == given


def test_clean_replaces_what_is_no_figure():
    cleaned = clean(signals(busy=math.nan, running=math.inf, waiting=-1.0, first_token_p90=math.nan))
    assert (cleaned.busy, cleaned.running, cleaned.waiting, cleaned.first_token_p90) == (0, 0, 0, None)
    fine = signals(busy=0.5, inter_token_p90=0.02)
    assert clean(fine) is fine


def test_rounding_forgives_binary_fractions():
    assert 0.1 * 3 > 0.3
    assert (round_up(0.1 * 3 / 0.3), round_up(1.001), round_down(0.3 / 0.1), round_down(2.999)) == (
        1,
        2,
        3,
        2,
    )


def test_a_window_forgets_what_is_a_span_old():
    window = Window(30.0)
    assert (window.mean, window.largest, window.total) == (0, 0, 0)
    for time, value in [(0, 9), (10, 3), (20, 6), (30, 0)]:
        window.add(time, value)
    assert (window.mean, window.largest, window.total) == (3, 6, 9)


def test_the_batch_at_capacity_follows_littles_law():
    # rate(b) = b / (1.001 + 0.011 b): 10/s needs b = 10.01 / 0.89 = 11.25, so 12.
    assert capacity_batch(scenario()) == 12
    # The most is 256 / (1.001 + 2.816) = 67/s.
    assert capacity_batch(scenario(capacity=1000.0)) == 256
    assert Target(0.5, "batch").of(scenario()) == 6
    assert Target(0.5).of(scenario()) == 0.5


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_target_is_above_zero(value):
    with pytest.raises(ValueError, match="above 0"):
        Target(value)


def test_the_best_rate_is_that_of_the_largest_batch_within_the_objectives():
    engine, shape = scenario().engine, LoadShape(100, 100)
    # 20 ms between tokens: 90 at a time; 90 / (1.001 + 0.99).
    assert best_rate(engine, shape, math.inf, 0.020) == pytest.approx(90 / 1.991)
    # First token: 1 ms + a step. 12 ms: step of at most 11 ms, 9 at a time.
    assert best_rate(engine, shape, 0.012, 0.020) == pytest.approx(9 / 1.1)
    # Not even one at a time.
    assert best_rate(engine, shape, math.inf, 0.001) == pytest.approx(1 / 1.012)


def test_the_cache_limits_the_batch():
    # Each holds 1,000 + 50 tokens of 100,000.
    assert largest_batch(scenario().engine, LoadShape(1000, 100)) == 95
    assert largest_batch(scenario().engine, LoadShape(1_000_000, 100)) == 1


def test_the_first_token_objective_grows_with_the_prompt():
    assert first_token_objective(scenario(), 2000) == pytest.approx(2.0)


def test_an_empty_trace_has_a_batch():
    assert capacity_batch(scenario(arrivals=arrivals([], 600))) >= 1
