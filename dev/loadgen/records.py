"""What became of each request, and the summary of a run."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HELD_AFTER_S = 1.0
"""Waiting this long in front of the engine counts as held. Routing takes milliseconds, and the shortest wait
for a sleeping model is the start of a process."""


@dataclass(slots=True)
class RequestRecord:
    """One request, with all times in seconds after the start of the run."""

    index: int
    scheduled_s: float
    prompt_tokens: int
    """As asked for."""
    output_tokens: int
    """As asked for."""
    sent_s: float | None = None
    headers_s: float | None = None
    first_byte_s: float | None = None
    """First byte of the answer's body: with streaming, the first token."""
    done_s: float | None = None
    status: int | None = None
    counted_prompt_tokens: int | None = None
    """As the answer's usage says."""
    counted_output_tokens: int | None = None
    error: str | None = None
    """Why the request is lost; None if it was answered."""

    @property
    def answered(self) -> bool:
        """A 200 with a complete stream and exact usage."""
        return self.error is None and self.done_s is not None

    @property
    def held_s(self) -> float:
        """Seconds until an engine took the request: vLLM sends a stream's headers before the first token."""
        if self.headers_s is None or self.sent_s is None:
            return 0.0
        return self.headers_s - self.sent_s

    @property
    def time_to_first_token_s(self) -> float | None:
        """From sending to the first byte of the body."""
        if self.first_byte_s is None or self.sent_s is None:
            return None
        return self.first_byte_s - self.sent_s

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between tokens after the first; None for answers of one token."""
        if self.done_s is None or self.first_byte_s is None or self.output_tokens <= 1:
            return None
        return (self.done_s - self.first_byte_s) / (self.output_tokens - 1)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of a latency in milliseconds."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to."""

    sent: int
    answered: int
    lost: int
    held: int
    """Requests that waited in the gateway for more than `HELD_AFTER_S`."""
    prompt_tokens: int
    output_tokens: int
    duration_s: float
    """From the start of the run to the last answer."""
    time_to_first_token_ms: Percentiles | None
    inter_token_ms: Percentiles | None
    lateness_ms: Percentiles | None
    """How much later than scheduled requests went out: the generator's own error, not the server's."""
    losses: dict[str, int] = field(default_factory=dict)
    """Lost requests by reason."""


def summarise(records: Sequence[RequestRecord]) -> Summary:
    """Return the summary of a finished run."""
    answered = [record for record in records if record.answered]
    return Summary(
        sent=sum(record.sent_s is not None for record in records),
        answered=len(answered),
        lost=len(records) - len(answered),
        held=sum(record.held_s > HELD_AFTER_S for record in answered),
        prompt_tokens=sum(record.counted_prompt_tokens or 0 for record in answered),
        output_tokens=sum(record.counted_output_tokens or 0 for record in answered),
        duration_s=max((record.done_s or 0.0 for record in records), default=0.0),
        time_to_first_token_ms=_percentiles_ms(record.time_to_first_token_s for record in answered),
        inter_token_ms=_percentiles_ms(record.inter_token_s for record in answered),
        lateness_ms=_percentiles_ms(
            record.sent_s - record.scheduled_s for record in records if record.sent_s is not None
        ),
        losses=dict(Counter(record.error or "unfinished" for record in records if not record.answered)),
    )


def write_records(records: Iterable[RequestRecord], path: Path) -> None:
    """Write one JSON object per request and line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(asdict(record)) + "\n")


def _percentiles_ms(seconds: Iterable[float | None]) -> Percentiles | None:
    ordered = sorted(1e3 * value for value in seconds if value is not None)
    if not ordered:
        return None

    def at(share: float) -> float:
        # Nearest rank: a value that was measured, never one in between.
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return Percentiles(at(0.50), at(0.90), at(0.99))
