"""A load as a flow: levels against the step-time model, the curve of attainment, and bursts."""

from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.load import LoadShape
from modelyard.simulator.flow import (
    Bursts,
    add_bursts,
    fit_curve,
    flow_of,
    levels_seen,
    measure_bursts,
)
from modelyard.simulator.fluidlevels import Levels, Mix, MixedLoad, measure_mix, mix_of, pace
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Engine, Objective
from tests.unit.simulator.play import LLAMA_8B, Script, make_arrivals, make_scenario, random_arrivals

ENGINE = Engine(LLAMA_8B, cache_tokens=400_000)
SHAPE = LoadShape(914, 155)


def steady(rate: float, steps: int = 60) -> FluidLoad:
    return FluidLoad(
        10.0, np.full(steps, rate), np.full(steps, SHAPE.input_tokens), np.full(steps, SHAPE.output_tokens)
    )


def level_at(rate: float, replicas: int = 1) -> float:
    load = steady(rate)
    return float(levels_seen(load, pace(ENGINE, load), np.full(len(load), replicas))[-1])


@pytest.mark.parametrize("rate", [2.0, 10.0, 20.0, 25.0])
def test_the_steady_batch_obeys_little_and_the_step_time_model(rate):
    """Sequences that run = rate x tokens x seconds between tokens at that batch."""
    batch = level_at(rate)
    assert batch == pytest.approx(rate * 155 * LLAMA_8B.inter_token_latency(SHAPE, batch), rel=0.01)


@pytest.mark.parametrize("rate", [8.0, 16.0, 22.0])
def test_the_batch_is_that_of_a_request_level_run(rate):
    arrivals = random_arrivals(rate, 1200.0, 3)
    script = Script([1], interval=600.0)
    run(make_scenario(arrivals), script)
    load = flow_of(arrivals)
    level = levels_seen(load, pace(ENGINE, load), np.ones(len(load), dtype=np.int64))
    assert level[60:].mean() == pytest.approx(script.seen[1].mean_running, rel=0.06)


def test_the_batch_rises_with_the_load_and_falls_with_the_replicas():
    rates = [level_at(rate) for rate in (1.0, 5.0, 10.0, 20.0, 40.0)]
    fleets = [level_at(40.0, replicas) for replicas in (1, 2, 3, 4, 8)]
    assert rates == sorted(rates)
    assert fleets == sorted(fleets, reverse=True)
    speed = pace(ENGINE, steady(1.0, 5))
    assert (np.diff(speed.latency(np.array(rates))) > 0).all()
    assert (speed.slow_latency(np.array(rates)) > speed.latency(np.array(rates))).all()


def test_half_the_load_on_half_the_fleet_is_the_same():
    assert level_at(30.0, 2) == pytest.approx(level_at(15.0, 1), rel=1e-6)


def test_what_cannot_be_answered_waits_at_the_rate_that_a_full_replica_leaves():
    load = steady(60.0, 120)
    speed = pace(ENGINE, load)
    limit = speed.limit[0]
    answered = limit / (speed.output[0] * (speed.base[0] + speed.slope[0] * limit))
    level = levels_seen(load, speed, np.ones(len(load), dtype=np.int64))
    assert (level[-1] - level[-61]) / 600 == pytest.approx(60.0 - answered, rel=0.02)


def play(levels: Levels, rate: float, seconds: float) -> tuple[float, float, float]:
    speed = pace(ENGINE, steady(1.0, 1))
    return levels.advance(rate, speed.base[0], speed.slope[0], speed.output[0], speed.limit[0], seconds)


def test_new_requests_do_not_wait_behind_those_of_old_replicas():
    levels = Levels(1)
    play(levels, 60.0, 300.0)
    behind = play(levels, 20.0, 1.0)[0]
    levels.add(1)
    beside = play(levels, 20.0, 10.0)[0]
    assert behind > 1000
    assert beside < level_at(20.0) * 1.1


