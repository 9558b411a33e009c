"""Compiled steps of a flow against NumPy, whose results they are to repeat to the last digit."""

import numpy as np

from modelyard.simulator.fluidsteps import ARRIVALS, COUNTED, SECONDS, look_at, share_at, take_whole


def test_a_fleet_is_added_up_as_numpy_does():
    chance = np.random.default_rng(1)
    for groups in (16, 32, 64):
        level, count = chance.exponential(50.0, groups), chance.integers(1, 9, groups).astype(np.float64)
        unfinished, running, fullest = look_at(level, count, 5, 3.5, 60.0)
        assert unfinished == 3.5 + (level * count).sum()
        assert running == (np.minimum(level, 60.0) * count).sum()
        assert fullest == level[:5].max()


def test_a_curve_is_read_as_numpy_does():
    chance = np.random.default_rng(2)
    knots, shares = np.sort(chance.random(40)), np.sort(chance.random(40))[::-1].copy()
    for ratio in (*chance.uniform(-0.5, 1.5, 500), *knots):
        assert share_at(ratio, knots, shares) == np.interp(ratio, knots, shares)


def test_whole_requests_are_handed_out_once_and_fractions_stay():
    since = np.full(COUNTED, 2.75)
    assert take_whole(since) == (2, 2, 2, 2, 2, 2)
    assert since[ARRIVALS] == 0.75
    assert not since[SECONDS:].any()
    since[ARRIVALS] += 0.25
    assert take_whole(since)[0] == 1
