"""What a model takes of an accelerator's memory: weights, cache of keys and values, and the engine's own needs.

All figures are bytes on the accelerator that holds the most, unless their name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from types import MappingProxyType
from typing import Final

from modelyard.api.engines import EngineName
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.quantization import BF16, WeightFormat, gguf_format, weight_format

GIB: Final = 2**30

_SIXTEEN_BITS: Final = 2
"""Bytes of a 16-bit float: activations, embeddings, adapters, and the cache unless it is quantised."""

_MEMORY_SHARE: Final[Mapping[EngineName, float]] = MappingProxyType({"vLLM": 0.92, "LlamaCpp": 1.0})
"""Share of an accelerator's memory that an engine takes by default. vLLM: `gpu_memory_utilization`
(https://github.com/vllm-project/vllm/blob/main/vllm/config/cache.py). llama.cpp has no such limit."""

_LARGE_BATCH: Final = (8192, 1024)
_SMALL_BATCH: Final = (2048, 256)
_LARGE_MEMORY: Final = 70 * GIB
"""vLLM's defaults of `max-num-batched-tokens` and `max-num-seqs` for its server: the large ones from 70 GiB, but not
on an A100 (https://github.com/vllm-project/vllm/blob/main/vllm/engine/arg_utils.py, `get_batch_defaults`)."""

_LLAMA_CPP_BATCH: Final = (512, 4)
"""llama-server's defaults of `ubatch-size` and, where it chooses itself, `parallel`
(https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md)."""

_LLAMA_CPP_WEIGHTS: Final = "Q4_K_M"
"""The file that llama-server takes from a repository when no tag is given (same page, `--hf-repo`)."""

_MAX_RANK: Final = 16
"""vLLM's default of `max-lora-rank` (https://docs.vllm.ai/en/latest/features/lora/)."""

_LOADED_ADAPTERS: Final = 4
"""Adapters that are on the accelerator at once: what render/engines/vllm.py passes as `max-loras` at most."""

_CACHE_BITS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "fp8": 8.0,
        "fp8_e4m3": 8.0,
        "fp8_e5m2": 8.0,
        "fp8_inc": 8.0,
        # 656 bytes for the 576 values of a token and layer (https://github.com/deepseek-ai/FlashMLA).
        "fp8_ds_mla": 656 * 8 / 576,
        # A 32-bit scale for each head of, as a rule, 128 values.
        "fp8_per_token_head": 8.25,
        "int8_per_token_head": 8.25,
        "int4_per_token_head": 4.25,
        "nvfp4": 4.5,
        # llama.cpp: block sizes of https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h.
        "f32": 32.0,
        "q8_0": 8.5,
        "q5_1": 6.0,
        "q5_0": 5.5,
        "q4_1": 5.0,
        "q4_0": 4.5,
        "iq4_nl": 4.5,
    }
)
"""Bits of one value in the cache, by the engine's name for the type. Any other type is counted with 16."""

_VOCABULARY_PADDING: Final = 64
"""vLLM pads the vocabulary to a multiple of this
(https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/layers/vocab_parallel_embedding.py)."""

_BLOCK: Final = 16
"""Tokens that vLLM's cache hands out at once (`block_size`)."""