def test_replicas_that_are_alike_stay_one_group_and_unequal_ones_come_together():
    levels = Levels(3)
    play(levels, 30.0, 60.0)
    levels.add(1)
    play(levels, 30.0, 60.0)
    expected = Levels(4)
    play(expected, 30.0, 600.0)
    assert levels.replicas == 4
    assert levels.unfinished == pytest.approx(expected.unfinished, rel=0.01)
    assert levels.look(256.0)[2] == pytest.approx(expected.unfinished / 4, rel=0.02)


def test_no_request_is_lost_when_replicas_come_and_leave():
    levels = Levels(0)
    assert play(levels, 5.0, 20.0)[0] == np.inf
    assert levels.unfinished == pytest.approx(100.0)
    assert levels.held == pytest.approx(100.0)
    levels.add(2)
    assert (levels.held, levels.replicas) == (0.0, 2)
    assert levels.unfinished == pytest.approx(100.0)
    assert levels.leave(1) == [(pytest.approx(50.0), 1)]
    assert (levels.replicas, levels.unfinished) == (1, pytest.approx(100.0))
    play(levels, 0.0, 0.5)
    before = levels.unfinished
    lost = levels.forget(0)
    assert 0 < lost < 50
    assert levels.unfinished == pytest.approx(before - lost)
    # The newest leave first, of as many groups as it takes.
    levels.add(3)
    assert sum(count for _, count in levels.leave(9)) == 4
    assert levels.replicas == 0


def test_many_groups_have_room():
    levels = Levels(1)
    for number in range(40):
        play(levels, 60.0, 1.0 + number)
        levels.add(1)
    assert levels.replicas == 41


def test_requests_that_are_alike_have_no_spread():
    arrivals = make_arrivals(np.arange(1200.0), 500, 100, duration=1200.0)
    mix = measure_mix(arrivals)
    assert (mix.held, mix.square, mix.cached) == (pytest.approx(1.0), pytest.approx(0.0), 0.0)
    assert mix.moments == (pytest.approx(1.0),) * 3
    assert measure_mix(make_arrivals([], [], [], duration=1.0)) == Mix()


def test_means_that_change_over_the_day_are_no_spread():
    lengths = np.repeat([100, 1000], 600)
    mix = measure_mix(make_arrivals(np.arange(1200.0), lengths, lengths, duration=1200.0))
    assert mix.held == pytest.approx(1.0)
    assert mix.square == pytest.approx(0.0)


def test_spread_is_that_of_the_distribution():
    """Exponential answers: what runs at a moment is on average twice as long; powers of exponentials are factorials."""
    chance = np.random.default_rng(0)
    times = np.sort(chance.uniform(0, 600, 200_000))
    arrivals = make_arrivals(
        times, chance.exponential(900, len(times)), chance.exponential(200, len(times)), duration=600
    )
    mix = measure_mix(arrivals)
    assert mix.held == pytest.approx((900 + 200) / 1000, rel=0.02)
    assert mix.square == pytest.approx(1.0, rel=0.03)
    assert mix.moments == (pytest.approx(2, rel=0.02), pytest.approx(6, rel=0.05), pytest.approx(24, rel=0.1))


def test_cached_prompts_are_less_work():
    load = steady(20.0)
    arrivals = make_arrivals(np.arange(600.0), 914, 155, cached=457, duration=600.0)
    mix = mix_of(load, arrivals)
    assert mix.cached == pytest.approx(0.5)
    assert pace(ENGINE, load, mix).slope[0] < pace(ENGINE, load).slope[0]
    known = MixedLoad(load.step, load.rate, load.input_tokens, load.output_tokens, mix=mix)
    assert mix_of(known, make_arrivals([0.0], [1], [1])) == mix


def true_share(ratio):
    return 1 / (1 + np.exp(12 * (np.asarray(ratio) - 0.9)))


