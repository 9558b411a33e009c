"""Streamed answers: how long each event takes from the engine to the client, and whether all of them come."""

import select
import socket
import time
from contextlib import ExitStack
from typing import Self

from benchmarks.gateway.bodies import (
    LOOPBACK,
    STREAM_EVENTS,
    STREAM_INTERVAL,
    event,
    last_events,
    request,
    sent_at,
)
from benchmarks.gateway.client import (
    SILENCE,
    Load,
    Measured,
    WrongAnswerError,
    clocks,
    quantile,
)

_RECEIVE = 64 * 1024
_END = b"\r\n\r\n"
_CHUNKED = b"transfer-encoding: chunked"


class Stream:
    """One connection, a context manager, and the streamed answer that comes over it."""

    def __init__(self, load: Load) -> None:
        self.sock = socket.create_connection((LOOPBACK, load.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._load = load
        self.delays: list[int] = []
        """Nanoseconds from the engine's send to our receive, of each event of this answer."""
        self.stretches: list[int] = []
        """By how many nanoseconds an event was further from the one before it than when they were sent."""
        self._raw = self._text = b""
        self._headed = self._complete = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def begin(self) -> None:
        """Ask for the next answer."""
        self.delays, self.stretches = [], []
        self._raw = self._text = b""
        self._headed = self._complete = False
        self.sock.setblocking(True)
        self.sock.sendall(request(self._load.kind, self._load.name, f"{LOOPBACK}:{self._load.port}"))
        self.sock.setblocking(False)

    def receive(self) -> bool:
        """Take in what has come; tell whether the answer is complete, and right. Raises WrongAnswerError."""
        data = self.sock.recv(_RECEIVE)
        now = time.monotonic_ns()
        if not data:
            raise WrongAnswerError(f"the connection was closed after {len(self.delays)} events")
        self._raw += data
        if not self._headed and not self._take_head():
            return False
        while self._take_chunk():
            pass
        while (end := self._text.find(b"\n\n")) >= 0 and len(self.delays) < STREAM_EVENTS:
            self._take_event(self._text[: end + 2], now)
            self._text = self._text[end + 2 :]
        if self._complete and (
            self._text != last_events(self._load.answers) or len(self.delays) != STREAM_EVENTS or self._raw
        ):
            raise WrongAnswerError(f"ends with {self._text[-300:]!r} after {len(self.delays)} events")
        return self._complete

    def _take_head(self) -> bool:
        end = self._raw.find(_END)
        if end < 0:
            return False
        head = self._raw[:end].lower()
        if not head.startswith(b"http/1.1 200 ") or _CHUNKED not in head:
            raise WrongAnswerError(f"not a streamed answer: {self._raw[:500]!r}")
        self._raw, self._headed = self._raw[end + len(_END) :], True
        return True

    def _take_chunk(self) -> bool:
        """Move one complete chunk (RFC 9112, section 7.1) to the text; tell whether there was one."""
        end = self._raw.find(b"\r\n")
        if end < 0:
            return False
        size, start = int(self._raw[:end], 16), end + 2
        if len(self._raw) < start + size + 2:
            return False
        self._text += self._raw[start : start + size]
        self._raw = self._raw[start + size + 2 :]
        self._complete = size == 0
        return not self._complete

    def _take_event(self, received: bytes, now: int) -> None:
        index = len(self.delays)
        sent = sent_at(self._load.answers, received)
        if received != event(self._load.answers, index, sent):
            raise WrongAnswerError(f"event {index} is {received!r}")
        if self.delays:
            self.stretches.append(now - sent - self.delays[-1])
        self.delays.append(now - sent)


def drive_streams(load: Load) -> Measured:
    """Read streamed answers, `load.connections` at once. Raises WrongAnswerError, or TimeoutError if nothing comes."""
    with ExitStack() as stack:
        return _drive(load, stack)


def _drive(load: Load, stack: ExitStack) -> Measured:
    total = load.warmup + load.requests
    epoll = stack.enter_context(select.epoll())
    streams: dict[int, Stream] = {}
    waiting = [stack.enter_context(Stream(load)) for _ in range(min(load.connections, total))]
    started = time.monotonic()
    delays: list[int] = []
    stretches: list[int] = []
    issued = finished = 0
    began, processor, own = clocks(load)
    while finished < total:
        # Evenly over one interval: events that all come at once would wait for each other.
        next_at = started + issued * STREAM_INTERVAL / load.connections
        if waiting and time.monotonic() >= next_at:
            stream = waiting.pop()
            streams[stream.sock.fileno()] = stream
            epoll.register(stream.sock, select.EPOLLIN)
            stream.begin()
            issued += 1
            continue
        ready = epoll.poll(max(0.0, next_at - time.monotonic()) if waiting else SILENCE)
        if not ready and not waiting:
            raise TimeoutError(f"no event within {SILENCE:g} s, {finished} of {total} answers came")
        for number, _ in ready:
            stream = streams[number]
            if not stream.receive():
                continue
            finished += 1
            if finished > load.warmup:
                delays += stream.delays
                stretches += stream.stretches
            elif finished == load.warmup:
                began, processor, own = clocks(load)
            if issued < total:
                issued += 1
                stream.begin()
    ended, processor_ended, own_ended = clocks(load)
    delays.sort()
    stretches.sort()
    return Measured(
        answered=len(delays) // STREAM_EVENTS,
        seconds=(ended - began) / 1e9,
        p50=quantile(delays, 0.50),
        p90=quantile(delays, 0.90),
        p99=quantile(delays, 0.99),
        processor_seconds=(processor_ended - processor) / 1e9,
        own_processor_seconds=(own_ended - own) / 1e9,
        stretch_p99=quantile(stretches, 0.99),
    )
