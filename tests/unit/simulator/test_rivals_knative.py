import pytest

from modelyard.simulator.rivals.common import Target
from modelyard.simulator.rivals.knative import Knative, KnativeSettings
from tests.unit.simulator.rivals_support import scenario, signals


def run(readings, settings=None, **changes):
    policy = Knative("knative", scenario(**changes), settings or KnativeSettings())
    return [policy.decide(signals(2.0 * index, **reading)) for index, reading in enumerate(readings)]


def at(concurrency, ready=1, **changes):
    return {"ready": ready, "mean_running": concurrency, **changes}


@pytest.mark.parametrize(("concurrency", "replicas"), [(70, 1), (71, 2), (140, 2), (141, 3)])
def test_seventy_in_flight_for_each_replica(concurrency, replicas):
    assert run([at(concurrency, 1)]) == [replicas]


def test_waiting_requests_count():
    assert run([at(60, mean_waiting=60.0)]) == [2]


def test_the_stable_window_is_a_minute():
    # The first tick's 5,000 are forgotten after 30 ticks; a panic threshold out of reach leaves the stable mean alone.
    settings = KnativeSettings(panic_threshold=1e9)
    counts = run([at(5000)] + [at(70)] * 35, settings)
    # 5,000; (5,000 + 70) / 2 = 2,535 -> 37; ... (5,000 + 29 * 70) / 30 = 234.3 -> 4; 70 -> 1.
    assert counts[:2] == [72, 37]
    assert counts[29:31] == [4, 1]


def test_a_panic_looks_at_six_seconds():
    # Ticks at 54, 56, 58 s: mean of 3 = 70, 126.7, 183.3 -> 1, 2, 3: twice what 1 ready is for at the second.
    counts = run([at(70)] * 28 + [at(240)] * 2)
    assert counts[27:] == [1, 2, 3]


def test_the_threshold_of_a_panic_is_twice_what_is_ready():
    # (10 + 10 + 250) / 3 = 90 -> 2, twice the 1 that is ready; the stable mean, 18, asks for 1.
    assert run([at(10)] * 28 + [at(250)])[27:] == [1, 2]
    # (10 + 10 + 190) / 3 = 70 -> 1.
    assert run([at(10)] * 28 + [at(190)])[27:] == [1, 1]


def test_a_panic_lasts_a_stable_window_and_only_grows():
    counts = run([at(10)] * 30 + [at(700, 1)] * 3 + [at(10, 10)] * 40)
    peak = max(counts)
    assert peak == 10
    first = counts.index(peak)
    # With 10 ready, 16.7 s later the panic value is below the threshold; 60 s after the last tick above it ends.
    assert counts[first : first + 30] == [10] * 30
    # Half of the ready ones at most are taken away.
    assert counts[-1] == 5


def test_more_than_one_ready_starts_in_a_panic():
    counts = run([at(10, 4)] * 33)
    # 60 s after the start it is over; strictly more, as in the original.
    assert counts[:31] == [4] * 31
    assert counts[31] == 2


def test_growth_is_limited():
    settings = KnativeSettings(max_scale_up=1.5)
    # ceil(1.5 * 2) although 10 are wanted.
    assert run([at(700, 2)], settings) == [3]


def test_a_delay_downwards_keeps_the_largest_count():
    settings = KnativeSettings(stable_window=6.0, scale_down_delay=20.0)
    counts = run([at(100)] + [at(10)] * 15, settings)
    assert counts[0] == 2
    # The window of 6 s falls to 40 / 2 = 55 at the second tick; 20 s on, the 2 are forgotten.
    assert counts[1:10] == [2] * 9
    assert counts[-1] == 1


def test_zero_after_window_and_grace():
    counts = run([at(70)] + [at(0)] * 60, minimum=0)
    # Of 30 ticks none is left after 60 s (the 31st), then 30 s of grace.
    assert counts[:45] == [1] * 45
    assert counts[45] == 0
    assert set(counts[45:]) == {0}


def test_waking_takes_a_tick():
    assert run([at(0, 0), at(0, 0, mean_waiting=1.0)], minimum=0) == [0, 1]


def test_the_target_in_shares_of_the_batch():
    # 12 * 0.5 * 0.7 = 4.2.
    settings = KnativeSettings(concurrency=Target(0.5, "batch"))
    assert run([at(8.5)], settings) == [3]
