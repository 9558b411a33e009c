"""How many parameters a decoder of a known shape has.

The count is of the matrices, biases and norms that the published modelling code of each family allocates
(https://github.com/huggingface/transformers/tree/main/src/transformers/models). It serves models whose weight files
say nothing of it, and finds typing errors in the catalogue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class FamilyTraits:
    """What the modelling code of a family fixes, beyond what `config.json` says."""

    gated: bool = True
    """Three matrices in each feed-forward block (gate, up, down) instead of two."""
    norms: int = 2
    """Norms of each layer that are as wide as the hidden state."""
    norm_vectors: int = 1
    """Vectors of a norm: 1 (RMSNorm, the scale) or 2 (LayerNorm, scale and shift)."""
    head_norms: bool = False
    """Queries and keys are normalised: one vector of a head's dimension each."""
    query_bias: bool = False
    """The projections to queries, keys and values have biases whatever `attention_bias` says."""
    gated_shared_expert: bool = False
    """The shared expert's output is weighted by a learned vector."""
    router_correction: bool = False
    """The router has one correction term for each expert."""
    router_bias: bool = False
    expert_bias: bool = False
    attention_sinks: bool = False
    """One learned logit for each head."""


PLAIN: Final = FamilyTraits()
"""Llama's: RMSNorm before attention and feed-forward, gated feed-forward, no biases."""

FAMILY_TRAITS: Final[Mapping[str, FamilyTraits]] = MappingProxyType(
    {
        "qwen2": FamilyTraits(query_bias=True),
        "qwen2_moe": FamilyTraits(query_bias=True, gated_shared_expert=True),
        "qwen3": FamilyTraits(head_norms=True),
        "qwen3_moe": FamilyTraits(head_norms=True),
        "gemma2": FamilyTraits(norms=4),
        "gemma3_text": FamilyTraits(norms=4, head_norms=True),
        "deepseek_v3": FamilyTraits(router_correction=True),
        "gpt_oss": FamilyTraits(router_bias=True, expert_bias=True, attention_sinks=True),
        "falcon": FamilyTraits(gated=False, norm_vectors=2),
    }
)
"""By `model_type`. A family that is not listed is counted as `PLAIN`."""


@dataclass(frozen=True, slots=True)
class LatentShape:
    """The projections of multi-head latent attention."""

    query_rank: int | None
    """None: queries are projected directly."""
    key_value_rank: int
    plain_dimension: int
    """Part of a query or key without position."""
    rotary_dimension: int
    """Part of a query or key with position, one key for all heads."""
    value_dimension: int


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """The expert layers of a mixture."""

    count: int
    active: int
    intermediate_size: int
    layers: int
    """Layers with experts; the others have one dense feed-forward block."""
    shared_size: int = 0
    """Intermediate size of all shared experts together."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The dimensions of a decoder."""

    layers: int
    hidden_size: int
    heads: int
    key_value_heads: int
    head_dimension: int
    vocabulary_size: int
    intermediate_size: int
    """Of the dense feed-forward blocks."""
    tied_embeddings: bool
    attention_bias: bool = False
    """All four projections of attention have biases."""
    feed_forward_bias: bool = False
    norms: int | None = None
    """Norms of each layer. None: the family's."""
    latent: LatentShape | None = None
    experts: ExpertShape | None = None
    traits: FamilyTraits = PLAIN


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """The parameters of a model."""

    total: int
    active: int
    """All but those of the routed experts that one token does not use."""


def count_parameters(shape: DecoderShape) -> ParameterCount:
    """Count the parameters of a decoder."""
    traits, hidden = shape.traits, shape.hidden_size
    norms = traits.norms if shape.norms is None else shape.norms
    embeddings = shape.vocabulary_size * hidden * (1 if shape.tied_embeddings else 2)
    attention = _count_latent(shape, shape.latent) if shape.latent else _count_attention(shape)
    total = embeddings + shape.layers * (attention + norms * traits.norm_vectors * hidden)
    total += traits.norm_vectors * hidden  # The norm before the output layer.
    dense = _count_feed_forward(shape, shape.intermediate_size, bias=shape.feed_forward_bias)
    if shape.experts is None:
        total += shape.layers * dense
        return ParameterCount(total, total)
    experts = shape.experts
    expert = _count_feed_forward(shape, experts.intermediate_size, bias=traits.expert_bias)
    total += (shape.layers - experts.layers) * dense
    total += experts.layers * (experts.count * expert + _count_router(shape, experts))
    if experts.shared_size:
        shared = _count_feed_forward(shape, experts.shared_size, bias=shape.feed_forward_bias)
        total += experts.layers * (shared + (hidden if traits.gated_shared_expert else 0))
    return ParameterCount(total, total - experts.layers * (experts.count - experts.active) * expert)


def _count_attention(shape: DecoderShape) -> int:
    """Count queries, keys, values and output of one layer."""
    traits = shape.traits
    query = shape.heads * shape.head_dimension
    key_value = 2 * shape.key_value_heads * shape.head_dimension
    count = shape.hidden_size * (2 * query + key_value)
    if traits.query_bias or shape.attention_bias:
        count += query + key_value
    if shape.attention_bias:
        count += shape.hidden_size
    if traits.head_norms:
        count += 2 * shape.head_dimension
    return count + (shape.heads if traits.attention_sinks else 0)


def _count_latent(shape: DecoderShape, latent: LatentShape) -> int:
    """Count the projections to the latent vectors, their norms, the projections back and the output of one layer."""
    query = shape.heads * (latent.plain_dimension + latent.rotary_dimension)
    if latent.query_rank is None:
        count = shape.hidden_size * query
    else:
        count = latent.query_rank * (shape.hidden_size + 1 + query)
    count += shape.hidden_size * (latent.key_value_rank + latent.rotary_dimension) + latent.key_value_rank
    count += latent.key_value_rank * shape.heads * (latent.plain_dimension + latent.value_dimension)
    return count + shape.heads * latent.value_dimension * shape.hidden_size


def _count_feed_forward(shape: DecoderShape, intermediate_size: int, *, bias: bool) -> int:
    inward = 2 if shape.traits.gated else 1
    count = (inward + 1) * shape.hidden_size * intermediate_size
    return count + (inward * intermediate_size + shape.hidden_size if bias else 0)


def _count_router(shape: DecoderShape, experts: ExpertShape) -> int:
    terms = int(shape.traits.router_bias) + int(shape.traits.router_correction)
    return experts.count * (shape.hidden_size + terms)
