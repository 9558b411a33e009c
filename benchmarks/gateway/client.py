"""The load generator: `python -m benchmarks.gateway.client '{"kind": ...}'` prints what it measured as JSON.

A fixed number of HTTP/1.1 connections that stay open; each sends its next request when the answer to the last one is
complete (closed loop). Every answer is compared with the one that is due, byte for byte. One thread on epoll, a
process of its own for each measurement, and no garbage collection while it measures.
"""

import gc
import json
import select
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.gateway.bodies import CHAT, LOOPBACK, STREAM, answer, request

SILENCE = 30.0
"""Seconds without any answer after which a measurement has failed."""
_RECEIVE = 64 * 1024
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class WrongAnswerError(RuntimeError):
    """An answer that is not the one that is due; nothing of such a measurement may be shown."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, and to whom."""

    port: int
    name: str
    """The model name in the requests."""
    answers: str
    """The model name that the engine must have been asked for."""
    kind: str = CHAT
    connections: int = 1
    requests: int = 1000
    """Measured requests (streams: measured streams)."""
    warmup: int = 0
    """Requests before them, which open the connections and fill the caches."""
    pid: int = 0
    """Process in front of the engine, whose processor time is measured; 0: there is none."""
    key: str = ""
    """API key that is sent; empty: none is."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of the load generator saw. Times in milliseconds."""

    answered: int
    """Measured requests, all of them answered as they had to be."""
    seconds: float
    p50: float
    """Of the time from the first byte sent to the last byte received; of a stream: of the time that an event takes
    from the engine to the client."""
    p90: float
    p99: float
    processor_seconds: float
    """Processor time of the process in front of the engine, over all its threads."""
    own_processor_seconds: float
    """Processor time of the load generator."""
    stretch_p99: float = 0.0
    """Of streams: how much longer two events were apart at the client than at the engine."""


def processor_nanoseconds(pid: int) -> int:
    """Return the time that the threads of a process have run (proc(5), schedstat). 0 for pid 0."""
    if not pid:
        return 0
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def quantile(ordered: list[int], share: float) -> float:
    """Return a quantile of nanoseconds in milliseconds: the smallest value with at least that share below or at it."""
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] / 1e6


class Exchange:
    """One connection, a context manager: sends a request, and knows when its answer is complete."""

    def __init__(self, load: Load, message: bytes, expected: bytes) -> None:
        self.sock = socket.create_connection((LOOPBACK, load.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.began = 0
        self._message, self._expected = memoryview(message), expected
        self._sent = 0
        self._received = b""
        self._needed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def begin(self) -> bool:
        """Begin the next request; tell whether all of it could be sent."""
        self._sent, self._received, self._needed = 0, b"", 0
        self.began = time.perf_counter_ns()
        return self.send()

    def send(self) -> bool:
        """Send as much as the connection takes; tell whether that was the rest."""
        try:
            while self._sent < len(self._message):
                self._sent += self.sock.send(self._message[self._sent :])
        except BlockingIOError:
            return False
        return True

    def receive(self) -> bool:
        """Take in what has come; tell whether the answer is complete, and right. Raises WrongAnswerError."""
        data = self.sock.recv(_RECEIVE)
        if not data:
            raise WrongAnswerError(f"the connection was closed after {self._received[:200]!r}")
        self._received += data
        if not self._needed:
            end = self._received.find(_END)
            if end < 0:
                return False
            self._needed = end + len(_END) + self._length(self._received[:end].lower())
        if len(self._received) < self._needed:
            return False
        if not (self._received.startswith(b"HTTP/1.1 200 ") and self._received.endswith(self._expected)):
            raise WrongAnswerError(f"not what is due: {self._received[:500]!r}")
        return True

    def _length(self, head: bytes) -> int:
        where = head.find(_LENGTH)
        if where < 0:
            raise WrongAnswerError(f"an answer without its length: {head[:500]!r}")
        length = int(head[where + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if length != len(self._expected):
            raise WrongAnswerError(
                f"{length} bytes instead of {len(self._expected)}: {self._received[:500]!r}"
            )
        return length


def drive(load: Load) -> Measured:
    """Send unary requests. Raises WrongAnswerError, or TimeoutError if no answer comes."""
    with ExitStack() as stack:
        return _drive(load, stack)


def _drive(load: Load, stack: ExitStack) -> Measured:
    message = request(load.kind, load.name, f"{LOOPBACK}:{load.port}", load.key)
    expected = answer(load.answers)
    total = load.warmup + load.requests
    epoll = stack.enter_context(select.epoll())
    exchanges: dict[int, Exchange] = {}
    times: list[int] = []
    issued = finished = 0
    began, processor, own = clocks(load)
    for _ in range(min(load.connections, total)):
        exchange = stack.enter_context(Exchange(load, message, expected))
        exchanges[exchange.sock.fileno()] = exchange
        epoll.register(exchange.sock, _interest(sent=exchange.begin()))
        issued += 1
    while finished < total:
        ready = epoll.poll(SILENCE)
        if not ready:
            raise TimeoutError(f"no answer within {SILENCE:g} s, {finished} of {total} came")
        for number, events in ready:
            exchange = exchanges[number]
            if events & select.EPOLLOUT and exchange.send():
                epoll.modify(number, _interest(sent=True))
            if not events & ~select.EPOLLOUT or not exchange.receive():
                continue
            now = time.perf_counter_ns()
            finished += 1
            if finished > load.warmup:
                times.append(now - exchange.began)
            elif finished == load.warmup:
                began, processor, own = clocks(load)
            if issued < total:
                issued += 1
                if not exchange.begin():
                    epoll.modify(number, _interest(sent=False))
    ended, processor_ended, own_ended = clocks(load)
    times.sort()
    return Measured(
        answered=len(times),
        seconds=(ended - began) / 1e9,
        p50=quantile(times, 0.50),
        p90=quantile(times, 0.90),
        p99=quantile(times, 0.99),
        processor_seconds=(processor_ended - processor) / 1e9,
        own_processor_seconds=(own_ended - own) / 1e9,
    )


def _interest(*, sent: bool) -> int:
    return select.EPOLLIN if sent else select.EPOLLIN | select.EPOLLOUT


def clocks(load: Load) -> tuple[int, int, int]:
    """Return nanoseconds: of the clock, of the measured process's threads, and of this process."""
    return time.perf_counter_ns(), processor_nanoseconds(load.pid), time.process_time_ns()


def main() -> None:
    """Read the load from the first argument, drive it and print what was measured."""
    values: dict[str, Any] = json.loads(sys.argv[1])
    load = Load(**values)
    gc.disable()
    if load.kind == STREAM:
        from benchmarks.gateway.streams import drive_streams

        measured = drive_streams(load)
    else:
        measured = drive(load)
    sys.stdout.write(json.dumps({name: getattr(measured, name) for name in Measured.__slots__}) + "\n")


if __name__ == "__main__":
    main()
