from modelyard.simulator.rivals.common import Target
from modelyard.simulator.rivals.kubeai import KubeAI, KubeAISettings
from tests.unit.simulator.rivals_support import scenario, signals


def run(readings, settings=None, **changes):
    policy = KubeAI("kubeai", scenario(**changes), settings or KubeAISettings())
    return [policy.decide(signals(10.0 * index, **reading)) for index, reading in enumerate(readings)]


def test_a_step_shows_after_minutes():
    counts = run([{"running": 100.0}] + [{"running": 200.0, "waiting": 800.0}] * 60)
    # k samples of 1,000 and 60 - k of 100: mean 100 + 15 k.
    assert counts[0] == 1
    assert counts[1] == 2
    assert counts[20] == 4  # 400
    assert counts[21] == 5  # 415
    assert counts[60] == 10  # 1,000


def test_down_after_four_lower_results_in_a_row():
    settings = KubeAISettings(window=10.0)
    counts = run([{"ready": 5, "running": 500.0}] + [{"ready": 5, "running": 150.0}] * 5, settings)
    assert counts == [5, 5, 5, 5, 2, 2]


def test_a_result_that_is_not_lower_starts_the_count_again():
    settings = KubeAISettings(window=10.0)
    low, high = {"ready": 5, "running": 150.0}, {"ready": 5, "running": 500.0}
    assert run([high, low, low, low, high, low, low, low, low], settings)[-2:] == [5, 2]


def test_a_second_step_down_does_not_wait_again():
    settings = KubeAISettings(window=10.0)
    readings = [{"ready": 5, "running": load} for load in (500.0, 300.0, 300.0, 300.0, 300.0, 150.0)]
    assert run(readings, settings) == [5, 5, 5, 5, 3, 2]


def test_to_zero_and_back():
    settings = KubeAISettings(window=10.0)
    readings = [{}] * 4 + [{"ready": 0}, {"ready": 0, "waiting": 1.0}]
    assert run(readings, settings, minimum=0) == [1, 1, 1, 0, 0, 1]


def test_the_target_in_shares_of_the_batch():
    settings = KubeAISettings(target_requests=Target(0.5, "batch"))
    assert run([{"running": 13.0}], settings) == [3]
