"""Injects the faults that are switched on: counts, draws, and ends the process."""

import asyncio
import os
import random
from collections.abc import Callable

from dev.standin.settings import Faults


class FaultInjector:
    """Holds the current faults and decides per request whether one strikes.

    Draws come from a generator with a fixed seed: a run repeats.
    """

    def __init__(self, faults: Faults, *, exit_process: Callable[[int], None] = os._exit) -> None:
        self.faults = faults
        self._exit_process = exit_process
        self._random = random.Random(0)
        self._requests = 0
        self._crash: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Arm the timed crash; to be called on the event loop when the port opens."""
        self._arm_crash()

    def set(self, faults: Faults) -> None:
        """Replace the faults; counters and timers start again."""
        self.faults = faults
        self._requests = 0
        self._arm_crash()

    def patch(self, changes: object) -> None:
        """Change some faults and leave the others; counters and timers start again.

        Raises ValueError as `Faults.patched` does, and changes nothing then.
        """
        self.set(self.faults.patched(changes))

    def on_request(self) -> int | None:
        """Count a generation request; return the status to refuse it with, or None to serve it."""
        self._requests += 1
        if self._requests == self.faults.crash_after_requests:
            self.crash()
        if self._draw(self.faults.error_share):
            return self.faults.error_status
        return None

    def breaks_stream(self) -> bool:
        """Draw whether this stream breaks."""
        return self._draw(self.faults.break_stream_share)

    def crash(self) -> None:
        """End the process at once, as a segmentation fault would: nothing is flushed or closed."""
        self._exit_process(self.faults.crash_exit_code)

    def _arm_crash(self) -> None:
        if self._crash is not None:
            self._crash.cancel()
            self._crash = None
        if self.faults.crash_after_seconds:
            self._crash = asyncio.get_running_loop().call_later(self.faults.crash_after_seconds, self.crash)

    def _draw(self, share: float) -> bool:
        return share > 0 and self._random.random() < share
