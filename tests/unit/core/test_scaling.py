"""The parts of the rule that sizes by load, with numbers worked out by hand."""

import math
import random
import statistics

import pytest

from modelyard.core.demand import Demand, DemandMemory, DemandPolicy, Sample, estimate_demand, observe
from modelyard.core.scaling.attainment import (
    MissPolicy,
    advance_backlog,
    capacity_for,
    expected_missed,
    highest_utilization,
    missed_share,
)
from modelyard.core.scaling.forecast import Forecast, ForecastPolicy, advance, begin
from modelyard.core.scaling.headroom import PENDING, Headroom, HeadroomPolicy, Pending, learn
from modelyard.core.scaling.idle import BUCKETS, ENOUGH, GapMemory, keep_time, observe_gap
from modelyard.core.scaling.proof import Fleet, is_enough, project_backlog
from modelyard.core.scaling.rule import FleetView, LoadMemory, LoadPolicy, assess, convert, observe_load
from modelyard.core.scaling.starts import KEPT, StartMemory, observe_starts, start_time
from tests.unit.core.build import NOW, make_pod

FORECAST = ForecastPolicy()
HEADROOM = HeadroomPolicy()
MISSES = MissPolicy(at_capacity=0.1, spread=0.04)


def _feed(rates: list[float], width: float = 8.0, policy: ForecastPolicy = FORECAST) -> Forecast:
    state = begin(NOW, rates[0], policy)
    for number, rate in enumerate(rates):
        state = advance(state, NOW + width * (number + 1), rate * width, policy)
    return state


def test_a_constant_load_is_forecast_as_it_is():
    state = _feed([20.0] * 50)
    assert state.level(FORECAST) == pytest.approx(20.0)
    assert state.ahead(120.0, FORECAST) == pytest.approx(20.0)
    # Counts that never vary are less than Poisson; the dispersion ends at 1.
    assert _feed([20.0] * 2000).dispersion == 1.0


def test_a_slope_counts_as_far_as_it_stands_out_from_the_noise():
    # (130 - 100) / 90 s = 1/3 per second. Density 4 x 100: 400 x (1/60 + 1/240 - 2/150) = 3, and sqrt(3) / 90 = 0.0192.
    state = Forecast(time=NOW, fast=130.0, slow=100.0, dispersion=4.0 / 1.3)
    error = 2 * math.sqrt(3.0) / 90
    assert state.slope(FORECAST) == pytest.approx((1 - (3 * error) ** 2) / 3)
    assert Forecast(time=NOW, fast=103.0, slow=100.0, dispersion=4.0).slope(FORECAST) == 0.0


def test_a_slope_corrects_the_lag_and_is_damped():
    quiet = ForecastPolicy(dispersion=1e-30, change=1e9)
    state = Forecast(time=NOW, fast=130.0, slow=100.0, dispersion=1e-30)
    # Each mean lags by its time constant: 130 + 30 / 3. Then 120 s x (1 - 1/e) at 1/3 per second.
    assert state.level(quiet) == pytest.approx(140.0)
    assert state.ahead(120.0, quiet) == pytest.approx(140.0 + 40.0 * (1 - math.exp(-1)))
    assert state.ahead(120.0, quiet, (0.0, 0.0)) == 130.0


def test_a_ramp_is_followed_without_lag():
    quiet = ForecastPolicy(dispersion=1e-30, change=1e9)
    state = _feed([float(number) for number in range(1000)], width=1.0, policy=quiet)
    assert state.level(quiet) == pytest.approx(999.0, abs=1.0)


def test_the_trend_is_told_of_ten_minutes_and_is_no_part_of_the_forecast():
    quiet = ForecastPolicy(dispersion=1e-30, change=1e9)
    state = _feed([100.0 + 0.01 * 8.0 * number for number in range(1000)], policy=quiet)
    assert state.trend(quiet) == pytest.approx(0.01, rel=0.01)
    assert state.ahead(120.0, quiet, (0.0, 0.0)) == state.fast
    # Before there was a second mean there is none.
    assert Forecast(time=NOW, fast=130.0, slow=100.0, dispersion=1.0).trend(FORECAST) == 0.0


