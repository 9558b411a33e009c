"""What we wrote and have not seen yet. Watches lag behind our own writes; decisions must not.

Kubernetes documents `resourceVersion` as comparable since 1.35 (KEP-5504): for one resource, larger is newer.
"""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds within which the watch should have shown a write. An event takes milliseconds, in a burst of thousands of
writes a few seconds. A longer wait says that the object may be gone again, and its events with a watch that broke: then
whoever wrote asks the API server and writes again where need be. Asking too early costs a request, no more."""


class Expectations(Generic[T]):
    """The newest view per object: what a write returned, until the watch has caught up with it."""

    def __init__(self, deadline: float = DEADLINE, clock: Callable[[], float] = time.monotonic) -> None:
        """`deadline`: seconds; `clock`: seconds."""
        self._deadline = deadline
        self._clock = clock
        self._written: dict[str, tuple[int, str, T]] = {}
        self._due: dict[str, float] = {}
        """When the watch should have shown each of them, by the clock."""

    def note(self, key: str, uid: str, version: str, view: T) -> None:
        """Remember what a write returned."""
        self._written[key] = (int(version), uid, view)
        self._due[key] = self._clock() + self._deadline

    def resolve(self, key: str, uid: str, version: str, seen: T) -> T:
        """Return the newer one of what was written and what the watch shows."""
        written = self._written.get(key)
        if written is None:
            return seen
        if written[1] != uid or int(version) >= written[0]:
            self.forget(key)
            return seen
        return written[2]

    def pending(self, key: str) -> T | None:
        """Return what was written, where the watch shows no object at all yet."""
        written = self._written.get(key)
        return None if written is None else written[2]

    def take_overdue(self, key: str) -> bool:
        """Say, once for each deadline, whether the watch should have shown a write by now and has not.

        The view stays: without it, a decision would take the object for missing while only the watch is late.
        """
        now = self._clock()
        if self._due.get(key, now) >= now:
            return False
        self._due[key] = now + self._deadline
        return True

    def forget(self, key: str) -> None:
        """Drop what is remembered of an object that is gone."""
        self._written.pop(key, None)
        self._due.pop(key, None)