# The engine's own needs on one accelerator. KAITO, from vLLM on Azure's A100 and H100, reserves 2.3 GiB and 5 % of
# the weights (https://github.com/kaito-project/kaito/pull/2139), and 1.5 GiB on the smaller A10
# (https://github.com/kaito-project/kaito/pull/2302). Here activations are computed, as they follow from the batch; the
# other constants are set so that the sum agrees with the start-up logs in tests/unit/core/test_memory.py.
_CONTEXT: Final = round(0.45 * GIB)
"""CUDA context, loaded kernels, workspaces and what the allocator cannot use."""
_COMMUNICATION: Final = round(0.4 * GIB)
"""NCCL's and the all-reduce's buffers, with more than one accelerator."""
_GRAPHS_PER_LAYER: Final = 20 * 2**20
"""CUDA graphs of one layer. KAITO's pull request measured 1.5 to 1.9 GiB with the 88 layers of Mistral Medium."""
_WEIGHT_SHARE: Final = 0.02
"""Weights are about this much larger in vLLM than on disk: padding, repacking, copied norms
(https://github.com/kaito-project/kaito/blob/main/website/docs/memory-estimator.md)."""
_LOGIT_BYTES: Final = 10
"""One 16-bit logit and two 32-bit copies, which the sampler makes for each sequence and word."""
_LLAMA_CPP_CONTEXT: Final = round(0.5 * GIB)
"""CUDA context and cuBLAS, which llama.cpp's own figures leave out."""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How several accelerators share a model."""

    tensor: int = 1
    """Accelerators that share each layer."""
    pipeline: int = 1
    """Groups of accelerators that follow each other, each with some of the layers."""
    nodes: int = 1
    """Nodes that they are spread over, equally: no group of the pipeline is on two of them."""

    @property
    def accelerators(self) -> int:
        """How many accelerators one replica uses."""
        return self.tensor * self.pipeline

    @property
    def per_node(self) -> int:
        """How many of them are on each node."""
        return self.accelerators // self.nodes


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What a deployment sets that decides memory."""

    engine: EngineName = "vLLM"
    weights: WeightFormat = BF16
    key_bits: float = 16.0
    """Bits of one value of a cached key."""
    value_bits: float = 16.0
    memory_share: float = _MEMORY_SHARE["vLLM"]
    """Share of the accelerator's memory that the engine takes."""
    context_length: int | None = None
    """Tokens of prompt and answer that are asked for; None: as many as can be had."""
    max_batched_tokens: int | None = None
    """Tokens of one step; None: the engine's default for the accelerator."""
    max_sequences: int | None = None
    """Requests that run at once; None: the engine's default for the accelerator."""
    adapters: int = 0
    """Adapters that are on the accelerator at once."""
    adapter_rank: int = _MAX_RANK
    cuda_graphs: bool = True

    def resolve(self, hardware: Hardware) -> "MemorySettings":
        """Return the settings with the engine's defaults for this accelerator in place of None."""
        if self.engine == "LlamaCpp":
            tokens, sequences = _LLAMA_CPP_BATCH
        elif hardware.memory >= _LARGE_MEMORY and not hardware.name.upper().startswith("A100"):
            tokens, sequences = _LARGE_BATCH
        else:
            tokens, sequences = _SMALL_BATCH
        return replace(
            self,
            max_batched_tokens=self.max_batched_tokens or tokens,
            max_sequences=self.max_sequences or sequences,
        )


def memory_settings(deployment: LLMDeployment, profile: ModelProfile) -> MemorySettings:
    """Read what decides memory from a deployment. A value that the engine would not understand counts as absent."""
    spec = deployment.spec
    parameters = spec.engine.parameters
    keys, values = (
        (parameters.get("cache-type-k"), parameters.get("cache-type-v"))
        if spec.engine.name == "LlamaCpp"
        else (parameters.get("kv-cache-dtype"),) * 2
    )
    is_llama_cpp = spec.engine.name == "LlamaCpp"
    return MemorySettings(
        engine=spec.engine.name,
        weights=_weights(deployment, profile),
        key_bits=_CACHE_BITS.get(keys or "", 16.0),
        value_bits=_CACHE_BITS.get(values or "", 16.0),
        memory_share=_share(parameters.get("gpu-memory-utilization")) or _MEMORY_SHARE[spec.engine.name],
        context_length=spec.model.context_length,
        max_batched_tokens=_count(
            parameters.get("ubatch-size" if is_llama_cpp else "max-num-batched-tokens")
        ),
        max_sequences=_count(parameters.get("parallel" if is_llama_cpp else "max-num-seqs")),
        adapters=min(len(spec.model.adapters), _LOADED_ADAPTERS),
        adapter_rank=_count(parameters.get("max-lora-rank")) or _MAX_RANK,
        cuda_graphs=parameters.get("enforce-eager", "false") == "false",
    )


