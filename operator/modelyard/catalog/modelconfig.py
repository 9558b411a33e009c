"""Reading a model's `config.json`, as transformers writes it, into a profile.

Field names and the defaults of absent fields are those of the configuration classes in
https://github.com/huggingface/transformers/tree/main/src/transformers/models. Nothing in a configuration is trusted:
whatever it holds, the answer is a profile within the profile's bounds or a refusal.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.modelcount import (
    FAMILY_TRAITS,
    PLAIN,
    DecoderShape,
    ExpertShape,
    LatentShape,
    ParameterCount,
    count_parameters,
)
from modelyard.catalog.modelfields import ConfigFields, UnreadableConfigError, shorten
from modelyard.catalog.modelquantization import PACKED, read_quantization

_FAMILIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "refinedweb": "falcon",
        "refinedwebmodel": "falcon",
        "gemma3": "gemma3_text",
        "mistral3": "mistral",
    }
)
"""`model_type` to the family whose code and defaults it shares."""

_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "falcon": {"max_position_embeddings": 2048},
        "gemma": {"head_dim": 256},
        "gemma2": {"head_dim": 256, "sliding_window": 4096, "sliding_window_pattern": 2},
        "gemma3_text": {
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 262_208,
            "max_position_embeddings": 131_072,
            "sliding_window": 4096,
            "sliding_window_pattern": 6,
        },
        "gpt_oss": {
            "head_dim": 64,
            "sliding_window": 128,
            "sliding_window_pattern": 2,
            "attention_bias": True,
        },
        "cohere2": {"sliding_window_pattern": 4},
        "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
        "mixtral": {"num_key_value_heads": 8},
        "qwen2": {"use_sliding_window": False},
        "qwen2_moe": {"use_sliding_window": False},
        "qwen3": {"head_dim": 128, "use_sliding_window": False},
        "qwen3_moe": {"use_sliding_window": False},
    }
)
"""What transformers takes for a field that a family's configuration leaves out."""

_UNTIED: Final = frozenset(
    {
        "llama",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "deepseek_v2",
        "deepseek_v3",
        "phi3",
        "gpt_oss",
    }
)
"""Families whose `tie_word_embeddings` is false by default; transformers' base class has true."""

_SLIDING_KINDS: Final = frozenset({"sliding_attention"})
_FULL_KINDS: Final = frozenset({"full_attention"})

_OTHER_KINDS: Final = (
    "full_attention_interval",
    "layers_block_type",
    "hybrid_override_pattern",
    "attn_layer_period",
    "mamba_d_state",
    "ssm_state_size",
    "state_size",
    "attention_chunk_size",
)
"""Fields of models with layers that keep no keys and values (state-space, linear) or keep them by chunks."""


def read_config(config: Mapping[str, Any], parameters: int | None) -> ModelProfile | Refusal:
    """Return the profile of a `config.json`.

    `parameters` is the count of the weight files where it is known. Otherwise it is counted from the architecture; an
    image or audio encoder beside the language model is not in that count.
    """
    try:
        return _read(config, parameters)
    except UnreadableConfigError as error:
        problem = str(error)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem = ".".join(str(part) for part in first["loc"]) or "the profile"
        problem += f": {first['msg']}"
    return Refusal(
        "UnreadableModelConfig", f"config.json of the model: {problem}; set model.profile in the spec"
    )


def _read(config: Mapping[str, Any], parameters: int | None) -> ModelProfile:
    outer = ConfigFields(config, {})
    text = outer.mapping("text_config") or config
    family = _read_family(config, text)
    fields = ConfigFields(text, _DEFAULTS.get(family, {}))
    if outer.flag("is_encoder_decoder", default=False):
        raise UnreadableConfigError("is_encoder_decoder is true, and only decoders are covered")
    for name in _OTHER_KINDS:
        if fields.get(name) is not None:
            raise UnreadableConfigError(f"{name} announces layers that are not covered")
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if tied is not None and not isinstance(tied, bool):
        raise UnreadableConfigError("tie_word_embeddings is neither true nor false")
    shape = _Shape(fields, family, family not in _UNTIED if tied is None else tied)
    quantization = read_quantization(fields) or read_quantization(outer)
    if quantization in PACKED:
        # The numbers in the files are not the parameters: the architecture's own count is right.
        parameters = None
    total, active = _apply_count(_count(shape), parameters, shape)
    window, sliding_layers = _read_window(fields, shape.layers, shape.context)
    latent = shape.latent
    attention = "MultiHeadLatent" if latent else "SlidingWindow" if window else "Full"
    profile = ModelProfile.model_validate(
        {
            "parameters": total,
            "active_parameters": active,
            "layers": shape.layers,
            "hidden_size": shape.hidden_size,
            "attention_heads": shape.heads,
            "key_value_heads": None
            if latent or shape.key_value_heads == shape.heads
            else shape.key_value_heads,
            "head_dimension": (
                None if shape.head_dimension * shape.heads == shape.hidden_size else shape.head_dimension
            ),
            "vocabulary_size": shape.vocabulary_size,
            "context_length": shape.context,
            "attention": attention,
            "sliding_window": None if latent else window,
            "sliding_layers": None if latent or sliding_layers == shape.layers else sliding_layers,
            "latent_dimension": latent.key_value_rank + latent.rotary_dimension if latent else None,
            "experts": shape.experts.count if shape.experts else None,
            "active_experts": shape.experts.active if shape.experts else None,
            "tied_embeddings": shape.tied,
            "quantization": quantization,
        }
    )
    broken = next((rule for rule in ModelProfile.RULES if not rule.holds(profile)), None)
    if broken is not None:
        raise UnreadableConfigError(broken.message)
    return profile


