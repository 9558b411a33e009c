"""No request through a sovereign route can reach a provider, whatever names, targets and mistakes there are.

The rules of the API server are passed over on purpose: what it should have refused is in these fleets.
"""

from typing import Any

from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.api.meta import Refusal
from modelyard.core.names import DEPLOYMENT, ROUTE, Claim, build_routing_table, resolve_names
from modelyard.core.routing import RoutingTable, parse_cluster_name
from modelyard.core.snapshot import Snapshot
from modelyard.gateway import protos
from modelyard.gateway.resources import Resources, build_resources
from modelyard.render.envoy.names import model_key
from modelyard.render.envoy.routes import ROUTE_CONFIGURATION
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import CONTROL_PLANE
from tests.unit.core.build import (
    make_deployment,
    make_pod,
    make_provider,
    make_snapshot,
    make_targets_route,
    make_tenant,
)

NAMESPACES, NAMES = ("one", "two"), ("alpha", "beta", "gamma")
# Also names that look like those of providers' clusters. None can look like a generation: no name may have a tilde.
SERVED = (*NAMES, "acme/large", "provider:acme/large", "one/alpha")
MODELS = ("large", "small")
SETTINGS = GatewaySettings()

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Mostly what lets a request through: a fleet in which nothing could leak proves nothing.
weights = st.sampled_from((1, 2, 3, 0))
prices = st.sampled_from((None, {"inputPerMillion": "0.1", "outputPerMillion": "0.5"}))
qualities = st.sampled_from((None, None, None, "0", "0.5", "1"))
deployment_targets = st.fixed_dictionaries(
    {"deployment": st.sampled_from((*NAMES, "gone")), "weight": weights, "quality": qualities}
)
provider_targets = st.fixed_dictionaries(
    {
        "provider": st.sampled_from(("acme", "acme", "zeta", "gone")),
        "model": st.sampled_from(MODELS),
        "weight": weights,
        "quality": qualities,
    }
)


TENANTS = ("blue", "green")

matches = st.fixed_dictionaries(
    {},
    optional={
        "tenants": st.lists(st.sampled_from((*TENANTS, "gone")), min_size=1, max_size=2, unique=True),
        "headers": st.just([{"name": "x-tier", "value": "gold"}]),
    },
)
rules = st.fixed_dictionaries(
    {"match": matches, "targets": st.lists(deployment_targets | provider_targets, min_size=1, max_size=3)}
)


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    """Fleets in which routes, deployments, adapters and providers share names."""
    keys = [f"{namespace}/{name}" for namespace in NAMESPACES for name in NAMES]
    deployments = []
    for key in draw(st.lists(st.sampled_from(keys), unique=True)):
        adapters = draw(st.lists(st.sampled_from(SERVED), unique=True, max_size=2))
        deployments.append(
            make_deployment(
                key,
                created=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
                model={
                    "name": draw(st.sampled_from(SERVED)),
                    "adapters": [{"name": name, "source": "hf://org/lora"} for name in adapters],
                },
                suspend=draw(st.booleans()),
            )
        )
    routes = [
        make_targets_route(
            key,
            draw(st.sampled_from(SERVED)),
            *draw(st.lists(deployment_targets | provider_targets, min_size=1, max_size=4)),
            created=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
            policy=draw(st.sampled_from(("Weighted", "Priority", "LowestCost"))),
            spill=draw(st.sampled_from((None, None, True, False))),
            dataPolicy=draw(st.sampled_from(("Any", "Sovereign"))),
            minQuality=draw(qualities),
            rules=draw(st.none() | st.lists(rules, min_size=1, max_size=3)),
            timeouts={"firstToken": draw(st.none() | st.just("20s"))},
        )
        for key in draw(
            st.lists(st.sampled_from([*keys, "one/r", "two/r"]), unique=True, min_size=1, max_size=5)
        )
    ]
    providers = {
        name: make_provider(
            name,
            *({"name": model, "price": draw(prices)} for model in MODELS),
            refusal=draw(st.sampled_from((None, None, None, Refusal("SecretNotFound", "missing")))),
        )
        for name in ("acme", *draw(st.sets(st.just("zeta"))))
    }
    running = {
        item.key: tuple(
            make_pod(f"p{n}", item.key, address=f"10.0.0.{n}") for n in range(draw(st.integers(0, 2)))
        )
        for item in deployments
    }
    snapshot = make_snapshot(*deployments, routes=tuple(routes), pods=running)
    allow = st.none() | st.just([{"namespace": "one"}]) | st.just([{"namespace": "two", "names": ["r"]}])
    tenants = {name: make_tenant(name, allow=draw(allow)) for name in draw(st.sets(st.sampled_from(TENANTS)))}
    return Snapshot(snapshot.deployments, snapshot.routes, providers, tenants, pods=snapshot.pods)


