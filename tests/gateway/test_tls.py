"""TLS at the gateway: what clients are shown, what a new certificate interrupts, and HTTP/2."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest

from dev.cluster.certificates import CertificateAuthority
from dev.envoy.process import EnvoyProcess, free_port
from modelyard.core.certificates import Certificate, read_certificate
from modelyard.gateway import ads
from modelyard.gateway.resources import ResourceBuilder
from tests.gateway.conftest import PATIENCE, Gateway, table_of, until

STREAMED = {"model": "a", "stream": True, "stream_options": {"include_usage": True}}


@dataclass
class Clients:
    """What checks the gateway's certificates, and makes new ones."""

    authority: CertificateAuthority
    gateway: Gateway

    def issue(self, name: str) -> Certificate:
        """Return a new certificate for `localhost`, as the operator reads it from a Secret."""
        pair = self.authority.server(name, (), ("localhost",))
        data = {"tls.crt": pair.certificate.read_bytes(), "tls.key": pair.key.read_bytes()}
        certificate = read_certificate(data, "Secret test")
        assert isinstance(certificate, Certificate)
        return certificate

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.certificate))

    def client(self, *, http2: bool) -> httpx2.AsyncClient:
        """Return a client that keeps one connection."""
        return httpx2.AsyncClient(
            http1=not http2,
            http2=http2,
            verify=self.context(),
            base_url=f"https://localhost:{self.gateway.settings.listener_port}/v1",
            timeout=120,
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
        )

    async def shown(self, **options: ssl.TLSVersion) -> dict[str, str | None]:
        """Make a new connection; return serial number, protocol and version that the gateway chose."""
        context = self.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        for name, value in options.items():
            setattr(context, name, value)
        _, writer = await asyncio.open_connection(
            "localhost", self.gateway.settings.listener_port, ssl=context
        )
        tls = writer.get_extra_info("ssl_object")
        serial = f"{int(tls.getpeercert()['serialNumber'], 16):x}"
        seen = {"serial": serial, "protocol": tls.selected_alpn_protocol(), "version": tls.version()}
        writer.close()
        await writer.wait_closed()
        return seen

    async def wait_shown(self, serial: str) -> None:
        """Wait until new connections see a certificate: workers take it in after it was acknowledged."""
        async with asyncio.timeout(PATIENCE):
            while (await self.shown())["serial"] != serial:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def over_tls(gateway: Gateway, folder: Path, certificate: Certificate | None) -> AsyncIterator[None]:
    """Replace the gateway's Envoy by one whose listener speaks TLS; it may have to wait for its certificate."""
    gateway.settings = replace(gateway.settings, listener_port=free_port(), tls=True)
    gateway.builder = ResourceBuilder(gateway.settings)
    gateway.certificate = certificate
    gateway.offer(table_of(("a", (), 0)))
    await gateway.envoy.stop()
    port = gateway.settings.listener_port
    gateway.envoy = EnvoyProcess(folder, gateway.xds_port, port, node_id="envoy-2")
    await gateway.envoy.start()
    try:
        if certificate is not None:
            await gateway.envoy.wait_ready()
        yield
    finally:
        await gateway.envoy.stop()


@pytest.fixture
def clients(gateway, tmp_path) -> Clients:
    return Clients(CertificateAuthority(tmp_path / "ca"), gateway)


@pytest.fixture
async def secured(gateway, clients, tmp_path) -> AsyncIterator[Gateway]:
    """The gateway over TLS."""
    async with over_tls(gateway, tmp_path, clients.issue("first")):
        yield gateway


@pytest.fixture(params=[False, True], ids=["http1", "http2"])
async def client(request, secured, clients) -> AsyncIterator[httpx2.AsyncClient]:
    async with clients.client(http2=request.param) as made:
        yield made


async def admin(gateway: Gateway, page: str) -> str:
    async with gateway.session.get(f"http://127.0.0.1:{gateway.envoy.admin_port}/{page}") as reply:
        assert reply.status == 200
        return await reply.text()


async def statistic(gateway: Gateway, name: str) -> int:
    page = json.loads(await admin(gateway, f"stats?format=json&filter=^{name}$"))
    (found,) = page["stats"]
    return int(found["value"])


