"""TLS between Envoy and the operator: who is served, who is refused, and what a renewal costs (nothing)."""

import asyncio
import datetime as dt
import ssl
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from cryptography import x509

from dev.cluster.mounted_secret import MountedSecret
from dev.envoy.process import EnvoyProcess, free_port
from modelyard.core.limits.account import Limits
from modelyard.core.routing import RoutingTable, Tenant
from modelyard.gateway import ads, authority, protos
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.authority import Files, renew
from modelyard.gateway.ratelimit import limit_service
from modelyard.gateway.tls import ServerTls
from modelyard.render.envoy.control_plane import ControlPlaneTls
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.runtime.limits import LimitBook
from tests.gateway.conftest import PATIENCE, Gateway, table_of, until
from tests.gateway.test_providers import KEY, external, provider, table_to

__all__ = ["provider"]

NAME = "modelyard-xds.modelyard-system.svc"


def issue(name: str = NAME) -> tuple[Files, Files]:
    """Return the files of the operator and of the gateway, of an authority of their own."""
    server, client = renew(None, None, name, dt.datetime.now(dt.UTC))
    assert client is not None
    return server, client


@dataclass
class Relay:
    """Passes connections on, and cuts them."""

    to: int
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    accepted: int = 0

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        reader_on, writer_on = await asyncio.open_connection("127.0.0.1", self.to)
        self.writers += [writer, writer_on]
        await asyncio.gather(pass_on(reader, writer_on), pass_on(reader_on, writer))

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


@dataclass
class Secured(Gateway):
    """A gateway whose Envoy and operator show each other certificates, over a relay."""

    tls: ServerTls | None = None
    mounted: MountedSecret | None = None
    relay: Relay | None = None

    async def stat(self, name: str) -> int:
        """Return one of Envoy's own counters; 0 while it is not there."""
        url = f"http://127.0.0.1:{self.envoy.admin_port}/stats?filter=^{name.replace('.', '[.]')}$"
        try:
            async with self.session.get(url) as reply:
                text = await reply.text()
        except aiohttp.ClientError:
            return 0
        return int(text.partition(": ")[2] or 0)

    async def wait_stat(self, name: str, least: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.stat(name) < least:
                await asyncio.sleep(0.02)


@pytest.fixture
async def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Secured]:
    """An Envoy that knows the operator, and is not started yet. Loopback counts for nothing."""
    monkeypatch.setattr(ads, "_is_loopback", lambda address: False)
    server_files, client_files = issue()
    limits, tls = LimitBook(), ServerTls(server_files)
    server = AdsServer(lambda *_: None, [limit_service(limits)])
    xds_port = await server.start("127.0.0.1", 0, tls)
    relay = Relay(xds_port)
    listener = await asyncio.start_server(relay.connect, "127.0.0.1", 0)
    relay.port = listener.sockets[0].getsockname()[1]
    mounted = MountedSecret(tmp_path / "mounted")
    mounted.write(client_files.data())
    settings = replace(GatewaySettings(), listener_address="127.0.0.1", listener_port=free_port())
    envoy = EnvoyProcess(
        tmp_path,
        relay.port,
        settings.listener_port,
        xds_tls=ControlPlaneTls(str(mounted.folder), NAME, str(tmp_path)),
    )
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Secured(
            tmp_path,
            settings,
            server,
            envoy,
            xds_port,
            [],
            session,
            limits=limits,
            tls=tls,
            mounted=mounted,
            relay=relay,
        )
    await envoy.stop()
    listener.close()
    relay.cut()
    await listener.wait_closed()
    await server.stop()


async def start(secured: Secured, table: RoutingTable) -> None:
    secured.offer(table)
    await secured.envoy.start()
    await secured.envoy.wait_ready()
    await secured.apply(table)


async def test_keys_and_limits_go_over_the_encrypted_connection(secured, provider):
    secured.keys = {"acme": KEY}
    secured.tenant_keys = {"sk-small-0123456789abcdef": "small"}
    limited = replace(table_to(external(provider)), tenants={"small": Tenant(limits=Limits(requests=1))})
    await start(secured, limited)
    headers = {"authorization": "Bearer sk-small-0123456789abcdef"}
    assert (await secured.post({"model": "chat"}, headers=headers))[0] == 200
    assert provider.received[0].headers["authorization"] == f"Bearer {KEY}"
    assert secured.server.plain is False
    # The rate limit service is asked on the same connection.
    assert (await secured.post({"model": "chat"}, headers=headers))[0] == 429
    assert await secured.stat("cluster.control_plane.ssl.handshake") >= 1
    key_lines = issue()[1].key.splitlines()[:1]
    shown = (secured.folder / "envoy-1.json").read_text() + secured.envoy.log_file.read_text()
    assert not any(line in shown for line in key_lines), "the bootstrap names files and holds no key"