def count_weights(profile: ModelProfile, weights: WeightFormat, parallelism: Parallelism) -> int:
    """Return the bytes of the weights, with keys and values that are copied where tensors outnumber their heads."""
    padded = ceil(profile.vocabulary_size / _VOCABULARY_PADDING) * _VOCABULARY_PADDING
    table = profile.vocabulary_size * profile.hidden_size
    tables = 1 if profile.tied_embeddings else 2
    others = max(0, profile.parameters - tables * table)
    bits = 8 * _SIXTEEN_BITS if weights.keeps_embeddings else weights.bits
    # The first stage has the input embeddings, the last one the output layer: with stages, none has both.
    held = 1 if parallelism.pipeline > 1 else tables
    embeddings = held * padded * profile.hidden_size * bits / 8
    whole = others * weights.bits / 8
    if weights.keeps_attention:
        whole += min(others, profile.layers * _attention_weights(profile)) * (
            _SIXTEEN_BITS - weights.bits / 8
        )
    layers = whole * _stage_layers(profile, parallelism) / profile.layers
    copied = kv_heads_per_accelerator(profile, parallelism) - profile.kv_heads / parallelism.tensor
    copies = 2 * profile.hidden_size * profile.head_size * copied * _stage_layers(profile, parallelism)
    return ceil((embeddings + layers) / parallelism.tensor + copies * weights.bits / 8)


def kv_heads_per_accelerator(profile: ModelProfile, parallelism: Parallelism) -> int:
    """Return how many key-value heads each accelerator holds: at least one, copied where there are too few."""
    return max(1, ceil(profile.kv_heads / parallelism.tensor))


def cache_token_bytes(profile: ModelProfile, settings: MemorySettings, parallelism: Parallelism) -> int:
    """Return the bytes of one token in the cache, while no window has passed it."""
    return ceil(_layer_bytes(profile, settings, parallelism) * _stage_layers(profile, parallelism))


def sequence_bytes(
    profile: ModelProfile, settings: MemorySettings, parallelism: Parallelism, tokens: int
) -> int:
    """Return the bytes that a sequence of so many tokens may hold in the cache. `settings` must be resolved.

    A layer with a sliding window keeps the window and the tokens of the step under way
    (https://github.com/vllm-project/vllm/blob/main/vllm/v1/kv_cache_interface.py, `SlidingWindowSpec`).
    """
    layers = _stage_layers(profile, parallelism)
    layer = _layer_bytes(profile, settings, parallelism)
    if profile.sliding_window is None:
        return ceil(layer * layers * tokens)
    sliding = layers * (profile.sliding_layers or profile.layers) / profile.layers
    kept = min(tokens, profile.sliding_window + (settings.max_batched_tokens or 0))
    return ceil(layer * (sliding * kept + (layers - sliding) * tokens))


def round_to_blocks(tokens: int, settings: MemorySettings) -> int:
    """Return how many of these tokens the engine can hand out."""
    return tokens if settings.engine == "LlamaCpp" else tokens // _BLOCK * _BLOCK


