"""Logs over HTTPS, as a kubelet serves them: what the API server asks a node for when somebody reads a pod's log."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from dev.cluster.certificates import CertificateAuthority
from dev.nodes.container import Container

POLL_SECONDS = 0.2
"""Pause between two looks at a log that is followed."""

CHUNK = 1 << 16
"""Bytes that are read of a log at a time."""


Finder = Callable[[str, str, str], Container | None]
"""Returns a container by namespace, pod and name; None if it is not here."""


class LogServer:
    """Serves the logs of all nodes of an agent, each at its node's address."""

    def __init__(self, find: Finder, folder: Path) -> None:
        self._find = find
        self._folder = folder
        app = web.Application()
        # https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/kubelet/server/server.go
        app.add_routes([web.get("/containerLogs/{namespace}/{pod}/{container}", self._serve)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)

    async def start(self, addresses: list[str]) -> dict[str, int]:
        """Serve at these addresses; return the port at each.

        The certificate is checked by nobody: the API server has no `--kubelet-certificate-authority`.
        """
        pair = CertificateAuthority(self._folder).server("logs", addresses)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(pair.certificate, pair.key)
        await self._runner.setup()
        ports = {}
        for address in addresses:
            site = web.TCPSite(self._runner, address, 0, ssl_context=tls)
            await site.start()
            ports[address] = int(self._runner.addresses[-1][1])
        return ports

    async def stop(self) -> None:
        """End, streams included."""
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        names = request.match_info
        container = self._find(names["namespace"], names["pod"], names["container"])
        if container is None or container.log is None:
            return web.Response(status=404, text=f"container {names['container']} has not started\n")
        query = request.query
        if "timestamps" in query or "sinceSeconds" in query or "sinceTime" in query:
            return web.Response(status=400, text="this node does not note when a line was written\n")
        begin, end = container.log_starts[-1], None
        if query.get("previous") == "true":
            if len(container.log_starts) == 1:
                text = f'previous terminated container "{names["container"]}" in pod "{names["pod"]}" not found\n'
                return web.Response(status=400, text=text)
            begin, end = container.log_starts[-2:]
        if "tailLines" in query:
            begin = _tail(container.log, begin, end, int(query["tailLines"]))
        reply = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await reply.prepare(request)
        await self._copy(container, reply, begin, end, follow=query.get("follow") == "true")
        await reply.write_eof()
        return reply

    async def _copy(
        self, container: Container, reply: web.StreamResponse, begin: int, end: int | None, *, follow: bool
    ) -> None:
        if container.log is None:
            return
        run = len(container.log_starts)
        with container.log.open("rb") as log:
            log.seek(begin)
            while True:
                # Whether it runs is asked before the log is read: what it wrote last is read once more.
                process = container.process
                over = not follow or process is None or not process.running
                if end is None and len(container.log_starts) > run:
                    end = container.log_starts[run]
                limit = CHUNK if end is None else min(CHUNK, end - log.tell())
                if chunk := log.read(limit):
                    await reply.write(chunk)
                elif over or end is not None:
                    return
                else:
                    await asyncio.sleep(POLL_SECONDS)


def _tail(log: Path, begin: int, end: int | None, lines: int) -> int:
    """Return where the last lines of a run begin."""
    with log.open("rb") as opened:
        opened.seek(begin)
        text = opened.read() if end is None else opened.read(end - begin)
    kept = text.splitlines(keepends=True)
    return begin + len(text) - sum(len(line) for line in (kept[-lines:] if lines else ()))
