"""Much work on the event loop in small pieces, between which everything else has its turn."""

import asyncio
import time

SLICE = 0.01
"""Seconds that one piece may take: a tenth of what an Envoy, a probe or a watch event may wait for the loop, and twenty
decisions about one deployment."""


class Slices:
    """The turns of one piece of work."""

    def __init__(self, seconds: float = SLICE) -> None:
        self._seconds = seconds
        self._began = time.perf_counter()

    async def pause(self) -> None:
        """Let everything else have its turn, if this one is over. What was looked up before may have changed then."""
        if time.perf_counter() - self._began >= self._seconds:
            await asyncio.sleep(0)
            self._began = time.perf_counter()
