"""How much work a request is: learned from those that finish, and compared by the step-time model."""

import math

import pytest

from modelyard.core.choice import list_variants
from modelyard.core.load import LoadShape
from modelyard.core.scaling.work import WorkMemory, compare_work, count_tokens, observe_work, weigh_request
from modelyard.core.snapshot import GatewayReading
from modelyard.core.state import Policy
from modelyard.core.variants import Variant, VariantList
from tests.unit.core.build import KEY, NOW, make_accelerator, make_deployment, make_snapshot, make_variant

EXPECTED = LoadShape(1000.0, 200.0)


def _finish(
    memory: WorkMemory, steps: int, inputs: float, outputs: float, requests: float = 400.0
) -> WorkMemory:
    """Take in readings of 2 s in which so many requests of a size finish."""
    for _ in range(steps):
        reading = GatewayReading(
            memory.time + 2.0,
            {},
            {},
            {KEY: memory.requests + requests},
            {KEY: memory.output_tokens + requests * outputs},
            {KEY: memory.input_tokens + requests * inputs},
        )
        memory = observe_work(memory, reading, KEY, EXPECTED)
    return memory


def _counted() -> WorkMemory:
    reading = GatewayReading(NOW, {}, {}, {KEY: 100.0}, {KEY: 20_000.0}, {KEY: 100_000.0})
    memory = observe_work(WorkMemory(), reading, KEY, EXPECTED)
    assert memory.mean is None
    return memory


def test_the_size_of_requests_is_learned_from_those_that_finish():
    memory = _finish(_counted(), 1, 1100.0, 180.0)
    assert memory.mean is not None
    # Of the first 2 s: 1 - e^(-2 / 10).
    assert memory.mean.input_tokens == pytest.approx(1000.0 + 100.0 * -math.expm1(-0.2))
    assert memory.mean.output_tokens == pytest.approx(200.0 - 20.0 * -math.expm1(-0.2))
    reading = GatewayReading(memory.time, {}, {}, {KEY: 1e9}, {}, {})
    assert observe_work(memory, reading, KEY, EXPECTED) is memory
    assert observe_work(memory, None, KEY, EXPECTED) is memory
    assert _finish(memory, 150, 1100.0, 180.0).mean.input_tokens == pytest.approx(1100.0, abs=1.0)


def test_a_new_size_of_requests_counts_at_once_and_noise_does_not():
    steady = _finish(_counted(), 100, 1000.0, 200.0)
    jumped = _finish(steady, 10, 2000.0, 400.0)
    # Twice the size: known to 15 % after 20 s, of which the shorter mean has 86 %.
    assert jumped.changed > steady.changed
    assert jumped.mean is not None
    assert jumped.mean.input_tokens > 1700.0
    noisy, sizes = steady, []
    for number in range(300):
        noisy = _finish(noisy, 5, 1150.0 if number % 2 else 850.0, 200.0)
        assert noisy.mean is not None
        sizes.append(noisy.mean.input_tokens)
    assert noisy.changed == steady.changed
    assert max(sizes[30:]) < 1050.0


def test_without_a_step_time_model_tokens_are_weighed():
    variant = make_variant(make_accelerator("a10"))
    assert variant.rate_of(EXPECTED) is None
    assert compare_work(variant, EXPECTED, LoadShape(2800.0, 400.0)) == pytest.approx(3600.0 / 1400.0)
    assert count_tokens(LoadShape(1000.0, 200.0, 0.25)) == 1150.0


def test_what_a_request_is_worth_follows_from_the_step_time_model():
    variant = _known_variant()
    many = variant.rate_of(EXPECTED)
    assert many is not None
    for request in (LoadShape(8000.0, 50.0), LoadShape(200.0, 20.0), LoadShape(300.0, 900.0)):
        few = variant.rate_of(request)
        assert few is not None
        assert compare_work(variant, EXPECTED, request) == many / few
    # Long prompts cost more than their tokens would: prefill of others delays the answers.
    tokens = count_tokens(LoadShape(200.0, 20.0)) / count_tokens(EXPECTED)
    assert compare_work(variant, EXPECTED, LoadShape(200.0, 20.0)) < tokens
    worth, memory = weigh_request(WorkMemory(), variant, EXPECTED, LoadShape(300.0, 900.0))
    assert worth == pytest.approx(compare_work(variant, EXPECTED, LoadShape(300.0, 900.0)), rel=0.03)
    again, same = weigh_request(memory, variant, EXPECTED, LoadShape(300.5, 900.5))
    assert (again, same) == (worth, memory)
    assert weigh_request(memory, variant, EXPECTED, LoadShape(400.0, 900.0))[0] > worth


def _known_variant() -> Variant:
    """Return Llama 3.1 8B on an H100."""
    model = {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"}
    deployment = make_deployment(model=model, classes=("h100",), requests_per_minute=None)
    snapshot = make_snapshot(deployment, classes=("h100",))
    found = list_variants(deployment, snapshot, EXPECTED, Policy().variants)
    assert isinstance(found, VariantList)
    return found.variants[0]
