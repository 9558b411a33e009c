"""What the arithmetic of memory answers: which accelerators, which context, and what would help."""

from dataclasses import replace

import pytest

from modelyard.catalog.accelerators import find_hardware, load_accelerators
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.models import load_models
from modelyard.catalog.quantization import FORMATS
from modelyard.core.fit import (
    SMALLEST_CONTEXT,
    DoesNotFit,
    Fit,
    MemorySettings,
    Parallelism,
    check_fit,
    choose_fit,
    memory_settings,
    parallelisms,
    smallest_fits,
)
from modelyard.core.memory import GIB, cache_token_bytes, count_weights, engine_overhead, sequence_bytes
from tests.unit.core.build import make_deployment

ALONE = Parallelism()
MODELS = {model.name: model.profile for model in load_models()}
LLAMA_8B = MODELS["Llama-3.1-8B"]
LLAMA_70B = MODELS["Llama-3.1-70B"]


def hardware(name: str) -> Hardware:
    found = find_hardware(name)
    assert found is not None
    return found


def fit_of(answer: Fit | DoesNotFit) -> Fit:
    assert isinstance(answer, Fit), answer.reason()
    return answer


def misfit_of(answer: Fit | DoesNotFit) -> DoesNotFit:
    assert isinstance(answer, DoesNotFit)
    return answer


def test_parallelism_divides_heads_and_else_layers() -> None:
    assert parallelisms(LLAMA_8B, 4) == (Parallelism(4), Parallelism(2, 2), Parallelism(1, 4))
    # 71 heads.
    assert parallelisms(MODELS["Falcon-7B"], 2) == (Parallelism(1, 2),)
    # 28 heads, 4 of them with keys and values: 7 does not go into 4, nor 4 into 7.
    assert parallelisms(MODELS["Qwen2.5-7B"], 7) == (Parallelism(1, 7),)
    assert parallelisms(LLAMA_8B, 16)[0] == Parallelism(16)
    assert parallelisms(LLAMA_8B, 4, "LlamaCpp") == (Parallelism(1, 4),)
    assert parallelisms(LLAMA_8B, 33) == ()


def test_cache_is_shared_by_heads_copied_beyond_them_and_for_latent_attention() -> None:
    settings = MemorySettings()
    assert cache_token_bytes(LLAMA_8B, settings, Parallelism(8)) == 131_072 // 8
    assert cache_token_bytes(LLAMA_8B, settings, Parallelism(16)) == 131_072 // 8
    assert cache_token_bytes(LLAMA_8B, settings, Parallelism(2, 2)) == 131_072 // 4
    assert cache_token_bytes(MODELS["DeepSeek-V3"], settings, Parallelism(8)) == 70_272
    assert cache_token_bytes(MODELS["Falcon-7B"], settings, ALONE) == 8192


def test_copied_heads_cost_weights() -> None:
    halves = count_weights(LLAMA_8B, FORMATS["bf16"], Parallelism(8)) / 2
    assert count_weights(LLAMA_8B, FORMATS["bf16"], Parallelism(16)) > halves


def test_windows_cap_the_cache_of_their_layers() -> None:
    gemma = MODELS["Gemma-3-27B"]
    settings = MemorySettings().resolve(hardware("L40S"))
    token = cache_token_bytes(gemma, settings, ALONE)
    kept = (gemma.sliding_window or 0) + 2048
    assert sequence_bytes(gemma, settings, ALONE, 1000) == 1000 * token
    growth = sequence_bytes(gemma, settings, ALONE, kept + 1000) - sequence_bytes(
        gemma, settings, ALONE, kept
    )
    sliding = gemma.sliding_layers or 0
    assert growth == 1000 * token * (gemma.layers - sliding) // gemma.layers


def test_more_short_sequences_run_than_the_tokens_of_long_ones_say() -> None:
    fit = fit_of(check_fit(LLAMA_8B, MemorySettings(), hardware("L40S"), ALONE))
    assert fit.context_length == 131_072
    assert fit.sequences(131_072) == fit.cache_tokens // 131_072 == 1
    assert fit.sequences(1366) == pytest.approx(fit.cache_tokens / 1366, abs=1)
    assert fit.sequences(10) == fit.settings.max_sequences == 256


