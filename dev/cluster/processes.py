"""Child processes that end with us: start, wait for readiness, stop, and show what they logged."""

from __future__ import annotations

import atexit
import collections
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

READY_TIMEOUT_S = 180.0
"""Seconds a component may take to become ready. On two idle cores the slowest takes 3 s."""

POLL_INTERVAL_S = 0.05
"""Seconds between looks at a component that starts."""

STOP_TIMEOUT_S = 60.0
"""Seconds a component gets between SIGTERM and SIGKILL. An API server with open watches has been
seen to take 41 s."""

LOG_TAIL_LINES = 25
"""Log lines shown of a component that failed."""

CLAIMS = 256
"""Ports that stay claimed: far more than are given before the first of them is listened on, and few open files."""

_claims: collections.deque[socket.socket] = collections.deque()
"""The oldest first."""

_BINDER = Path(__file__).with_name("exec_bound_to_parent.py")

# The kernel sends a child its parent-death signal when the *thread* that started it ends, so every
# child is started from this one thread, which lives as long as the process.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-starter")


class ComponentError(RuntimeError):
    """A component failed; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that a reused pid cannot be mistaken for."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the running process with this pid, or None (a zombie counts as ended)."""
        try:
            # Fields after the parenthesised name: state is the 1st, start time the 20th (proc(5)).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] == "Z" else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        return ProcessId.of(self.pid) == self

    def kill(self) -> bool:
        """Send SIGKILL if this very process still runs; tell whether it did."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


class Component:
    """One program of a cluster: its command line, its log file and its process.

    `ready` is called until it returns True. The same object can be started again after a stop.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, ready: Callable[[], bool]) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The running process's id, or None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self.pid is not None

    @property
    def process_id(self) -> ProcessId | None:
        """The running process in a form to keep, or None."""
        return ProcessId.of(self.pid) if self.pid else None

    def start(self) -> None:
        """Start the process; `wait_ready` tells when it serves. Does nothing if it runs."""
        if not self.running:
            self._process = _starter.submit(self._spawn).result()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        binder = [sys.executable, "-I", "-S", str(_BINDER), str(os.getpid())]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*binder, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal must reach us alone: we stop the components in order.
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the component serves; raise ComponentError if it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            if not self.running:
                code = self._process.returncode if self._process else None
                raise ComponentError(
                    f"{self.name} ended with exit code {code} before it was ready\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                raise ComponentError(f"{self.name} was not ready within {timeout_s:.0f} s\n{self.tail()}")
            time.sleep(POLL_INTERVAL_S)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the process: SIGTERM, then after `timeout_s` SIGKILL. Does nothing if it has ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def terminate(self) -> None:
        """Send SIGTERM and return."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit code once the process has ended, None if that takes longer."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(timeout_s)
        return None

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Return the last lines of the log under a line that names the file."""
        if not self.log.exists():
            return f"{self.log} is empty"
        with self.log.open(errors="replace") as log:
            last = collections.deque(log, maxlen=lines)
        return f"the end of {self.log}:\n{''.join(last)}".rstrip()


def responds(
    url_port: int, path: str, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> bool:
    """Tell whether a GET of `path` on an address, by default 127.0.0.1, is answered with 200 within two seconds."""
    connection: http.client.HTTPConnection
    if tls is None:
        connection = http.client.HTTPConnection(address, url_port, timeout=2)
    else:
        connection = http.client.HTTPSConnection(address, url_port, timeout=2, context=tls)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Return distinct free TCP ports of 127.0.0.1 that nobody else was given by this function lately.

    They are all held while the next is chosen. Nothing may listen yet on those of earlier calls, here or in another
    process, and of some 14,000 ports the same one comes again soon enough: so each stays claimed for a while. Linux
    gives odd ports to bind and even ones to connect while it can, so an outgoing connection hardly ever takes one
    before its component does.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            holder = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            holder.bind(("127.0.0.1", 0))
            port = int(holder.getsockname()[1])
            if _claim(port):
                ports.append(port)
        return ports


@atexit.register
def _give_up_claims() -> None:
    while _claims:
        _claims.pop().close()


def _claim(port: int) -> bool:
    """Claim a port before all processes of this machine. Returns whether it was free.

    The claim is a socket with an abstract name: only one process can have it, and it ends with the process (unix(7)).
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0modelyard-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    if len(_claims) > CLAIMS:
        _claims.popleft().close()
    return True
