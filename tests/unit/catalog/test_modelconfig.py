"""Reading `config.json`: real ones give the catalogue's numbers, and no content whatsoever an exception."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.modelconfig import read_config
from modelyard.catalog.models import find_model
from tests.unit.catalog.publishedconfigs import PUBLISHED


def profile_of(config: dict[str, Any], parameters: int | None = None) -> ModelProfile:
    profile = read_config(config, parameters)
    assert isinstance(profile, ModelProfile), profile
    return profile


def llama(**changes: Any) -> dict[str, Any]:
    return PUBLISHED["meta-llama/Llama-3.1-8B-Instruct"] | changes


@pytest.mark.parametrize("repository", PUBLISHED)
@pytest.mark.parametrize("counted", [True, False], ids=["counted", "given"])
def test_a_published_config_gives_the_catalogues_profile(repository, counted):
    model = find_model(repository)
    assert model is not None
    known = model.profile
    read = profile_of(PUBLISHED[repository], None if counted else known.parameters)
    if counted and "vision_config" in PUBLISHED[repository]:
        # The image encoder is not counted: some 420 million parameters of 27,000 million.
        assert known.parameters * 0.98 < read.parameters < known.parameters
        known = known.model_copy(update={"parameters": read.parameters})
    assert read == known


def test_falcon_of_2023_is_read_by_its_old_names():
    old = {
        "hidden_size": 4544,
        "model_type": "RefinedWebModel",
        "multi_query": True,
        "n_head": 71,
        "n_layer": 32,
    }
    first = find_model("tiiuae/falcon-7b")
    assert first is not None
    assert profile_of(old | {"bias": False, "parallel_attn": True, "vocab_size": 65024}) == first.profile
    old = {"hidden_size": 8192, "model_type": "RefinedWeb", "n_head": 128, "n_head_kv": 8, "n_layer": 60}
    second = find_model("tiiuae/falcon-40b")
    assert second is not None
    assert profile_of(old | {"bias": False, "parallel_attn": True, "vocab_size": 65024}) == second.profile


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sliding_window": None}, ("Full", None, None)),
        ({"sliding_window": 4096}, ("SlidingWindow", 4096, None)),
        ({"sliding_window": 131072}, ("Full", None, None)),
        ({"sliding_window": 4096, "use_sliding_window": False}, ("Full", None, None)),
        (
            {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28},
            ("SlidingWindow", 4096, 4),
        ),
        ({"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 32}, ("Full", None, None)),
        ({"sliding_window": 4096, "sliding_window_pattern": 4}, ("SlidingWindow", 4096, 24)),
        (
            {"sliding_window": 512, "layer_types": ["sliding_attention"] * 30 + ["full_attention"] * 2},
            ("SlidingWindow", 512, 30),
        ),
        ({"sliding_window": 512, "layer_types": ["full_attention"] * 32}, ("Full", None, None)),
    ],
)
def test_sliding_windows(changes, expected):
    profile = profile_of(llama(**changes))
    assert (profile.attention, profile.sliding_window, profile.sliding_layers) == expected


def test_a_mistral_without_a_window_field_has_the_familys():
    config = dict(PUBLISHED["mistralai/Mistral-7B-Instruct-v0.1"])
    del config["sliding_window"]
    assert profile_of(config).sliding_window == 4096


@pytest.mark.parametrize(
    ("family", "tied"),
    [("llama", False), ("qwen3", False), ("gemma2", True), ("cohere", True), ("falcon", True)],
)
def test_embeddings_are_tied_by_the_familys_default(family, tied):
    config = llama(model_type=family)
    del config["tie_word_embeddings"]
    assert profile_of(config).tied_embeddings is tied
    assert profile_of(config | {"tie_word_embeddings": not tied}).tied_embeddings is not tied


def test_yarn_stretches_the_context():
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768, "rope_type": "yarn"}
    assert profile_of(llama(max_position_embeddings=32768, rope_scaling=scaling)).context_length == 131072


def weights(kind: str, bits: int, style: str) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": style,
        "config_groups": {"group_0": {"weights": {"type": kind, "num_bits": bits}}},
    }


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fbgemm_fp8"}, "fbgemm_fp8"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "gptq", "bits": 8}, "gptq-int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, "fp8"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "fp8"),
        (weights("float", 8, "float-quantized"), "fp8"),
        (weights("int", 8, "int-quantized"), "int8"),
        (weights("int", 8, "pack-quantized"), "gptq-int8"),
        (weights("int", 4, "pack-quantized"), "gptq"),
        (weights("float", 4, "nvfp4-pack-quantized"), "nvfp4"),
        (weights("float", 4, "mxfp4-pack-quantized"), "mxfp4"),
    ],
)
def test_quantization(stated, expected):
    assert profile_of(llama(quantization_config=stated)).quantization == expected


@pytest.mark.parametrize("method", ["awq", "fp8"])
def test_packed_numbers_are_not_taken_for_parameters(method):
    read = profile_of(llama(quantization_config={"quant_method": method}), 2_000_000_000)
    assert read.parameters == (8_030_261_248 if method == "awq" else 2_000_000_000)


def test_a_tied_output_layer_that_is_stored_twice_is_counted_once():
    model = find_model("Qwen/Qwen3-0.6B")
    assert model is not None
    # The published total of the safetensors metadata.
    assert profile_of(PUBLISHED["Qwen/Qwen3-0.6B"], 751_632_384) == model.profile


def test_the_size_of_feed_forward_blocks_is_needed_only_to_count():
    config = llama(intermediate_size=None)
    assert profile_of(config, 8_030_261_248).parameters == 8_030_261_248
    mixture = PUBLISHED["mistralai/Mixtral-8x22B-v0.1"] | {"intermediate_size": None}
    assert isinstance(read_config(mixture, 140_620_634_112), Refusal)


@pytest.mark.parametrize(
    ("changes", "expert_layers"),
    [
        ({}, 56),
        ({"first_k_dense_replace": 3, "moe_layer_freq": 1}, 53),
        ({"first_k_dense_replace": 3, "moe_layer_freq": 2}, 26),
        ({"moe_layer_freq": [0, 0, *[1] * 54]}, 54),
        ({"decoder_sparse_step": 2}, 28),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1, 2, 99]}, 27),
    ],
)
def test_dense_layers_of_a_mixture(changes, expert_layers):
    config = PUBLISHED["mistralai/Mixtral-8x22B-v0.1"]
    profile = profile_of(config | changes)
    unused = 6 * 3 * 6144 * 16384
    assert profile.parameters - profile.active == expert_layers * unused


def test_active_parameters_follow_the_weight_files():
    config = PUBLISHED["mistralai/Mixtral-8x22B-v0.1"]
    counted = profile_of(config)
    given_more = profile_of(config, counted.parameters + 1000)
    assert given_more.active == counted.active + 1000


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"intermediate_size": None}, "intermediate_size is missing"),
        ({"model_type": None}, "model_type is missing"),
        ({"hidden_size": "4096"}, "hidden_size is no whole number"),
        ({"hidden_size": 4096.0}, "hidden_size is no whole number"),
        ({"hidden_size": True}, "hidden_size is no whole number"),
        ({"vocab_size": -1}, "vocab_size is not from 1"),
        ({"vocab_size": 10**5000}, "vocab_size is not from 1"),
        ({"num_key_value_heads": 5}, "keyValueHeads must divide attentionHeads"),
        ({"num_attention_heads": 33}, "head_dim is missing"),
        ({"num_hidden_layers": 1_000_001}, "parameters: "),
        ({"text_config": []}, "text_config is no object"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is neither"),
        ({"layer_types": ["full_attention"]}, "layer_types does not have"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types has 'linear_attention'"),
        ({"layer_types": ["sliding_attention"] * 32}, "sliding_window is missing"),
        ({"mamba_d_state": 16}, "mamba_d_state announces layers"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is true"),
        ({"num_experts": 8}, "num_experts_per_tok is missing"),
        ({"num_experts": 8, "num_experts_per_tok": 9}, "num_experts_per_tok is above"),
        ({"kv_lora_rank": 512}, "qk_nope_head_dim is missing"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": math.nan}}, "factor is not above 0"),
        ({"quantization_config": {"quant_method": "aqlm"}}, "quant_method 'aqlm' is not known"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "bits 3 is neither"),
        ({"quantization_config": {"bits": 3}}, "quant_method is missing"),
    ],
)
def test_a_config_that_cannot_be_read_is_refused_with_the_field_and_the_remedy(changes, problem):
    refusal = read_config(llama(**changes), None)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.reason == "UnreadableModelConfig"
    assert problem in refusal.message
    assert "model.profile" in refusal.message


def test_too_few_parameters_for_the_experts_are_refused():
    refusal = read_config(PUBLISHED["mistralai/Mixtral-8x22B-v0.1"], 10_000_000)
    assert isinstance(refusal, Refusal)
    assert "moe_intermediate_size" in refusal.message


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 200)
    | st.sampled_from([10**9, 10**18, 10**400, -(10**400)])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["sliding_attention", "full_attention", "yarn", "llama", "falcon", "gemma3", "gptq", "modelopt"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NAMES = sorted(
    {name for config in PUBLISHED.values() for name in config}
    | {
        "text_config",
        "n_head_kv",
        "multi_query",
        "mlp_only_layers",
        "shared_expert_intermediate_size",
        "is_encoder_decoder",
    }
    | {"sliding_window_pattern", "use_sliding_window", "n_inner", "mamba_d_state", "rope_parameters"}
)
NESTED_NAMES = [
    *("quant_method", "quant_algo", "bits", "config_groups", "load_in_8bit", "quantization", "format"),
    *("rope_type", "factor", "original_max_position_embeddings", "type", "hidden_size", "model_type"),
]
NESTED = st.dictionaries(st.sampled_from(NESTED_NAMES), JUNK, max_size=5)


@settings(max_examples=300, deadline=None)
@given(
    base=st.sampled_from(sorted(PUBLISHED)),
    changes=st.dictionaries(st.sampled_from(NAMES), JUNK | NESTED, max_size=5),
    absent=st.sets(st.sampled_from(NAMES), max_size=2),
    parameters=st.none() | st.integers(),
)
def test_no_config_causes_an_exception(base, changes, absent, parameters):
    config = {name: value for name, value in (PUBLISHED[base] | changes).items() if name not in absent}
    result = read_config(config, parameters)
    if isinstance(result, Refusal):
        assert "model.profile" in result.message
        assert len(result.message) < 400
        json.dumps(result.message)
    else:
        assert all(rule.holds(result) for rule in ModelProfile.RULES)
        assert ModelProfile.model_validate(result.model_dump()) == result


@given(config=st.dictionaries(st.text(max_size=20), JUNK, max_size=6))
def test_junk_is_refused(config):
    assert isinstance(read_config(config, None), Refusal)
