"""How headroom follows what was missed: as engines count it, or else as arrivals against capacity tell."""

import math
import random
from dataclasses import replace

import pytest

from modelyard.core.demand import Demand, Sample
from modelyard.core.scaling.forecast import Forecast, ForecastPolicy, advance, begin
from modelyard.core.scaling.headroom import Headroom, HeadroomPolicy, Pending, Queue, control, follow, learn
from modelyard.core.scaling.rule import LONGEST_COUNT, FleetView, LoadMemory, LoadPolicy, observe_load
from modelyard.core.snapshot import ServiceReading
from tests.unit.core.build import NOW

FORECAST = ForecastPolicy()
HEADROOM = HeadroomPolicy()
POLICY = LoadPolicy()


def test_misses_make_the_plan_stricter_and_their_absence_looser():
    state = control(Headroom(), 1.0, 60.0, HEADROOM)
    assert state.allowed == pytest.approx(
        HEADROOM.missed * math.exp(HEADROOM.gain * (1 - 1 / HEADROOM.missed))
    )
    assert control(Headroom(), HEADROOM.missed, 60.0, HEADROOM).allowed == pytest.approx(HEADROOM.missed)
    assert control(Headroom(), 0.0, 60.0, HEADROOM).allowed == pytest.approx(
        HEADROOM.missed * math.exp(HEADROOM.gain)
    )
    assert control(Headroom(), 1.0, 1e6, HEADROOM).allowed == HEADROOM.lowest
    assert control(Headroom(), 0.0, 1e6, HEADROOM).allowed == HEADROOM.highest


def test_what_engines_count_is_followed_and_an_outage_counts_up_to_a_bound():
    usual = HEADROOM.missed
    assert follow(Headroom(), usual, 60.0, HEADROOM).allowed == pytest.approx(usual)
    assert follow(Headroom(), 0.0, 60.0, HEADROOM).allowed == pytest.approx(usual * math.exp(HEADROOM.speed))
    twice = follow(Headroom(), 2 * usual, 60.0, HEADROOM).allowed
    assert twice == pytest.approx(usual * math.exp(-HEADROOM.speed))
    worst = usual * math.exp(-HEADROOM.speed * (HEADROOM.worst - 1))
    assert follow(Headroom(), 0.2, 60.0, HEADROOM).allowed == pytest.approx(worst)
    assert follow(Headroom(), 1.0, 60.0, HEADROOM).allowed == pytest.approx(worst)


def _play(rates: list[float]) -> Headroom:
    """Learn from bins of 8 s with starts of 120 s; the forecast is always that of the bin before."""
    state = Headroom()
    before = Forecast(time=NOW, fast=rates[0], slow=rates[0], dispersion=1.0, last=rates[0], age=900.0)
    for rate in rates:
        after = replace(before, time=before.time + 8.0, fast=rate, slow=rate, last=rate, age=before.age + 8.0)
        state = learn(state, before, after, 1.0, 120.0, FORECAST, HEADROOM)
        before = after
    return state


def test_after_a_surge_calm_does_not_lower_the_headroom_below_the_usual():
    calm = _play([100.0] * 200)
    assert not calm.surged
    assert follow(calm, 0.0, 36_000.0, HEADROOM).allowed == HEADROOM.highest
    # Half as much again within a start counts as an error; more is a surge.
    assert not _play([*[100.0] * 100, *[140.0] * 100]).surged
    surged = _play([*[100.0] * 100, *[160.0] * 100])
    assert surged.surged
    assert follow(surged, 0.0, 36_000.0, HEADROOM).allowed == HEADROOM.missed
    assert control(surged, 0.0, 1e6, HEADROOM).allowed == HEADROOM.missed
    relaxed = replace(surged, allowed=HEADROOM.highest)
    assert follow(relaxed, 0.0, 15.0, HEADROOM).allowed == HEADROOM.missed
    # It is forgotten with everything else.
    long_ago = _play([*[100.0] * 100, *[160.0] * round(HEADROOM.memory / 8.0 + 100)])
    assert not long_ago.surged


def test_a_surge_is_no_error_and_what_it_misses_no_sign_of_too_little_headroom():
    steady, surged = _play([100.0] * 120), _play([*[100.0] * 100, *[300.0] * 14])
    assert surged.surges(120.0)
    assert surged.error == pytest.approx(steady.error, abs=1.0)
    assert not _play([*[100.0] * 100, *[300.0] * 40]).surges(120.0)
    # 20 and then 60 requests a second, at 25: with the surge in between nothing that is missed counts.
    samples = [Sample(NOW + 2.0 * number, 40.0 * number) for number in range(181)]
    samples += [Sample(NOW + 360.0 + 2.0 * number, 7200.0 + 120.0 * number) for number in range(1, 31)]
    memory, view = LoadMemory(), FleetView(25.0, 25.0, 120.0, 8.0)
    memory = observe_load(memory, Demand(60.0, None, tuple(samples[:181])), view, POLICY)
    before = memory.headroom.allowed
    memory = observe_load(memory, Demand(60.0, None, tuple(samples)), view, POLICY)
    assert memory.backlog > 1000.0
    assert memory.headroom.surges(120.0)
    assert before is not None
    assert memory.headroom.allowed == pytest.approx(before)


@pytest.mark.parametrize("rate", [2.0, 8.0])
def test_chance_is_no_surge(rate: float):
    """With few requests in a bin half as much again comes all the time."""
    chance, forecast, state = random.Random(1), begin(NOW, rate, FORECAST), Headroom()
    for number in range(2000):
        arrivals = sum(chance.random() < rate / 100 for _ in range(800))
        after = advance(forecast, NOW + 8.0 * (number + 1), arrivals, FORECAST)
        state = learn(state, forecast, after, 1.0, 120.0, FORECAST, HEADROOM)
        forecast = after
    assert not state.surged


