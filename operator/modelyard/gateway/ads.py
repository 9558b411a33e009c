"""The delta ADS server: feeds every Envoy of the gateway, and hears from them which sleeping model is wanted.

No state is kept outside the process: an Envoy that reconnects says what it has, versions are content hashes, and so a
restarted operator sends nothing that Envoy already knows.
"""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

import grpc
import grpc.aio

from modelyard.core.routing import parse_cluster_name
from modelyard.gateway import protos
from modelyard.gateway.resources import Resources
from modelyard.gateway.streams import WILDCARD, OnDemand, Stream
from modelyard.gateway.tls import GatewayOnly, ServerTls
from modelyard.render.envoy.bootstrap import STATS_PORT_KEY

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

_CLUSTER_SERVICE = "envoy.service.cluster.v3.ClusterDiscoveryService"

_GRPC_OPTIONS = (
    # Bytes. A reconnecting Envoy lists every resource it has; gRPC's default is 4 MiB.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Milliseconds. Envoy pings every 10 s, also when nothing is sent; gRPC would call that abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # A vanished Envoy is noticed within 45 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Node:
    """One Envoy."""

    id: str
    address: str = ""
    """IP address that its ADS stream comes from."""
    stats_port: int | None = None
    """Port of its counters; None if its bootstrap does not say."""
    connected: bool = False
    stream: Stream | None = None
    """State of the current, or the last, stream."""

    @property
    def acknowledged(self) -> dict[str, str]:
        """Version of the resources that it last accepted, by type URL."""
        return dict(self.stream.acknowledged) if self.stream else {}

    @property
    def routes(self) -> str:
        """Version of the routes that it has, as far as it has said; empty before it has any."""
        return self.stream.routes if self.stream else ""

    @property
    def routes_rejected(self) -> bool:
        """Whether it has refused all routes that it was sent since it took those."""
        return self.stream is not None and self.stream.routes_rejected

    @property
    def rejections(self) -> int:
        """Responses that it rejected on this stream."""
        return self.stream.rejections if self.stream else 0

    @property
    def last_rejection(self) -> str | None:
        """Why it rejected the last of them."""
        return self.stream.last_rejection if self.stream else None


@dataclass(slots=True, eq=False)
class _Connection:
    stream: Stream
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class AdsServer:
    """Serves the resources of the gateway to its Envoys, and other services that they ask, on the same connection.

    All methods belong to one event loop.
    """

    def __init__(self, on_demand: OnDemand, services: Iterable[grpc.GenericRpcHandler] = ()) -> None:
        self._on_demand = on_demand
        self._services = tuple(services)
        self._resources: Resources | None = None
        self._connections: set[_Connection] = set()
        self._nodes: dict[str, Node] = {}
        self._waiting: dict[str, set[str]] = {}
        """Names of clusters that each Envoy has asked for because requests wait, while it is connected."""
        self._server: grpc.aio.Server | None = None
        self._encrypted = False
        self._offered = asyncio.Event()
        self._progress = asyncio.Condition()

    def add_service(self, service: grpc.GenericRpcHandler) -> None:
        """Serve this too. To be called before the start."""
        self._services = (*self._services, service)

    @property
    def nodes(self) -> dict[str, Node]:
        """Every Envoy that was connected since the start or since it was forgotten, by its id."""
        return dict(self._nodes)

    @property
    def plain(self) -> bool | None:
        """Whether an Envoy is connected that gets no keys, because others could listen; None: none is connected."""
        streams = [node.stream for node in self._nodes.values() if node.connected and node.stream is not None]
        return any(not stream.confidential for stream in streams) if streams else None

    @property
    def generations(self) -> dict[str, int]:
        """Highest generation of each deployment that any Envoy has or asked for.

        After a restart the operator must not go below it: an Envoy never asks twice for one name.
        """
        highest: dict[str, int] = {}
        for connection in self._connections:
            subscription = connection.stream.subscriptions.get(protos.CLUSTER)
            if subscription is None:
                continue
            for name in subscription.names | subscription.sent.keys():
                if (parsed := parse_cluster_name(name)) is not None:
                    highest[parsed[0]] = max(parsed[1], highest.get(parsed[0], 0))
        return highest

    async def start(self, host: str, port: int, tls: ServerTls | None = None) -> int:
        """Listen and return the port (port 0 picks a free one). With TLS only Envoys of the gateway are served.

        Raises RuntimeError if the address cannot be bound.
        """
        request = protos.message_class(protos.DELTA_REQUEST)
        response = protos.message_class(protos.DELTA_RESPONSE)
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        waiting = grpc.stream_stream_rpc_method_handler(
            self._serve_waiting,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        interceptors = [GatewayOnly()] if tls is not None else []
        server = grpc.aio.server(options=_GRPC_OPTIONS, interceptors=interceptors)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(_SERVICE, {"DeltaAggregatedResources": handler}),
                grpc.method_handlers_generic_handler(_CLUSTER_SERVICE, {"DeltaClusters": waiting}),
                *self._services,
            )
        )
        address = f"{host}:{port}"
        bound = (
            server.add_secure_port(address, tls.credentials())
            if tls is not None
            else server.add_insecure_port(address)
        )
        await server.start()
        self._server = server
        self._encrypted = tls is not None
        return int(bound)

    async def stop(self) -> None:
        """Close all streams and stop listening. Envoys keep serving with what they have."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    def set_resources(self, resources: Resources) -> None:
        """Offer these resources from now on; each Envoy is sent what differs for it.

        Before the first call connected Envoys get no answer, so a restarting operator never empties them.
        """
        self._resources = resources
        self._offered.set()
        for connection in self._connections:
            connection.wake.set()

    def forget(self, node_id: str) -> None:
        """Drop a disconnected Envoy that will not come back."""
        node = self._nodes.get(node_id)
        if node is not None and not node.connected:
            del self._nodes[node_id]

    async def wait_applied(self, node_id: str, version: str) -> None:
        """Wait until an Envoy has answered everything up to a resource version.

        An Envoy that rejects something is done too; one that is not there, or that never asks for a type, is waited
        for without a limit.
        """

        def applied() -> bool:
            node = self._nodes.get(node_id)
            stream = node.stream if node is not None and node.connected else None
            if stream is None or self._resources is None or self._resources.version != version:
                return False
            # A reconnecting Envoy asks for one type after the other.
            offered = {type_url for type_url, resources in self._resources.by_type.items() if resources}
            return (
                stream.pushed == version
                and not stream.unacknowledged
                and offered <= stream.subscriptions.keys()
            )

        async with self._progress:
            await self._progress.wait_for(applied)

    async def _serve(
        self, requests: AsyncIterator[protos.DynamicMessage], context: grpc.aio.ServicerContext
    ) -> None:
        """Serve one stream: a reader takes requests in, this loop pushes."""
        connection = _Connection(Stream(demand=self._on_demand))
        self._connections.add(connection)
        reader = asyncio.create_task(self._read(connection, requests, context.peer()))
        reader.add_done_callback(lambda _: connection.wake.set())
        try:
            while not reader.done():
                await connection.wake.wait()
                connection.wake.clear()
                if self._resources is None:
                    continue
                for response in connection.stream.push(self._resources):
                    await context.write(response)
                await self._notify()
        finally:
            reader.cancel()
            self._connections.discard(connection)
            node = self._nodes.get(connection.stream.node_id)
            if node is not None and node.stream is connection.stream:
                node.connected = False
                logger.warning("Envoy %s disconnected", node.id)
            # Raises what the reader ran into, so that it is logged; the end of a stream is no error.
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _read(
        self, connection: _Connection, requests: AsyncIterator[protos.DynamicMessage], peer: str
    ) -> None:
        stream = connection.stream
        async for request in requests:
            if not stream.node_id:
                self._connect(stream, request.node, peer)
            await self._offered.wait()
            assert self._resources is not None  # noqa: S101  (set before the event)
            known = protos.CLUSTER in stream.subscriptions
            stream.receive(request, self._resources)
            if not known and protos.CLUSTER in stream.subscriptions:
                self._ask(connection, self._waiting.get(stream.node_id, ()), reconnected=True)
            connection.wake.set()
            await self._notify()

    async def _serve_waiting(
        self, requests: AsyncIterator[protos.DynamicMessage], _: grpc.aio.ServicerContext
    ) -> None:
        """Hear which clusters requests wait for. They are sent with all others, so nothing is answered here."""
        node_id = ""
        names: set[str] = set()
        try:
            async for request in requests:
                first = not node_id
                node_id = node_id or request.node.id
                asked = set(request.resource_names_subscribe) - {WILDCARD}
                names |= asked
                self._waiting[node_id] = names
                connection = self._find_connection(node_id)
                if connection is not None:
                    # Two names in the first request: Envoy was here before, and lists all that it ever asked for.
                    self._ask(connection, asked, reconnected=first and len(asked) > 1)
        finally:
            if self._waiting.get(node_id) is names:
                del self._waiting[node_id]

    def _find_connection(self, node_id: str) -> _Connection | None:
        """Return the ADS stream of an Envoy that has asked for clusters, and so can be sent some."""
        for connection in self._connections:
            stream = connection.stream
            if stream.node_id == node_id and protos.CLUSTER in stream.subscriptions:
                return connection
        return None

    def _ask(self, connection: _Connection, names: Iterable[str], *, reconnected: bool) -> None:
        if names and self._resources is not None:
            connection.stream.ask(names, self._resources, reconnected=reconnected)
            connection.wake.set()

    def _connect(self, stream: Stream, identity: protos.DynamicMessage, peer: str) -> None:
        stream.node_id = identity.id
        node = self._nodes.setdefault(identity.id, Node(identity.id))
        fields = identity.metadata.fields
        node.stats_port = int(fields[STATS_PORT_KEY].number_value) if STATS_PORT_KEY in fields else None
        node.address = _peer_address(peer)
        node.connected = True
        node.stream = stream
        if node.stats_port is not None:
            # Its address has another Envoy now: whoever reads it there would count for both.
            for other in [item for item in self._nodes.values() if item is not node]:
                if (other.address, other.stats_port) == (node.address, node.stats_port):
                    self.forget(other.id)
        stream.confidential = self._encrypted or _is_loopback(node.address)
        logger.info("Envoy %s connected from %s", node.id, node.address)

    async def _notify(self) -> None:
        async with self._progress:
            self._progress.notify_all()


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _peer_address(peer: str) -> str:
    """Return the IP address in gRPC's name of a peer, for example `ipv4:10.0.0.7:5123` or `ipv6:%5Bfd00::7%5D:5123`."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0]
    return host.strip("[]")
