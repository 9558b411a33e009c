"""What the demo came to: the figures of the summary and of the report, and the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dev.demo.chat import ChatAnswer
from dev.demo.observer import Sample
from dev.demo.settings import EXPECTED_PEAK, DemoSettings
from dev.demo.steps import Step
from dev.loadgen import RequestRecord, Summary

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What the observed time cost, at the prices of examples/ and real seconds."""

    usd: float
    tokens: int

    @property
    def usd_per_million_tokens(self) -> float | None:
        """Dollars per million tokens, prompt and answer; None without tokens."""
        return 1e6 * self.usd / self.tokens if self.tokens else None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Everything that the report shows."""

    settings: DemoSettings
    chat: ChatAnswer
    chat_held: bool
    """The model had no replica when the request went out."""
    traffic: Summary
    records: Sequence[RequestRecord]
    traffic_began_s: float
    """On the clock of the samples."""
    samples: Sequence[Sample]
    returned: bool
    """The traffic's model was back at its minimum in time."""
    steps: Sequence[Step] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Requests sent, the chat request included."""
        return self.traffic.sent + 1

    @property
    def answered(self) -> int:
        """Requests answered completely."""
        return self.traffic.answered + (self.chat.error is None)

    @property
    def lost(self) -> int:
        """Requests that were not."""
        return self.traffic.lost + (self.chat.error is not None)

    @property
    def held(self) -> int:
        """Answered requests that waited for a sleeping model."""
        return self.traffic.held + (self.chat_held and self.chat.error is None)


def replica_steps(samples: Sequence[Sample], model: str) -> list[tuple[float, int]]:
    """Return when the number of ready replicas changed, and to what."""
    steps: list[tuple[float, int]] = []
    for sample in samples:
        view = sample.model(model)
        if view is not None and (not steps or steps[-1][1] != view.ready):
            steps.append((sample.at_s, view.ready))
    return steps


def peak_replicas(samples: Sequence[Sample], model: str) -> int:
    """Return the most replicas that were ready at once."""
    return max((replicas for _, replicas in replica_steps(samples, model)), default=0)


def total_cost(samples: Sequence[Sample], tokens: int) -> Cost:
    """Return the cost of all models over the samples, each price held until the next sample."""
    usd = 0.0
    for sample, following in pairwise(samples):
        rate = sum(model.usd_per_hour for model in sample.models)
        usd += rate * (following.at_s - sample.at_s) / SECONDS_PER_HOUR
    return Cost(usd, tokens)


def find_problems(result: DemoResult, model: str) -> list[str]:
    """Return what did not go as promised, one sentence each; empty is success."""
    problems = []
    if result.chat.error is not None:
        problems.append(f"the chat request was not answered: {result.chat.error}")
    elif not result.chat_held:
        problems.append("the chat request met a model that was awake already, so nothing was held")
    if result.traffic.lost:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in result.traffic.losses.items())
        problems.append(f"{result.traffic.lost} requests of the trace were lost: {reasons}")
    # On somebody's own cluster, GPUs and speeds are theirs: only lost requests are a fault there.
    if result.settings.local:
        peak = peak_replicas(result.samples, model)
        if peak not in EXPECTED_PEAK:
            problems.append(
                f"{model} reached {peak} replicas instead of {EXPECTED_PEAK.start} to {EXPECTED_PEAK.stop - 1}"
            )
        if not result.returned:
            problems.append(f"{model} was not back at its minimum in time")
    return problems