@pytest.mark.parametrize(
    ("counter", "files"),
    [
        ("fail_verify_error", lambda: issue()),
        ("fail_verify_san", lambda: issue("another-name.example")),
    ],
    ids=["another authority", "another name"],
)
async def test_envoy_refuses_an_operator_that_is_another(secured, counter, files):
    server, client = files()
    secured.tls.replace(server)
    if counter == "fail_verify_san":
        secured.mounted.write(client.data())
    secured.offer(RoutingTable(anonymous=True))
    await secured.envoy.start()
    await secured.wait_stat(f"cluster.control_plane.ssl.{counter}", 2)
    assert secured.server.nodes == {}
    assert secured.server.plain is None


async def ask(port: int, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """Ask the operator for clusters as Envoy does; returns OK if there is an answer, else why there is none."""
    request = protos.message_class(protos.DELTA_REQUEST)
    response = protos.message_class(protos.DELTA_RESPONSE)
    options = (("grpc.ssl_target_name_override", NAME),)
    channel = (
        grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)
        if credentials
        else grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    )
    async with channel:
        method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
        call = channel.stream_stream(method, request.SerializeToString, response.FromString)()
        message: protos.DynamicMessage = request(type_url=protos.CLUSTER)
        message.node.id = "a"
        try:
            await call.write(message)
            async with asyncio.timeout(PATIENCE):
                assert (await call.read()).type_url == protos.CLUSTER
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return await call.code()
        return grpc.StatusCode.OK


def credentials(trust: Files, own: Files | None) -> grpc.ChannelCredentials:
    if own is None:
        return grpc.ssl_channel_credentials(trust.authorities.encode())
    return grpc.ssl_channel_credentials(trust.authorities.encode(), own.key.encode(), own.chain.encode())


async def test_the_operator_serves_certificates_of_the_gateway_alone(secured):
    server, client = issue()
    stranger = issue()[1]
    secured.tls.replace(server)
    secured.offer(RoutingTable(anonymous=True))
    uri = (x509.UniformResourceIdentifier("spiffe://modelyard.dev/another"),)
    another = authority._sign(client, server, "another", uri, dt.datetime.now(dt.UTC))
    shown = {
        "the gateway's": credentials(client, client),
        "none": credentials(client, None),
        "of another authority": credentials(client, stranger),
        "of the operator itself": credentials(client, server),
        "for something else": credentials(client, another),
        "no TLS": None,
    }
    unavailable = grpc.StatusCode.UNAVAILABLE
    assert {name: await ask(secured.xds_port, item) for name, item in shown.items()} == {
        "the gateway's": grpc.StatusCode.OK,
        "none": unavailable,
        "of another authority": unavailable,
        "of the operator itself": unavailable,
        "for something else": grpc.StatusCode.UNAUTHENTICATED,
        "no TLS": unavailable,
    }
    assert set(secured.server.nodes) == {"a"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions_before_tls_1_2_are_refused(secured, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Else OpenSSL does not even try the old ones.
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    folder = secured.mounted.folder
    context.load_verify_locations(folder / "ca.crt")
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.set_alpn_protocols(["h2"])
    connection = asyncio.open_connection(
        "127.0.0.1", secured.xds_port, ssl=context, server_hostname=NAME, ssl_handshake_timeout=20
    )
    if version is ssl.TLSVersion.TLSv1_1:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await connection
        return
    _, writer = await connection
    assert writer.get_extra_info("ssl_object").version() == version.name.replace("v1_", "v1.")
    writer.transport.abort()


async def test_a_renewal_needs_no_restart_and_loses_no_request(secured, make_backend):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0))
    await start(secured, table)
    pid, statuses, over = secured.envoy.pid, [], asyncio.Event()

    async def client() -> None:
        while not over.is_set():
            statuses.append((await secured.post({"model": "a"}))[0])

    clients = [asyncio.create_task(client()) for _ in range(4)]
    # Everything is new, also the authority: nothing of before opens a connection any more.
    server, gateway = issue()
    before = await secured.stat("cluster.control_plane.client_ssl_socket_factory.ssl_context_update_by_sds")
    secured.tls.replace(server)
    secured.mounted.write(gateway.data())
    await secured.wait_stat(
        "cluster.control_plane.client_ssl_socket_factory.ssl_context_update_by_sds", before + 2
    )
    handshakes = await secured.stat("cluster.control_plane.ssl.handshake")
    assert secured.server.nodes["envoy-1"].connected, "the open connection stays"
    connected = secured.relay.accepted
    secured.relay.cut()
    await until(lambda: not secured.server.nodes["envoy-1"].connected)
    await until(lambda: secured.server.nodes["envoy-1"].connected)
    assert secured.relay.accepted > connected
    await secured.wait_stat("cluster.control_plane.ssl.handshake", handshakes + 1)

    # And what the operator says still arrives.
    other = await make_backend()
    count = len(statuses)
    await secured.apply(table_of(("a", (other.endpoint,), 0)))
    await until(lambda: other.bodies and len(statuses) > count + 20)
    over.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert secured.envoy.pid == pid
