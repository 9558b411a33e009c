"""Loads that recur: how a period is found, what it is worth, and how it is forgotten."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.demand import Demand, Sample
from modelyard.core.scaling.periods import autocorrelation, find_periods, recall, weigh
from modelyard.core.scaling.recurrence import CELL, KEPT, Recurrence, RecurrencePolicy
from modelyard.core.scaling.rule import (
    FleetView,
    LoadMemory,
    LoadPolicy,
    assess,
    convert,
    observe_load,
)
from tests.unit.core.build import NOW

POLICY = RecurrencePolicy()
LOAD = LoadPolicy()
WIDTH, LEAD = 8.0, 120.0
FLEET = FleetView(serving=1000.0, present=1000.0, lead=LEAD)


def swing(time, period=900.0):
    return 42.5 - 37.5 * math.cos(2 * math.pi * time / period)


def burst(time, period=900.0):
    return 60.0 if time % period < 240.0 else 10.0


def levels(seed, seconds=600.0, spread=0.5):
    chance = random.Random(seed)
    rates = [40.0 * math.exp(chance.gauss(0.0, spread)) for _ in range(200)]
    return lambda time: rates[int(time / seconds)]


def play(rate, seconds, memory=None, begin=0.0, seed=1, policy=LOAD):
    """Yield the time and the memory after each bin of Poisson-like arrivals at `rate(time)`."""
    chance = random.Random(seed)
    memory = memory or LoadMemory()
    total, time = 0.0, begin
    last = Sample(NOW + time, total)
    while time < begin + seconds:
        mean = max(rate(time + WIDTH / 2), 0.0) * WIDTH
        time, total = time + WIDTH, total + max(chance.gauss(mean, math.sqrt(mean)), 0.0)
        sample = Sample(NOW + time, total)
        demand = Demand(NOW + time, (sample.total - last.total) / WIDTH, samples=(last, sample))
        memory = observe_load(memory, demand, FLEET, policy)
        last = sample
        yield time, memory


def foretold(memory, seconds=LEAD):
    """Return the load expected so many seconds after the newest bin."""
    need = assess(memory, Demand(memory.counted.time, 0.0), replace(FLEET, lead=seconds), 1.0, LOAD)
    return need.load[-1]


def test_a_wave_resembles_itself_after_a_period_and_its_opposite_after_half_of_one():
    wave = np.sin(2 * np.pi * np.arange(240) / 30)
    same = autocorrelation(wave, 60)
    assert same[[0, 15, 30, 60]] == pytest.approx([1.0, -1.0, 1.0, 1.0], abs=0.03)
    assert autocorrelation(wave + 0.1 * np.arange(240), 30)[30] == pytest.approx(1.0, abs=0.02)


def test_a_load_that_does_not_vary_resembles_nothing():
    assert not autocorrelation(np.full(240, 0.1), 100).any()
    assert not find_periods(np.full(240, 0.1), 480.0, POLICY)
    assert not find_periods(np.arange(240.0), 480.0, POLICY)


def test_a_period_is_found_between_cells():
    wave = np.sin(2 * np.pi * np.arange(240) * CELL / 905.0)
    assert find_periods(wave, 480.0, POLICY)[0] == pytest.approx(905.0, abs=3.0)
    assert min(find_periods(wave, 1000.0, POLICY)) >= 1000.0


def test_what_came_one_period_ago_is_recalled_at_half_of_the_growth():
    loads = np.tile([10.0, 20.0, 30.0, 20.0], 10)
    assert recall(loads, np.array([40.0, 40.5]), 4.0, 1.0, POLICY) == pytest.approx([10, 15])
    loads[36:] *= 1.44
    assert recall(loads, np.array([42.0]), 4.0, 2.5, POLICY) == pytest.approx([30.0 * 1.44 * 1.2])


def test_a_period_is_worth_what_it_explains_of_the_errors_of_the_slopes():
    loads = np.array([swing(CELL * number) for number in range(120)])
    flat = np.full(120, loads.mean())
    assert weigh(loads, flat, 900.0, LEAD, POLICY) == pytest.approx((1.0, 1.0), abs=1e-6)
    # Slopes that made no errors leave nothing to explain; a lag that is no period explains nothing.
    assert weigh(loads, loads, 900.0, LEAD, POLICY) == (0.0, 0.0)
    assert weigh(loads, flat, 1350.0, LEAD, POLICY) == (0.0, 0.0)
    # Where nothing was foretold yet, or too little has come again, nothing counts.
    assert weigh(loads, np.full(120, -math.inf), 900.0, LEAD, POLICY) == (0.0, 0.0)
    assert weigh(loads[:44], flat[:44], 900.0, LEAD, POLICY) == (0.0, 0.0)


@pytest.mark.parametrize("rate", [swing, burst], ids=["sinusoid", "square"])
def test_a_load_that_recurs_is_learned_within_two_periods_and_foretold_one_start_ahead(rate):
    errors, plain = [], []
    for time, memory in play(rate, 4 * 900.0):
        if time < 900.0:
            assert memory.recurrence.weight == 0.0
        if time < 1.9 * 900.0:
            continue
        assert memory.recurrence.weight > 0.5
        assert memory.recurrence.period == pytest.approx(900.0, abs=CELL)
        slopes = replace(memory, recurrence=Recurrence())
        errors.append((foretold(memory) - rate(time + LEAD)) ** 2)
        plain.append((foretold(slopes) - rate(time + LEAD)) ** 2)
    assert sum(errors) < sum(plain) / 4


def test_a_rise_within_one_start_keeps_replicas_in_the_trough():
    *_, (_, memory) = play(burst, 4 * 900.0 - 72.0)
    need = assess(memory, Demand(memory.counted.time, 10.0), FLEET, 1.0, LOAD)
    assert need.load[0] < 20.0
    assert need.load[-1] > 40.0
    assert not need.proves(30.0, 100.0)
    assert need.period == pytest.approx(900.0, abs=CELL)


@pytest.mark.parametrize("after", [80.0, 42.5, 5.0])
def test_a_load_that_stops_to_recur_is_forecast_without_it_within_one_period(after):
    *_, (time, memory) = play(swing, 5 * 900.0)
    assert memory.recurrence.weight > 0.8
    *_, (_, memory) = play(lambda _: after, 900.0, memory, time)
    assert memory.recurrence.weight == 0.0
    # A part of the way back to the mean of the swing, 42.5, is left.
    assert foretold(memory) == pytest.approx(after, rel=0.2, abs=2.5)


def test_another_period_replaces_the_one_before_after_four_of_it():
    *_, (time, memory) = play(swing, 5 * 900.0)
    *_, (_, memory) = play(lambda now: swing(now - time, 1320.0), 4.5 * 1320.0, memory, time)
    assert memory.recurrence.period == pytest.approx(1320.0, abs=CELL)
    assert memory.recurrence.weight > 0.8


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["steady", "levels", "day", "step"])
def test_what_does_not_recur_is_decided_exactly_as_without(kind, seed):
    rates = {
        "steady": lambda _: 20.0,
        "levels": levels(seed),
        "day": lambda time: 20.0 + 80.0 * math.sin(math.pi * time / (4 * 3600.0)),
        "step": lambda time: 5.0 if time < 3600.0 else 50.0,
    }
    blind = replace(LOAD, recurrence=replace(POLICY, every=math.inf))
    with_it, without = (play(rates[kind], 4 * 3600.0, seed=seed, policy=policy) for policy in (LOAD, blind))
    for (_, one), (_, other) in zip(with_it, without, strict=True):
        assert (one.headroom, one.forecast) == (other.headroom, other.forecast)


def test_a_long_hole_in_the_readings_forgets_and_a_short_one_does_not():
    *_, (_, memory) = play(swing, 4 * 900.0)
    state = memory.recurrence
    short = state.take_in(state.until + 60.0, state.until + 68.0, 5.0, 5.0, LEAD, POLICY)
    assert short.weight > 0.8
    assert short.until == state.until + 68.0
    late = state.until + POLICY.hole + 1.0
    assert state.take_in(late, late + WIDTH, 5.0, 5.0, LEAD, POLICY).loads == b""
    # A clock that went back.
    assert state.take_in(NOW, NOW + WIDTH, 5.0, 5.0, LEAD, POLICY).loads == b""


def test_a_cell_holds_the_mean_of_its_bins():
    state = Recurrence().take_in(NOW, NOW + 20.0, 6.0, 3.0, LEAD, POLICY)
    assert not state.loads
    state = state.take_in(NOW + 20.0, NOW + 40.0, 12.0, None, LEAD, POLICY)
    assert np.frombuffer(state.loads) == pytest.approx([8.0])
    # A part of which nothing was foretold: nothing of the cell is known.
    assert np.frombuffer(state.foretold) == pytest.approx([-math.inf])


def test_what_is_learned_is_the_same_in_requests_of_another_size():
    *_, (_, memory) = play(swing, 4 * 900.0)
    other = convert(memory, 3.0).recurrence
    time = other.until + LEAD
    assert other.mix(30.0, time, POLICY) == pytest.approx(3.0 * memory.recurrence.mix(10.0, time, POLICY))
    pending = convert(memory, 3.0).headroom.pending[-1]
    assert pending.plain == pytest.approx(3.0 * memory.headroom.pending[-1].plain)


bins = st.lists(st.tuples(st.integers(1, 20), st.floats(0.0, 1e4)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=8)
@given(bins, st.floats(10.0, 600.0), st.floats(0.0, 1e4), st.floats(0.0, 1e4))
def test_it_is_bounded_and_never_falls_where_the_slopes_rise(stretches, lead, one, other):
    state, time = Recurrence(), NOW
    for _ in range(6):
        for count, rate in stretches:
            for _ in range(count):
                state = state.take_in(time, time + CELL, rate, 50.0, lead, POLICY)
                time += CELL
        assert 0.0 <= state.weight <= 1.0
        assert (state.period > 0.0) == (state.weight > 0.0)
        assert len(state.loads) == len(state.foretold) <= 8 * KEPT
        low, high = (state.mix(plain, time + lead, POLICY) for plain in sorted((one, other)))
        highest = max(rate for _, rate in stretches) * math.sqrt(POLICY.growth)
        assert 0.0 <= low <= high <= max(one, other, highest) * (1 + 1e-9)


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 1000), st.floats(0.0, 60.0), st.floats(0.0, 60.0))
def test_a_higher_newest_rate_never_lowers_what_is_expected(seed, one, other):
    """Also where it fills a cell, from which weights follow."""
    *_, (time, memory) = play(swing, 2000.0 + WIDTH * (seed % 100), seed=seed)
    state, expected = memory.recurrence, []
    for rate in sorted((one, other)):
        newer = state.take_in(NOW + time, NOW + time + CELL, rate, 30.0, LEAD, POLICY)
        expected.append(newer.mix(rate, newer.until + LEAD, POLICY))
    assert expected == sorted(expected)
