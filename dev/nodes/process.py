"""Processes that stand in for containers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.cluster import exec_bound_to_parent

_LAUNCHER = Path(exec_bound_to_parent.__file__)

SIGNAL_EXIT_BASE = 128
"""A process ended by signal n has exit code 128 + n, as container runtimes report it."""


class ContainerProcess:
    """One running program in a session of its own, with its output in a file.

    Start it from the thread that runs the event loop: the kernel ties the process's life to that
    thread. Exits are noticed through a pidfd, which costs no thread per process and cannot signal
    a later process that got the same id.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> None:
        """Start `argv` in `folder`, appending its output to `log`. Raises OSError if that fails."""
        self._loop = asyncio.get_running_loop()
        command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *argv]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process id; also the id of its process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not been seen to end."""
        return not self._exited.done()

    async def wait(self) -> int:
        """Wait for the end and return the exit code, 128 + n after signal n."""
        return await asyncio.shield(self._exited)

    async def exits_within(self, seconds: float) -> bool:
        """Wait at most `seconds` for the end; return whether it came."""
        await asyncio.wait({self._exited}, timeout=max(0.0, seconds))
        return self._exited.done()

    def terminate(self) -> None:
        """Send SIGTERM to the program, as a container runtime does to a container's first process."""
        if self.running:
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the program and all that it started in its session's process group."""
        if self.running:
            _kill_group(self.pid)

    def _reap(self) -> None:
        if not self.running:
            return
        self._loop.remove_reader(self._pidfd)
        # Before the process is reaped its id cannot be given to another group.
        _kill_group(self.pid)
        code = self._process.wait()
        os.close(self._pidfd)
        self._exited.set_result(SIGNAL_EXIT_BASE - code if code < 0 else code)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing is left of it
