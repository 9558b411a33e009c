"""What we wrote and have not seen yet. Watches lag behind our own writes; decisions must not.

Kubernetes documents `resourceVersion` as comparable since 1.35 (KEP-5504): for one resource, larger is newer.
"""

from typing import Generic, TypeVar

T = TypeVar("T")


class Expectations(Generic[T]):
    """The newest view per object: what a write returned, until the watch has caught up with it."""

    def __init__(self) -> None:
        self._written: dict[str, tuple[int, str, T]] = {}

    def note(self, key: str, uid: str, version: str, view: T) -> None:
        """Remember what a write returned."""
        self._written[key] = (int(version), uid, view)

    def resolve(self, key: str, uid: str, version: str, seen: T) -> T:
        """Return the newer one of what was written and what the watch shows."""
        written = self._written.get(key)
        if written is None:
            return seen
        if written[1] != uid or int(version) >= written[0]:
            del self._written[key]
            return seen
        return written[2]

    def pending(self, key: str) -> T | None:
        """Return what was written, where the watch shows no object at all yet."""
        written = self._written.get(key)
        return None if written is None else written[2]

    def forget(self, key: str) -> None:
        """Drop what is remembered of an object that is gone."""
        self._written.pop(key, None)