def _read_family(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    kind = text.get("model_type", config.get("model_type"))
    if not isinstance(kind, str):
        raise UnreadableConfigError("model_type is missing")
    return _FAMILIES.get(kind.lower(), kind.lower())


class _Shape:
    """The dimensions of the language model."""

    def __init__(self, fields: ConfigFields, family: str, tied: bool) -> None:
        self.fields = fields
        self.family = family
        self.tied = tied
        self.layers = fields.integer("num_hidden_layers", "n_layer", "n_layers", "num_layers")
        self.hidden_size = fields.integer("hidden_size", "n_embd", "d_model")
        self.heads = fields.integer("num_attention_heads", "n_head", "n_heads")
        self.vocabulary_size = fields.integer("vocab_size", "padded_vocab_size")
        self.latent = _read_latent(fields)
        self.key_value_heads = _read_key_value_heads(fields, family, self.heads)
        self.head_dimension = self._read_head_dimension()
        self.context = _read_context(fields)
        self.experts = _read_experts(fields, self.layers)

    def _read_head_dimension(self) -> int:
        if self.latent:
            return self.latent.plain_dimension + self.latent.rotary_dimension
        stated = self.fields.find_integer("head_dim")
        if stated is None and self.hidden_size % self.heads:
            raise UnreadableConfigError(
                "head_dim is missing, and num_attention_heads does not divide hidden_size"
            )
        return stated or self.hidden_size // self.heads


def _read_key_value_heads(fields: ConfigFields, family: str, heads: int) -> int:
    stated = fields.find_integer("num_key_value_heads", "num_kv_heads", "n_head_kv")
    if family != "falcon":
        return stated or heads
    if _has_new_decoder(fields):
        return stated or heads
    return 1 if fields.flag("multi_query", default=True) else heads


def _has_new_decoder(fields: ConfigFields) -> bool:
    """Falcon's second decoder (40B, 180B). Configurations of 2023 say it only through `n_head_kv`."""
    return fields.flag("new_decoder_architecture", default=fields.get("n_head_kv") is not None)


def _read_latent(fields: ConfigFields) -> LatentShape | None:
    rank = fields.find_integer("kv_lora_rank")
    if rank is None:
        return None
    return LatentShape(
        query_rank=fields.find_integer("q_lora_rank"),
        key_value_rank=rank,
        plain_dimension=fields.integer("qk_nope_head_dim"),
        rotary_dimension=fields.integer("qk_rope_head_dim"),
        value_dimension=fields.integer("v_head_dim"),
    )


def _read_context(fields: ConfigFields) -> int:
    """Return the longest context, YaRN's stretching included (`original` times `factor`, as vLLM does)."""
    context = fields.integer("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
    scaling = ConfigFields(fields.mapping("rope_scaling", "rope_parameters"), {})
    if scaling.get("rope_type", "type") != "yarn":
        return context
    original, factor = scaling.find_integer("original_max_position_embeddings"), scaling.factor("factor")
    return max(context, int(original * factor)) if original and factor else context


def _read_window(fields: ConfigFields, layers: int, context: int) -> tuple[int | None, int | None]:
    """Return the window and how many layers have it; (None, None) where every layer keeps the whole context."""
    kinds = fields.texts("layer_types")
    if kinds is not None:
        if len(kinds) != layers:
            raise UnreadableConfigError("layer_types does not have num_hidden_layers entries")
        other = next((kind for kind in kinds if kind not in _SLIDING_KINDS | _FULL_KINDS), None)
        if other is not None:
            raise UnreadableConfigError(f"layer_types has {shorten(other)!r}, which is not covered")
    if not fields.flag("use_sliding_window", default=True):
        return None, None
    window = fields.find_integer("sliding_window")
    if window is None or window >= context:
        if window is None and kinds is not None and _SLIDING_KINDS.intersection(kinds):
            raise UnreadableConfigError("sliding_window is missing, and layer_types needs it")
        return None, None
    if kinds is not None:
        sliding = sum(kind in _SLIDING_KINDS for kind in kinds)
    elif fields.get("use_sliding_window") is not None and fields.get("max_window_layers") is not None:
        # Qwen's field counts the first layers, those without the window.
        sliding = max(0, layers - fields.integer("max_window_layers", least=0))
    elif pattern := fields.find_integer("sliding_window_pattern", "_sliding_window_pattern"):
        # Every pattern-th layer attends to everything.
        sliding = layers - layers // pattern
    else:
        sliding = layers
    return (window, sliding) if sliding else (None, None)


def _read_experts(fields: ConfigFields, layers: int) -> ExpertShape | None:
    count = fields.find_integer("num_local_experts", "num_experts", "n_routed_experts", least=0)
    if not count:
        return None
    active = fields.integer("num_experts_per_tok", "experts_per_token")
    if active > count:
        raise UnreadableConfigError("num_experts_per_tok is above the number of experts")
    size = fields.integer("moe_intermediate_size", "intermediate_size")
    shared = fields.find_integer("shared_expert_intermediate_size", least=0)
    if shared is None:
        shared = size * (fields.find_integer("n_shared_experts", least=0) or 0)
    return ExpertShape(count, active, size, layers=_count_expert_layers(fields, layers), shared_size=shared)


def _count_expert_layers(fields: ConfigFields, layers: int) -> int:
    frequency = fields.get("moe_layer_freq")
    if isinstance(frequency, list):
        # One number for each layer, 0 for a dense one.
        return min(layers, sum(number != 0 for number in fields.integers("moe_layer_freq")))
    first = min(layers, fields.find_integer("first_k_dense_replace", least=0) or 0)
    if frequency is not None:
        # Multiples of the frequency from the first expert layer on.
        step = fields.integer("moe_layer_freq")
        return -(-layers // step) - -(-first // step)
    step = fields.find_integer("decoder_sparse_step") or 1
    dense = {
        index
        for index in fields.integers("mlp_only_layers")
        if 0 <= index < layers and not (index + 1) % step
    }
    return max(0, layers // step - len(dense) - first)


def _count(shape: _Shape) -> ParameterCount | None:
    """Count by the architecture; None where the size of the feed-forward blocks is not said."""
    fields = shape.fields
    falcon = shape.family == "falcon"
    bias = falcon and fields.flag("bias", default=False)
    intermediate = fields.find_integer("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
    if intermediate is None:
        if not falcon:
            return None
        intermediate = 4 * shape.hidden_size
    return count_parameters(
        DecoderShape(
            layers=shape.layers,
            hidden_size=shape.hidden_size,
            heads=shape.heads,
            key_value_heads=shape.key_value_heads,
            head_dimension=shape.head_dimension,
            vocabulary_size=shape.vocabulary_size,
            intermediate_size=intermediate,
            tied_embeddings=shape.tied,
            attention_bias=bias or fields.flag("attention_bias", default=False),
            feed_forward_bias=bias or fields.flag("mlp_bias", default=False),
            norms=_read_falcon_norms(fields) if falcon else None,
            latent=shape.latent,
            experts=shape.experts,
            traits=FAMILY_TRAITS.get(shape.family, PLAIN),
        )
    )


def _read_falcon_norms(fields: ConfigFields) -> int:
    """Parallel attention and feed-forward share one norm, except in the second decoder."""
    if _has_new_decoder(fields):
        return fields.find_integer("num_ln_in_parallel_attn") or 2
    return 1 if fields.flag("parallel_attn", default=True) else 2


def _apply_count(
    count: ParameterCount | None, parameters: int | None, shape: _Shape
) -> tuple[int, int | None]:
    """Return all parameters and, of a mixture, the active ones: what the files hold less the unused experts."""
    if count is None:
        if parameters is None or shape.experts is not None:
            raise UnreadableConfigError("intermediate_size is missing")
        return parameters, None
    total = count.total if parameters is None else parameters
    if shape.tied and total - count.total == shape.vocabulary_size * shape.hidden_size:
        # The files hold the tied output layer a second time (Qwen3 0.6B does); engines load it once.
        total = count.total
    if shape.experts is None:
        return total, None
    active = total - (count.total - count.active)
    if active <= 0:
        raise UnreadableConfigError(
            "the experts alone have more parameters than the weight files; moe_intermediate_size or the number of "
            "experts is wrong"
        )
    return total, active
