"""The engine's clock, injected so that tests can step time by hand."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock that can be waited on."""

    def time(self) -> float:
        """Return seconds since an arbitrary origin; never decreases."""

    async def sleep(self, seconds: float) -> None:
        """Return once that many seconds have passed; zero only yields to other tasks."""


class SystemClock:
    """The machine's monotonic clock."""

    def time(self) -> float:
        """Return the monotonic time, in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(seconds)
