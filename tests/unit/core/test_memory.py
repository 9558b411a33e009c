"""The arithmetic of memory against figures that engines and publishers report."""

from dataclasses import dataclass, field, replace

import pytest

from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.models import load_models
from modelyard.catalog.quantization import FORMATS
from modelyard.core.fit import (
    Fit,
    MemorySettings,
    Parallelism,
    check_fit,
)
from modelyard.core.memory import GIB, cache_token_bytes, count_weights, engine_overhead

MIB = 2**20
ALONE = Parallelism()
MODELS = {model.name: model.profile for model in load_models()}
LLAMA_8B = MODELS["Llama-3.1-8B"]
LLAMA_70B = MODELS["Llama-3.1-70B"]
LLAMA_2_7B = ModelProfile(
    parameters=6_738_415_616,
    layers=32,
    hidden_size=4096,
    attention_heads=32,
    vocabulary_size=32_000,
    context_length=4096,
)
QWEN_1_5_72B = LLAMA_70B.model_copy(update={"key_value_heads": 64, "vocabulary_size": 152_064})
PHI_4_MINI = ModelProfile(
    parameters=3_836_021_760,
    layers=32,
    hidden_size=3072,
    attention_heads=24,
    key_value_heads=8,
    vocabulary_size=200_064,
    context_length=131_072,
    tied_embeddings=True,
)
VLLM = "https://github.com/vllm-project/vllm"
LLAMA_CPP = "https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md"
DEEPSEEK_V3 = "https://arxiv.org/abs/2505.09343"  # Insights into DeepSeek-V3, table 1: KB of 1000 bytes


@dataclass(frozen=True)
class WeightsFact:
    """What an engine or a publisher says the weights take on one accelerator."""

    source: str
    profile: ModelProfile
    format: str
    size: float
    """Bytes."""
    tensor: int = 1
    tolerance: float = 0.03


WEIGHTS = [
    WeightsFact(f"{VLLM}/pull/10511", MODELS["Llama-3-8B"], "bf16", 14.96 * GIB),
    WeightsFact(f"{VLLM}/pull/10511", MODELS["Llama-3-8B"], "bf16", 7.48 * GIB, tensor=2),
    WeightsFact(f"{VLLM}/issues/10517", LLAMA_8B, "bf16", 14.9888 * GIB),
    WeightsFact(f"{VLLM}/pull/12569", LLAMA_70B, "w8a8", 67.7229 * GIB),
    WeightsFact(
        f"{VLLM}/issues/13061", MODELS["DeepSeek-R1-Distill-Qwen-14B"], "bf16", 13.9476 * GIB, tensor=2
    ),
    WeightsFact(f"{VLLM}/issues/13882", MODELS["Qwen2.5-7B"], "awq", 5.2032 * GIB),
    WeightsFact(
        "https://github.com/kyuz0/amd-strix-halo-vllm-toolboxes/pull/5",
        MODELS["Qwen3-4B"],
        "bf16",
        7.6785 * GIB,
    ),
    WeightsFact(
        "https://github.com/kaito-project/kaito/blob/main/website/docs/memory-estimator.md",
        PHI_4_MINI,
        "bf16",
        7.15 * GIB,
    ),
    # The bits of a weight come from the same page's table for the 8B model, so only the larger models tell.
    WeightsFact(LLAMA_CPP, LLAMA_70B, "Q4_K_M", 43.1e9),
    WeightsFact(LLAMA_CPP, MODELS["Llama-3.1-405B"], "Q4_K_M", 249.1e9),
    # vLLM pads the hidden size for its kernel on an A100, the hub's files have 13.76 GB.
    WeightsFact(
        "https://myoceane.fr/index.php/ai-vllm-a100-gemma-4/",
        MODELS["gpt-oss-20b"],
        "mxfp4",
        13.72 * GIB,
        tolerance=0.07,
    ),
]


@pytest.mark.parametrize("fact", WEIGHTS, ids=lambda fact: f"{fact.format}-{fact.source}")
def test_weights_are_what_is_published(fact: WeightsFact) -> None:
    weights = count_weights(
        fact.profile, FORMATS[fact.format.lower().replace("_", "-")], Parallelism(fact.tensor)
    )
    assert weights == pytest.approx(fact.size, rel=fact.tolerance)


