"""Where the requests of a route go: shares, the clusters that are tried one after the other, retries and timeouts."""

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.core.routing import EXTERNAL_PREFIX, Route, RoutingTable, Upstream
from modelyard.render.envoy.affinity import hash_policy
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json, extension, seconds

IDLE_MARGIN = 60
"""Seconds that the idle limit of a stream exceeds the longest wait that a route allows, so that the wait's own
limit answers first."""

SPLIT_SCALE = 1_000_000
"""Parts that shares are rounded to: Envoy's finest denominator (`FractionalPercent`)."""

FAILED_STATUSES = (429, 503)
"""Replies after which another pod of the same target is tried: the engine is full or not there."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a part of a route's requests goes: to one cluster after the other, until one answers."""

    weight: int
    clusters: tuple[str, ...]
    """One for each attempt: a deployment with several pods has two."""
    picker: str | None = None
    """Cluster of the picker that chooses the pod of the first of them."""

    @property
    def falls_back(self) -> bool:
        """Whether there is another cluster to try."""
        return len(set(self.clusters)) > 1


Targets = tuple[Choice, ...]
"""What a route's requests are divided into."""


def route_targets(route: Route, table: RoutingTable) -> Targets:
    """Return where a route's requests go. Unknown upstreams and those that are not used are left out.

    Where a target fails, the ones after it in the list are tried and then those before it. A deployment without pods
    can only go first: there a request is held until it has one.
    """
    externals = {} if route.sovereign else table.externals
    targets = [
        target
        for target in route.targets
        if target.used and (target.upstream in table.upstreams or target.upstream in externals)
    ]
    first = targets[:1] if route.priority else targets
    return tuple(
        Choice(
            target.weight,
            _attempts([item.upstream for item in targets[index:] + targets[:index]], table.upstreams),
            _picker(table.upstreams.get(target.upstream)),
        )
        for index, target in enumerate(first)
        if target.weight > 0 or route.priority
    )


def _picker(upstream: Upstream | None) -> str | None:
    if upstream is None or upstream.picker is None or not upstream.asks_picker:
        return None
    return upstream.picker.cluster


def _attempts(keys: list[str], upstreams: Mapping[str, Upstream]) -> tuple[str, ...]:
    """Return the cluster of each attempt, for targets in the order in which they are tried."""
    if len(keys) == 1:
        # All attempts stay here, however many pods there are: the route need not change when they do.
        return (upstreams[keys[0]].cluster if keys[0] in upstreams else keys[0],)
    clusters: list[str] = []
    for key in keys:
        upstream = upstreams.get(key)
        if upstream is None:
            clusters.append(key)
        elif len(upstream.endpoints) > 1:
            # Another pod of the same target is cheaper than another target.
            clusters += [upstream.cluster, upstream.cluster]
        elif upstream.endpoints or not clusters:
            clusters.append(upstream.cluster)
    return tuple(clusters)


def split(targets: Targets) -> list[Json]:
    """Return what each choice matches: its share of the requests, if those before it did not match.

    Envoy compares one random number of the request with all of them, so each share is added to those before it.
    """
    total = sum(choice.weight for choice in targets)
    matches: list[Json] = []
    below = 0
    for choice in targets[:-1]:
        below += choice.weight
        share = {"numerator": round(SPLIT_SCALE * below / total), "denominator": "MILLION"}
        # The runtime key is mandatory; nothing sets it.
        fraction = {"default_value": share, "runtime_key": "modelyard.split"}
        matches.append({"prefix": "/", "runtime_fraction": fraction})
    return [*matches, {"prefix": "/"}]


def forward(
    route: Route, choice: Choice, settings: GatewaySettings, first_token_seconds: float | None = None
) -> Json:
    """Return the part of a route that sends requests to the clusters of a choice, one after the other.

    `first_token_seconds` bounds the time to the headers of an answer, which a streamed one begins with.
    """
    retry = _retry_policy(settings)
    if choice.falls_back:
        retry |= {
            # An answer of 500 is about the request as often as about the target: another one may do better.
            "retry_on": "5xx,connect-failure,refused-stream,reset,retriable-status-codes",
            "num_retries": len(choice.clusters) - 1,
            "refresh_cluster_on_retry": True,
        }
    elif choice.clusters[0].startswith(EXTERNAL_PREFIX):
        # A provider has no other pod, and says itself (Retry-After) when it wants to be asked again.
        retry["retry_on"] = "connect-failure,refused-stream,reset"
    if first_token_seconds is not None:
        retry["per_try_timeout"] = seconds(first_token_seconds)
    return {
        "route": {
            **_clusters(choice),
            "hash_policy": hash_policy(),
            "cluster_not_found_response_code": "SERVICE_UNAVAILABLE",
            "timeout": seconds(route.request_seconds),
            "idle_timeout": seconds(max(route.hold_seconds, route.request_seconds) + IDLE_MARGIN),
            "retry_policy": retry,
        }
    }


def _clusters(choice: Choice) -> Json:
    if not choice.falls_back:
        return {"cluster": choice.clusters[0]}
    groups = [
        {"name": f"attempt-{number}", "clusters": [{"cluster_name": cluster, "weight": 1}]}
        for number, cluster in enumerate(choice.clusters, 1)
    ]
    specifier = extension(
        "envoy.router.cluster_specifier_plugin.priority_group",
        "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier",
        {"priority_groups": groups},
    )
    return {"inline_cluster_specifier_plugin": {"extension": specifier}}


def _retry_policy(settings: GatewaySettings) -> Json:
    return {
        # `reset`: the pod went away before it sent a header, so the client has seen nothing of the answer.
        "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
        "retriable_status_codes": list(FAILED_STATUSES),
        "num_retries": settings.retries,
        "retry_host_predicate": [
            extension(
                "envoy.retry_host_predicates.previous_hosts",
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            )
        ],
        # How often the balancer is asked again for a host not tried yet, before any host will do. It chooses at
        # random among equals: with two of three hosts tried, (2/3)^33 or one in 600,000 draws only those two.
        "host_selection_retry_max_attempts": 32,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
