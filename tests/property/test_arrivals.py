"""What holds for any arrivals, whatever made or changed them."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.simulator import arrivals as made
from modelyard.simulator import fluidload, loadstats, servegen, transforms
from modelyard.simulator.arrivals import Lengths
from modelyard.simulator.prefixblocks import PrefixBlocks
from modelyard.simulator.scenario import Arrivals
from modelyard.simulator.tracefiles import TraceError
from modelyard.simulator.traceformats import read_trace

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEEDS = st.integers(0, 2**32)
LENGTHS = st.builds(Lengths, st.floats(1, 5000), st.floats(1, 5000), st.floats(0, 3), st.floats(0, 3))
RATES = st.floats(0, 20)
DURATIONS = st.floats(0.1, 300)


@st.composite
def builders(draw):
    lengths, duration = draw(LENGTHS), draw(DURATIONS)
    kind = draw(st.sampled_from(["poisson", "step", "piecewise", "sinusoid", "bursts"]))
    if kind == "poisson":
        rate = draw(RATES)
        return lambda seed: made.poisson(rate, duration, lengths, seed)
    if kind == "step":
        before, after, at = draw(RATES), draw(RATES), draw(st.floats(0.01, 400))
        return lambda seed: made.step(before, after, at, duration, lengths, seed)
    if kind == "piecewise":
        levels = draw(st.lists(RATES, min_size=1, max_size=5))
        rates = [(20.0 * index, level) for index, level in enumerate(levels)]
        return lambda seed: made.piecewise(rates, duration, lengths, seed)
    if kind == "sinusoid":
        low, high = sorted([draw(RATES), draw(RATES)])
        period = draw(st.floats(1, 500))
        return lambda seed: made.sinusoid(low, high, period, duration, lengths, seed)
    rate, cv = draw(RATES), draw(st.floats(0.2, 8))
    return lambda seed: made.bursts(rate, cv, duration, lengths, seed)


@st.composite
def loads(draw):
    return draw(builders())(draw(SEEDS))


def check(load: Arrivals) -> None:
    arrays = (load.time, load.input_tokens, load.output_tokens, load.cached_tokens)
    assert {len(array) for array in arrays} == {len(load)}
    assert load.duration > 0
    assert np.all(np.diff(load.time) >= 0)
    assert np.all((load.time >= 0) & (load.time < load.duration))
    assert np.all(load.input_tokens >= 1)
    assert np.all(load.output_tokens >= 1)
    assert np.all((load.cached_tokens >= 0) & (load.cached_tokens < load.input_tokens))
    assert load.time.dtype == np.float64
    assert {array.dtype for array in arrays[1:]} == {np.dtype(np.int64)}


def same(left: Arrivals, right: Arrivals) -> bool:
    return left.duration == right.duration and all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("time", "input_tokens", "output_tokens", "cached_tokens")
    )


@unhurried
@given(builders(), SEEDS)
def test_made_arrivals_are_sorted_within_their_duration_and_the_same_for_a_seed(build, seed):
    load = build(seed)
    check(load)
    assert same(load, build(seed))


@unhurried
@given(loads(), st.floats(0, 5), SEEDS, st.floats(0, 3))
def test_another_rate_has_the_expected_count_and_only_known_requests(load, factor, seed, jitter):
    scaled = transforms.scale_rate(load, factor, seed, jitter=jitter)
    check(scaled)
    assert int(factor) * len(load) <= len(scaled) <= (int(factor) + 1) * len(load)
    known = set(zip(load.input_tokens, load.output_tokens, strict=True))
    assert set(zip(scaled.input_tokens, scaled.output_tokens, strict=True)) <= known
    assert same(scaled, transforms.scale_rate(load, factor, seed, jitter=jitter))
    if factor < 1:
        assert set(scaled.time) <= set(load.time)
    if len(scaled):
        after = np.searchsorted(load.time, scaled.time).clip(1, max(1, len(load) - 1))
        around = load.time[np.minimum([after - 1, after], len(load) - 1)]
        assert np.abs(scaled.time - around).min(axis=0).max() <= jitter + 1e-9


@unhurried
@given(loads(), st.floats(0.1, 10))
def test_speed_keeps_order_counts_and_shape(load, factor):
    fast = transforms.speed_up(load, factor)
    check(fast)
    assert len(fast) == len(load)
    np.testing.assert_allclose(fast.time * factor, load.time, rtol=1e-12)
    np.testing.assert_allclose(loadstats.gap_cv(fast), loadstats.gap_cv(load), rtol=1e-6)


@unhurried
@given(loads(), st.floats(0.01, 0.99))
def test_slices_put_together_are_the_whole(load, share):
    cut = load.duration * share
    parts = (transforms.slice_time(load, 0, cut), transforms.slice_time(load, cut, load.duration))
    for part in parts:
        check(part)
    whole = transforms.concatenate(*parts)
    assert len(whole) == len(load)
    np.testing.assert_allclose(whole.time, load.time, atol=1e-9)
    assert np.array_equal(whole.input_tokens, load.input_tokens)
    assert whole.duration == pytest.approx(load.duration)


@unhurried
@given(st.lists(loads(), min_size=1, max_size=4))
def test_concatenation_keeps_every_request(parts):
    whole = transforms.concatenate(*parts)
    check(whole)
    assert len(whole) == sum(len(part) for part in parts)
    assert whole.duration == pytest.approx(sum(part.duration for part in parts))


@unhurried
@given(loads(), st.floats(0.1, 10), SEEDS)
def test_spread_ticks_move_requests_by_less_than_a_tick(load, tick, seed):
    ticked = Arrivals(
        np.floor(load.time / tick) * tick,
        load.input_tokens,
        load.output_tokens,
        load.cached_tokens,
        load.duration,
    )
    spread = transforms.spread_ticks(ticked, tick, seed)
    check(spread)
    assert np.array_equal(np.sort(spread.input_tokens), np.sort(load.input_tokens))
    assert np.all((spread.time >= ticked.time - 1e-9) & (spread.time <= ticked.time + tick + 1e-9))


@unhurried
@given(loads(), st.floats(0.05, 50))
def test_windows_count_every_request_before_the_rest(load, window):
    counts = loadstats.count_per_window(load, window)
    edge = len(counts) * window
    assert counts.sum() == np.sum(load.time < edge)
    assert load.duration - window * 1.001 <= edge <= load.duration * (1 + 1e-6)
    if counts.any():
        flow = fluidload.to_fluid(load, window)
        assert flow.requests == pytest.approx(counts.sum())
        tokens = flow.rate * flow.step * flow.input_tokens
        assert tokens.sum() == pytest.approx(load.input_tokens[: counts.sum()].sum())


@unhurried
@given(SEEDS, st.integers(0, 300), st.booleans(), st.floats(0.01, 100))
def test_a_window_of_any_law_has_its_count(seed, count, weibull, shape):
    times = servegen.draw_window(np.random.default_rng(seed), count, weibull, shape)
    assert len(times) == count
    assert np.all((times >= 0) & (times < servegen.WINDOW))


@unhurried
@given(st.lists(st.lists(st.integers(0, 8), max_size=6, unique=True), max_size=30), st.integers(0, 12))
def test_a_larger_cache_never_finds_less(prompts, capacity):
    caches = [PrefixBlocks(capacity), PrefixBlocks(capacity + 3), PrefixBlocks()]
    for prompt in prompts:
        hits = [cache.admit(prompt) for cache in caches]
        assert hits == sorted(hits)
        assert hits[-1] <= len(prompt)
        assert len(caches[0]) <= capacity


@unhurried
@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 10**6)),
        min_size=1,
        max_size=20,
    )
)
def test_what_was_written_is_read(rows):
    rows = [(time, prompt, answer, min(cached, prompt - 1)) for time, prompt, answer, cached in rows]
    text = "time,input_tokens,output_tokens,cached_tokens\n" + "".join(
        ",".join(map(repr, row)) + "\n" for row in rows
    )
    load = _read(text.encode())
    check(load)
    expected = sorted(rows, key=lambda row: row[0])
    found = zip(load.time, load.input_tokens, load.output_tokens, load.cached_tokens, strict=True)
    assert [tuple(row) for row in found] == expected


@settings(unhurried, max_examples=300)
@given(
    st.binary(max_size=300)
    | st.text(max_size=200).map(str.encode)
    | st.lists(
        st.lists(st.text("0123456789.-eEnaifTZ:\"', {}[]", max_size=6), min_size=3, max_size=5), max_size=4
    ).map(
        lambda table: (
            "time,input_tokens,output_tokens\n" + "\n".join(",".join(row) for row in table)
        ).encode()
    )
)
def test_any_file_is_read_or_refused_with_its_name(content):
    try:
        load = _read(content)
    except TraceError as error:
        refusal = str(error)
    else:
        check(load)
        return
    assert "trace.csv" in refusal


def _read(content: bytes) -> Arrivals:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        path.write_bytes(content)
        return read_trace(path)