def test_no_context_is_proposed_that_is_too_short_to_be_of_use() -> None:
    """Where next to nothing is left beside the weights, `set model.contextLength to 160 or less` helps nobody."""
    for profile in MODELS.values():
        for accelerator in (item.hardware for item in load_accelerators()):
            for asked in (None, profile.context_length):
                answer = check_fit(profile, MemorySettings(context_length=asked), accelerator, ALONE)
                if isinstance(answer, DoesNotFit):
                    contexts = [item.settings.context_length for item in answer.remedies]
                    assert all(
                        context is None or context == asked or context >= SMALLEST_CONTEXT
                        for context in contexts
                    )


def test_small_accelerator_shortens_the_context_where_none_is_asked() -> None:
    fit = fit_of(check_fit(LLAMA_8B, MemorySettings(), hardware("L4"), ALONE))
    assert 25_000 < fit.context_length < 33_000
    assert fit.context_length == fit.cache_tokens
    asked = misfit_of(check_fit(LLAMA_8B, MemorySettings(context_length=131_072), hardware("L4"), ALONE))
    assert f"model.contextLength to {fit.context_length} or less" in asked.reason()
    assert "placement.accelerators[].count to 2" in asked.reason()
    assert "model.quantization to fp8" not in asked.reason()


def test_explanation_is_the_sum() -> None:
    fit = fit_of(check_fit(LLAMA_8B, MemorySettings(context_length=16_384), hardware("L4"), ALONE))
    assert fit.explain() == (
        "weights 15.0 GiB + cache 128 KiB a token x 16384 + overhead 1.7 GiB of 20.3 GiB, "
        "the engine's share of 22.0 GiB"
    )
    assert fit.weights + fit.overhead + fit.cache == fit.budget <= fit.memory


def test_fp8_halves_cache_and_all_but_embeddings() -> None:
    settings = MemorySettings(weights=FORMATS["fp8"], key_bits=8, value_bits=8)
    fit = fit_of(check_fit(LLAMA_8B, settings, hardware("L4"), ALONE))
    assert fit.cache_per_token == 65_536
    assert fit.weights / GIB == pytest.approx(8.46, abs=0.02)


def test_remedies_name_the_field_and_the_smallest_number() -> None:
    answer = misfit_of(check_fit(LLAMA_70B, MemorySettings(context_length=8192), hardware("H100-SXM"), ALONE))
    assert [item.sentence for item in answer.remedies] == [
        "choose a model.source whose weights are quantised to int4 (AWQ or GPTQ)",
        "set placement.accelerators[].count to 2",
    ]
    assert answer.reason().startswith(
        "does not fit: weights 131.4 GiB + cache 320 KiB a token x 8192 + overhead"
    )


def test_nothing_helps_on_a_slice_that_is_too_small() -> None:
    answer = misfit_of(choose_fit(LLAMA_70B, MemorySettings(), hardware("H100-SXM-1g.10gb"), 8))
    assert answer.remedies == ()
    assert "No context, quantisation or number of these accelerators would help" in answer.reason()
    assert "nodes" not in answer.reason()


def test_nodes_follow_each_other_in_the_pipeline() -> None:
    assert parallelisms(LLAMA_8B, 4, nodes=2) == (
        Parallelism(4, 2, 2),
        Parallelism(2, 4, 2),
        Parallelism(1, 8, 2),
    )
    assert {way.per_node for way in parallelisms(LLAMA_70B, 8, nodes=3)} == {8}
    # 32 layers: no more stages than that.
    assert parallelisms(LLAMA_8B, 16, nodes=2)[-1] == Parallelism(1, 32, 2)
    assert parallelisms(LLAMA_8B, 1, nodes=33) == ()
    assert parallelisms(LLAMA_8B, 1, "LlamaCpp", nodes=2) == ()


