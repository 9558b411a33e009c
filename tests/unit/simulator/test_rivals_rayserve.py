from modelyard.simulator.rivals.common import Target
from modelyard.simulator.rivals.rayserve import RayServe, RayServeSettings
from tests.unit.simulator.rivals_support import scenario, signals


def run(readings, settings=None, **changes):
    policy = RayServe("ray", scenario(**changes), settings or RayServeSettings())
    return [policy.decide(signals(10.0 * index, **reading)) for index, reading in enumerate(readings)]


def at(ongoing, ready=1):
    return {"ready": ready, "mean_running": ongoing, "running": ongoing}


def test_up_after_thirty_seconds():
    # 9 ongoing, 2 for each: 5.
    assert run([at(9.0)] * 4) == [1, 1, 1, 5]


def test_the_mean_of_three_pushes_counts():
    # At 30 s the mean of 3, 3 and 15 is 7.
    assert run([at(3.0)] * 3 + [at(15.0)]) == [1, 1, 1, 4]


def test_waiting_requests_count():
    assert run([{"mean_running": 2.0, "mean_waiting": 4.0}] * 4)[-1] == 3


def test_a_decision_the_other_way_starts_the_delay_again():
    settings = RayServeSettings(look_back=10.0)
    assert run([at(9), at(9), at(2), at(9), at(9), at(9), at(9)], settings) == [1, 1, 1, 1, 1, 1, 5]


def test_down_after_ten_minutes():
    counts = run([at(4.0, 5)] * 61)
    assert counts == [5] * 60 + [2]


def test_factors_scale_the_difference():
    up = RayServeSettings(upscale_delay=0.0, upscaling_factor=0.5)
    # 2 + 0.5 * (10 - 2).
    assert run([at(20.0, 2)], up) == [6]
    down = RayServeSettings(downscale_delay=0.0, downscaling_factor=0.1)
    # ceil(4 + 0.1 * (1 - 4)) = 4 would never change: one fewer.
    assert run([at(2.0, 4)], down) == [3]


def test_zero_only_from_one_and_back_at_once():
    settings = RayServeSettings(downscale_delay=0.0, downscale_to_zero_delay=20.0)
    readings = [at(0.0, 3), at(0.0), at(0.0), at(0.0), at(0.0, 0), at(1.0, 0)]
    assert run(readings, settings, minimum=0) == [1, 1, 1, 0, 0, 1]


def test_the_target_in_shares_of_the_batch():
    settings = RayServeSettings(target_ongoing_requests=Target(0.5, "batch"), upscale_delay=0.0)
    assert run([at(25.0)], settings) == [5]
