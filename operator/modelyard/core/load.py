"""The load that a deployment answers, and how well it should: what fit, speed and placement are worked out for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadShape:
    """The mean request.

    Defaults: the conversation trace of Azure 2023 (https://github.com/Azure/AzurePublicDataset, 19,366 requests).
    """

    input_tokens: float = 1155.0
    output_tokens: float = 211.0
    cached_share: float = 0.0
    """Share of the input tokens that the prefix cache answers, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The service objective.

    Defaults: the time to first token is that of the Llama-2-70B server scenario of MLPerf Inference 5.0 (2 s;
    https://docs.mlcommons.org/inference/benchmarks/language/llama2-70b/). The latency between tokens is half of that
    scenario's 0.2 s: ten tokens a second, well above reading speed.
    """

    time_to_first_token: float = 2.0
    """Seconds."""
    inter_token_latency: float = 0.1
    """Seconds."""
