"""Loopback addresses for pods: a range of its own per agent.

Linux routes all of 127.0.0.0/8 to the loopback interface, so that every pod can have an address
without any right to configure the network.
"""

from __future__ import annotations

import fcntl
import random
import tempfile
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO

HOSTS_PER_RANGE = 65_534
"""Usable addresses of a /16."""


class NoFreeRangeError(RuntimeError):
    """Every range of 127.0.0.0/8 is held by an agent on this machine."""


class AddressRange:
    """A random 127.x.0.0/16 that no other agent on this machine holds.

    The hold is a lock on a file in the temporary directory, which the kernel releases when the
    process ends, however it ends. Addresses are handed out in turn, so that a released one rests
    for as long as possible before a new pod gets it.
    """

    def __init__(self, lock_folder: Path | None = None) -> None:
        self._lock_folder = lock_folder or Path(tempfile.gettempdir())
        self._second_byte, self._lock = self._hold_range()
        self._taken: set[IPv4Address] = set()
        self._next = 0

    def __str__(self) -> str:
        return f"127.{self._second_byte}.0.0/16"

    def take(self) -> str:
        """Return an address that nothing of this agent uses."""
        for _ in range(HOSTS_PER_RANGE):
            address = IPv4Address((127 << 24) | (self._second_byte << 16) | (self._next + 1))
            self._next = (self._next + 1) % HOSTS_PER_RANGE
            if address not in self._taken:
                self._taken.add(address)
                return str(address)
        raise NoFreeRangeError(f"all addresses of {self} are in use")

    def release(self, address: str) -> None:
        """Give an address back."""
        self._taken.discard(IPv4Address(address))

    def close(self) -> None:
        """Give up the range."""
        self._lock.close()

    def _hold_range(self) -> tuple[int, IO[str]]:
        # 127.0.0.0/16 holds 127.0.0.1, which everything else on the machine uses.
        candidates = list(range(1, 255))
        random.shuffle(candidates)
        for second_byte in candidates:
            path = self._lock_folder / f"modelyard-nodes-127.{second_byte}.lock"
            try:
                lock = path.open("a")
            except PermissionError:
                continue  # another user's
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
            else:
                return second_byte, lock
        raise NoFreeRangeError(f"no free range: {len(candidates)} agents run on this machine")