def test_each_node_holds_its_share_of_the_layers_and_of_the_cache() -> None:
    settings = MemorySettings(context_length=8192)
    one = fit_of(check_fit(LLAMA_70B, settings, hardware("H100-SXM"), Parallelism(4)))
    two = fit_of(check_fit(LLAMA_70B, settings, hardware("H100-SXM"), Parallelism(4, 2, 2)))
    assert two.weights == pytest.approx(one.weights / 2, rel=0.02)
    assert two.cache_per_token * 2 == one.cache_per_token
    assert two.cache_tokens > 2 * one.cache_tokens
    assert "on each of 8 accelerators of 2 nodes" in two.explain()


def test_what_no_node_holds_is_told_the_nodes_that_do() -> None:
    settings = MemorySettings(context_length=8192)
    small = hardware("L40S")
    answer = misfit_of(choose_fit(MODELS["Llama-3.1-405B"], settings, small, 8, node=8))
    (more,) = [item for item in answer.remedies if item.parallelism.nodes > 1]
    assert more.sentence.startswith(
        f"set placement.accelerators[].nodes to {more.parallelism.nodes} and count to 8"
    )
    assert "LeaderWorkerSet" in more.sentence
    fit_of(check_fit(answer.profile, settings, small, more.parallelism))
    fewer = replace(more.parallelism, nodes=more.parallelism.nodes - 1, pipeline=more.parallelism.nodes - 1)
    misfit_of(check_fit(answer.profile, settings, small, fewer))
    # Without the size of a node nothing is said of nodes.
    unsized = misfit_of(choose_fit(MODELS["Llama-3.1-405B"], settings, small, 8))
    assert all(item.parallelism.nodes == 1 for item in unsized.remedies)


def test_a_group_of_too_few_nodes_is_told_how_many() -> None:
    settings = MemorySettings(context_length=8192)
    answer = misfit_of(choose_fit(MODELS["Llama-3.1-405B"], settings, hardware("L40S"), 8, nodes=2, node=8))
    assert min(item.parallelism.nodes for item in answer.remedies if item.parallelism.nodes > 2) > 2
    assert "of 2 nodes" in answer.reason()


def test_slices_and_undivided_heads_are_obstacles() -> None:
    part = hardware("H100-SXM-3g.40gb")
    answer = misfit_of(check_fit(LLAMA_8B, MemorySettings(), part, Parallelism(2)))
    assert answer.reason() == (
        "does not fit: slices of a GPU (MIG) cannot share a model. set placement.accelerators[].count to 1"
    )
    uneven = misfit_of(check_fit(MODELS["Falcon-7B"], MemorySettings(), hardware("T4"), Parallelism(2)))
    assert "71 attention heads" in uneven.reason()
    assert uneven.remedies[0].parallelism == Parallelism(1, 2)


def test_the_smallest_number_is_chosen_powers_of_two_first() -> None:
    assert fit_of(
        choose_fit(LLAMA_70B, MemorySettings(), hardware("H100-SXM"), 8)
    ).parallelism == Parallelism(2)
    falcon = fit_of(choose_fit(MODELS["Falcon-7B"], MemorySettings(), hardware("T4"), 8))
    assert falcon.parallelism == Parallelism(1, 2)
    # 40 heads, 8 with keys and values: five fit only as stages, and four do not.
    qwen = MODELS["Qwen2.5-32B"]
    only_five = Hardware("x", int(18.6 * GIB))
    assert fit_of(choose_fit(qwen, MemorySettings(), only_five, 7)).parallelism.accelerators == 5
    assert fit_of(choose_fit(qwen, MemorySettings(), only_five, 8)).parallelism == Parallelism(8)


def test_kinds_are_answered_each() -> None:
    answers = smallest_fits(
        LLAMA_70B, MemorySettings(), {"big": hardware("H200"), "small": hardware("T4")}, 4
    )
    assert fit_of(answers["big"]).parallelism == Parallelism(2)
    assert misfit_of(answers["small"]).parallelism.accelerators == 4


def test_defaults_of_vllm_follow_the_accelerator() -> None:
    assert MemorySettings().resolve(hardware("H100-SXM")).max_batched_tokens == 8192
    assert MemorySettings().resolve(hardware("A100-80GB-SXM")).max_batched_tokens == 2048
    assert MemorySettings().resolve(hardware("L4")).max_sequences == 256
    assert MemorySettings(max_sequences=7).resolve(hardware("H200")).max_sequences == 7


