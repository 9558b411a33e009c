"""How long requests have been held for models that sleep, and how long their wake took."""

import time
from collections.abc import Callable, Iterable, Mapping

from modelyard.runtime.metrics import WAKE_SECONDS


class HoldBoard:
    """The models that requests wait for, from the first wake signal to the first serving replica."""

    def __init__(self, serves: Callable[[str], bool], clock: Callable[[], float] = time.monotonic) -> None:
        """Begin. `serves` says whether a deployment, by `namespace/name`, has a replica that answers."""
        self._serves = serves
        self._clock = clock
        self._since: dict[str, float] = {}

    def note(self, key: str) -> None:
        """Take in a wake signal. A hold that goes on keeps its begin."""
        if not self._serves(key):
            self._since.setdefault(key, self._clock())

    def look(self, key: str) -> None:
        """End the hold of a deployment that serves now."""
        if key in self._since and self._serves(key):
            WAKE_SECONDS.observe(self._clock() - self._since.pop(key))

    def keep(self, keys: Iterable[str]) -> None:
        """Drop what is known of all other deployments: they are gone."""
        for key in self._since.keys() - set(keys):
            del self._since[key]

    def seconds(self) -> Mapping[str, float]:
        """Return for how long requests have been held, by `namespace/name`."""
        now = self._clock()
        return {key: now - since for key, since in self._since.items()}
