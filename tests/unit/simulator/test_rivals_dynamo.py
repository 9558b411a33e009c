import pytest

from modelyard.simulator.rivals.dynamo import Dynamo, DynamoSettings
from tests.unit.simulator.rivals_support import scenario, signals

# 100 in, 100 out: the objectives are 1.05 s and 40 ms; 0.01 + 0.00011 b <= 0.04 and the engine's 256 give
# 256 / (1.001 + 2.816) = 67.07/s for one engine.
RATE = 256 / 3.817


def completed(count, tokens=100):
    return {
        "completions": count,
        "completed_input_tokens": count * tokens,
        "completed_output_tokens": count * tokens,
    }


def run(settings, readings, step=180.0, **changes):
    policy = Dynamo("dynamo", scenario(**changes), settings)
    return [
        policy.decide(signals(step * index, elapsed=step if index else 0.0, **reading))
        for index, reading in enumerate(readings)
    ]


CONSTANT = DynamoSettings("constant")


@pytest.mark.parametrize(
    ("rate", "replicas"), [(0.5 * RATE, 1), (0.99 * RATE, 1), (1.01 * RATE, 2), (4.01 * RATE, 5)]
)
def test_replicas_are_the_rate_over_that_of_one_engine(rate, replicas):
    assert run(CONSTANT, [{}, completed(round(rate * 180))])[-1] == replicas


def test_requests_count_when_they_complete():
    stuck = {"arrivals": 100_000, "waiting": 90_000.0, **completed(int(RATE * 180))}
    assert run(CONSTANT, [{}, stuck])[-1] == 1


def test_longer_requests_need_more():
    # 1000/1000: 0.01 + 0.00011 b again, but 1,500 tokens each: 66 in the cache.
    # 66 / (0.010 + 1000 * 0.01726) = 3.82/s.
    counts = run(CONSTANT, [{}, completed(10 * 180, 1000)])
    assert counts[-1] == 3


def test_an_interval_without_requests_changes_nothing():
    assert run(CONSTANT, [{}, completed(round(3.5 * RATE * 180)), {"ready": 4}]) == [1, 4, 4]


def test_the_trend_is_foreseen():
    # 1, 2, 3 ... engines' worth: the next is one more.
    readings = [{}] + [completed(round(load * RATE * 180)) for load in range(1, 12)]
    assert run(CONSTANT, readings)[-1] == 11
    assert run(DynamoSettings("kalman"), readings)[-1] in (12, 13)


def test_an_interval_that_was_cut_is_scaled():
    policy = Dynamo("dynamo", scenario(), CONSTANT)
    policy.decide(signals(0.0, elapsed=0.0))
    # 360 s because a decision was missed: 3.5 engines' worth of 360 s.
    assert policy.decide(signals(360.0, elapsed=360.0, **completed(round(3.5 * RATE * 360)))) == 4


LOAD = DynamoSettings("constant", load_mode=True)


def load_run(*readings, settings=LOAD, ready=4, rate=0.1):
    """180 s of little load at first, so that the lower bound is 1 and the lengths are known."""
    warm = [{"ready": ready, **completed(int(rate * 5) or 1)}] * 36
    policy = Dynamo("dynamo", scenario(initial=ready), settings)
    busy = {"running": 200.0 * ready, "tokens_held": 70_000.0 * ready}
    counts = []
    for index, reading in enumerate([{**entry, **busy} for entry in warm] + list(readings)):
        counts.append(policy.decide(signals(5.0 * index, elapsed=5.0, **reading)))
    assert counts[:36] == [ready] * 36
    return counts[36:]


def test_load_mode_adds_one_when_the_first_token_would_be_late():
    # 4 replicas, each with w waiting prompts of 100 tokens: w ms + steps. 800,000 tokens: 8 s.
    late = {"ready": 4, "running": 800.0, "waiting": 4 * 8000.0, "tokens_held": 96_000.0}
    assert load_run(late) == [5]


def test_load_mode_does_not_see_the_gateways_queue():
    held = {
        "ready": 4,
        "running": 800.0,
        "waiting": 32_000.0,
        "gateway_waiting": 32_000.0,
        "tokens_held": 96_000.0,
    }
    assert load_run(held) == [4]


def test_load_mode_adds_one_when_tokens_are_late():
    # 0.01 + 0.00011 b > 0.04: more than 273 running in each.
    assert load_run({"ready": 4, "running": 4 * 274.0, "tokens_held": 100_000.0}) == [5]
    assert load_run({"ready": 4, "running": 4 * 272.0, "tokens_held": 300_000.0}) == [4]


def test_load_mode_removes_one_when_the_others_stay_within_a_margin():
    # After the removal: running * 4 / 3 each; 0.01 + 0.00011 b < 0.032 needs fewer than 200, so 150 now.
    assert load_run({"ready": 4, "running": 4 * 149.0, "tokens_held": 4 * 149 * 150.0}) == [3]
    assert load_run({"ready": 4, "running": 4 * 151.0, "tokens_held": 4 * 151 * 150.0}) == [4]
    # The cache: 76,000 * 4 / 3 does not fit in 100,000.
    assert load_run({"ready": 4, "running": 40.0, "tokens_held": 4 * 76_000.0}) == [4]


def test_load_mode_only_observes_while_a_change_is_under_way():
    late = {"ready": 4, "running": 800.0, "waiting": 32_000.0, "tokens_held": 96_000.0}
    assert load_run(late, {**late, "pending": 1}, {**late, "ready": 5}) == [5, 5, 6]
    # One is being replaced.
    assert load_run({**late, "pending": 1}) == [4]


def test_the_forecast_is_the_lower_bound_in_load_mode():
    warm = [{"ready": 4, **completed(round(3.5 * RATE * 5))}] * 40
    policy = Dynamo("dynamo", scenario(initial=4), LOAD)
    counts = [
        policy.decide(signals(5.0 * index, elapsed=5.0, **reading)) for index, reading in enumerate(warm)
    ]
    # Idle engines: load mode alone would remove one.
    assert counts == [4] * 40


def test_the_throughput_target_looks_at_the_cache():
    easy = DynamoSettings("constant", load_mode=True, load_target="throughput")
    full = {"ready": 4, "running": 800.0, "tokens_held": 4 * 90_000.0, "waiting": 4 * 101.0}
    # 90,000 + 10,100 of 100,000.
    assert load_run(full, settings=easy, ready=4) == [5]
    assert load_run({**full, "waiting": 0.0}, settings=easy) == [4]
    assert load_run({**full, "waiting": 0.0, "tokens_held": 4 * 59_000.0}, settings=easy) == [3]
