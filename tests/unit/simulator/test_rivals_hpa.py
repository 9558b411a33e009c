import pytest

from modelyard.simulator.rivals.common import Target
from modelyard.simulator.rivals.hpa import (
    Behaviour,
    Hpa,
    HpaSettings,
    Limit,
    Normalizer,
    external_recommendation,
    largest,
    pods_recommendation,
)
from tests.unit.simulator.rivals_support import scenario, signals


@pytest.mark.parametrize(
    ("average", "ready", "recommended"),
    [
        (11.0, 4, 4),  # 1.1: just within the tolerance
        (11.1, 4, 5),  # ceil(4.44)
        (9.0, 4, 4),  # 0.9: just within
        (8.9, 4, 4),  # ceil(3.56)
        (5.0, 4, 2),
        (0.0, 4, 0),
        (30.0, 1, 3),
    ],
)
def test_pods_metric_without_starting_pods(average, ready, recommended):
    assert pods_recommendation(average, 10.0, ready=ready, starting=0, replicas=ready) == recommended


@pytest.mark.parametrize(
    ("average", "starting_as", "recommended"),
    [
        # 2 ready, 2 starting. Up: they count as 0, so 30 * 2 / (4 * 10) = 1.5 of 4 pods.
        (30.0, "missing", 6),
        (30.0, "unready", 6),
        # 18 * 2 / 40 = 0.9: turned within the tolerance.
        (18.0, "missing", 4),
        # 15 * 2 / 40 = 0.75: the direction would turn.
        (15.0, "unready", 4),
        # Down: a missing one counts as on target: (5 * 2 + 2 * 10) / 40 = 0.75 of 4.
        (5.0, "missing", 3),
        # An unready one is left out: 0.5 of 2.
        (5.0, "unready", 1),
        # And within the tolerance nothing changes.
        (9.5, "unready", 4),
    ],
)
def test_pods_metric_with_starting_pods(average, starting_as, recommended):
    count = pods_recommendation(average, 10.0, ready=2, starting=2, replicas=4, starting_as=starting_as)
    assert count == recommended


def test_a_change_of_the_number_of_pods_does_not_turn_the_direction():
    # 5 pods of which 2 are known here, but 3 are asked for: 0.85 * 5 pods = 5 > 3 while it calls for fewer.
    assert pods_recommendation(6.25, 10.0, ready=2, starting=3, replicas=3) == 3


def test_no_ready_pod_no_recommendation():
    assert pods_recommendation(0.0, 10.0, ready=0, starting=3, replicas=3) is None


@pytest.mark.parametrize(
    ("total", "replicas", "recommended"),
    [(22.0, 4, 4), (22.1, 4, 5), (18.0, 4, 4), (17.9, 4, 4), (10.0, 4, 2), (0.0, 4, 0), (6.0, 0, 2)],
)
def test_external_metric(total, replicas, recommended):
    assert external_recommendation(total, 5.0, replicas) == recommended


def test_several_metrics():
    assert largest([2, 5], 4) == 5
    assert largest([None, 5], 4) == 5
    assert largest([None, 3], 4) is None
    assert largest([None, None], 4) is None


def run(behaviour, recommendations, start=4, step=15, minimum=1, maximum=100):
    normalizer, replicas, counts = Normalizer(minimum, maximum, behaviour), start, []
    for index, recommendation in enumerate(recommendations):
        replicas = normalizer.apply(index * step, replicas, recommendation)
        counts.append(replicas)
    return counts


def test_growth_is_four_pods_or_double_each_period():
    assert run(Behaviour(), [50] * 6, start=1) == [5, 10, 20, 40, 50, 50]


def test_growth_within_one_period_counts_from_its_start():
    # Syncs 5 s apart: 4 pods in the first 15 s, then from 8.
    assert run(Behaviour(), [50] * 5, start=4, step=5) == [8, 8, 8, 16, 16]


def test_shrinking_waits_for_the_window():
    counts = run(Behaviour(), [10] + [2] * 24, start=10)
    # The recommendation of 10 at time 0 counts for 300 s: until the sync at 285 s.
    assert counts == [10] * 20 + [2] * 5


def test_the_highest_recommendation_of_the_window_counts_downwards():
    assert run(Behaviour(down_window=60), [8, 6, 7, 5, 5, 5, 5, 5], start=8) == [8, 8, 8, 8, 7, 7, 5, 5]


def test_the_lowest_recommendation_of_the_window_counts_upwards():
    assert run(Behaviour(up_window=30), [4, 8, 6, 9, 9], start=4) == [4, 4, 6, 6, 9]


def test_limits_downwards():
    slow = Behaviour(down_window=0, down=(Limit("pods", 1, 120),))
    assert run(slow, [1] * 10, start=4)[::2] == [3, 3, 3, 3, 2]
    half = Behaviour(down_window=0, down=(Limit("percent", 50, 15), Limit("pods", 1, 15)))
    assert run(half, [0] * 4, start=9) == [4, 2, 1, 1]


def test_bounds_come_before_everything():
    assert run(Behaviour(), [5], start=20, maximum=10) == [10]
    assert run(Behaviour(), [5], start=1, minimum=8) == [8]
    assert run(Behaviour(), [50, 50], start=6, maximum=9) == [9, 9]


def test_no_metric_no_change():
    assert run(Behaviour(), [None, 8, None, None], start=4) == [4, 8, 8, 8]


def decide(settings, readings, **changes):
    policy = Hpa("hpa", scenario(**changes), settings)
    return [policy.decide(signals(15 * index, **reading)) for index, reading in enumerate(readings)]


def test_gpu_utilisation():
    # 100 % against 80 %: ratio 1.25.
    assert decide(HpaSettings("gpu", Target(0.8)), [{"ready": 4, "busy": 1.0}]) == [5]
    # Ratio 1.11 against 90 %: more than the tolerance, so it grows for ever.
    assert decide(HpaSettings("gpu", Target(0.9)), [{"ready": 9, "busy": 1.0}]) == [10]


def test_cpu_of_an_engine_never_reaches_the_default_target():
    # At most 15 % against 80 %: 4 * 0.1875 = 0.75, once the first count's window is over.
    counts = decide(HpaSettings("cpu", Target(0.8)), [{"ready": 4, "busy": 1.0}] * 21)
    assert counts == [4] * 20 + [1]


def test_cpu_grows_in_proportion_to_busy_time():
    # 5 % + 10 % * 0.5 = 10 % against 8 %.
    assert decide(HpaSettings("cpu", Target(0.08)), [{"ready": 4, "busy": 0.5}]) == [5]


def test_concurrency_counts_what_is_in_the_engines():
    reading = {"ready": 2, "running": 30.0, "waiting": 20.0, "gateway_waiting": 10.0}
    # (30 + 20 - 10) / 2 = 20 against 16.
    assert decide(HpaSettings("concurrency", Target(16)), [reading]) == [3]
    # A share of the batch of 12: 20 / 6 of 2 replicas, but at most 4 more.
    assert decide(HpaSettings("concurrency", Target(0.5, "batch")), [reading]) == [6]


def test_an_hpa_does_not_go_to_zero():
    counts = decide(HpaSettings("concurrency", Target(16)), [{"ready": 1}] * 30, minimum=0)
    assert counts == [1] * 30
