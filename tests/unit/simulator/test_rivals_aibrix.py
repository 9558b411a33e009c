import pytest

from modelyard.simulator.rivals.aibrix import Apa, ApaSettings, Cooldown, Kpa, KpaSettings, ScalingContext
from modelyard.simulator.rivals.common import Target
from tests.unit.simulator.rivals_support import scenario, signals


def run(policy, readings):
    return [policy.decide(signals(10.0 * index, **reading)) for index, reading in enumerate(readings)]


def apa(*readings, settings=None):
    return run(Apa("apa", scenario(), settings or ApaSettings()), readings)


def kpa(*readings, settings=None):
    return run(Kpa("kpa", scenario(), settings or KpaSettings()), readings)


@pytest.mark.parametrize(
    ("cache", "replicas"),
    [
        (0.50, 10),
        (0.55, 10),  # just within 10 %
        (0.56, 12),  # ceil(11.2)
        (0.80, 16),
        (1.00, 20),
        (0.45, 10),
        (0.44, 9),  # ceil(8.8)
        (0.10, 5),  # 2, but half at most is taken away
    ],
)
def test_apa_is_in_proportion_within_tolerance_and_rate(cache, replicas):
    assert apa({"ready": 10, "cache_usage": cache}) == [replicas]


def test_apa_grows_to_double_at_most():
    assert apa({"ready": 3, "cache_usage": 1.0}, settings=ApaSettings(target=Target(0.2))) == [6]


def test_apa_averages_three_minutes():
    counts = apa({"ready": 4, "cache_usage": 0.5}, {"ready": 4, "cache_usage": 0.9})
    # Mean 0.7: 5.6 of 4.
    assert counts == [4, 6]
    late = apa(
        *[{"ready": 4, "cache_usage": 0.5}] + [{"ready": 4}] * 0 + [{"ready": 4, "cache_usage": 0.5}] * 17
    )
    assert late == [4] * 18


def test_apa_forgets_after_three_minutes():
    # The mean stays above 0.55 while the first reading counts: (1.6 + 17 * 0.5) / 18 = 0.561.
    settings = ApaSettings(target=Target(0.5), context=ScalingContext(max_up_rate=1.01))
    counts = apa(
        {"ready": 4, "cache_usage": 1.6}, *[{"ready": 4, "cache_usage": 0.5}] * 20, settings=settings
    )
    # One replica more at each decision until 170 s; at 180 s the first reading is a window old.
    assert counts == [*range(5, 23), 22, 22, 22]


def test_apa_without_a_ready_pod_changes_nothing():
    assert apa({"ready": 0, "pending": 3, "cache_usage": 1.0}) == [3]


def test_apa_on_requests():
    settings = ApaSettings("concurrency", Target(0.5, "batch"))
    # (16 + 6 - 4) / 2 = 9 against 6.
    reading = {"ready": 2, "running": 16.0, "waiting": 6.0, "gateway_waiting": 4.0}
    assert apa(reading, settings=settings) == [3]


def test_the_cooldown_takes_the_lowest_downwards_and_the_newest_upwards():
    cooldown = Cooldown(ScalingContext())
    assert cooldown.apply(0, 10, 4) == 4
    assert cooldown.apply(10, 4, 12) == 12
    # 4 was recommended within 300 s.
    assert cooldown.apply(20, 12, 11) == 4
    # 320 s: the recommendations of 0 to 20 s are forgotten.
    assert cooldown.apply(320, 12, 11) == 11
    assert cooldown.apply(330, 11, 11) == 11


def test_the_cooldown_upwards_takes_the_highest():
    cooldown = Cooldown(ScalingContext(up_cooldown=60.0))
    assert cooldown.apply(0, 4, 9) == 9
    assert cooldown.apply(10, 4, 6) == 9
    assert cooldown.apply(60, 4, 5) == 6


@pytest.mark.parametrize(
    ("in_flight", "replicas"),
    [
        (100, 4),  # near the target: no change
        (109, 4),
        (400, 4),
        (401, 5),
        (2000, 8),  # double at most
        (150, 2),
        (50, 2),  # 1, but half at most is taken away
    ],
)
def test_kpa_divides_the_requests_by_the_target(in_flight, replicas):
    assert kpa({"ready": 4, "running": float(in_flight)}) == [replicas]


def test_kpa_panics_when_the_last_minute_is_more_than_twice_the_stable_mean():
    quiet = [{"ready": 2, "running": 150.0}] * 12
    busy = [{"ready": 2, "running": 600.0}] * 6
    counts = kpa(*quiet, *busy)
    # 120 s at 150, then k readings of 600: the stable mean is (1,800 + 600 k) / (12 + k): 185, 214, 240, 262, 282, 300.
    # That of the last minute is 150 + 75 k: 225, 300, 375, 450, 525, 600; never more than twice.
    assert counts == [2] * 13 + [3] * 5
    eager = kpa(*quiet, *busy, settings=KpaSettings(panic_threshold=1.5))
    # From k = 3 on the ratio is 1.56 and more: the last minute counts.
    assert eager == [2] * 13 + [3, 4, 5, 6, 6]


def test_kpa_without_requests_goes_down():
    assert kpa(*[{"ready": 8}] * 4) == [4, 2, 1, 1]
