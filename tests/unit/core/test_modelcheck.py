"""What a spec says of its model that the files contradict, and what follows from lengths."""

from typing import Any

import pytest

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.catalog.calibration import calibration_table
from modelyard.core.choice import VariantPolicy, expected_shape, list_variants
from modelyard.core.variants import VariantList
from tests.unit.core.build import make_deployment, make_snapshot

LLAMA = "hf://meta-llama/Llama-3.1-8B-Instruct"


def ask(source: str = LLAMA, spec: dict[str, Any] | None = None, **model: Any) -> VariantList | Refusal:
    deployment: LLMDeployment = make_deployment(
        classes=("h100",),
        model={"source": source, **model},
        requests_per_minute=None,
        scaling={"max": 3},
        **(spec or {}),
    )
    snapshot = make_snapshot(deployment, classes=("h100",))
    return list_variants(deployment, snapshot, expected_shape(deployment), VariantPolicy())


def capacity(**asked: Any) -> float:
    found = ask(**asked)
    assert isinstance(found, VariantList), found
    return found.variants[0].capacity


def test_a_context_beyond_the_models_own_is_refused():
    refusal = ask(contextLength=300_000)
    assert isinstance(refusal, Refusal)
    assert "the model allows 131072" in refusal.message
    assert isinstance(ask(contextLength=131_072), VariantList)


@pytest.mark.parametrize("quantization", ["awq", "gptq", "modelopt_fp4", "garbage"])
def test_a_format_that_the_files_have_not_is_refused(quantization: str):
    refusal = ask(quantization=quantization)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "InvalidParameter"
    assert "model.quantization" in refusal.message


@pytest.mark.parametrize(
    ("source", "model"),
    [
        (LLAMA, {"quantization": "fp8"}),
        (LLAMA, {"quantization": "bitsandbytes"}),
        ("hf://hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", {"quantization": "awq"}),
        ("hf://hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", {}),
        ("hf://org/unknown", {"quantization": "awq"}),
    ],
)
def test_a_format_that_can_be_is_taken(source: str, model: dict[str, Any]):
    assert isinstance(ask(source, **model), VariantList)


def test_vllm_takes_no_repository_of_gguf_files():
    refusal = ask("hf://bartowski/Llama-3.2-3B-Instruct-GGUF")
    assert isinstance(refusal, Refusal)
    assert "LlamaCpp" in refusal.message


def test_a_longer_context_never_gives_more_capacity():
    """Layers with a sliding window make room for fewer short sequences than for the tokens of long ones."""
    gemma = "hf://google/gemma-3-27b-it"
    found = [capacity(source=gemma, contextLength=length) for length in (2048, 8192, 32_768, 131_072)]
    assert found == sorted(found, reverse=True)
    assert capacity(source=gemma) == pytest.approx(found[0], rel=0.05)


def test_a_mean_request_beyond_the_context_is_noticed():
    found = ask(contextLength=1024)
    assert isinstance(found, VariantList)
    assert not any(variant.meets_objective for variant in found.variants)
    assert "longer than the context" in found.variants[0].basis


def test_what_was_not_measured_is_not_as_sure():
    table = calibration_table()
    measured, general = table.find("vLLM", "H100-SXM"), table.find("vLLM", "L4")
    assert measured is not None
    assert general is not None
    for name in ("H100-SXM-3g.40gb", "H100-PCIe", "GB200"):
        related = table.find("vLLM", name)
        assert related is not None
        assert not related.measured
        assert related.uncertainty >= general.uncertainty > measured.uncertainty
        assert related.first_token_uncertainty >= general.first_token_uncertainty
