"""The engine loop: one task that plans a step, waits as long as it would take, and hands out tokens."""

import asyncio
from collections.abc import Callable

from dev.standin.clock import Clock
from dev.standin.profiles import Profile
from dev.standin.scheduler import FinishReason, Limits, Scheduler, Sequence, Step, StepResult

STEPS_PER_YIELD = 16
"""Steps run without yielding when they take no noticeable time: bounds latency of other tasks."""

SHORTEST_SLEEP = 0.001
"""Seconds; shorter waits are carried over, since the event loop's timers are no finer."""

LARGEST_LAG = 1.0
"""Seconds that the loop catches up after the machine stalled; beyond that the time is lost."""


class Generation:
    """A request's view of its sequence: how many tokens are there, and whether that is all."""

    def __init__(self, engine: "Engine", sequence: Sequence) -> None:
        self._engine = engine
        self._sequence = sequence
        self._wanted = 1
        self._ready = asyncio.Event()
        sequence.on_progress = self._on_progress

    @property
    def sequence(self) -> Sequence:
        """Return the sequence behind this request."""
        return self._sequence

    async def wait_for(self, tokens: int) -> int:
        """Wait until that many tokens were generated or the sequence ended; return how many there are."""
        self._wanted = tokens
        self._ready.clear()
        self._on_progress()
        await self._ready.wait()
        return self._sequence.generated

    def abort(self) -> None:
        """Give the request up and free its place; does nothing once it has ended."""
        self._engine.abort(self._sequence)

    def _on_progress(self) -> None:
        if self._sequence.finished is not None or self._sequence.generated >= self._wanted:
            self._ready.set()


class Engine:
    """Runs a scheduler in (scaled) time.

    Deadlines are absolute: each step starts where the last one ended, so waking up late makes no step
    longer on average.
    """

    def __init__(
        self,
        profile: Profile,
        limits: Limits,
        clock: Clock,
        *,
        time_scale: float = 1.0,
        on_step: Callable[[Step, StepResult], None] = lambda _step, _result: None,
        on_abort: Callable[[], None] = lambda: None,
    ) -> None:
        self.scheduler = Scheduler(limits)
        self._profile = profile
        self._clock = clock
        self._time_scale = time_scale
        self._on_step = on_step
        self._on_abort = on_abort
        self._wake = asyncio.Event()

    def submit(
        self, prompt_tokens: int, output_tokens: int, max_tokens: int, finish_reason: FinishReason
    ) -> Generation:
        """Queue a request.

        Raises ValueError if it could never fit in the KV cache.
        """
        sequence = Sequence(
            prompt_tokens, output_tokens, max_tokens, finish_reason, arrival=self._clock.time()
        )
        self.scheduler.add(sequence)
        self._wake.set()
        return Generation(self, sequence)

    def abort(self, sequence: Sequence) -> None:
        """End a sequence early; does nothing once it has ended."""
        if self.scheduler.abort(sequence):
            self._on_abort()
            sequence.on_progress()

    async def run(self) -> None:
        """Serve steps until cancelled."""
        while True:
            self._wake.clear()
            if not self.scheduler.has_work:
                await self._wake.wait()
            await self._run_busy(self._clock.time())

    async def _run_busy(self, start: float) -> None:
        """Run steps from `start` until nothing is left to do."""
        unyielded = 0
        while self.scheduler.has_work:
            step = self.scheduler.plan(start)
            end = start + self._profile.step_seconds(step.work) / self._time_scale
            lead = end - self._clock.time()
            if lead >= SHORTEST_SLEEP:
                await self._clock.sleep(lead)
                unyielded = 0
            elif unyielded >= STEPS_PER_YIELD:
                await self._clock.sleep(0)
                unyielded = 0
            else:
                unyielded += 1
            if lead < -LARGEST_LAG:
                end = self._clock.time()
            self._on_step(step, self.scheduler.complete(step, end))
            start = end
