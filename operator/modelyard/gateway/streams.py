"""What one Envoy has, wants and waits for: the delta xDS protocol without its transport.

Protocol: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#incremental-xds

A push goes make-before-break: clusters, then their secrets and endpoints, then listeners, then routes; a cluster goes
away only after Envoy has acknowledged the routes that no longer name it.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from modelyard.core.routing import parse_cluster_name
from modelyard.gateway import protos
from modelyard.gateway.protos import DynamicMessage
from modelyard.gateway.resources import Resource, Resources
from modelyard.render.envoy.routes import ROUTE_CONFIGURATION

WILDCARD = "*"
"""The name that stands for "all resources of this type"."""

PUSH_ORDER = (protos.CLUSTER, protos.SECRET, protos.ENDPOINTS, protos.LISTENER, protos.ROUTES)
"""Make before break."""

_WILDCARD_TYPES = (protos.CLUSTER, protos.LISTENER)
"""Types that Envoy wants all resources of."""

logger = logging.getLogger(__name__)

OnDemand = Callable[[str, int, str], None]
"""Called in the event loop with deployment, generation and node id: a request waits for this sleeping model."""


@dataclass(slots=True)
class Subscription:
    """The subscription to one type of resource."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    """Versions by name that Envoy has, or that are on their way."""

    answered: bool = False
    """Whether a response was sent, be it an empty one."""

    def wants(self, name: str) -> bool:
        """Whether a resource with this name is to be sent."""
        return self.wildcard or name in self.names


@dataclass(slots=True)
class Stream:
    """The state of one ADS stream."""

    demand: OnDemand
    confidential: bool = False
    """Whether nobody can listen: only then is Envoy sent API keys and the key of its certificate. Without them no
    request goes to a provider, and no client gets in over TLS."""
    node_id: str = ""
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    """Cluster names asked for by name that do not exist (yet): requests wait for them."""
    retired: set[str] = field(default_factory=set)
    """Names of the generation before the current one that were asked for by name. Envoy does not ask again, so a
    request may wait for such a name unnoticed: it was still being sent when the generation ended."""
    aliases: dict[str, tuple[Resource, Resource]] = field(default_factory=dict)
    """Pending and retired names whose model serves under another generation: cluster and endpoints."""
    unacknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Type URL and version by nonce."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Version of the last accepted response by type URL."""
    rejections: int = 0
    last_rejection: str | None = None
    routes: str = ""
    """Version of the routes that Envoy has, as far as it has said; empty before it has any."""
    routes_rejected: bool = False
    """Whether it has refused all routes that it was sent since."""
    pushed: str = ""
    """Version of the resources that were last pushed; empty while a request is not answered yet."""
    _routes_nonce: str = ""
    """Nonce of the last routes while Envoy has not accepted them."""
    _routes_sent: dict[str, str] = field(default_factory=dict)
    """Versions of routes that Envoy has not answered yet, by nonce."""
    _nonces: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def receive(self, request: DynamicMessage, resources: Resources) -> None:
        """Take in one `DeltaDiscoveryRequest`."""
        type_url = request.type_url
        self.pushed = ""
        first = type_url not in self.subscriptions
        subscription = self.subscriptions.setdefault(type_url, Subscription())
        if request.response_nonce:
            self._acknowledge(request)
        subscribed = set(request.resource_names_subscribe)
        if first:
            subscription.sent.update(request.initial_resource_versions)
            if type_url == protos.ROUTES:
                self.routes = request.initial_resource_versions.get(ROUTE_CONFIGURATION, "")
            # The protocol's older form of a wildcard: a first request without names.
            subscription.wildcard = not subscribed and type_url in _WILDCARD_TYPES
        if WILDCARD in subscribed:
            subscription.wildcard = True
            subscribed.discard(WILDCARD)
        subscription.names |= subscribed
        if first and type_url == protos.SECRET and not self.confidential:
            logger.warning(
                "Envoy %s gets no API keys of providers and no certificate: its connection is neither encrypted nor on "
                "loopback",
                self.node_id,
            )
        if not first:
            # Asked for again by name: the answer is due even if a wildcard brought the resource before.
            for name in subscribed:
                subscription.sent.pop(name, None)
        if type_url == protos.CLUSTER:
            self._find_demand(subscribed, resources, reconnected=first)
        self._unsubscribe(subscription, request.resource_names_unsubscribe)

    def ask(self, names: Iterable[str], resources: Resources, *, reconnected: bool) -> None:
        """Take in the names of clusters that requests wait for, which come on a stream of their own."""
        asked = set(names)
        self.subscriptions[protos.CLUSTER].names |= asked
        self.pushed = ""
        self._find_demand(asked, resources, reconnected=reconnected)

    def push(self, resources: Resources) -> Iterator[DynamicMessage]:
        """Yield the `DeltaDiscoveryResponse`s that bring Envoy up to date."""
        self._find_aliases(resources)
        offered = {
            **resources.by_type,
            protos.CLUSTER: self._with_aliases(resources.by_type[protos.CLUSTER], 0),
            protos.ENDPOINTS: self._with_aliases(resources.by_type[protos.ENDPOINTS], 1),
        }
        for type_url in PUSH_ORDER:
            subscription = self.subscriptions.get(type_url)
            if subscription is None or (type_url == protos.SECRET and not self.confidential):
                continue
            available = offered[type_url]
            changed = [
                resource
                for name, resource in available.items()
                if subscription.wants(name) and subscription.sent.get(name) != resource.version
            ]
            if type_url == protos.CLUSTER:
                self._renew_endpoints(resource.name for resource in changed)
            removed: list[str] = []
            if type_url == protos.LISTENER:
                removed = [name for name in subscription.sent if name not in available]
            # An Envoy that starts waits for its clusters, also where there are none (else 15 s, its
            # `initial_fetch_timeout`).
            empty = subscription.wildcard and not subscription.answered and not subscription.sent
            if changed or removed or empty:
                yield self._response(type_url, changed, removed, resources.version)
        yield from self._remove_clusters(offered[protos.CLUSTER], resources)
        self.pushed = resources.version

    def _acknowledge(self, request: DynamicMessage) -> None:
        type_url, version = self.unacknowledged.pop(request.response_nonce, (request.type_url, ""))
        routes = self._routes_sent.pop(request.response_nonce, None)
        if routes is not None:
            self.routes_rejected = request.HasField("error_detail")
            self.routes = self.routes if self.routes_rejected else routes
        if request.HasField("error_detail"):
            self.rejections += 1
            # What Envoy says of a secret may hold a part of it.
            said = (
                "(not shown: it may quote a key)"
                if type_url == protos.SECRET
                else request.error_detail.message
            )
            self.last_rejection = f"{type_url}: {said}"
            logger.error("Envoy %s rejected %s", self.node_id, self.last_rejection)
        elif version:
            self.acknowledged[type_url] = version
            if request.response_nonce == self._routes_nonce:
                self._routes_nonce = ""

    def _find_demand(self, names: Iterable[str], resources: Resources, *, reconnected: bool) -> None:
        """Report the sleeping models among clusters that were asked for by name.

        On a live stream Envoy asks because a request waits. After a reconnect it lists every name that it ever
        asked for: only the current generation, or a later one that this operator does not know yet, is demand.
        """
        clusters = resources.by_type[protos.CLUSTER]
        for name in names:
            parsed = parse_cluster_name(name)
            if parsed is None or name in clusters:
                continue
            deployment, generation = parsed
            upstream = resources.upstreams.get(deployment)
            if reconnected and upstream is not None and generation < upstream.generation:
                self.retired.add(name)
                continue
            self.pending.add(name)
            if upstream is None or not upstream.endpoints:
                self.demand(deployment, generation, self.node_id)

    def _unsubscribe(self, subscription: Subscription, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                subscription.wildcard = False
            subscription.names.discard(name)
            if not subscription.wants(name):
                subscription.sent.pop(name, None)

    def _find_aliases(self, resources: Resources) -> None:
        """Find the names of other generations under which requests may wait for a model that serves now."""
        clusters = resources.by_type[protos.CLUSTER]
        self.pending -= clusters.keys()
        self.retired = {name for name in self.retired if _is_previous(name, resources)} - self.pending
        candidates = self.pending | self.retired | self.aliases.keys()
        self.aliases = {
            name: pair for name in candidates - clusters.keys() if (pair := resources.alias(name)) is not None
        }
        self.pending -= self.aliases.keys()

    def _with_aliases(self, resources: Mapping[str, Resource], part: int) -> Mapping[str, Resource]:
        if not self.aliases:
            return resources
        return {**resources, **{name: pair[part] for name, pair in self.aliases.items()}}

    def _renew_endpoints(self, clusters: Iterable[str]) -> None:
        """Mark endpoints of changed clusters to be sent again: without them the new cluster never gets warm."""
        subscription = self.subscriptions.get(protos.ENDPOINTS)
        if subscription is not None:
            for name in clusters:
                subscription.sent.pop(name, None)

    def _remove_clusters(
        self, clusters: Mapping[str, Resource], resources: Resources
    ) -> Iterator[DynamicMessage]:
        """Yield the removal of clusters, once Envoy has the routes that do not name them any more."""
        subscription = self.subscriptions.get(protos.CLUSTER)
        routes = self.subscriptions.get(protos.ROUTES)
        if subscription is None or routes is None or self._routes_nonce:
            return
        current = {name: resource.version for name, resource in resources.by_type[protos.ROUTES].items()}
        if routes.sent != current:
            return
        removed = [name for name in subscription.sent if name not in clusters]
        if removed:
            self.retired |= subscription.names.intersection(removed)
            yield self._response(protos.CLUSTER, [], removed, resources.version)

    def _response(
        self, type_url: str, changed: list[Resource], removed: list[str], version: str
    ) -> DynamicMessage:
        subscription = self.subscriptions[type_url]
        nonce = str(next(self._nonces))
        response: DynamicMessage = protos.message_class(protos.DELTA_RESPONSE)()
        response.type_url = type_url
        response.system_version_info = version
        response.nonce = nonce
        response.removed_resources.extend(removed)
        for resource in changed:
            entry = response.resources.add()
            entry.name = resource.name
            entry.version = resource.version
            entry.resource.type_url = type_url
            entry.resource.value = resource.encoded
            subscription.sent[resource.name] = resource.version
            if type_url == protos.ROUTES:
                self._routes_sent[nonce] = resource.version
        for name in removed:
            del subscription.sent[name]
        subscription.answered = True
        self.unacknowledged[nonce] = (type_url, version)
        if type_url == protos.ROUTES:
            self._routes_nonce = nonce
        return response


def _is_previous(name: str, resources: Resources) -> bool:
    """Whether a cluster name is of the generation before the current one."""
    parsed = parse_cluster_name(name)
    upstream = resources.upstreams.get(parsed[0]) if parsed else None
    return parsed is not None and upstream is not None and parsed[1] == upstream.generation - 1