def engine_overhead(profile: ModelProfile, settings: MemorySettings, parallelism: Parallelism) -> int:
    """Return the bytes beside weights and cache. `settings` must be resolved."""
    tokens, sequences = settings.max_batched_tokens or 0, settings.max_sequences or 0
    if settings.engine == "LlamaCpp":
        # One 32-bit logit for each token of the step and each word:
        # https://github.com/ggml-org/llama.cpp/blob/master/src/llama-context.cpp, `graph_reserve`.
        return _LLAMA_CPP_CONTEXT + tokens * (4 * profile.vocabulary_size + 8 * profile.hidden_size)
    inner = _inner_size(profile)
    # The widest point of a layer: both halves of the feed-forward's input and its product, three vectors beside them.
    # Each expert that a token uses gives a vector of its own before they are added up.
    vectors = 3 + (profile.active_experts or 0)
    values = 3 * inner / parallelism.tensor + vectors * profile.hidden_size
    forward = tokens * values * _SIXTEEN_BITS
    sampling = sequences * profile.vocabulary_size * _LOGIT_BYTES
    graphs = _GRAPHS_PER_LAYER * _stage_layers(profile, parallelism) if settings.cuda_graphs else 0
    communication = _COMMUNICATION if parallelism.accelerators > 1 else 0
    padding = _WEIGHT_SHARE * count_weights(profile, settings.weights, parallelism)
    adapters = _adapter_bytes(profile, settings, parallelism)
    return ceil(_CONTEXT + communication + graphs + max(forward, sampling) + padding + adapters)


def _adapter_bytes(profile: ModelProfile, settings: MemorySettings, parallelism: Parallelism) -> int:
    """Return the bytes that vLLM sets aside for adapters of the full rank on every matrix of every layer.

    Of the two factors, the first is copied to every accelerator of a tensor group, and the second is shared out.
    """
    attention = profile.attention_heads * profile.head_size
    cached = profile.kv_heads * profile.head_size
    hidden, inner = profile.hidden_size, _inner_size(profile)
    inputs = 3 * hidden + attention + 2 * hidden + inner
    outputs = attention + 2 * cached + hidden + 2 * inner + hidden
    layer = settings.adapter_rank * (inputs + outputs / parallelism.tensor) * _SIXTEEN_BITS
    return ceil(settings.adapters * layer * _stage_layers(profile, parallelism))


def _inner_size(profile: ModelProfile) -> float:
    """Return the width of the feed-forward network that one token passes, all its active experts together.

    It follows from the parameters that attention and embeddings leave over: three matrices in each layer.
    """
    hidden = profile.hidden_size
    tables = profile.vocabulary_size * hidden * (1 if profile.tied_embeddings else 2)
    others = (profile.active - tables) / profile.layers - _attention_weights(profile)
    return max(float(hidden), others / (3 * hidden))


def _attention_weights(profile: ModelProfile) -> int:
    """Return the parameters of one layer's attention: queries and output, keys and values."""
    return 2 * profile.hidden_size * profile.head_size * (profile.attention_heads + profile.kv_heads)


def _layer_bytes(profile: ModelProfile, settings: MemorySettings, parallelism: Parallelism) -> float:
    """Return the bytes of one token in one layer's cache."""
    if profile.latent_dimension is not None:
        # One vector for all heads, so each accelerator of a tensor group needs the whole of it.
        return profile.latent_dimension * settings.key_bits / 8
    values = kv_heads_per_accelerator(profile, parallelism) * profile.head_size
    return values * (settings.key_bits + settings.value_bits) / 8


def _stage_layers(profile: ModelProfile, parallelism: Parallelism) -> int:
    """Return the layers of the largest pipeline stage."""
    return ceil(profile.layers / parallelism.pipeline)


def _weights(deployment: LLMDeployment, profile: ModelProfile) -> WeightFormat:
    """Return the format of the weights. One whose name is not known is counted with 16 bits, so never too low."""
    model, engine = deployment.spec.model, deployment.spec.engine.name
    name = model.quantization
    if engine == "LlamaCpp" and name is None:
        path, _, tag = model.source.partition("://")[2].partition("@")[0].partition(":")
        name = profile.quantization or _LLAMA_CPP_WEIGHTS
        return gguf_format(tag or path) or weight_format(name) or BF16
    return weight_format(name or profile.quantization) or BF16


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and int(text) > 0 else None


def _share(text: str | None) -> float | None:
    try:
        share = float(text or "")
    except ValueError:
        return None
    return share if 0 < share <= 1 else None
