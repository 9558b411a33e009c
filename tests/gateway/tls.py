"""TLS stand-ins of providers that keep every byte that reaches them."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dev.cluster.certificates import CertificateAuthority
from dev.envoy.process import free_port

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

Respond = Callable[["Received", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    raw: bytes
    """Request line and headers, to the empty line."""
    body: bytes
    server_name: str | None
    """What the client asked for in the TLS handshake."""

    @property
    def line(self) -> str:
        """Method, path and version."""
        return self.raw.split(b"\r\n", 1)[0].decode()

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case; a header that comes twice is an error."""
        pairs = [line.decode().split(": ", 1) for line in self.raw.split(b"\r\n")[1:] if line]
        names = [name.lower() for name, _ in pairs]
        assert len(names) == len(set(names)), names
        return {name.lower(): value for name, value in pairs}


@dataclass
class TlsProvider:
    """An API behind TLS."""

    port: int
    certificate: str
    """PEM of the authority that signed its certificate."""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with each answer."""
    respond: Respond | None = None
    """Answers instead of the usual reply."""
    received: list[Received] = field(default_factory=list)
    handshakes: int = 0
    """TLS handshakes that a client began, also those that it broke off."""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Base URL without a path."""
        return f"https://localhost:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        """Bodies of all requests."""
        return [request.body for request in self.received]

    async def reply(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        """Write one JSON answer."""
        headers = (
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            *self.headers,
        )
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)
        await writer.drain()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._writers.add(writer)
        try:
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                tls = writer.get_extra_info("ssl_object")
                length = int(Received(raw, b"", None).headers.get("content-length", 0))
                request = Received(raw, await reader.readexactly(length), getattr(tls, "asked_name", None))
                self.received.append(request)
                if self.respond is not None:
                    await self.respond(request, writer)
                elif self.status != 200:
                    await self.reply(writer, self.status, b'{"error":{"message":"refused by provider"}}')
                else:
                    answer = {"model": json.loads(request.body)["model"], "usage": USAGE}
                    await self.reply(writer, 200, json.dumps(answer).encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def drop_connections(self) -> None:
        """Close every connection at once."""
        for writer in tuple(self._writers):
            writer.transport.abort()


@asynccontextmanager
async def tls_provider(
    folder: Path, *, names: tuple[str, ...] = ("localhost",), authority: CertificateAuthority | None = None
) -> AsyncIterator[TlsProvider]:
    """Start a provider whose certificate is for `names`, signed by an authority of its own if none is given."""
    authority = authority or CertificateAuthority(folder)
    port = free_port()
    pair = authority.server(f"server-{port}", (), names)
    provider = TlsProvider(port, authority.certificate.read_text())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)

    def note_name(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        provider.handshakes += 1
        tls.asked_name = name  # type: ignore[attr-defined]

    context.sni_callback = note_name
    server = await asyncio.start_server(provider.serve, "127.0.0.1", port, ssl=context)
    try:
        yield provider
    finally:
        server.close()
        provider.drop_connections()
        await server.wait_closed()
