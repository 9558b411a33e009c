"""Where a model name may go: the table that the gateway is configured from.

Data only. `build_routing_table` in `core/names.py` derives it from a snapshot; `render/envoy` turns it into Envoy
resources. A deployment without ready endpoints has no cluster in Envoy: its requests are held by on-demand CDS. A
provider always has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.core.limits.account import Limits

EXTERNAL_PREFIX = "provider:"
"""Begins the keys of providers' models."""


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One serving pod: IP address and port."""

    address: str
    port: int
    weight: int = 1
    """Share of the requests, among pods that answer different numbers of them: 1 to 128, Envoy's bound."""


PICKER_PREFIX = "picker:"
"""Begins the names of the Envoy clusters of endpoint pickers."""


@dataclass(frozen=True, slots=True, order=True)
class Picker:
    """A service that chooses the replica of each request (endpoint picker)."""

    host: str
    """DNS name of its Service."""
    port: int

    @property
    def cluster(self) -> str:
        """The Envoy cluster name; no deployment can have it, because namespaces have no colon."""
        return f"{PICKER_PREFIX}{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The serving pods of one `LLMDeployment`, under one generation of its cluster name.

    Envoy never asks again for a cluster name it already asked for, so every scale to zero starts a new generation:
    only a new name can wake the model again.
    """

    deployment: str
    """`namespace/name` of the LLMDeployment."""
    generation: int
    """Raised by one whenever the last ready endpoint goes away."""
    model: str
    """The model name that the engine answers to; the gateway writes it into the request body."""
    endpoints: tuple[Endpoint, ...] = ()
    """Pods that are Ready and not terminating, sorted. Empty: no cluster, requests are held."""
    asks_usage: bool = True
    """Whether requests for streams ask for the usage where the client did not."""
    affinity: bool = False
    """Whether requests that begin alike go to the same pod. False: each goes to the least busy one."""
    picker: Picker | None = None
    """Who chooses the pod instead."""
    asks_picker: bool = True
    """False: the picker does not answer, and requests go where they would go without it."""

    @property
    def cluster(self) -> str:
        """The Envoy cluster name."""
        return cluster_name(self.deployment, self.generation)


@dataclass(frozen=True, slots=True)
class ExternalUpstream:
    """One model of an `LLMProvider`, reached over TLS.

    The API key is no part of it: keys go to Envoy by themselves and stay out of every table.
    """

    provider: str
    """Name of the LLMProvider."""
    model: str
    """The name that the provider knows the model by; the gateway writes it into the request body."""
    host: str
    """DNS name that is resolved, named in the TLS handshake and checked against the server's certificate."""
    port: int = 443
    path: str = ""
    """What takes the place of the gateway's `/v1`: empty, or begins with a slash and ends without one."""
    keyed: bool = True
    """Whether an API key is sent."""
    asks_usage: bool = True
    """Whether requests for streams ask for the usage where the client did not."""
    trust: str | None = None
    """PEM certificates that the server's is checked with. None: the public ones of the gateway's system."""

    @property
    def cluster(self) -> str:
        """The Envoy cluster name; no deployment can have it, because namespaces have no colon."""
        return external_key(self.provider, self.model)


@dataclass(frozen=True, slots=True)
class WeightedTarget:
    """Where a route may send requests, with its share of them."""

    upstream: str
    """Key in `RoutingTable.upstreams` or in `RoutingTable.externals`."""
    weight: int = 1
    """Share of the requests that come to it first. 0: none, unless it stands by."""
    standby: bool = False
    """Whether it is tried where others fail although no request comes to it first."""
    wanted: int | None = None
    """Share of the requests that it should have, which its size follows. None: its weight. They differ while requests
    go elsewhere because its replicas are missing."""

    @property
    def used(self) -> bool:
        """Whether any request may reach it."""
        return self.weight > 0 or self.standby


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Why budgets leave a request without an answer."""

    message: str
    """One sentence that names the budgets and when they reset."""
    until: int | None = None
    """Unix time from which on it is worth asking again; None: not known."""
    limited: bool = False
    """Whether nothing but a provider's limit per minute is used up: then asking again is of use."""


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """What budgets make of a route, for one tenant or for everybody whom no other rule of the route names."""

    tenant: str | None = None
    """None: everybody else, also without a tenant."""
    closed: bool = False
    """Every request is refused."""
    without: tuple[str, ...] = ()
    """Upstreams that get no request, sorted."""
    unknown: tuple[str, ...] = ()
    """Those of them that get none only because what was spent is not known, or a provider's limit per minute is used
    up: for a moment, as a rule."""
    order: tuple[str, ...] = ()
    """Upstreams in the order in which they are tried, the cheapest first; empty: the route's own."""
    tried: tuple[str, ...] = ()
    """Of `order`, those that do not answer and get a few requests, to find out whether they do again."""
    refusal: Exhausted | None = None
    """What is answered where it is closed or no upstream is left."""
    rule_refusals: tuple[Exhausted | None, ...] = ()
    """The same for each of the route's rules; empty: `refusal` for all of them."""


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Where requests of some tenants, or with some headers, go instead of the route's own targets."""

    targets: tuple[WeightedTarget, ...]
    """In the order in which they are tried, as those of the route. None of them is a provider where it is sovereign."""
    tenants: frozenset[str] = frozenset()
    """Names of LLMTenants, one of which must call. Empty: whoever calls."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case and their values: the request must have all of them."""
    refusal: str | None = None
    """Set: the requests that match are refused with 503 and this sentence."""
    exhausted: Exhausted | None = None
    """Set: budgets refuse them with 429."""


