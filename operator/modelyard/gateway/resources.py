"""The gateway's resources in Envoy's own encoding, built from the routing table.

The operator hands over the whole table whenever anything changed, so everything that belongs to one deployment or one
model name is encoded once and kept while it stays the same.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from modelyard.core.certificates import Certificate
from modelyard.core.routing import ExternalUpstream, Picker, RoutingTable, Upstream, parse_cluster_name
from modelyard.gateway import protos
from modelyard.gateway.routeencoder import RouteEncoder
from modelyard.render.envoy.certificates import certificate_secret
from modelyard.render.envoy.clusters import cluster, endpoints
from modelyard.render.envoy.listener import LISTENER, listener
from modelyard.render.envoy.pickers import picker_cluster
from modelyard.render.envoy.providers import provider_cluster, provider_secret
from modelyard.render.envoy.routes import ROUTE_CONFIGURATION
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json

_VERSION_KEY = secrets.token_bytes(16)
"""Keeps the versions of secrets from telling anything about them: Envoy shows versions. They change with every start,
so an Envoy that stays is sent its keys once more."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One named resource as it goes over the wire."""

    name: str
    encoded: bytes = field(repr=False)
    """May hold an API key, or the key of the gateway's certificate."""
    version: str
    """A hash of the content: the same on every start of the operator, so that nothing is sent twice."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that the ADS server offers."""

    version: str
    """A hash of all versions."""
    by_type: Mapping[str, Mapping[str, Resource]]
    """By type URL and name."""
    upstreams: Mapping[str, Upstream]
    """By `namespace/name` of the deployment."""
    settings: GatewaySettings

    @property
    def routes_version(self) -> str:
        """The version of the routes, which are one resource."""
        return self.by_type[protos.ROUTES][ROUTE_CONFIGURATION].version

    def alias(self, name: str) -> tuple[Resource, Resource] | None:
        """Return cluster and endpoints under the name of another generation, or None while the model sleeps.

        A request that began before a generation ended may still ask for its name.
        """
        parsed = parse_cluster_name(name)
        upstream = self.upstreams.get(parsed[0]) if parsed else None
        if parsed is None or upstream is None or not upstream.endpoints:
            return None
        return _alias(replace(upstream, generation=parsed[1]), self.settings)

    def with_upstreams(self, released: Mapping[str, Upstream]) -> "Resources":
        """Return these with clusters and endpoints of upstreams that have pods now, by their names.

        Nothing else is looked at: routes name a sleeping model as they name one that serves.
        """
        pairs = [_pair(upstream, self.settings) for upstream in released.values()]
        by_type = {
            **self.by_type,
            protos.CLUSTER: {**self.by_type[protos.CLUSTER], **_by_name(cluster for cluster, _ in pairs)},
            protos.ENDPOINTS: {**self.by_type[protos.ENDPOINTS], **_by_name(found for _, found in pairs)},
        }
        return Resources(_version(by_type), by_type, {**self.upstreams, **released}, self.settings)