def closed_names(snapshot: Snapshot, owners: dict[str, Claim]) -> dict[str, str]:
    """Return the names that must not lead outside, with the namespace that they must stay in."""
    closed = {name: owner.namespace for name, owner in owners.items() if owner.kind == DEPLOYMENT}
    for route in snapshot.routes.values():
        owner = owners[route.spec.model]
        own = owner.kind == ROUTE and owner.namespace == route.metadata.namespace
        if own and route.spec.data_policy == "Sovereign":
            closed[route.spec.model] = owner.namespace
    return closed


def clusters_of(resources: Resources) -> dict[str, set[str]]:
    """Return every cluster that stands anywhere in the routes of each key."""
    encoded = resources.by_type[protos.ROUTES][ROUTE_CONFIGURATION].encoded
    configuration = protos.message_class("envoy.config.route.v3.RouteConfiguration").FromString(encoded)
    actions: Any = configuration.virtual_hosts[0].matcher.matcher_tree.exact_match_map.map  # type: ignore[attr-defined]
    found = {}
    for key, action in actions.items():
        body = json_format.MessageToDict(
            action, descriptor_pool=protos.pool(), preserving_proto_field_name=True
        )
        found[key] = set(_clusters(body))
    return found


def _clusters(value: Any) -> Any:
    if isinstance(value, dict):
        for name, item in value.items():
            if name in {"cluster", "cluster_name"} and isinstance(item, str):
                # The operator is asked about limits, and gets no request.
                yield from () if item == CONTROL_PLANE else (item,)
            elif name == "clusters":
                yield from (entry.get("name", "") for entry in item if "cluster_name" not in entry)
            yield from _clusters(item)
    elif isinstance(value, list):
        for item in value:
            yield from _clusters(item)


@settings(unhurried, max_examples=200)
@given(fleets())
def test_no_cluster_of_a_provider_can_be_reached_from_a_sovereign_route(fleet: Snapshot):
    """Neither by its own targets nor by those of any rule, whoever calls."""
    owners = resolve_names(fleet)
    table = build_routing_table(fleet, owners, {}, RoutingTable(), anonymous=not fleet.tenants)
    check_sovereign(fleet, table, build_resources(table, SETTINGS))


def check_sovereign(fleet: Snapshot, table: RoutingTable, resources: Resources) -> None:
    """Fail if a cluster of a provider can be reached from a sovereign route."""
    owners = resolve_names(fleet)
    found = clusters_of(resources)
    offered = {
        name: protos.message_class("envoy.config.cluster.v3.Cluster").FromString(item.encoded)
        for name, item in resources.by_type[protos.CLUSTER].items()
    }
    upstreams = {model: route.upstreams for route in table.routes for model in route.models}
    for name, namespace in closed_names(fleet, owners).items():
        assert not set(upstreams[name]) & table.externals.keys()
        for cluster in found[model_key(name)]:
            parsed = parse_cluster_name(cluster)
            assert parsed is not None, (name, cluster)
            # A deployment of the route's own namespace, whose addresses are pods.
            assert parsed[0].startswith(f"{namespace}/"), (name, cluster)
            assert parsed[0] in table.upstreams, (name, cluster)
            reached = [offered[cluster]] if cluster in offered else []
            if (alias := resources.alias(cluster)) is not None:
                reached.append(
                    protos.message_class("envoy.config.cluster.v3.Cluster").FromString(alias[0].encoded)
                )
            for item in reached:
                assert item.type == item.DiscoveryType.Value("EDS"), (name, cluster)
                assert not item.HasField("transport_socket"), (name, cluster)
    for name, item in offered.items():
        assert item.HasField("transport_socket") == (name in table.externals)


@unhurried
@given(fleets())
def test_every_cluster_that_a_route_names_is_a_deployment_or_is_offered(fleet: Snapshot):
    table = build_routing_table(fleet, resolve_names(fleet), {}, RoutingTable(), anonymous=True)
    resources = build_resources(table, SETTINGS)
    named = set().union(*clusters_of(resources).values())
    known = {item.cluster for item in table.upstreams.values()} | table.externals.keys()
    assert named <= known
    assert table.externals.keys() <= resources.by_type[protos.CLUSTER].keys()