def synthetic_runs(noise: float, count: int = 4):
    """Outcomes whose shares follow a known curve of the flow's own ratio."""
    objective, chance = Objective(), np.random.default_rng(7)
    base = run(make_scenario(random_arrivals(1.0, 60.0, 0)), Script([1]))
    runs = []
    for number in range(count):
        load = replace(steady(1.0, 720), rate=chance.uniform(5, 30 + number, 720))
        level = levels_seen(load, pace(ENGINE, load), np.ones(len(load), dtype=np.int64))
        share = true_share(pace(ENGINE, load).slow_latency(level) / objective.inter_token)
        noisy = np.clip(share + chance.normal(0, noise, len(share)), 0, 1)
        runs.append(
            (
                load,
                replace(
                    base,
                    time=10.0 * np.arange(720),
                    ready=np.ones(720, dtype=np.int64),
                    attained_share=noisy,
                    arrival_rate=load.rate,
                ),
            )
        )
    return runs


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_known_curve_is_found_again(noise):
    curve = fit_curve(ENGINE, Objective(), synthetic_runs(noise))
    at = np.linspace(0.55, 1.2, 40)
    assert np.abs(curve(at) - true_share(at)).max() < 0.01 + 2 * noise
    assert (np.diff(curve.ratio) >= 0).all()
    assert (np.diff(curve.share) <= 0).all()
    assert curve(5.0)[0] == 0.0


def test_a_backlog_that_ends_later_than_in_the_flow_does_not_count():
    runs = synthetic_runs(0.0)
    load, outcome = runs[0]
    share = outcome.attained_share.copy()
    share[300:400] = 0.0
    with_backlog = fit_curve(ENGINE, Objective(), [*runs, (load, replace(outcome, attained_share=share))])
    at = np.linspace(0.55, 0.8, 20)
    assert np.abs(with_backlog(at) - true_share(at)).max() < 0.02


def test_a_curve_needs_a_sample():
    with pytest.raises(ValueError, match="no request-level run has a sample"):
        fit_curve(ENGINE, Objective(), [])


def bursty(bursts: Bursts, rate: float, hours: float, seed: int):
    """Arrivals whose rate of ten seconds has these bursts."""
    steps = round(hours * 360)
    chance = np.random.default_rng(seed)
    counts = chance.poisson(rate * 10 * bursts.factors(steps, seed))
    times = np.repeat(10.0 * np.arange(steps), counts) + chance.uniform(0, 10, counts.sum())
    return make_arrivals(np.sort(times), 100, 100, duration=10.0 * steps)


@pytest.mark.parametrize(("cv", "correlation"), [(0.1, 0.3), (0.25, 0.0), (0.4, 0.6)])
def test_bursts_are_measured_as_they_were_made(cv, correlation):
    # Within ten minutes their own mean is taken off, which hides a little of what is correlated.
    found = measure_bursts(bursty(Bursts(cv, correlation), 20.0, 48.0, 5))
    assert found.cv == pytest.approx(cv, rel=0.08)
    assert found.correlation == pytest.approx(correlation, abs=0.08)


def test_poisson_arrivals_have_no_bursts():
    assert measure_bursts(bursty(Bursts(0.0, 0.0), 20.0, 24.0, 2)).cv < 0.03


def test_factors_have_mean_one_and_the_same_seed_gives_the_same():
    bursts = Bursts(0.3, 0.5)
    assert bursts.factors(200_000, 1).mean() == pytest.approx(1.0, abs=0.01)
    assert np.array_equal(bursts.factors(50, 1), bursts.factors(50, 1))
    assert not np.array_equal(bursts.factors(50, 1), bursts.factors(50, 2))


def test_a_load_with_bursts_has_whole_requests_the_same_mean_and_what_it_knew():
    load = flow_of(random_arrivals(20.0, 7200.0, 1))
    found = add_bursts(load, Bursts(0.2, 0.3), 4)
    assert np.allclose(found.rate * 10, np.rint(found.rate * 10))
    assert found.requests == pytest.approx(load.requests, rel=0.03)
    assert found.rate.std() > load.rate.std() * 2
    assert isinstance(found, MixedLoad)
    assert found.mix == load.mix
    assert np.array_equal(found.rate, add_bursts(load, Bursts(0.2, 0.3), 4).rate)


def test_bursts_need_ten_minutes_with_requests():
    with pytest.raises(ValueError, match="no requests in whole stretches"):
        measure_bursts(random_arrivals(1.0, 300.0, 0))