def test_two_bins_that_stand_out_are_a_new_level_and_no_slope():
    steady = _feed([20.0] * 100)
    one = advance(steady, steady.time + 8.0, 60.0 * 8.0, FORECAST)
    assert one.level(FORECAST) < 45.0
    two = advance(one, one.time + 8.0, 60.0 * 8.0, FORECAST)
    assert two.level(FORECAST) == pytest.approx(60.0, rel=0.05)
    assert two.ahead(120.0, FORECAST) == pytest.approx(two.level(FORECAST), rel=0.25)


def test_dispersion_is_variance_over_mean():
    # Counts of 8 s alternate between 80 and 240: mean 160, variance 6400, and twice a fast mean's own swing.
    state = _feed([10.0, 30.0] * 400)
    assert 35.0 < state.dispersion < 55.0


def test_misses_grow_e_fold_with_each_spread_of_utilization():
    assert missed_share(1.0, MISSES) == pytest.approx(0.1)
    assert missed_share(0.96, MISSES) == pytest.approx(0.1 / math.e)
    assert missed_share(2.0, MISSES) == 1.0
    assert missed_share(0.0, MISSES) == 0.0
    assert highest_utilization(0.1 / math.e, MISSES) == pytest.approx(0.96)


@pytest.mark.parametrize("deviation", [0.02, 0.06, 0.2])
def test_expected_misses_are_the_mean_over_a_normal_distribution(deviation: float):
    steps = 4000
    total = 0.0
    for number in range(steps):
        score = -8.0 + 16.0 * (number + 0.5) / steps
        density = math.exp(-score * score / 2) / math.sqrt(2 * math.pi)
        total += missed_share(0.85 + deviation * score, MISSES) * density * 16.0 / steps
    assert expected_missed(0.85, deviation, MISSES) == pytest.approx(total, rel=1e-3)


def test_capacity_is_where_the_share_is_missed():
    assert capacity_for(88.0, 0.0, 0.1 * math.exp(-3), MISSES) == pytest.approx(100.0)
    capacity = capacity_for(88.0, 8.0, 0.005, MISSES)
    assert expected_missed(88.0 / capacity, 8.0 / capacity, MISSES) == pytest.approx(0.005, rel=0.01)
    assert capacity_for(0.0, 0.0, 0.005, MISSES) == 0.0


def test_a_backlog_is_what_came_less_what_was_served():
    assert advance_backlog(5.0, 80.0, 6.0, 10.0) == 25.0
    assert advance_backlog(5.0, 40.0, 6.0, 10.0) == 0.0


def test_errors_are_taken_at_the_lag_of_a_start():
    before = Forecast(time=NOW, fast=100.0, slow=100.0, dispersion=1.0, last=100.0, age=900.0)
    after = Forecast(time=NOW + 8.0, fast=100.0, slow=100.0, dispersion=1.0, last=120.0, age=908.0)
    state = Headroom(pending=(Pending(NOW + 4.0, 100.0, 110.0),))
    state = learn(state, before, after, 1.0, 120.0, FORECAST, HEADROOM)
    # Twice 10 squared, less a Poisson burst of 100 / 8: without the slope the error would be twice as large.
    assert state.error == pytest.approx(200.0 - 12.5)
    assert state.power == 10_000.0
    assert state.pending == (Pending(NOW + 128.0, 100.0, 100.0, straight=100.0),)


def test_an_error_counts_up_to_half_the_forecast_and_downward_not_at_all():
    before = Forecast(time=NOW, fast=100.0, slow=100.0, dispersion=1.0, last=100.0, age=900.0)
    state = Headroom(pending=(Pending(NOW + 4.0, 100.0, 100.0),))
    for rate, expected in ((500.0, 2 * 50.0**2 - 12.5), (20.0, -12.5)):
        after = Forecast(time=NOW + 8.0, fast=100.0, slow=100.0, dispersion=1.0, last=rate, age=908.0)
        seen = learn(state, before, after, 1.0, 120.0, FORECAST, HEADROOM)
        assert seen.error == pytest.approx(expected)


def test_the_first_deviation_is_the_assumed_one_and_then_the_measured_one():
    assert Headroom().relative(HEADROOM) == pytest.approx(HEADROOM.deviation)
    seen = Headroom(observed=HEADROOM.prior, error=0.04, power=1.0)
    assert seen.relative(HEADROOM) == pytest.approx(math.sqrt((0.04 + HEADROOM.deviation**2) / 2))
    # Bursts and the forecast's own error add up as variances.
    assert Headroom().deviation(100.0, 4.0, 16.0, HEADROOM) == pytest.approx(math.sqrt(25.0 + 100.0))


