"""How long a new replica takes until it serves."""

import pytest

from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.models import find_model
from modelyard.catalog.quantization import FORMATS
from modelyard.core.fit import Fit, MemorySettings, Parallelism, check_fit
from modelyard.core.variants import DEFAULT_START_TIME, expected_start_time


def fit_of(
    source: str, accelerator: str, settings: MemorySettings | None = None, way: Parallelism | None = None
) -> Fit:
    model, hardware = find_model(source), find_hardware(accelerator)
    assert model is not None
    assert hardware is not None
    found = check_fit(model.profile, settings or MemorySettings(), hardware, way or Parallelism())
    assert isinstance(found, Fit)
    return found


def test_a_32b_model_starts_within_what_was_measured():
    """98 to 130 s with vLLM on an H100 (llm-d/llm-d-autoscaling issues 1404, 1412 and 1421)."""
    assert 98 <= expected_start_time(fit_of("Qwen/Qwen3-32B", "H100-SXM")) <= 130


def test_more_weights_take_longer():
    small = fit_of("meta-llama/Llama-3.2-1B-Instruct", "L4")
    large = fit_of(
        "meta-llama/Llama-3.1-405B-Instruct",
        "H100-SXM",
        MemorySettings(weights=FORMATS["fp8"]),
        Parallelism(8),
    )
    one, other = expected_start_time(small), expected_start_time(large)
    assert one < DEFAULT_START_TIME < other
    assert other > 3 * one


def test_accelerators_of_one_node_share_the_way_to_the_weights():
    source = "meta-llama/Llama-3.1-8B-Instruct"
    alone, four = fit_of(source, "H100-SXM"), fit_of(source, "H100-SXM", way=Parallelism(4))
    assert expected_start_time(four) == pytest.approx(expected_start_time(alone), rel=0.02)


def test_llama_cpp_compiles_nothing():
    source = "meta-llama/Llama-3.1-8B-Instruct"
    slow = expected_start_time(fit_of(source, "H100-SXM"))
    assert expected_start_time(fit_of(source, "H100-SXM", MemorySettings(engine="LlamaCpp"))) < slow / 2
