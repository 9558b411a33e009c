"""Continuous batching as in vLLM's V1 scheduler: pure state, no clock and no I/O.

Each step spends a token budget. Running sequences come first, in order of arrival; then waiting ones are
admitted while sequence slots and KV blocks last. Prompts are computed in chunks within the budget. When a
running sequence finds no block, the newest one is preempted: it loses its cache, returns to the head of the
queue and recomputes prompt and output later.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from dev.standin.profiles import StepWork

DEFAULT_BLOCK_SIZE = 16
"""Tokens in one KV block: vLLM's default on CUDA."""


class FinishReason(StrEnum):
    """Why a sequence ended, as in the label of `vllm:request_success_total`."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine can hold and compute at once."""

    kv_cache_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    """Token budget of one step."""
    block_size: int = DEFAULT_BLOCK_SIZE
    """Tokens in one KV block."""

    @property
    def blocks(self) -> int:
        """Return the number of whole KV blocks."""
        return self.kv_cache_tokens // self.block_size


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside the engine. Times are seconds on the engine's clock."""

    prompt_tokens: int
    output_tokens: int
    """Tokens to generate before the sequence ends."""
    max_tokens: int
    """Limit that the client asked for, or that the context leaves."""
    finish_reason: FinishReason
    """How it ends when `output_tokens` are there."""
    arrival: float
    on_progress: Callable[[], None] = lambda: None
    """Called when tokens were generated or the sequence ended."""

    generated: int = 0
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    blocks: int = 0
    preemptions: int = 0
    finished: FinishReason | None = None
    scheduled_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None

    @property
    def total_tokens(self) -> int:
        """Return the tokens known so far: the prompt and what was generated."""
        return self.prompt_tokens + self.generated


@dataclass(frozen=True, slots=True)
class Step:
    """A planned step: the tokens to compute for each sequence."""

    chunks: list[tuple[Sequence, int]]
    work: StepWork


@dataclass(slots=True)
class StepResult:
    """What a completed step produced."""

    first_tokens: list[Sequence] = field(default_factory=list)
    """Sequences whose first token came; their prompts count as processed now."""
    intervals: list[float] = field(default_factory=list)
    """Seconds between a sequence's latest two tokens, one entry per later token."""
    finished: list[Sequence] = field(default_factory=list)

    @property
    def generated(self) -> int:
        """Return the number of tokens generated in the step."""
        return len(self.first_tokens) + len(self.intervals)


class Scheduler:
    """Plans steps over running and waiting sequences under the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.free_blocks = limits.blocks
        self.preemptions = 0

    @property
    def has_work(self) -> bool:
        """Return whether any sequence is unfinished."""
        return bool(self.running or self.waiting)

    @property
    def kv_cache_usage(self) -> float:
        """Return the share of KV blocks in use, 0 to 1."""
        return 1.0 - self.free_blocks / self.limits.blocks

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises ValueError if it could never fit in the KV cache: waiting would not help.
        """
        if sequence.prompt_tokens + sequence.output_tokens > self.limits.blocks * self.limits.block_size:
            raise ValueError("the sequence is longer than the KV cache")
        self.waiting.append(sequence)

    def abort(self, sequence: Sequence) -> bool:
        """End a sequence early and free its blocks; return False if it has already ended."""
        if sequence.finished is not None:
            return False
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
        self._end(sequence, FinishReason.ABORT)
        return True

    def plan(self, now: float) -> Step:
        """Choose the work of the next step and allocate its blocks."""
        budget = self.limits.max_num_batched_tokens
        chunks: list[tuple[Sequence, int]] = []
        preempted = False
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            chunk = min(sequence.total_tokens - sequence.computed, budget)
            while not self._allocate(sequence, chunk):
                preempted = True
                if self._preempt_newest() is sequence:
                    break
            else:
                chunks.append((sequence, chunk))
                budget -= chunk
                index += 1
                continue
            break
        while not preempted and self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            chunk = min(sequence.total_tokens, budget)
            if not self._allocate(sequence, chunk):
                break
            self.running.append(self.waiting.popleft())
            if sequence.scheduled_at is None:
                sequence.scheduled_at = now
            chunks.append((sequence, chunk))
            budget -= chunk
        return Step(chunks, _work(chunks))

    def complete(self, step: Step, now: float) -> StepResult:
        """Apply a planned step that ended at `now`; sequences aborted meanwhile are left out."""
        result = StepResult()
        for sequence, chunk in step.chunks:
            if sequence.finished is not None:
                continue
            sequence.computed += chunk
            if sequence.computed < sequence.total_tokens:
                continue
            sequence.generated += 1
            if sequence.last_token_at is None:
                sequence.first_token_at = now
                result.first_tokens.append(sequence)
            else:
                result.intervals.append(now - sequence.last_token_at)
            sequence.last_token_at = now
            if sequence.generated >= sequence.output_tokens:
                self.running.remove(sequence)
                self._end(sequence, sequence.finish_reason)
                result.finished.append(sequence)
            sequence.on_progress()
        return result

    def _allocate(self, sequence: Sequence, chunk: int) -> bool:
        needed = -(-(sequence.computed + chunk) // self.limits.block_size) - sequence.blocks
        if needed > self.free_blocks:
            return False
        sequence.blocks += needed
        self.free_blocks -= needed
        return True

    def _preempt_newest(self) -> Sequence:
        victim = self.running.pop()
        self._free(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(victim)
        return victim

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finished = reason
        self._free(sequence)

    def _free(self, sequence: Sequence) -> None:
        self.free_blocks += sequence.blocks
        sequence.blocks = 0


def _work(chunks: list[tuple[Sequence, int]]) -> StepWork:
    context = prefill = 0
    for sequence, chunk in chunks:
        # Decoding computes just the last generated token; everything else is prompt work.
        if sequence.generated and sequence.computed == sequence.total_tokens - 1:
            context += sequence.computed
        else:
            prefill += chunk
    return StepWork(len(chunks), context, prefill)
