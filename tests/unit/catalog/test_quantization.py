"""Formats of weights, by every name that they go by."""

import pytest

from modelyard.catalog.quantization import BF16, FORMATS, gguf_format, weight_format


@pytest.mark.parametrize(
    ("name", "expected", "bits"),
    [
        (None, "bf16", 16),
        ("float16", "bf16", 16),
        ("fp8", "fp8", 8),
        ("modelopt", "fp8", 8),
        ("compressed-tensors", "fp8", 8),
        ("w8a8", "int8", 8),
        ("awq", "awq", 4.15625),
        ("awq_marlin", "awq", 4.15625),
        ("GPTQ-Int4", "gptq", 4.15625),
        ("gptq_marlin", "gptq", 4.15625),
        ("gptq-int8", "gptq-int8", 8.1875),
        ("bitsandbytes", "bitsandbytes", 4.5),
        ("modelopt_fp4", "nvfp4", 4.5),
        ("mxfp4", "mxfp4", 4.25),
        ("q4_k_m", "Q4_K_M", 4.8944),
        ("Q8_0", "Q8_0", 8.5008),
        ("IQ2_XXS", "IQ2_XXS", 2.3824),
        ("F16", "F16", 16),
        ("Q3_K_M", "Q3_K_M", 4.0),
    ],
)
def test_name_finds_the_format(name: str | None, expected: str, bits: float) -> None:
    found = weight_format(name)
    assert found is not None
    assert (found.name, found.bits) == (expected, bits)
    assert found.source.startswith("https://")


def test_unknown_name_finds_none() -> None:
    assert weight_format("q9_z") is None


def test_only_gguf_types_count_the_embeddings() -> None:
    assert FORMATS["awq"].keeps_embeddings
    assert not FORMATS["q4-k-m"].keeps_embeddings


def test_precision_of_the_product_needs_hardware_that_has_it() -> None:
    a100, h100, b200 = (
        {"bf16": 1.0, "int8": 2.0},
        {"bf16": 1.0, "fp8": 2.0},
        {"bf16": 1.0, "fp8": 2.0, "fp4": 4.0},
    )
    assert FORMATS["fp8"].compute_precision(a100) == "bf16"
    assert FORMATS["fp8"].compute_precision(h100) == "fp8"
    assert FORMATS["int8"].compute_precision(a100) == "int8"
    assert FORMATS["nvfp4"].compute_precision(h100) == "bf16"
    assert FORMATS["nvfp4"].compute_precision(b200) == "fp4"
    assert FORMATS["awq"].compute_precision(b200) == BF16.compute_precision(b200) == "bf16"


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("folder/model.Q2_K_S.gguf", "Q2_K_S"),
        ("q6_k", "Q6_K"),
        ("Qwen3-8B-GGUF", None),
    ],
)
def test_type_stands_in_the_file_name(file_name: str, expected: str | None) -> None:
    found = gguf_format(file_name)
    assert (found.name if found else None) == expected