def test_pending_replicas_serve_once_they_arrive():
    fleet = Fleet(serving=10.0, pending=20.0, arrives=60.0)
    # 20 too many for 60 s, then 0 too many.
    assert project_backlog(fleet, (30.0,) * 5, 0.0, 120.0) == pytest.approx(1200.0)
    assert project_backlog(Fleet(40.0), (30.0,) * 5, 600.0, 120.0) == 0.0


@pytest.mark.parametrize(
    ("fleet", "backlog", "enough"),
    [
        (Fleet(40.0), 0.0, True),
        (Fleet(34.0), 0.0, False),
        (Fleet(20.0, 20.0, 60.0), 0.0, False),
        (Fleet(40.0), 1100.0, True),
        (Fleet(40.0), 1300.0, False),
    ],
)
def test_a_smaller_fleet_must_be_enough_at_every_moment_and_drain_what_waits(
    fleet: Fleet, backlog: float, enough: bool
):
    # 10 requests per second to spare for 120 s.
    assert is_enough(fleet, (35.0,) * 5, (30.0,) * 5, backlog, 120.0) is enough


def test_start_time_is_the_median_of_first_starts():
    pods = [
        make_pod(f"pod-{i}", created=NOW, ready_since=NOW + taken) for i, taken in enumerate((60, 70, 500))
    ]
    memory = observe_starts(StartMemory(), pods)
    assert start_time(memory, 120.0) == 70.0
    assert observe_starts(memory, pods) is memory
    # One that becomes ready again, and one whose container was restarted, started nothing.
    again = [make_pod("pod-0", created=NOW, ready_since=NOW + 9000.0), *pods[1:]]
    crashed = make_pod("pod-9", created=NOW, ready_since=NOW + 9000.0, restarts=2)
    assert observe_starts(memory, [*again, crashed]).seconds == memory.seconds
    assert start_time(StartMemory(), 120.0) == 120.0


def test_only_the_newest_starts_count_and_pods_that_went_are_forgotten():
    pods = [make_pod(f"pod-{i}", created=NOW, ready_since=NOW + 10.0 + i) for i in range(20)]
    memory = observe_starts(StartMemory(), pods)
    assert memory.seconds == tuple(10.0 + i for i in range(20 - KEPT, 20))
    assert observe_starts(memory, ()).measured == frozenset()


def _samples(rate: float, seconds: int, start: float = NOW) -> Demand:
    memory = DemandMemory()
    for second in range(0, seconds + 1, 2):
        memory = observe(memory, start + second, rate * second, DemandPolicy())
    demand = estimate_demand(memory, start + seconds, DemandPolicy())
    assert demand is not None
    return demand


FLEET = FleetView(serving=40.0, present=40.0, lead=120.0, service_time=8.0)


def test_bins_are_a_service_time_long_and_counted_once():
    demand = _samples(20.0, 40)
    memory = observe_load(LoadMemory(), demand, FLEET, LoadPolicy())
    assert memory.counted == Sample(NOW + 40.0, 800.0)
    assert memory.forecast is not None
    assert memory.forecast.age == 40.0
    assert observe_load(memory, demand, FLEET, LoadPolicy()) == memory


def test_a_hole_in_the_readings_is_no_load():
    memory = observe_load(LoadMemory(), _samples(20.0, 40), FLEET, LoadPolicy())
    later = Demand(20.0, None, (Sample(NOW + 500.0, 90_000.0), Sample(NOW + 502.0, 90_040.0)))
    after = observe_load(memory, later, FLEET, LoadPolicy())
    assert after.counted == Sample(NOW + 500.0, 90_000.0)
    assert after.forecast == memory.forecast


def test_larger_requests_need_more_capacity_at_once():
    policy = LoadPolicy()
    memory = observe_load(LoadMemory(), _samples(20.0, 40), FLEET, policy)
    demand = _samples(20.0, 40)
    small = assess(memory, demand, FLEET, 10.0, policy)
    large = assess(memory, demand, FleetView(40.0, 40.0, 120.0, 8.0, work=2.0), 10.0, policy)
    assert large.load[-1] == pytest.approx(2 * small.load[-1])
    assert large.capacity > 1.9 * small.capacity


