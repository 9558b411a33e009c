"""What tokens cost now: the accelerators held, used or not, over the tokens served (allocation basis)."""

from dataclasses import dataclass, field
from decimal import Decimal

from modelyard.core.demand import DemandMemory, DemandPolicy, observe
from modelyard.core.snapshot import GatewayReading

TOKEN_POLICY = DemandPolicy(short_window=60.0, long_window=300.0)
"""Seconds. Tokens come in long answers, so their rate is taken over minutes."""


@dataclass(frozen=True, slots=True)
class TokenMemory:
    """Cumulative tokens of one deployment, sampled over the window."""

    samples: DemandMemory = field(default_factory=DemandMemory)


def observe_tokens(memory: TokenMemory, reading: GatewayReading, deployment: str) -> TokenMemory:
    """Return the memory with a reading taken in. Prompt and completion tokens count alike."""
    total = sum(
        counts.get(target, 0.0)
        for counts in (reading.input_tokens, reading.output_tokens)
        for target in counts
        if target.partition(":")[0] == deployment
    )
    return TokenMemory(observe(memory.samples, reading.time, total, TOKEN_POLICY))


def token_rate(memory: TokenMemory) -> float | None:
    """Return tokens per second over the window, or None without two readings."""
    samples = memory.samples.samples
    if len(samples) < 2:
        return None
    first, last = samples[0], samples[-1]
    return (last.total - first.total) / (last.time - first.time)


def cost_per_million(hourly: Decimal | None, rate: float | None) -> Decimal | None:
    """Return US dollars per million tokens at the present rate; None without price or traffic."""
    if hourly is None or not rate:
        return None
    return hourly / (Decimal(rate) * 3600 / 1_000_000)
