"""What holds for every rival, whatever it sees."""

import copy
import math
from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.simulator.rivals.catalogue import RIVALS
from modelyard.simulator.scenario import Signals
from tests.unit.simulator.rivals_support import scenario, signals

OPTIONAL = {"first_token_p90", "first_token_mean", "inter_token_p90", "inter_token_mean"}
COUNTS = {
    "arrivals",
    "arrived_input_tokens",
    "arrived_output_tokens",
    "completions",
    "completed_input_tokens",
    "completed_output_tokens",
}
FIGURES = [field.name for field in fields(Signals) if field.name not in {"time", "elapsed", "known"}]


def plausible(name):
    if name in {"ready", "pending"}:
        return st.integers(0, 40)
    if name in COUNTS:
        return st.integers(0, 10_000_000)
    if name in OPTIONAL:
        return st.none() | st.floats(0, 1000)
    if name in {"busy", "cache_usage", "cache_usage_max"}:
        return st.floats(0, 1)
    return st.floats(0, 1e6)


def broken(name):
    figures = st.sampled_from([0.0, math.nan, math.inf, -math.inf, -1.0, 1e12])
    if name in {"ready", "pending"} or name in COUNTS:
        return st.sampled_from([0, 1, 10**9])
    return st.none() | figures if name in OPTIONAL else figures


@st.composite
def readings(draw, kind=plausible):
    values = {name: draw(kind(name)) for name in FIGURES}
    return replace(signals(), **values, known=draw(st.booleans()) if kind is broken else True)


def play(known, chosen, base, seen):
    policy = known.policy(base, chosen)
    return [
        policy.decide(
            replace(reading, time=policy.interval * index, elapsed=policy.interval if index else 0.0)
        )
        for index, reading in enumerate(seen)
    ]


brisk = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
every_rival = pytest.mark.parametrize("known", RIVALS, ids=lambda known: known.name)
bounds = st.tuples(st.integers(0, 3), st.integers(0, 30)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@every_rival
@brisk
@given(data=st.data(), limits=bounds, seen=st.lists(readings(), min_size=1, max_size=12))
def test_counts_are_whole_and_within_bounds(known, data, limits, seen):
    base = scenario(minimum=limits[0], maximum=max(1, limits[1]))
    chosen = data.draw(st.sampled_from(list(known.candidates())))
    for count in play(known, chosen, base, seen):
        assert isinstance(count, int)
        assert base.minimum <= count <= base.maximum


@every_rival
@brisk
@given(seen=st.lists(readings(), min_size=1, max_size=12))
def test_the_same_readings_give_the_same_counts(known, seen):
    assert play(known, None, scenario(), seen) == play(known, None, scenario(), copy.deepcopy(seen))


@every_rival
@brisk
@given(seen=st.lists(readings(broken), min_size=1, max_size=12))
def test_broken_readings_do_no_harm(known, seen):
    assert all(1 <= count <= 100 for count in play(known, None, scenario(), seen))


@every_rival
@brisk
@given(before=st.lists(readings(), min_size=1, max_size=10), after=st.lists(readings(broken), max_size=10))
def test_without_a_reading_the_count_stays(known, before, after):
    counts = play(known, None, scenario(), before + [replace(reading, known=False) for reading in after])
    assert set(counts[len(before) - 1 :]) == {counts[len(before) - 1]}


@every_rival
@brisk
@given(seen=st.lists(readings(), min_size=1, max_size=12), other=st.integers(0, 10_000_000))
def test_output_lengths_of_what_has_just_arrived_are_not_looked_at(known, seen, other):
    hidden = [replace(reading, arrived_output_tokens=other) for reading in seen]
    assert play(known, None, scenario(), seen) == play(known, None, scenario(), hidden)
