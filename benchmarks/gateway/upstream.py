"""The engine's stand-in of this benchmark: `python -m benchmarks.gateway.upstream PORT`.

It answers at once and does next to nothing, because what is measured is in front of it. It answers only what it can
account for: a request whose body is not one of ours to the last byte gets 400, so that a client that sees the right
answer knows that the right body arrived. One thread on epoll: asyncio's transports and an HTTP library would cost
more than the gateway does.
"""

import heapq
import select
import socket
import sys
import time

from benchmarks.gateway.bodies import (
    LOOPBACK,
    STREAM,
    STREAM_EVENTS,
    STREAM_INTERVAL,
    answer,
    event,
    last_events,
    recognise,
)

BACKLOG = 1024
FIRST_BYTES = 16 * 1024
"""Room for a request before its length is known."""
HEALTH = "health"
"""Kind of a request that only asks whether somebody is there."""
END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Connection:
    """One connection of a gateway, and the request that is being read from it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray(FIRST_BYTES)
        self.used = 0
        """Bytes in the buffer."""
        self.start = self.needed = 0
        """Where the body begins, and where the request ends; 0 until its head is complete."""

    def read(self) -> bool:
        """Read what is there; tell whether a whole request is. Raises ConnectionError at the end."""
        while True:
            with memoryview(self.buffer) as view:
                count = self.sock.recv_into(view[self.used :])
            if count == 0:
                raise ConnectionResetError
            self.used += count
            if not self.needed:
                self._measure()
            if self.needed and self.used >= self.needed:
                return True
            if self.used < len(self.buffer):
                return False

    def take(self) -> tuple[str, str] | None:
        """Return kind and model of the request, None if its body is none of ours, and begin the next one."""
        if self.used != self.needed:
            raise ConnectionResetError("a second request before the first was answered")
        found = (
            (HEALTH, "")
            if self.buffer.startswith(b"GET ")
            else recognise(self.buffer, self.start, self.needed)
        )
        self.used = self.start = self.needed = 0
        return found

    def _measure(self) -> None:
        end = self.buffer.find(END, 0, self.used)
        if end < 0:
            return
        self.start = end + len(END)
        head = bytes(self.buffer[:end]).lower()
        where = head.find(_LENGTH)
        length = int(head[where + len(_LENGTH) :].split(b"\r\n", 1)[0]) if where >= 0 else 0
        self.needed = self.start + length
        if self.needed > len(self.buffer):
            self.buffer.extend(bytes(self.needed - len(self.buffer)))


class Upstream:
    """The server: connections, and the events of streams that are due."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server((LOOPBACK, port), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[float, int, int, str, Connection]] = []
        self._streams = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Serve until the process is ended."""
        while True:
            timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1
            for number, _ in self._epoll.poll(timeout):
                connection = self._connections.get(number)
                if connection is None:
                    self._accept()
                    continue
                try:
                    if connection.read():
                        self._answer(connection)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    self._close(connection)
            self._send_due()

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections[sock.fileno()] = Connection(sock)
                self._epoll.register(sock, select.EPOLLIN)
        except BlockingIOError:
            return

    def _close(self, connection: Connection) -> None:
        self._epoll.unregister(connection.sock)
        del self._connections[connection.sock.fileno()]
        connection.sock.close()

    def _answer(self, connection: Connection) -> None:
        found = connection.take()
        if found is None:
            problem = b'{"error":{"message":"The body is not what was sent."}}'
            send(connection.sock, _reply(b"400 Bad Request", problem))
        elif found[0] == HEALTH:
            send(connection.sock, _reply(b"200 OK", b"{}"))
        elif found[0] == STREAM:
            send(
                connection.sock,
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            self._streams += 1
            heapq.heappush(self._due, (time.monotonic(), self._streams, 0, found[1], connection))
        else:
            send(connection.sock, _reply(b"200 OK", answer(found[1])))

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            at, stream, index, name, connection = heapq.heappop(self._due)
            try:
                if index == STREAM_EVENTS:
                    send(connection.sock, _chunk(last_events(name)) + b"0\r\n\r\n")
                    continue
                send(connection.sock, _chunk(event(name, index, time.monotonic_ns())))
            except OSError:
                continue  # The client left; its connection is closed when that is read.
            heapq.heappush(self._due, (at + STREAM_INTERVAL, stream, index + 1, name, connection))


def send(sock: socket.socket, data: bytes) -> None:
    """Send a small answer whole. Raises OSError if the connection does not take it."""
    if sock.send(data) != len(data):
        raise ConnectionResetError("the connection took only a part of the answer")


def _reply(status: bytes, content: bytes) -> bytes:
    return (
        b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % (status, len(content))
        + content
    )


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


if __name__ == "__main__":
    Upstream(int(sys.argv[1])).serve()
