"""What one variant has to read, compute and exchange: seconds at the accelerators' peak, before any efficiency.

The roofline: weights and cache are read once for each decode step at the memory's bandwidth, every parameter in use
costs one multiplication and one addition per token (2 FLOP; https://arxiv.org/abs/2001.08361, section 2.1), and tensor
parallelism exchanges the activations twice in each layer (https://arxiv.org/abs/1909.08053, section 3).
"""

import math
from dataclasses import dataclass

from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.quantization import WeightFormat

ACTIVATION_BYTES = 2
"""Activations are exchanged in bfloat16."""
DEFAULT_LINK = 32e9
"""Bytes per second and direction between accelerators whose link is not known: PCIe 4.0 with 16 lanes
(https://pcisig.com/specifications), which every accelerator of the catalogue has at least."""


NODE_LINK = 1.25e9
"""Bytes per second and direction from one node to the next: 10 Gbit/s, what AWS lets one connection have inside a
placement group (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-network-bandwidth.html). Nodes with
GPUs have 100 Gbit/s and more, which NCCL reaches with several connections or RDMA: on the safe side by a factor of ten,
until the speed of warm pods is learned."""
HANDED_OVER = 2
"""Vectors of the model's width that one stage hands the next for each token: the hidden state and the residual
(https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/models/llama.py, `IntermediateTensors`)."""


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds at peak."""

    read: float
    """Reading the weights that every token uses, once."""
    experts: float
    """Reading all routed experts."""
    expert_share: float
    """Share of the routed experts that one token uses."""
    cache: float
    """Reading the cache of one token."""
    compute: float
    """Multiplying for one token."""
    quantized: bool
    """Whether it multiplies in fewer bits than bf16."""
    attention: float
    """Attention of a prompt, for each squared token."""
    exchange: float
    """Exchanging one token's activations between the accelerators."""
    layers: int
    exchanging_layers: int
    """Layers that exchange activations: all with tensor parallelism, otherwise none."""
    expert_layers: int
    """Layers of routed experts."""
    windowed_share: float
    window: float
    pipeline: int
    nodes: int = 1
    """Nodes over which the stages are spread."""
    network: float = 0.0
    """Handing one token's activations over from node to node, over all of them."""


def roofline(
    profile: ModelProfile,
    weights: WeightFormat,
    hardware: Hardware,
    *,
    cache_bytes: float,
    tensor: int = 1,
    pipeline: int = 1,
    nodes: int = 1,
) -> Work | None:
    """Return the work of a variant; None if the accelerator's bandwidth or throughput is not known.

    `cache_bytes`: of one value in the key-value cache. `tensor`, `pipeline`: accelerators in parallel, and stages.
    `nodes`: over which the stages are spread.
    """
    precision = weights.compute_precision(hardware.throughput)
    peak, attention_peak = hardware.throughput.get(precision), hardware.throughput.get("bf16")
    if not hardware.bandwidth or not peak or not attention_peak:
        return None
    bandwidth = hardware.bandwidth * tensor
    # A row of the input embeddings is looked up for each token; the output layer is read as a whole.
    output = profile.vocabulary_size * profile.hidden_size
    embeddings = output if profile.tied_embeddings else 2 * output
    output_bytes = output * (16.0 if weights.keeps_embeddings else weights.bits) / 8
    share, routed = 0.0, 0.0
    if profile.experts and profile.active_experts and profile.active_experts < profile.experts:
        share = profile.active_experts / profile.experts
        # active = common + share * routed and parameters = common + routed.
        routed = (profile.parameters - profile.active) / (1 - share)
        routed = min(routed, float(profile.parameters - embeddings))
    bytes_each = weights.bits / 8
    windowed, window = 0.0, math.inf
    if profile.attention == "SlidingWindow" and profile.sliding_window is not None:
        windowed = (profile.sliding_layers or profile.layers) / profile.layers
        window = float(profile.sliding_window)
    query_width = profile.attention_heads * profile.head_size
    exchanged = 2 * profile.layers * profile.hidden_size * ACTIVATION_BYTES * 2 * (tensor - 1) / tensor
    return Work(
        read=(max(0.0, profile.parameters - embeddings - routed) * bytes_each + output_bytes) / bandwidth,
        experts=routed * bytes_each / bandwidth,
        expert_share=share,
        cache=_cached_values(profile, tensor) * cache_bytes / bandwidth,
        compute=2 * profile.active / (peak * tensor),
        quantized=precision != "bf16",
        # Two products (with the keys, with the values) of 2 FLOP, over half of the token pairs.
        attention=2 * profile.layers * query_width * (1 - windowed) / (attention_peak * tensor),
        exchange=exchanged / (hardware.link or DEFAULT_LINK),
        layers=profile.layers,
        exchanging_layers=profile.layers if tensor > 1 else 0,
        expert_layers=profile.layers if share else 0,
        windowed_share=windowed,
        window=window,
        pipeline=pipeline,
        nodes=nodes,
        network=(nodes - 1) * HANDED_OVER * profile.hidden_size * ACTIVATION_BYTES / NODE_LINK,
    )


def _cached_values(profile: ModelProfile, tensor: int) -> float:
    """Values in the cache for one token, over all accelerators: with what tensor parallelism has to replicate."""
    if profile.latent_dimension is not None:
        return float(profile.layers * profile.latent_dimension * tensor)
    return 2.0 * profile.layers * max(profile.kv_heads, tensor) * profile.head_size
