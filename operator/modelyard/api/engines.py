"""The engines that a deployment may name, and the parameters of each that a user may set.

Flags that Modelyard renders itself (model, host, port, parallelism, served names) and flags that load code or
reach outside the pod are not in the lists.
"""

from typing import Final, Literal

EngineName = Literal["vLLM", "LlamaCpp"]

ENGINE_PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    # vLLM 0.32, `vllm serve --help`.
    "vLLM": (
        "block-size",
        "dtype",
        "enable-auto-tool-choice",
        "enable-chunked-prefill",
        "enable-prefix-caching",
        "enforce-eager",
        "gpu-memory-utilization",
        "kv-cache-dtype",
        "limit-mm-per-prompt",
        "max-lora-rank",
        "max-num-batched-tokens",
        "max-num-seqs",
        "reasoning-parser",
        "seed",
        "tool-call-parser",
    ),
    # llama.cpp, `llama-server --help`.
    "LlamaCpp": (
        "batch-size",
        "cache-type-k",
        "cache-type-v",
        "flash-attn",
        "gpu-layers",
        "parallel",
        "seed",
        "threads",
        "threads-batch",
        "ubatch-size",
    ),
}
