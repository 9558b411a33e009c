import pytest

from modelyard.simulator.rivals.common import Target
from modelyard.simulator.rivals.keda import Keda, KedaSettings
from tests.unit.simulator.rivals_support import scenario, signals


def run(settings, readings, **changes):
    policy = Keda("keda", scenario(**changes), settings)
    return [policy.decide(signals(15.0 * index, **reading)) for index, reading in enumerate(readings)]


@pytest.mark.parametrize(
    ("waiting", "ready", "replicas"),
    [(0, 2, 2), (9, 2, 2), (11, 2, 2), (12, 2, 3), (30, 2, 6), (31, 2, 6), (100, 8, 16)],
)
def test_five_waiting_for_each_replica(waiting, ready, replicas):
    # 31 would be 7, but 2 replicas grow by 4 at most; 9 is 0.9 of what 2 are for; 0 is stabilised.
    assert run(KedaSettings(), [{"ready": ready, "waiting": waiting}]) == [replicas]


def test_an_empty_queue_ends_at_the_minimum():
    counts = run(KedaSettings(), [{"ready": 4}] * 21)
    assert counts == [4] * 20 + [1]


def test_the_cache_keeps_replicas_that_the_queue_does_not_need():
    # 0.6 * 6 = 3.6 of 0.7 each: ceil(5.14); without the trigger, 1.
    reading = {"ready": 6, "cache_usage": 0.6}
    assert run(KedaSettings(cache=0.7), [reading] * 21)[-1] == 6
    assert run(KedaSettings(cache=0.9), [reading] * 21)[-1] == 4
    assert run(KedaSettings(), [reading] * 21)[-1] == 1


def test_the_larger_of_two_triggers_counts():
    assert run(KedaSettings(cache=0.5), [{"ready": 2, "waiting": 15.0, "cache_usage": 1.0}]) == [4]
    assert run(KedaSettings(cache=0.5), [{"ready": 2, "waiting": 25.0, "cache_usage": 1.0}]) == [5]


def test_zero_after_the_cooldown_and_back_at_a_poll():
    # Polls at 0, 30, 60 ... s: idle since 0, so at 300 s.
    readings = [{"ready": 1}] * 21 + [
        {"ready": 0},
        {"ready": 0, "waiting": 1.0},
        {"ready": 0, "waiting": 1.0},
    ]
    counts = run(KedaSettings(), readings, minimum=0)
    assert counts[:20] == [1] * 20
    # 300 s: to zero. 315 s: no poll. 330 s: a poll sees the request.
    assert counts[20:] == [0, 0, 1, 1]


def test_activity_puts_the_cooldown_off():
    readings = [{"ready": 1}] * 10 + [{"ready": 1, "waiting": 1.0}] + [{"ready": 1}] * 20
    counts = run(KedaSettings(), readings, minimum=0)
    assert counts[:30] == [1] * 30
    assert counts[30] == 0


def test_waking_goes_through_one_replica():
    readings = [{"ready": 0, "waiting": 50.0}, {"ready": 0, "pending": 1, "waiting": 50.0}]
    assert run(KedaSettings(), readings, minimum=0) == [1, 5]


def test_with_cached_metrics_the_hpa_sees_the_last_poll():
    readings = [{"ready": 2}, {"ready": 2, "waiting": 20.0}, {"ready": 2, "waiting": 20.0}]
    assert run(KedaSettings(), readings) == [2, 4, 4]
    assert run(KedaSettings(cached_metrics=True), readings) == [2, 2, 4]


def test_the_queue_in_shares_of_the_batch():
    # A batch of 12: 3 for each replica.
    assert run(KedaSettings(queue=Target(0.25, "batch")), [{"ready": 2, "waiting": 12.0}]) == [4]
