"""What a spec says of its model that the files contradict, and what follows from lengths."""

from typing import Any

import pytest

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.catalog.calibration import calibration_table
from modelyard.catalog.engines import EngineVersion, ImageSettings
from modelyard.core.choice import VariantPolicy, expected_shape, list_variants
from modelyard.core.load import LoadShape
from modelyard.core.variants import VariantList
from tests.unit.core.build import make_deployment, make_snapshot

LLAMA = "hf://meta-llama/Llama-3.1-8B-Instruct"


AWQ = "hf://hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"
OWN_IMAGE = ImageSettings(
    versions={"vLLM": (EngineVersion("0.32.0-own", {"cuda": "registry.example/vllm:own"}),)}
)


def ask(
    source: str = LLAMA, spec: dict[str, Any] | None = None, images: ImageSettings | None = None, **model: Any
) -> VariantList | Refusal:
    deployment: LLMDeployment = make_deployment(
        classes=("h100",),
        model={"source": source, **model},
        requests_per_minute=None,
        scaling={"max": 3},
        **(spec or {}),
    )
    snapshot = make_snapshot(deployment, classes=("h100",))
    return list_variants(
        deployment, snapshot, expected_shape(deployment), VariantPolicy(images or ImageSettings())
    )


def capacity(**asked: Any) -> float:
    found = ask(**asked)
    assert isinstance(found, VariantList), found
    return found.variants[0].capacity


def test_a_context_beyond_the_models_own_is_refused():
    refusal = ask(contextLength=300_000)
    assert isinstance(refusal, Refusal)
    assert "the model allows 131072" in refusal.message
    assert isinstance(ask(contextLength=131_072), VariantList)


@pytest.mark.parametrize("quantization", ["awq", "gptq", "modelopt_fp4", "garbage", "compressed-tensors"])
def test_a_format_that_the_files_have_not_is_refused(quantization: str):
    refusal = ask(quantization=quantization)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "InvalidParameter"
    assert "model.quantization" in refusal.message


@pytest.mark.parametrize("quantization", ["int4", "nf4", "Q4_K_M", "ptpc_fp8"])
def test_a_name_that_vllm_has_not_is_refused_even_for_an_unknown_model(quantization: str):
    refusal = ask("hf://org/unknown", quantization=quantization)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "InvalidParameter"
    assert "vLLM" in refusal.message
    assert "fp8" in refusal.message


@pytest.mark.parametrize("source", ["hf://org/unknown", LLAMA, "hf://unsloth/Llama-3.1-8B-Instruct-bnb-4bit"])
def test_bitsandbytes_needs_an_image_with_its_plugin(source: str):
    refusal = ask(source, quantization="bitsandbytes")
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "InvalidParameter"
    assert "plugin" in refusal.message
    assert isinstance(ask(source, images=OWN_IMAGE, quantization="bitsandbytes"), VariantList)


def test_files_of_bitsandbytes_need_it_whether_or_not_the_spec_says_so():
    refusal = ask("hf://unsloth/Llama-3.1-8B-Instruct-bnb-4bit")
    assert isinstance(refusal, Refusal)
    assert "plugin" in refusal.message


@pytest.mark.parametrize(
    ("source", "quantization"),
    [(AWQ, "fp8"), (AWQ, "gptq"), ("hf://RedHatAI/Llama-3.1-8B-Instruct-FP8", "awq")],
)
def test_files_in_another_format_than_asked_are_refused(source: str, quantization: str):
    refusal = ask(source, quantization=quantization)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "InvalidParameter"
    assert "leave model.quantization out" in refusal.message


@pytest.mark.parametrize(
    ("source", "model"),
    [
        (LLAMA, {"quantization": "fp8"}),
        (LLAMA, {"quantization": "fp8_per_block"}),
        (AWQ, {"quantization": "awq"}),
        (AWQ, {"quantization": "awq_marlin"}),
        (AWQ, {}),
        ("hf://RedHatAI/Llama-3.1-8B-Instruct-quantized.w8a8", {"quantization": "compressed-tensors"}),
        ("hf://nvidia/Llama-3.1-8B-Instruct-FP8", {"quantization": "modelopt"}),
        ("hf://nvidia/Llama-3.1-8B-Instruct-FP8", {"quantization": "fp8"}),
        ("hf://openai/gpt-oss-20b", {"quantization": "mxfp4"}),
        ("hf://openai/gpt-oss-20b", {}),
        ("hf://org/unknown", {"quantization": "awq"}),
        # A name alone does not say how another's upload is stored.
        ("hf://org/Llama-3.1-8B-Instruct", {"quantization": "awq"}),
        ("pvc://models/llama", {"quantization": "gptq"}),
    ],
)
def test_a_format_that_can_be_is_taken(source: str, model: dict[str, Any]):
    assert isinstance(ask(source, **model), VariantList)


@pytest.mark.parametrize(
    "source", ["hf://bartowski/Llama-3.2-3B-Instruct-GGUF", "pvc://models/llama-Q4_K_M.gguf"]
)
def test_vllm_takes_no_gguf_files(source: str):
    refusal = ask(source)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "UnsupportedSource"
    assert "LlamaCpp" in refusal.message


def test_a_longer_context_never_gives_more_capacity():
    """Layers with a sliding window make room for fewer short sequences than for the tokens of long ones."""
    gemma = "hf://google/gemma-3-27b-it"
    found = [capacity(source=gemma, contextLength=length) for length in (2048, 8192, 32_768, 131_072)]
    assert found == sorted(found, reverse=True)
    assert capacity(source=gemma) == pytest.approx(found[0], rel=0.05)


def test_room_for_one_request_and_a_half_is_room_for_one():
    deployment = make_deployment(model={"source": LLAMA}, requests_per_minute=None)
    snapshot = make_snapshot(deployment)
    found = list_variants(deployment, snapshot, LoadShape(17_400, 8_700), VariantPolicy())
    assert isinstance(found, VariantList)
    variant = found.variants[0]
    assert variant.fit is not None
    assert variant.speed is not None
    assert 26_100 < variant.fit.cache_tokens < 2 * (17_400 + 8_700 / 2)
    assert variant.speed.limit != "memory"


def test_a_mean_request_beyond_the_context_is_noticed():
    found = ask(contextLength=1024)
    assert isinstance(found, VariantList)
    assert not any(variant.meets_objective for variant in found.variants)
    assert "longer than the context" in found.variants[0].basis


def test_a_mean_request_beyond_the_models_own_context_asks_for_another_model():
    load = {"requestsPerMinute": 60, "inputTokens": 1900, "outputTokens": 500}
    found = ask("hf://tiiuae/falcon-7b-instruct", {"load": load})
    assert isinstance(found, VariantList)
    assert not any(variant.meets_objective for variant in found.variants)
    assert "choose a model with a longer context" in found.variants[0].basis


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