@dataclass(slots=True)
class ResourceBuilder:
    """Builds resources, and keeps what the last table needed."""

    settings: GatewaySettings
    _listener: Resource | None = None
    _clusters: dict[Upstream, Resource] = field(default_factory=dict)
    _externals: dict[ExternalUpstream, Resource] = field(default_factory=dict)
    _pickers: dict[Picker, Resource] = field(default_factory=dict)
    _endpoints: dict[Upstream, Resource] = field(default_factory=dict)
    _route_table: Resource | None = None
    _routes: RouteEncoder = field(init=False)

    def __post_init__(self) -> None:
        """Begin without anything kept."""
        self._routes = RouteEncoder(self.settings)

    def build(
        self,
        table: RoutingTable,
        keys: Mapping[str, str] | None = None,
        certificate: Certificate | None = None,
        tenant_keys: Mapping[str, str] | None = None,
    ) -> Resources:
        """Return the resources of a table.

        `keys` are the API keys of providers by the provider's name, `certificate` is the gateway's own,
        `tenant_keys` are the names of tenants by the SHA-256 digests of their API keys.
        """
        ready = [upstream for upstream in table.upstreams.values() if upstream.endpoints]
        self._endpoints = {up: self._endpoints.get(up) or _endpoints(up) for up in ready}
        bare = [_bare(upstream) for upstream in ready]
        self._clusters = {up: self._clusters.get(up) or _cluster(up, self.settings) for up in bare}
        self._externals = {
            up: self._externals.get(up) or _external(up, self.settings) for up in table.externals.values()
        }
        pickers = {up.picker for up in table.upstreams.values() if up.picker is not None}
        self._pickers = {up: self._pickers.get(up) or _picker(up, self.settings) for up in sorted(pickers)}
        keyed = {up.provider for up in table.externals.values() if up.keyed}
        if self._listener is None:
            self._listener = _resource(LISTENER, protos.LISTENER, listener(self.settings))
        by_type = {
            protos.CLUSTER: _by_name(
                [*self._clusters.values(), *self._externals.values(), *self._pickers.values()]
            ),
            protos.SECRET: _by_name(
                [
                    *(
                        _secret(provider_secret(provider, key))
                        for provider, key in (keys or {}).items()
                        if provider in keyed
                    ),
                    *([_secret(certificate_secret(certificate))] if certificate is not None else ()),
                ]
            ),
            protos.ENDPOINTS: _by_name(self._endpoints.values()),
            protos.LISTENER: {LISTENER: self._listener},
            protos.ROUTES: {ROUTE_CONFIGURATION: self._route_configuration(table, tenant_keys or {})},
        }
        return Resources(_version(by_type), by_type, dict(table.upstreams), self.settings)

    def _route_configuration(self, table: RoutingTable, tenant_keys: Mapping[str, str]) -> Resource:
        encoded = self._routes.encode(table, tenant_keys)
        if self._route_table is None or self._route_table.encoded is not encoded:
            self._route_table = _encoded(ROUTE_CONFIGURATION, encoded)
        return self._route_table


def build_resources(
    table: RoutingTable,
    settings: GatewaySettings,
    keys: Mapping[str, str] | None = None,
    tenant_keys: Mapping[str, str] | None = None,
) -> Resources:
    """Return the resources of one table; a `ResourceBuilder` is faster for a series of them."""
    return ResourceBuilder(settings).build(table, keys, tenant_keys=tenant_keys)


@lru_cache(maxsize=4096)
def _alias(upstream: Upstream, settings: GatewaySettings) -> tuple[Resource, Resource]:
    """Return cluster and endpoints; kept, because every push of every stream asks for its aliases."""
    return _cluster(upstream, settings), _endpoints(upstream)


def _bare(upstream: Upstream) -> Upstream:
    """Return what the cluster is built from, which is the same while pods come and go."""
    return replace(upstream, endpoints=(), asks_picker=True)


def _pair(upstream: Upstream, settings: GatewaySettings) -> tuple[Resource, Resource]:
    return _cluster(_bare(upstream), settings), _endpoints(upstream)


def _cluster(upstream: Upstream, settings: GatewaySettings) -> Resource:
    return _resource(upstream.cluster, protos.CLUSTER, cluster(upstream, settings))


def _external(upstream: ExternalUpstream, settings: GatewaySettings) -> Resource:
    return _resource(upstream.cluster, protos.CLUSTER, provider_cluster(upstream, settings))


def _picker(picker: Picker, settings: GatewaySettings) -> Resource:
    return _resource(picker.cluster, protos.CLUSTER, picker_cluster(picker, settings))


def _secret(value: Json) -> Resource:
    encoded = protos.encode(protos.SECRET, value)
    return Resource(value["name"], encoded, _hash(_VERSION_KEY + encoded))


def _endpoints(upstream: Upstream) -> Resource:
    return _resource(upstream.cluster, protos.ENDPOINTS, endpoints(upstream))


def _resource(name: str, type_url: str, value: Json) -> Resource:
    return _encoded(name, protos.encode(type_url, value))


def _encoded(name: str, encoded: bytes) -> Resource:
    return Resource(name, encoded, _hash(encoded))


def _by_name(resources: Iterable[Resource]) -> dict[str, Resource]:
    return {resource.name: resource for resource in resources}


def _version(by_type: Mapping[str, Mapping[str, Resource]]) -> str:
    versions = sorted(
        f"{type_url} {resource.name} {resource.version}"
        for type_url, resources in by_type.items()
        for resource in resources.values()
    )
    return _hash("\n".join(versions).encode())


def _hash(content: bytes) -> str:
    # 64 bits are plenty to tell versions of one resource apart.
    return hashlib.sha256(content).hexdigest()[:16]