@dataclass(frozen=True, slots=True)
class Route:
    """The model names that clients send, and the deployments and providers that answer them."""

    name: str
    """Stable key of the route: `namespace/name` of the LLMDeployment or LLMRoute it comes from. The counters
    of arrivals, requests and tokens carry it."""
    models: tuple[str, ...]
    """Exact names in the request's `model` field."""
    targets: tuple[WeightedTarget, ...] = ()
    """In the order in which they are tried. None of them is a provider where the route is sovereign."""
    rules: tuple[RouteRule, ...] = ()
    """The first one that a request matches decides; `targets` where none does."""
    priority: bool = False
    """Which target is tried first. True: the first of the list. False: one drawn by weight."""
    sovereign: bool = False
    """No request may leave the cluster."""
    hold_seconds: int = 600
    """How long a request may wait for a sleeping or loading target before 503 with `Retry-After`."""
    first_token_seconds: int | None = None
    """How long a target may take to begin a streamed answer before the next is tried. None: no limit of its own."""
    request_seconds: int = 600
    """How long one request may take after it left the hold, over all targets tried."""
    refusal: str | None = None
    """Set: every request that no rule takes is refused at once with 503 and this sentence (suspended, or
    `replicas: 0`)."""
    budgets: tuple[BudgetRule, ...] = ()
    """What budgets change, by tenant; that for everybody else comes last."""
    exhausted: Exhausted | None = None
    """Set: budgets refuse every request with 429."""
    created: int = 0
    """Unix time in seconds, shown by `/v1/models`."""
    owner: str = "modelyard"
    """The namespace, shown as `owned_by` by `/v1/models`."""

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Every upstream that it names, in its rules too: each once."""
        everything = (self.targets, *(rule.targets for rule in self.rules))
        return tuple(dict.fromkeys(target.upstream for targets in everything for target in targets))


@dataclass(frozen=True, slots=True)
class Tenant:
    """What an LLMTenant may do. Its API keys are no part of it: they go to Envoy by themselves."""

    routes: frozenset[str] | None = None
    """`Route.name` of the routes that it may use. None: all."""
    limits: Limits | None = None
    """What it may ask for per minute. None: no limits."""


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Everything the gateway needs to know."""

    routes: tuple[Route, ...] = ()
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    """By `namespace/name` of the LLMDeployment, for an adapter followed by a colon and its name."""
    externals: Mapping[str, ExternalUpstream] = field(default_factory=dict)
    """By `external_key`: those that some route may choose."""
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    """By name."""
    anonymous: bool = False
    """False: a request without the key of a tenant is answered 401. True: no key is asked for; whose key is sent all
    the same is still that tenant."""

    @property
    def limits(self) -> dict[str, Limits]:
        """Limits of the tenants that have some, by name."""
        return {name: item.limits for name, item in self.tenants.items() if item.limits is not None}


def rule_name(route: str, number: int) -> str:
    """Return the name that the arrivals of a route's rule are counted under; `number` begins at 0."""
    return f"{route}#{number}"


def route_name(key: str) -> str:
    """Return the `Route.name` of an LLMRoute: it may have the name of a deployment, and counters must not mix them."""
    return f"{key}@route"


def adapter_key(deployment: str, adapter: str) -> str:
    """Return the key of a deployment's adapter, which is also a name that always leads to it."""
    return f"{deployment}:{adapter}"


def deployment_key(upstream: str) -> str:
    """Return the key of the deployment that an upstream belongs to: its own, or that of its adapter."""
    return upstream.partition(":")[0]


def cluster_name(deployment: str, generation: int) -> str:
    """Return the Envoy cluster name of one generation of a deployment."""
    return f"{deployment}~z{generation}"


def external_key(provider: str, model: str) -> str:
    """Return the key, and the Envoy cluster name, of a provider's model."""
    return f"{EXTERNAL_PREFIX}{provider}/{model}"


def parse_cluster_name(cluster: str) -> tuple[str, int] | None:
    """Return deployment and generation of a cluster name, or None if it is not one of ours."""
    deployment, separator, generation = cluster.rpartition("~z")
    if not separator or not generation.isdecimal():
        return None
    return deployment, int(generation)
