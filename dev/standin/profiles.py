"""Step-time profiles: how long one engine step takes on a given accelerator, as data.

All profiles are for Llama-3.1-8B (8.03e9 parameters, 32 layers, 8 KV heads of dimension 128; Hugging Face
model card and `config.json`). One key or value element therefore costs 2 * 32 * 8 * 128 = 65,536 elements
per token: 128 KiB in bf16, 64 KiB in FP8.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one engine step computes."""

    sequences: int
    """Sequences scheduled in the step, decoding or prefilling."""
    context_tokens: int
    """Tokens already in the KV cache that decoding sequences read."""
    prefill_tokens: int
    """Prompt tokens (or recomputed tokens after a preemption) computed in the step."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The engine's speed and size on one accelerator.

    A step takes `alpha + beta*sequences + gamma*context tokens + delta*prefill tokens`, the linear form of
    the roofline: weight read, per-sequence work, KV cache read, prompt arithmetic. All four in milliseconds.
    """

    name: str
    summary: str
    alpha_ms: float
    beta_ms: float
    gamma_ms: float
    delta_ms: float
    kv_cache_tokens: int
    """Tokens that the KV cache holds."""
    max_num_seqs: int
    """vLLM's default of `--max-num-seqs` on this accelerator."""
    max_num_batched_tokens: int
    """vLLM's default of `--max-num-batched-tokens` on this accelerator."""

    def step_seconds(self, work: StepWork) -> float:
        """Return the duration of a step, in seconds."""
        return 1e-3 * (
            self.alpha_ms
            + self.beta_ms * work.sequences
            + self.gamma_ms * work.context_tokens
            + self.delta_ms * work.prefill_tokens
        )


# bf16 on one H100 SXM (80 GB, 3.35 TB/s; NVIDIA data sheet).
#   alpha: 6.73 ms, fitted to measured time-per-output-token rows (aiconfigurator's H100 sample).
#   The same fits give a slope of 0.197 ms per sequence at 1k in / 128 out, 0.433 at 2k / 128, 0.928 at
#   4k / 128 and 0.098 at 1k / 512. That slope lumps the prompts of newcomers in. Here it is taken apart:
#   gamma: 128 KiB / 3.35 TB/s = 3.9e-5 ms per context token;
#   delta: 0.024 ms per prompt token, the least-squares rest over in/out = 2 to 32;
#   beta:  0.01 ms, what is left. At 914 in / 155 out the parts add up to the lumped 0.19 ms again.
#   KV:    0.9 * 80 GB - 16 GB weights - 3 GB activations and CUDA graphs = 53 GB over 128 KiB.
_H100 = Profile(
    name="h100-8b",
    summary="Llama-3.1-8B, bf16, one H100 80 GB: about 28 requests/s at 914 in / 155 out and 40 ms a token",
    alpha_ms=6.73,
    beta_ms=0.01,
    gamma_ms=3.9e-5,
    delta_ms=0.024,
    kv_cache_tokens=404_000,
    max_num_seqs=1024,
    max_num_batched_tokens=8192,
)

# FP8 weights and KV cache on one L4 (24 GB, 300 GB/s, 242 TFLOPS dense FP8; NVIDIA data sheet).
#   alpha: 8.03 GB / 300 GB/s = 26.8 ms;  gamma: 64 KiB / 300 GB/s = 2.2e-4 ms;
#   delta: 2 * 8.03e9 FLOP / (242 TFLOPS * 0.45) = 0.147 ms; 0.45 is the model FLOP utilisation that the
#          BLIS simulator publishes for the H100. It is the least certain number here.
#   beta:  0.1 ms for sampling and scheduling, an assumption;
#   KV:    0.9 * 24.1 GB - 8 GB - 1.5 GB = 12.2 GB over 64 KiB.
# At 1155 in / 211 out (means of the Azure 2023 conversation trace) n sequences take 26.8 + 1.18 n ms a step:
# 62 of them give 2.9 requests/s at 100 ms a token; the KV cache, full at 147, caps the rate at 3.5/s.
_L4 = Profile(
    name="l4-8b",
    summary="Llama-3.1-8B, FP8, one L4 24 GB: about 3 requests/s at 1155 in / 211 out and 100 ms a token",
    alpha_ms=26.8,
    beta_ms=0.1,
    gamma_ms=2.2e-4,
    delta_ms=0.147,
    kv_cache_tokens=186_000,
    max_num_seqs=256,
    max_num_batched_tokens=2048,
)

# bf16 on the same L4 (121 TFLOPS dense bf16): the weight read alone is 16.06 GB / 300 GB/s = 53.5 ms, and
# 0.9 * 24.1 GB - 16.1 GB - 1.5 GB = 4.1 GB of KV cache at 128 KiB holds 25 such requests: about 1/s.
_L4_BF16 = Profile(
    name="l4-8b-bf16",
    summary="Llama-3.1-8B, bf16, one L4 24 GB: about 1 request/s at 1155 in / 211 out, bound by its KV cache",
    alpha_ms=53.5,
    beta_ms=0.1,
    gamma_ms=4.4e-4,
    delta_ms=0.295,
    kv_cache_tokens=31_000,
    max_num_seqs=256,
    max_num_batched_tokens=2048,
)

_ZERO = Profile(
    name="zero",
    summary="no time at all: for tests of everything around the engine",
    alpha_ms=0.0,
    beta_ms=0.0,
    gamma_ms=0.0,
    delta_ms=0.0,
    kv_cache_tokens=1_000_000,
    max_num_seqs=1024,
    max_num_batched_tokens=8192,
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (_H100, _L4, _L4_BF16, _ZERO)}
"""Profiles by the name that `STANDIN_PROFILE` takes."""