def test_the_first_moments_are_no_surge():
    assert not _play([*[20.0] * 10, *[100.0] * 100]).surged
    # Twice a start after the first forecast could be held against what came.
    assert _play([*[20.0] * 50, *[100.0] * 100]).surged


def test_a_promise_that_is_due_in_a_hole_of_the_readings_shows_no_surge():
    before = Forecast(time=NOW, fast=100.0, slow=100.0, dispersion=1.0, last=100.0, age=900.0)
    after = replace(before, time=NOW + 8.0, last=500.0)
    state = Headroom(pending=(Pending(NOW - 600.0, 100.0, 100.0),), observed=600.0, calm=600.0, power=1e4)
    assert not learn(state, before, after, 1.0, 120.0, FORECAST, HEADROOM).surged


def _samples(seconds: int, rate: float = 20.0) -> tuple[Sample, ...]:
    return tuple(Sample(NOW + second, rate * second) for second in range(0, seconds + 1, 2))


def _observe(readings: list[ServiceReading | None], *, serving: float = 40.0, **fleet: bool) -> Headroom:
    """Take in bins of 8 s, each with the newest reading of the engines."""
    memory, samples = LoadMemory(), _samples(8 * len(readings))
    for number, reading in enumerate(readings):
        known = Demand(20.0, None, samples[: 4 * (number + 1) + 1])
        view = FleetView(serving, serving, 120.0, 8.0, service=reading, **fleet)
        memory = observe_load(memory, known, view, POLICY)
    return memory.headroom


def _reading(seconds: float, requests: float, missed: float) -> ServiceReading:
    return ServiceReading(NOW + seconds, requests, missed)


def test_each_reading_of_the_engines_counts_once():
    first, second = _reading(0.0, 1000.0, 10.0), _reading(15.0, 1300.0, 10.0)
    once = _observe([first, second]).allowed
    assert once == pytest.approx(HEADROOM.missed * math.exp(HEADROOM.speed * 15.0 / 60.0))
    assert _observe([first, second, second, second]).allowed == once
    assert _observe([first, first]).allowed is None


def test_engines_are_believed_against_what_arrivals_tell():
    """More is offered than is served, and all requests attain: the engines are faster than thought."""
    readings = [_reading(8.0 * number, 160.0 * number, 0.0) for number in range(10)]
    allowed = _observe(readings, serving=10.0).allowed
    assert allowed is not None
    assert allowed > HEADROOM.missed
    unknown = _observe([None] * 10, serving=10.0).allowed
    assert unknown is not None
    assert unknown < HEADROOM.missed


def test_where_engines_fall_silent_arrivals_tell_again():
    silent = [_reading(0.0, 100.0, 0.0)] * round(LONGEST_COUNT / 8.0 + 4)
    allowed = _observe([*silent], serving=10.0).allowed
    assert allowed is not None
    assert allowed < HEADROOM.missed


@pytest.mark.parametrize("after", [_reading(15.0, 1000.0, 10.0), _reading(15.0, 10.0, 0.0)])
def test_nothing_answered_or_a_count_that_began_again_changes_nothing(after: ServiceReading):
    assert _observe([_reading(0.0, 1000.0, 10.0), after]).allowed is None


def test_where_the_size_cannot_follow_misses_do_not_count():
    missed = [_reading(0.0, 1000.0, 0.0), _reading(15.0, 1300.0, 300.0)]
    fine = [_reading(0.0, 1000.0, 0.0), _reading(15.0, 1300.0, 0.0)]
    assert _observe(missed, tightens=False).allowed is None
    assert _observe(missed, relaxes=False).allowed is not None
    assert _observe(fine, relaxes=False).allowed is None
    assert _observe(fine, tightens=False).allowed is not None


def _surge(waits: list[float], *, each: float = 10.0) -> Headroom:
    """Learn from bins of 8 s, with starts of 120 s: a surge, then calm bins in which so many requests wait."""
    rates = [*[100.0] * 100, *[300.0] * len(waits)]
    queues = [Queue(0.0, each)] * 100 + [Queue(waiting, each) for waiting in waits]
    state = Headroom()
    before = Forecast(time=NOW, fast=rates[0], slow=rates[0], dispersion=1.0, last=rates[0], age=900.0)
    for rate, queue in zip(rates, queues, strict=True):
        after = replace(before, time=before.time + 8.0, fast=rate, slow=rate, last=rate, age=before.age + 8.0)
        state = learn(state, before, after, 1.0, 120.0, FORECAST, HEADROOM, queue)
        before = after
    return state


def test_what_a_surge_made_wait_is_missed_for_the_surge():
    """Replicas that start later do not take over what waits in an engine: it is late for as long as it is left."""
    served = [900.0] * 35
    assert not _surge([0.0] * 35).surges(120.0)
    assert _surge(served).surges(120.0)
    assert _surge([*served, 500.0, 510.0, 100.0]).surges(120.0)
    # Nothing waits any more: what is missed from here on was missed for want of capacity.
    assert not _surge([*served, 500.0, 1.0]).surges(120.0)
    assert not _surge([*served, 1.0, 500.0]).surges(120.0)


def test_a_queue_that_grows_or_never_ends_is_no_surge_s_any_more():
    served = [900.0] * 35
    assert not _surge([*served, 901.0]).surges(120.0)
    # 900 requests take one replica 90 s.
    assert _surge([*served, *[880.0] * 5]).surges(120.0)
    assert not _surge([*served, *[880.0] * 12]).surges(120.0)
    # It is not known how much a replica takes off.
    assert not _surge(served, each=0.0).surges(120.0)