async def test_what_a_client_is_shown(secured, clients):
    seen = await clients.shown()
    assert seen == {"serial": secured.certificate.serial, "protocol": "h2", "version": "TLSv1.3"}
    assert (await clients.shown(maximum_version=ssl.TLSVersion.TLSv1_2))["version"] == "TLSv1.2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_older_versions_and_plain_text_are_refused(secured, clients):
    # OpenSSL offers TLS 1.1 only where its own level of security is lowered.
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(clients.authority.certificate)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        await asyncio.open_connection("localhost", secured.settings.listener_port, ssl=old)
    reader, writer = await asyncio.open_connection("localhost", secured.settings.listener_port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()


async def test_a_new_certificate_interrupts_nothing(client, secured, clients, make_backend):
    backend = await make_backend()
    await secured.apply(table_of(("a", (backend.endpoint,), 0)))
    first, second = secured.certificate, clients.issue("second")
    before = await statistic(secured, "http.gateway.downstream_cx_total")
    async with client.stream("POST", "/chat/completions", json=STREAMED) as answer:
        events = answer.aiter_lines()
        assert "content" in await anext(events)
        secured.certificate = second
        await secured.apply(secured.table)
        await clients.wait_shown(second.serial)
        backend.release.set()
        rest = [line async for line in events if line]
    assert rest[-1] == "data: [DONE]"
    assert "usage" in rest[-2]
    assert first.serial != second.serial
    probes = await statistic(secured, "http.gateway.downstream_cx_total")
    # The client goes on with the connection that it has.
    assert (await client.post("/chat/completions", json={"model": "a"})).status_code == 200
    assert await statistic(secured, "http.gateway.downstream_cx_total") == probes > before
    for name in ("listener_modified", "listener_removed", "total_listeners_draining"):
        assert await statistic(secured, f"listener_manager.{name}") == 0


async def test_a_certificate_that_envoy_refuses_leaves_the_one_before(secured, clients):
    good = secured.certificate
    secured.certificate = replace(clients.issue("second"), chain=good.chain)
    version = secured.offer(secured.table)
    async with asyncio.timeout(PATIENCE):
        await secured.server.wait_applied("envoy-2", version)
    rejected = secured.server.nodes["envoy-2"].last_rejection
    assert rejected is not None
    assert "PRIVATE" not in rejected
    assert (await clients.shown())["serial"] == good.serial


async def test_without_a_certificate_nobody_gets_in_and_then_everybody(gateway, clients, tmp_path):
    async with over_tls(gateway, tmp_path, None):
        await until(lambda: "envoy-2" in gateway.server.nodes)
        await until(lambda: gateway.server.nodes["envoy-2"].acknowledged.keys() >= {ads.protos.CLUSTER})
        with pytest.raises(OSError):
            await asyncio.open_connection("localhost", gateway.settings.listener_port)
        gateway.certificate = clients.issue("first")
        gateway.offer(gateway.table)
        await gateway.envoy.wait_ready()
        assert (await clients.shown())["serial"] == gateway.certificate.serial


async def test_the_key_goes_over_no_connection_that_others_can_read(gateway, clients, tmp_path, monkeypatch):
    monkeypatch.setattr(ads, "_is_loopback", lambda address: False)
    async with over_tls(gateway, tmp_path, None):
        gateway.certificate = clients.issue("first")
        gateway.offer(gateway.table)
        # The listener opens after Envoy's own limit of 15 s, and closes what connects.
        await gateway.envoy.wait_ready(40)
        port = gateway.settings.listener_port
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("localhost", port, ssl=clients.context())
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()


async def test_the_key_stays_out_of_everything_that_is_shown(secured):
    key = "".join(secured.certificate.key.splitlines()[1:-1])
    shown = [await admin(secured, page) for page in ("config_dump?include_eds", "certs", "stats/prometheus")]
    assert secured.certificate.serial in shown[1]
    shown += [path.read_text(errors="replace") for path in secured.folder.glob("envoy-*")]
    shown += [repr(secured.server._resources), repr(secured.certificate)]
    assert [text for text in shown if key[:40] in text or "PRIVATE KEY" in text] == []


async def test_large_bodies_pass(client, secured, make_backend):
    backend = await make_backend()
    await secured.apply(table_of(("a", (backend.endpoint,), 0)))
    image = "x" * 20_000_000
    answer = await client.post("/chat/completions", json={"messages": [image], "model": "a"})
    assert (answer.status_code, answer.json()["model"]) == (200, "served-a")
    assert json.loads(backend.bodies[0])["messages"] == [image]


async def test_bodies_that_are_too_large_are_refused(client, secured, make_backend):
    backend = await make_backend()
    await secured.apply(table_of(("a", (backend.endpoint,), 0)))
    text = "x" * (secured.settings.max_body_bytes + 1)
    answer = await client.post("/chat/completions", json={"messages": [text], "model": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert (await client.post("/chat/completions", json={"model": "a"})).status_code == 200
    assert len(backend.bodies) == 1


async def test_many_requests_wait_on_one_connection(secured, clients, make_backend):
    """All of them arrive, and all are answered once the model serves. The client opens 100 streams at most."""
    backend = await make_backend()
    await secured.apply(table_of(("a", (), 0)))
    async with clients.client(http2=True) as client:
        held = [
            asyncio.create_task(client.post("/chat/completions", json={"model": "a", "n": number}))
            for number in range(90)
        ]
        await secured.wait_waiting({"team/a": 90})
        assert await statistic(secured, "http.gateway.downstream_cx_total") == 1
        secured.offer(table_of(("a", (backend.endpoint,), 0)))
        answers = await asyncio.gather(*held)
    assert {(answer.status_code, answer.http_version) for answer in answers} == {(200, "HTTP/2")}
    assert sorted(json.loads(body)["n"] for body in backend.bodies) == list(range(90))


async def test_a_client_that_leaves_frees_the_engine(client, secured, make_backend):
    backend = await make_backend()
    left = asyncio.Event()
    answer = backend.answer

    async def watched(request):
        try:
            return await answer(request)
        except (asyncio.CancelledError, ConnectionError):
            left.set()
            raise

    backend.answer = watched
    await secured.apply(table_of(("a", (backend.endpoint,), 0)))
    async with client.stream("POST", "/chat/completions", json=STREAMED) as stream:
        assert "content" in await anext(stream.aiter_lines())
    backend.release.set()
    assert (await client.post("/chat/completions", json={"model": "a"})).status_code == 200
