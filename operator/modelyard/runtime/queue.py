"""Our own work queue: one entry per key, one worker per key at a time, back-off after failures."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from modelyard.runtime.logs import about_key
from modelyard.runtime.metrics import QUEUE_WAIT_SECONDS

logger = logging.getLogger(__name__)

FIRST_DELAY = 0.5
"""Seconds until the first retry of a failed key."""
LAST_DELAY = 120.0
"""Seconds between retries at most: a key that keeps failing is looked at about as often as a person would."""


class WorkQueue:
    """Keys to work on. A key added while it waits is worked on once; added while in work, once more after."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: dict[str, float] = {}
        """Monotonic time since which a key waits, oldest first."""
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again)

    @property
    def failing(self) -> int:
        """Keys whose last try failed."""
        return len(self._failures)

    def oldest(self) -> float:
        """Return the seconds that the oldest key has waited for a worker; 0 if none waits."""
        began = next(iter(self._waiting.values()), None)
        return 0.0 if began is None else time.monotonic() - began

    def add(self, key: str) -> None:
        """Ask for work on a key, now."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = time.monotonic()
            self._ready.put_nowait(key)

    def add_all(self, keys: Iterable[str]) -> None:
        """Ask for work on these keys, now. In the order of their names: the same keys are always worked on alike."""
        for key in sorted(keys):
            self.add(key)

    def add_later(self, key: str, seconds: float) -> None:
        """Ask for work on a key after a while, unless it is asked for earlier."""
        if key in self._waiting or key in self._timers:
            return
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    async def run(self, handle: Callable[[str], Awaitable[None]], workers: int) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(handle))

    async def _work(self, handle: Callable[[str], Awaitable[None]]) -> None:
        while True:
            key = await self._ready.get()
            QUEUE_WAIT_SECONDS.observe(time.monotonic() - self._waiting.pop(key))
            self._working.add(key)
            try:
                await handle(key)
            except Exception as error:  # noqa: BLE001  a failure of one key must not stop the others
                self._retry(key, error)
            else:
                self._failures.pop(key, None)
            finally:
                self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _retry(self, key: str, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        asked = getattr(error, "retry_after", None) or 0.0
        delay = max(min(FIRST_DELAY * 2 ** (failures - 1), LAST_DELAY), asked)
        unexpected = not hasattr(error, "status")
        logger.warning(
            "Work on %s failed, next try in %.1f s: %s",
            key,
            delay,
            error,
            exc_info=unexpected,
            extra=about_key(key, getattr(error, "reason", type(error).__name__)),
        )
        self.add_later(key, delay)