def test_another_size_of_request_converts_what_is_remembered():
    policy = LoadPolicy()
    memory = observe_load(
        LoadMemory(backlog=10.0), _samples(20.0, 40), FleetView(0.0, 0.0, 120.0, 8.0), policy
    )
    other = convert(memory, 0.5)
    assert other.backlog == pytest.approx(memory.backlog / 2)
    assert other.headroom.pending[0].level == pytest.approx(memory.headroom.pending[0].level / 2)
    assert convert(memory, 1.0) is memory


def test_what_waits_adds_at_most_one_replica():
    policy = LoadPolicy()
    few = FleetView(serving=10.0, present=10.0, lead=120.0, service_time=8.0)
    demand = _samples(20.0, 40)
    memory = observe_load(LoadMemory(), demand, few, policy)
    need = assess(memory, demand, few, 10.0, policy)
    # 10 too many for the 40 s that were seen, and for the 120 s of a start.
    assert need.waiting == pytest.approx(400.0)
    assert need.backlog == pytest.approx(1600.0, rel=0.01)
    assert need.capacity == pytest.approx(need.profile[-1] + 10.0)


def test_long_starts_keep_few_forecasts():
    state, forecast = Headroom(), begin(NOW, 10.0, FORECAST)
    for number in range(2000):
        after = advance(forecast, NOW + 8.0 * (number + 1), 80.0, FORECAST)
        state = learn(state, forecast, after, 1.0, 6 * 3600.0, FORECAST, HEADROOM)
        forecast = after
    assert len(state.pending) <= PENDING + 1


def test_gaps_are_counted_by_length_and_forgotten_slowly():
    memory = GapMemory()
    for time in (0.0, 4.0, 104.0, 105.0, 205.0):
        memory = observe_gap(memory, NOW + time)
    # Two gaps of 99 to 100 s lie from 64 to 128 s; those of a few seconds are none.
    assert memory.counts[3] == pytest.approx(1.98)
    assert math.fsum(memory.counts) == pytest.approx(1.98)
    assert observe_gap(memory, NOW + 205.0) is memory
    assert observe_gap(memory, None) is memory


def _gaps(**counts: float) -> GapMemory:
    values = [0.0] * BUCKETS
    for name, count in counts.items():
        values[int(name[1:])] = count
    return GapMemory(tuple(values), NOW)


def test_the_last_replica_is_kept_as_long_as_that_pays():
    # Gaps of an hour: waiting for the next costs more than waking, so it goes as soon as it may.
    assert keep_time(_gaps(b9=20.0), 120.0, 600.0) == 120.0
    # Gaps of 256 to 512 s (362 s): keeping costs less than a start of 120 s that counts five times.
    assert keep_time(_gaps(b5=20.0), 120.0, 600.0) == 600.0
    # Half of each, kept for 512 s: 362 and 512 + 600; going after 120 s: 720 for both.
    assert keep_time(_gaps(b5=10.0, b9=10.0), 120.0, 3600.0) == 120.0
    assert keep_time(_gaps(b5=15.0, b9=5.0), 120.0, 3600.0) == 512.0


def test_without_enough_gaps_or_with_a_short_limit_the_user_decides():
    assert keep_time(GapMemory(), 120.0, 600.0) == 600.0
    assert keep_time(_gaps(b9=ENOUGH - 1), 120.0, 600.0) == 600.0
    assert keep_time(_gaps(b9=20.0), 120.0, 60.0) == 60.0


def test_single_requests_of_a_small_load_are_no_overload():
    """A bin in which a replica answers less than a request says nothing about misses when one comes."""
    policy, each, chance = LoadPolicy(), 0.05, random.Random(1)
    memory, demand, sizes, total, serving = LoadMemory(), DemandMemory(), [], 0.0, each
    for second in range(0, 3 * 3600, 2):
        now = NOW + second
        total += chance.random() < 0.005 * 2
        demand = observe(demand, now, total, DemandPolicy())
        known = estimate_demand(demand, now, DemandPolicy())
        if known is None:
            # One sample makes no rate.
            assert second == 0
            continue
        fleet = FleetView(serving=serving, present=serving, lead=120.0)
        memory = observe_load(memory, known, fleet, policy)
        need = assess(memory, known, fleet, each, policy)
        sizes.append(max(math.ceil(need.capacity / each - 1e-9), 1))
        serving = max(sizes[-60:]) * each
    assert statistics.mean(sizes) < 1.5
    assert memory.headroom.allowed is None or memory.headroom.allowed >= policy.headroom.missed
