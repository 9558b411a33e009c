"""The catalogue: its numbers agree with each other, and names find what they should and nothing else."""

from importlib.resources import files
from typing import Any

import pytest
import yaml

from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.modelconfig import read_config
from modelyard.catalog.models import CatalogModel, find_model, load_models

ENTRIES: dict[str, dict[str, Any]] = {
    entry["name"]: entry
    for entry in yaml.safe_load(files("modelyard.catalog").joinpath("models.yaml").read_text())["models"]
}


def config_of(model: CatalogModel) -> dict[str, Any]:
    """The `config.json` that the catalogue's own numbers amount to."""
    profile = model.profile
    config = {
        "num_hidden_layers": profile.layers,
        "hidden_size": profile.hidden_size,
        "num_attention_heads": profile.attention_heads,
        "num_key_value_heads": profile.kv_heads,
        "vocab_size": profile.vocabulary_size,
        "max_position_embeddings": profile.context_length,
        "tie_word_embeddings": profile.tied_embeddings,
        "sliding_window": profile.sliding_window,
        "num_experts": profile.experts,
        "num_experts_per_tok": profile.active_experts,
    }
    if profile.latent_dimension is None:
        config["head_dim"] = profile.head_size
    if profile.quantization is not None:
        config["quantization_config"] = {"quant_method": profile.quantization}
    return config | ENTRIES[model.name]["architecture"]


SIZES = {
    # Thousand millions of parameters, of models whose names say something else. From their model cards.
    "Mixtral-8x7B": 46.7,
    "Mixtral-8x22B-v0.1": 141,
    "Mixtral-8x22B-Base-v0.1": 141,
    "DeepSeek-V3": 671,
    "gpt-oss-120b": 117,
    "gpt-oss-20b": 21,
}


@pytest.mark.parametrize("model", load_models(), ids=lambda model: model.name)
class TestEntry:
    def test_its_parameters_are_those_of_its_architecture(self, model):
        counted = read_config(config_of(model), None)
        assert isinstance(counted, ModelProfile), counted
        encoder = ENTRIES[model.name].get("encoderParameters", 0)
        assert model.profile == counted.model_copy(update={"parameters": counted.parameters + encoder})

    def test_it_keeps_the_rules_of_profiles(self, model):
        assert [rule.name for rule in ModelProfile.RULES if not rule.holds(model.profile)] == []

    def test_it_lists_nothing_that_follows_from_the_rest(self, model):
        profile = model.profile
        assert profile.key_value_heads != profile.attention_heads
        assert profile.head_dimension is None or (
            profile.head_dimension * profile.attention_heads != profile.hidden_size
        )
        assert profile.sliding_layers != profile.layers
        listed = set(ENTRIES[model.name]["profile"])
        assert listed == set(profile.model_dump(by_alias=True, exclude_defaults=True))

    def test_its_size_is_the_one_in_its_name(self, model):
        size = model.profile.parameters / 1e9
        stated = SIZES.get(model.name)
        if stated is None:
            stated = next(
                float(part[:-1]) / (1000 if part.endswith("M") else 1)
                for part in model.name.split("-")
                if part[-1] in "BM" and part[:-1].replace(".", "").isdigit()
            )
        # Names round to a whole number, or leave the embeddings out (Gemma 2 2B, Falcon3 1B).
        assert size == pytest.approx(stated, rel=0.04, abs=0.8)

    def test_each_of_its_repositories_finds_it(self, model):
        assert model.repositories
        for repository in model.repositories:
            assert find_model(f"hf://{repository}@main") is model
            assert find_model(repository.upper()) is model
        assert model.source.startswith(f"https://huggingface.co/{model.repositories[0]}/")
        assert model.checked.isoformat() >= "2026-11-24"


def test_names_and_repositories_are_unique():
    models = load_models()
    repositories = [repository.lower() for model in models for repository in model.repositories]
    assert len({model.name for model in models}) == len(models)
    assert len(set(repositories)) == len(repositories)


PUBLISHED_TOTALS = {
    # Totals of the safetensors metadata, from public listings of them.
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.3-70B": 70_553_706_496,
    "Llama-3.2-3B": 3_212_749_824,
    "Mistral-7B-v0.1": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "Mistral-Nemo-12B": 12_247_782_400,
    "Mistral-Small-24B": 23_572_403_200,
    "Mistral-Small-3.1-24B": 24_011_361_280,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-72B": 72_706_203_648,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-32B": 32_762_123_264,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Qwen3-235B-A22B": 235_093_634_560,
    "Gemma-2-9B": 9_241_705_984,
    "Gemma-2-27B": 27_227_128_320,
    "Gemma-3-4B": 4_300_079_472,
    "Gemma-3-12B": 12_187_325_040,
    "Gemma-3-27B": 27_432_406_640,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
}


