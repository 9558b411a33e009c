"""The step-time model of one variant: how long a decode step and a prompt take, as a function of what is running."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from modelyard.core.load import LoadShape

Origin = Literal["calibrated", "roofline", "learned"]


@dataclass(frozen=True, slots=True)
class FirstToken:
    """How the time to first token follows from the time to prefill a prompt and from what else runs."""

    base: float
    """Seconds: what each request takes before the engine starts on it."""
    prompt: float
    """Times the prompt's own prefill."""
    queue: float
    """Times the prefill of each other running sequence that a new request waits for."""
    step: float
    """Decode steps that pass before its first token."""
    sequence: float
    """Seconds for each other running sequence."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """The linear step-time model of one variant (model, precision, accelerator, parallelism, engine).

    All times are seconds, all figures medians. A batch is the mean number of running sequences.
    """

    fixed: float
    """A decode step's part that the batch does not change: reading the weights that every token uses, launching."""
    experts: float
    """Reading all routed experts; a batch reads those that its tokens are routed to."""
    expert_share: float
    """Share of the routed experts that one token uses. 0: not a mixture of experts."""
    per_sequence: float
    per_context_token: float
    """For each token of context of each sequence: reading its keys and values."""
    prefill_fixed: float
    """For each prompt: reading the experts that its tokens are routed to, all of them."""
    prefill_token: float
    """For each prompt token."""
    prefill_token_squared: float
    """For each prompt token, times the length of the prompt: attention."""
    first_token: FirstToken
    uncertainty: float
    """Relative error of the latency between tokens, one standard deviation of its logarithm."""
    first_token_uncertainty: float
    """The same of the time to first token."""
    origin: Origin
    windowed_share: float = 0.0
    """Share of the layers whose attention reads only a window of the context."""
    window: float = math.inf
    """Tokens of that window."""
    parallel_prefill: float = 1.0
    """Prompts that the stages of a pipeline work on at the same time."""
    inter_token_factor: float = 1.0
    """Learned: times the latency between tokens."""
    first_token_factor: float = 1.0
    """Learned: times the time to first token."""

    def context(self, tokens: float) -> float:
        """Tokens that attention reads of a context of so many, averaged over the layers."""
        return (1 - self.windowed_share) * tokens + self.windowed_share * min(tokens, self.window)

    def decode(self, batch: float, context: float) -> float:
        """Seconds of one decode step of `batch` sequences with `context` tokens each, no prompt among them."""
        touched = 1 - math.pow(1 - self.expert_share, batch)
        return (
            self.fixed
            + self.experts * touched
            + batch * (self.per_sequence + self.per_context_token * self.context(context))
        )

    def prefill(self, tokens: float, cached: float = 0.0) -> float:
        """Seconds to prefill a prompt of `tokens`, of which the first `cached` are in the prefix cache."""
        new = tokens - cached
        return (
            self.prefill_fixed
            + self.prefill_token * new
            + self.prefill_token_squared * (tokens**2 - cached**2)
        )

    def inter_token_latency(self, shape: LoadShape, batch: float) -> float:
        """Mean seconds between two tokens of a sequence while `batch` sequences run.

        In a steady state each step carries batch / output prompts, whose prefill all sequences wait for.
        """
        context = shape.input_tokens + shape.output_tokens / 2
        prompts = batch / max(shape.output_tokens, 1.0) / self.parallel_prefill
        return self.inter_token_factor * (self.decode(batch, context) + prompts * self._prefill(shape))

    def time_to_first_token(self, shape: LoadShape, batch: float) -> float:
        """Seconds from a request's arrival to its first token while `batch` sequences run, itself included.

        No wait for admission: while the batch is below its limit, a request is admitted at once.
        """
        law, others = self.first_token, max(0.0, batch - 1)
        prompt = self._prefill(shape)
        step = self.inter_token_latency(shape, batch) / self.inter_token_factor
        return self.first_token_factor * (
            law.base + prompt * (law.prompt + law.queue * others) + law.step * step + law.sequence * others
        )

    def scaled(
        self, inter_token: float, first_token: float, uncertainty: float, first_token_uncertainty: float
    ) -> "StepTime":
        """Return what was learned from readings: both latencies times a factor, with new uncertainties."""
        return replace(
            self,
            inter_token_factor=self.inter_token_factor * inter_token,
            first_token_factor=self.first_token_factor * first_token,
            uncertainty=uncertainty,
            first_token_uncertainty=first_token_uncertainty,
            origin="learned",
        )

    def _prefill(self, shape: LoadShape) -> float:
        return self.prefill(shape.input_tokens, shape.input_tokens * shape.cached_share)
