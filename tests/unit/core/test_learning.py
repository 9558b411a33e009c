import math
import random
from dataclasses import dataclass, replace

import pytest

from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.models import find_model
from modelyard.core.load import LoadShape
from modelyard.core.perf import learning
from modelyard.core.perf.learning import Observation, learned, observe, remember
from modelyard.core.perf.prior import prior


@dataclass(frozen=True)
class Split:
    tensor: int = 1
    pipeline: int = 1
    nodes: int = 1


STEP = prior(
    find_model("meta-llama/Llama-3.1-8B-Instruct").profile, None, find_hardware("L4"), Split(), None, "vLLM"
)
SHAPE = LoadShape(1000.0, 200.0)


def reading(time, factor=1.0, *, first_factor=None, batch=8.0, shape=SHAPE, **changes) -> Observation:
    first = None if first_factor is None else first_factor * STEP.time_to_first_token(shape, batch)
    observation = Observation(
        time=time,
        warm_seconds=1000.0,
        batch=batch,
        inter_token_latency=factor * STEP.inter_token_latency(shape, batch),
        time_to_first_token=first,
        input_tokens=shape.input_tokens,
        output_tokens=shape.output_tokens,
    )
    return replace(observation, **changes)


def taught(readings, memory=None):
    memory = memory or remember(STEP)
    for item in readings:
        memory = observe(memory, item, item.time)
        assert not memory.refusal
    return memory


def test_nothing_is_learned_from_nothing():
    memory = remember(STEP)
    assert learned(STEP, memory) is STEP
    assert memory.explain() == f"nothing learned yet: the estimated step time, +-{STEP.uncertainty:.0%}"


def test_it_finds_a_constant_factor_in_noise():
    noise = random.Random(7)
    readings = [
        reading(30.0 * n, 1.4 * math.exp(noise.gauss(0, 0.1)), batch=noise.uniform(2, 30)) for n in range(42)
    ]
    memory = taught(readings)
    assert memory.inter_token.value == pytest.approx(1.4, rel=0.08)
    step = learned(STEP, memory)
    assert step.origin == "learned"
    assert step.inter_token_latency(SHAPE, 8) == pytest.approx(
        memory.inter_token.value * STEP.inter_token_latency(SHAPE, 8)
    )
    assert learning.FLOOR <= step.uncertainty < STEP.uncertainty / 3


def test_it_says_what_it_learned():
    memory = taught([reading(30.0 * n, 1.18) for n in range(43)])
    assert memory.explain() == "learned from 43 readings over 21 min: 1.18x the estimated step time, +-5%"


def test_the_time_to_first_token_has_its_own_factor():
    memory = taught([reading(30.0 * n, 1.0, first_factor=2.0) for n in range(60)])
    step = learned(STEP, memory)
    assert memory.inter_token.value == pytest.approx(1.0)
    assert step.time_to_first_token(SHAPE, 8) == pytest.approx(
        2.0 * STEP.time_to_first_token(SHAPE, 8), rel=0.05
    )
    assert memory.first_token_readings == 60


def test_without_times_to_first_token_their_uncertainty_stays():
    step = learned(STEP, taught([reading(30.0 * n) for n in range(20)]))
    assert step.first_token_uncertainty == pytest.approx(STEP.first_token_uncertainty)


def test_one_outlier_moves_it_little():
    before = taught([reading(30.0 * n) for n in range(30)])
    after = taught([reading(900.0, 100.0)], before)
    assert after.inter_token.value <= before.inter_token.value * math.exp(learning.LARGEST_STEP) * 1.000001
    recovered = taught([reading(930.0 + 30 * n) for n in range(10)], after)
    assert recovered.inter_token.value == pytest.approx(1.0, abs=0.03)


def test_a_lasting_change_is_followed():
    memory = taught([reading(30.0 * n) for n in range(100)])
    memory = taught([reading(3000.0 + 30 * n, 2.0) for n in range(25)], memory)
    assert memory.inter_token.value == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"warm_seconds": 30.0}, "the pod is warm for 30 s of 120 s"),
        ({"warm_seconds": math.nan}, "the pod is warm for nan s of 120 s"),
        ({"restarts": 2}, "the engine restarted 2 times within the interval"),
        ({"inter_token_latency": math.nan}, "inter-token latency is not between 1e-06 and 100000: nan"),
        ({"inter_token_latency": 0.0}, "inter-token latency is not between 1e-06 and 100000: 0.0"),
        ({"time_to_first_token": -1.0}, "time to first token is not between 1e-06 and 100000: -1.0"),
        ({"input_tokens": math.inf}, "input tokens is not between 1 and 1e+08: inf"),
        ({"batch": 0.2}, "batch is not between 1 and 100000: 0.2"),
        ({"batch": math.inf}, "batch is not between 1 and 100000: inf"),
        ({"cached_share": 1.5}, "cached share is not between 0 and 1: 1.5"),
        ({"time": 100.0}, "the reading is 900 s old, of 300 s at most"),
        ({"time": 1100.0}, "the reading is -100 s old, of 300 s at most"),
        ({"time": 990.0}, "an older reading than the last"),
    ],
)
def test_readings_are_refused_with_a_reason(changes, reason):
    memory = taught([reading(995.0)])
    after = observe(memory, replace(reading(1000.0, 3.0), **changes), 1000.0)
    assert after == replace(memory, refusal=reason)


def test_a_new_shape_of_traffic_begins_again():
    memory = taught([reading(30.0 * n, 1.5, first_factor=1.5) for n in range(60)])
    longer = LoadShape(2000.0, 200.0)
    memory = taught([reading(1800.0, 1.5, shape=longer)], memory)
    assert memory.resets == 1
    assert memory.readings == 1
    assert memory.since == 1800.0
    assert memory.inter_token.value < 1.2
    assert learned(STEP, memory).uncertainty > STEP.uncertainty / 3


def test_lengths_that_wander_by_less_than_a_fifth_do_not():
    noise = random.Random(3)
    readings = [
        reading(30.0 * n, shape=LoadShape(noise.uniform(850, 1150), noise.uniform(170, 230)))
        for n in range(200)
    ]
    assert taught(readings).resets == 0


def test_what_was_learned_about_another_prior_is_not_used():
    memory = taught([reading(30.0 * n, 1.5) for n in range(20)])
    other = replace(STEP, fixed=STEP.fixed * 2)
    assert learned(other, memory) is other
