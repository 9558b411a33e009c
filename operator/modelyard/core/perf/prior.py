"""What is known of a variant's speed before it runs: the roofline, times calibrated efficiencies."""

from typing import Protocol

from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.calibration import Calibration, Coefficients, calibration_table
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.quantization import WeightFormat, weight_format
from modelyard.core.load import LoadShape
from modelyard.core.perf.step import FirstToken, StepTime
from modelyard.core.perf.work import Work, roofline

STAGE_HANDOVER = 0.1e-3
"""Seconds from one stage of a pipeline to the next: an assumption of ours, above the latency of a network hop."""

DECODE_TERMS = (
    "read",
    "cache",
    "compute",
    "layer",
    "exchange_layer",
    "expert_layer",
    "step",
    "sequence",
    "prefill",
    "prefill_quantized",
    "exchange",
)
"""Coefficients of the latency between tokens, in the order of `decode_terms`."""


class Split(Protocol):
    """How a replica is spread over accelerators."""

    @property
    def tensor(self) -> int:
        """Accelerators that share each layer."""

    @property
    def pipeline(self) -> int:
        """Stages that each hold some of the layers."""

    @property
    def nodes(self) -> int:
        """Nodes over which the stages are spread."""


def prior(
    profile: ModelProfile,
    quantization: WeightFormat | str | None,
    hardware: Hardware,
    parallelism: Split,
    cache_dtype: str | None,
    engine: str,
) -> StepTime | None:
    """Estimate a variant's speed; None: not known.

    That is so where the accelerator's bandwidth or throughput is not stated, and for a format of the weights, a type
    of the cache or an engine that the catalogue lacks. `quantization` None: as the profile says.
    """
    weights = (
        quantization
        if isinstance(quantization, WeightFormat)
        else weight_format(quantization or profile.quantization)
    )
    cache_bytes = cache_value_bytes(cache_dtype)
    calibration = calibration_table().find(engine, hardware.name)
    if weights is None or cache_bytes is None or calibration is None:
        return None
    work = roofline(
        profile,
        weights,
        hardware,
        cache_bytes=cache_bytes,
        tensor=parallelism.tensor,
        pipeline=parallelism.pipeline,
        nodes=parallelism.nodes,
    )
    return None if work is None else step_time(work, calibration)


def cache_value_bytes(dtype: str | None) -> float | None:
    """Return the bytes of one cached value: of vLLM's and llama.cpp's names; None: not known. No name: 16 bits."""
    if dtype is None or dtype == "auto":
        return 2.0
    if dtype.startswith("fp8"):
        return 1.0
    weights = weight_format(dtype)
    return None if weights is None else weights.bits / 8


def step_time(work: Work, calibration: Calibration) -> StepTime:
    """Weigh the work at peak by the calibrated coefficients."""
    factors, stages = calibration.coefficients, work.pipeline
    # How well the stages of several nodes overlap depends on a network that is not known: here they do not, so that a
    # replica is thought slower than it will turn out.
    overlap = stages / work.nodes
    prefill = factors.prefill_quantized if work.quantized else factors.prefill
    return StepTime(
        fixed=factors.read * work.read
        + factors.layer * work.layers
        + factors.exchange_layer * work.exchanging_layers
        + factors.expert_layer * work.expert_layers
        + factors.step
        + STAGE_HANDOVER * (stages - 1),
        experts=factors.read * work.experts,
        expert_share=work.expert_share,
        # The stages of a pipeline each work on their own share of the batch at the same time.
        per_sequence=(factors.compute * work.compute + factors.sequence) / overlap + work.network,
        per_context_token=factors.cache * work.cache / overlap,
        # A prompt is routed to all experts.
        prefill_fixed=factors.read * work.experts,
        prefill_token=prefill * work.compute + factors.exchange * work.exchange + work.network,
        prefill_token_squared=prefill * work.attention,
        first_token=_first_token(factors),
        uncertainty=calibration.uncertainty,
        first_token_uncertainty=calibration.first_token_uncertainty,
        origin="calibrated" if calibration.measured else "roofline",
        windowed_share=work.windowed_share,
        window=work.window,
        parallel_prefill=overlap,
    )


def decode_terms(work: Work, shape: LoadShape, batch: float) -> tuple[float, ...]:
    """Return the work that each of `DECODE_TERMS` multiplies: their sum of products is the latency between tokens.

    For fitting, on one stage.
    """
    context = shape.input_tokens + shape.output_tokens / 2
    seen = (1 - work.windowed_share) * context + work.windowed_share * min(context, work.window)
    prompts = batch / max(shape.output_tokens, 1.0)
    cached = shape.input_tokens * shape.cached_share
    new = shape.input_tokens - cached
    prefill = prompts * (new * work.compute + (shape.input_tokens**2 - cached**2) * work.attention)
    return (
        work.read + work.experts * (1 - (1 - work.expert_share) ** batch + prompts),
        batch * seen * work.cache,
        batch * work.compute,
        float(work.layers),
        float(work.exchanging_layers),
        float(work.expert_layers),
        1.0,
        batch,
        0.0 if work.quantized else prefill,
        prefill if work.quantized else 0.0,
        prompts * new * work.exchange,
    )


def _first_token(factors: Coefficients) -> FirstToken:
    return FirstToken(
        base=factors.first_base,
        prompt=factors.first_prompt,
        queue=factors.first_queue,
        step=factors.first_step,
        sequence=factors.first_sequence,
    )