def test_parameters_are_the_published_totals():
    by_name = {model.name: model.profile.parameters for model in load_models()}
    assert {name: by_name[name] for name in PUBLISHED_TOTALS} == PUBLISHED_TOTALS


def test_the_image_encoder_of_gemma_is_siglip_and_a_projector():
    """SigLIP so400m: 27 layers of 1152 with 4304 between, patches of 14 of images of 896 pixels."""
    width, between, patches = 1152, 4304, (896 // 14) ** 2
    layer = 4 * (width * width + width) + 2 * width * between + between + width + 4 * width
    tower = 27 * layer + 3 * 14 * 14 * width + width + patches * width + 2 * width
    for name in ("Gemma-3-4B", "Gemma-3-12B", "Gemma-3-27B"):
        entry = ENTRIES[name]
        projector = width * entry["profile"]["hiddenSize"] + width
        assert entry["encoderParameters"] == tower + projector, name


@pytest.mark.parametrize(
    ("source", "name", "quantization"),
    [
        ("hf://meta-llama/Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B", None),
        ("meta-llama/llama-3-8b-instruct", "Llama-3-8B", None),
        ("hf://unsloth/Llama-3.1-8B-Instruct", "Llama-3.1-8B", None),
        ("hf://unsloth/Llama-3.1-8B-Instruct-unsloth-bnb-4bit", "Llama-3.1-8B", "bitsandbytes"),
        ("hf://unsloth/llama-3-8b-Instruct-bnb-4bit", "Llama-3-8B", "bitsandbytes"),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8", "Llama-3.1-70B", "fp8"),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8-dynamic@main", "Llama-3.1-70B", "fp8"),
        ("RedHatAI/gemma-3-27b-it-quantized.w8a8", "Gemma-3-27B", "int8"),
        ("RedHatAI/gemma-3-27b-it-quantized.w4a16", "Gemma-3-27B", "gptq"),
        ("hugging-quants/Meta-Llama-3.1-405B-Instruct-AWQ-INT4", "Llama-3.1-405B", "awq"),
        ("Qwen/Qwen3-32B-AWQ", "Qwen3-32B", "awq"),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4", "Qwen2.5-72B", "gptq"),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8", "Qwen2.5-72B", "gptq-int8"),
        ("Qwen/Qwen3-235B-A22B-FP8", "Qwen3-235B-A22B", "fp8"),
        ("nvidia/Llama-3.3-70B-Instruct-NVFP4", "Llama-3.3-70B", "nvfp4"),
        ("hf://bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:q5_k_m@main", "Llama-3.1-8B", "Q5_K_M"),
        ("hf://bartowski/google_gemma-3-27b-it-GGUF:IQ4_XS", "Gemma-3-27B", "IQ4_XS"),
        ("hf://Qwen/Qwen2.5-7B-Instruct-GGUF", "Qwen2.5-7B", "Q4_K_M"),
        ("hf://google/gemma-3-27b-it-qat-q4_0-gguf", "Gemma-3-27B", "Q4_0"),
        ("hf://mradermacher/Falcon3-7B-Instruct-i1-GGUF:Q6_K", "Falcon3-7B", "Q6_K"),
        ("deepseek-ai/DeepSeek-R1", "DeepSeek-V3", "fp8"),
        ("unsloth/DeepSeek-R1-BF16", "DeepSeek-V3", None),
    ],
)
def test_a_name_is_found(source, name, quantization):
    found = find_model(source)
    assert found is not None
    assert (found.name, found.profile.quantization) == (name, quantization)
    original = next(model for model in load_models() if model.name == name)
    assert found.profile.model_copy(update={"quantization": None}) == original.profile.model_copy(
        update={"quantization": None}
    )


@pytest.mark.parametrize(
    "source",
    [
        "NousResearch/Hermes-3-Llama-3.1-8B",
        "nvidia/Llama-3.1-8B-Instruct-Nemotron",
        "someone/Llama-3.1-8B-Instruct-abliterated",
        "someone/Llama-3.1-8B-Instruct-abliterated-GGUF:Q4_K_M",
        "someone/my-Qwen3-32B",
        "someone/Qwen3-32B-FP8-finetuned",
        "someone/Llama-3.1",
        "Llama-3.1-8B-Instruct",
        "pvc://meta-llama/Llama-3.1-8B-Instruct",
        "someone/Qwen3-32B-GGUF:Q4.K.M",
        "/Qwen3-32B",
        "someone/",
        "",
    ],
)
def test_another_name_is_not_found(source):
    assert find_model(source) is None
