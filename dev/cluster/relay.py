"""Stands for a Service without kube-proxy: passes connections on to the pod that a label selects at the moment."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, find_port: Callable[[], int | None]) -> None:
        self.find_port = find_port
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        port = self.server.find_port()
        with suppress(OSError):
            if port is None:
                return
            with socket.create_connection(("127.0.0.1", port), timeout=5) as onward:
                onward.settimeout(None)
                back = threading.Thread(target=_pass_on, args=(onward, self.request), daemon=True)
                back.start()
                _pass_on(self.request, onward)
                back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class ServiceRelay:
    """Listens on `port`; each connection goes to the port that `find_port` returns then, or is closed.

    A context manager.
    """

    def __init__(self, find_port: Callable[[], int | None]) -> None:
        self._server = _Server(find_port)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