@pytest.mark.parametrize(
    ("source", "profile", "expected"),
    [
        (DEEPSEEK_V3, MODELS["DeepSeek-V3"], 70_272),
        (DEEPSEEK_V3, MODELS["Qwen2.5-72B"], 327_680),
        (DEEPSEEK_V3, MODELS["Llama-3.1-405B"], 516_096),
        (
            "https://github.com/kaito-project/kaito/blob/main/website/docs/memory-estimator.md",
            PHI_4_MINI,
            131_072,
        ),
        # 82,120 MiB for 32,848 tokens.
        ("https://github.com/LostRuins/koboldcpp/issues/724", QWEN_1_5_72B, 82_120 * MIB // 32_848),
    ],
)
def test_cache_of_a_token_is_exactly_what_is_published(
    source: str, profile: ModelProfile, expected: int
) -> None:
    assert cache_token_bytes(profile, MemorySettings(), ALONE) == expected


@dataclass(frozen=True)
class CacheFact:
    """Tokens for which vLLM found memory at its start."""

    source: str
    profile: ModelProfile
    memory: float
    """GiB that the accelerator reports."""
    share: float
    batched: int
    tokens: int
    tensor: int = 1
    format: str = "bf16"
    name: str = "H100"
    cuda_graphs: bool = field(default=False)
    """These versions of vLLM did not count CUDA graphs; 0.19 does."""


CACHES = [
    CacheFact(f"{VLLM}/pull/10511", MODELS["Llama-3-8B"], 79.22, 0.9, 8192, int(53.29 * GIB / 131_072)),
    CacheFact(f"{VLLM}/issues/10517", LLAMA_8B, 23.58, 0.9, 20_000, 1952 * 16, name="RTX 3090"),
    CacheFact(f"{VLLM}/issues/10517#29k", LLAMA_8B, 23.58, 0.9, 29_000, 1478 * 16, name="RTX 3090"),
    CacheFact(f"{VLLM}/pull/12569", LLAMA_70B, 79.1, 0.98, 2048, 1381 * 16, format="w8a8"),
    CacheFact(f"{VLLM}/pull/2031", LLAMA_2_7B, 79.14, 0.9, 4096, 7351 * 16, name="A100"),
    CacheFact(
        f"{VLLM}/issues/13061", MODELS["DeepSeek-R1-Distill-Qwen-14B"], 23.55, 0.98, 2048, 81_536, tensor=2
    ),
]
"""Not met: two published figures for four 80 GB GPUs. Llama 2 70B in https://github.com/vllm-project/vllm/pull/2031 (of
2023) had 32 % less cache than is worked out here, and Qwen3 235B FP8 with a cache connector in
https://github.com/vllm-project/vllm/issues/21348 had 26 % less."""


@pytest.mark.parametrize("fact", CACHES, ids=lambda fact: fact.source)
def test_tokens_in_the_cache_are_what_vllm_found(fact: CacheFact) -> None:
    settings = MemorySettings(
        weights=FORMATS[fact.format],
        memory_share=fact.share,
        context_length=2048,
        max_batched_tokens=fact.batched,
        max_sequences=256,
        cuda_graphs=fact.cuda_graphs,
    )
    fit = check_fit(
        fact.profile, settings, Hardware(fact.name, int(fact.memory * GIB)), Parallelism(fact.tensor)
    )
    assert isinstance(fit, Fit)
    assert fit.cache_tokens == pytest.approx(fact.tokens, rel=0.15)


def test_memory_for_the_cache_with_sliding_windows_and_graphs_is_what_vllm_found() -> None:
    # vLLM 0.19 on an A100: https://myoceane.fr/index.php/ai-vllm-a100-gemma-4/
    a100 = find_hardware("A100-80GB-SXM")
    assert a100 is not None
    settings = MemorySettings(weights=FORMATS["mxfp4"], memory_share=0.65)
    fit = check_fit(MODELS["gpt-oss-20b"], settings, a100, ALONE)
    assert isinstance(fit, Fit)
    assert fit.cache == pytest.approx(36.56 * GIB, rel=0.15)


def test_llama_cpp_compute_buffer_is_what_is_published() -> None:
    # "CUDA0 compute buffer size = 300.75 MiB": https://github.com/SciSharp/LLamaSharp/issues/1099
    settings = MemorySettings(engine="LlamaCpp", max_batched_tokens=512, max_sequences=1)
    context = replace(settings, max_batched_tokens=0)
    profile = MODELS["Qwen2.5-3B"]
    buffer = engine_overhead(profile, settings, ALONE) - engine_overhead(profile, context, ALONE)
    assert buffer == pytest.approx(300.75 * MIB, rel=0.03)