def test_settings_are_read_from_the_deployment() -> None:
    deployment = make_deployment(
        model={
            "contextLength": 4096,
            "quantization": "awq_marlin",
            "adapters": [{"name": f"a{i}", "source": "hf://org/a"} for i in range(6)],
        },
        engine={
            "parameters": {
                "gpu-memory-utilization": "0.8",
                "kv-cache-dtype": "fp8",
                "max-num-batched-tokens": "4096",
                "max-num-seqs": "64",
                "max-lora-rank": "32",
                "enforce-eager": "",
            }
        },
    )
    assert memory_settings(deployment, LLAMA_8B) == MemorySettings(
        weights=FORMATS["awq"],
        key_bits=8.0,
        value_bits=8.0,
        memory_share=0.8,
        context_length=4096,
        max_batched_tokens=4096,
        max_sequences=64,
        adapters=4,
        adapter_rank=32,
        cuda_graphs=False,
    )


def test_unreadable_values_count_as_absent() -> None:
    deployment = make_deployment(
        model={"quantization": "no-such-format"},
        engine={"parameters": {"gpu-memory-utilization": "much", "max-num-seqs": "-1"}},
    )
    assert memory_settings(deployment, LLAMA_8B) == MemorySettings()


def test_published_quantisation_counts_where_none_is_asked() -> None:
    profile = LLAMA_8B.model_copy(update={"quantization": "gptq"})
    assert memory_settings(make_deployment(), profile).weights == FORMATS["gptq"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"source": "hf://org/repo-GGUF:Q6_K@main"}, "q6-k"),
        ({"source": "pvc://claim/folder/model-Q8_0.gguf"}, "q8-0"),
        ({"source": "hf://org/repo-GGUF"}, "q4-k-m"),
        ({"source": "hf://org/repo-GGUF", "quantization": "Q5_K_M"}, "q5-k-m"),
    ],
)
def test_type_of_gguf_weights_is_found(model: dict[str, str], expected: str) -> None:
    deployment = make_deployment(
        model=model, engine={"name": "LlamaCpp", "parameters": {"cache-type-k": "q8_0", "parallel": "2"}}
    )
    settings = memory_settings(deployment, LLAMA_8B)
    assert settings.weights == FORMATS[expected]
    assert (settings.key_bits, settings.value_bits, settings.max_sequences) == (8.5, 16.0, 2)
    assert settings.memory_share == 1.0


def test_slots_of_llama_cpp_share_a_context_unless_one_is_asked() -> None:
    node = Hardware("cpu", 16 * GIB)
    settings = MemorySettings(engine="LlamaCpp", weights=FORMATS["q4-k-m"], memory_share=1.0)
    shared = fit_of(check_fit(LLAMA_8B, settings, node, ALONE))
    assert shared.cache_tokens == shared.context_length > 60_000
    asked = fit_of(check_fit(LLAMA_8B, replace(settings, context_length=16_384), node, ALONE))
    assert asked.cache_tokens == 4 * 16_384
    assert asked.sequences(16_384) == 4
    assert "x 16384 x 4 sequences" in asked.explain()
    assert asked.weights + asked.overhead + asked.cache <= node.memory
    larger = misfit_of(check_fit(LLAMA_8B, replace(settings, context_length=32_768), node, ALONE))
    assert "cache-type-k and cache-type-v to q8_0" in larger.reason()


def test_adapters_take_memory_of_their_rank() -> None:
    settings = MemorySettings().resolve(hardware("L4"))
    none = engine_overhead(LLAMA_8B, settings, ALONE)
    one = engine_overhead(LLAMA_8B, replace(settings, adapters=1), ALONE)
    wide = engine_overhead(LLAMA_8B, replace(settings, adapters=1, adapter_rank=64), ALONE)
    # 41.9 million parameters of rank 16 on all matrices of Llama 3 8B, as PEFT counts them.
    assert one - none == pytest.approx(2 * 41_943_040, rel=0.01)
    assert wide - none == pytest.approx(4 * (one - none), rel=1e-6)
