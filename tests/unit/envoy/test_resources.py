"""Resources: valid against Envoy's API, deterministic, and encoded only once."""

import json
from dataclasses import replace

import pytest
from google.protobuf import json_format

from modelyard.core.limits.account import Limits
from modelyard.core.routing import Endpoint, Picker, Route, RoutingTable, Tenant, Upstream, WeightedTarget
from modelyard.gateway import protos, resources
from modelyard.gateway.resources import ResourceBuilder, build_resources
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap
from modelyard.render.envoy.listener import listener
from modelyard.render.envoy.pickers import picker_cluster
from modelyard.render.envoy.settings import GatewaySettings

MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
SETTINGS = GatewaySettings()
POD = Endpoint("10.0.0.1", 8000)


def table(count=3, **changes):
    routes = tuple(Route(f"t/m{n}", (f"m{n}",), (WeightedTarget(f"t/m{n}"),)) for n in range(count))
    upstreams = {f"t/m{n}": Upstream(f"t/m{n}", 0, f"m{n}", (POD,)) for n in range(count)}
    for name, upstream in changes.items():
        upstreams[f"t/{name}"] = replace(upstreams[f"t/{name}"], **upstream)
    return RoutingTable(routes, upstreams, anonymous=True)


def route_configuration(built):
    encoded = built.by_type[protos.ROUTES]["models"].encoded
    message = protos.message_class("envoy.config.route.v3.RouteConfiguration").FromString(encoded)
    return json_format.MessageToDict(message, descriptor_pool=protos.pool())


def test_bootstrap_is_valid():
    settings = BootstrapSettings("operator.modelyard.svc", 18000, node_id="envoy-1")
    message = protos.parse("envoy.config.bootstrap.v3.Bootstrap", bootstrap(settings))
    assert message.node.id == "envoy-1"


def test_an_unknown_field_is_an_error():
    with pytest.raises(json_format.ParseError, match="nmae"):
        protos.encode(protos.CLUSTER, {"nmae": "x"})


def test_equal_tables_give_equal_bytes():
    assert build_resources(table(), SETTINGS) == build_resources(table(), SETTINGS)


def test_a_sleeping_model_has_a_route_and_no_cluster():
    built = build_resources(table(m1={"endpoints": ()}), SETTINGS)
    assert built.by_type[protos.CLUSTER].keys() == {"t/m0~z0", "t/m2~z0"}
    assert built.by_type[protos.ENDPOINTS].keys() == {"t/m0~z0", "t/m2~z0"}
    assert "t/m1~z0" in json.dumps(route_configuration(built))


def switched_on(built):
    """The filters that every request passes although the listener has them switched off."""
    host = route_configuration(built)["virtualHosts"][0]
    first = host["matcher"]["onNoMatch"]["action"]["typedConfig"]
    return {*host.get("typedPerFilterConfig", {}), *first.get("typedPerFilterConfig", {})}


PICKERS = {"envoy.filters.http.ext_proc"}
AFFINITY = {"envoy.filters.http.set_filter_state"}
LIMITS = {"envoy.filters.http.ratelimit", "modelyard.limits.held"}
NEEDED = {
    "nothing": ({}, {}, set()),
    "a picker": ({"m1": {"picker": Picker("picker.team.svc", 9002)}}, {}, PICKERS),
    "affinity": ({"m1": {"affinity": True}}, {}, AFFINITY),
    "a tenant without limits": ({}, {"blue": Tenant()}, set()),
    "limits": ({}, {"blue": Tenant(limits=Limits(requests=1))}, LIMITS),
    "all": (
        {"m0": {"picker": Picker("picker.team.svc", 9002)}, "m2": {"affinity": True}},
        {"blue": Tenant(limits=Limits(requests=1))},
        PICKERS | AFFINITY | LIMITS,
    ),
}


@pytest.mark.parametrize(("upstreams", "tenants", "filters"), NEEDED.values(), ids=NEEDED.keys())
def test_filters_are_switched_on_while_something_needs_them(upstreams, tenants, filters):
    """Each costs every request time. A new listener would end connections, so that stays as it is."""
    builder = ResourceBuilder(SETTINGS)
    idle = builder.build(table())
    assert switched_on(idle) == set()
    built = builder.build(replace(table(**upstreams), tenants=tenants))
    assert switched_on(built) == filters
    assert built.by_type[protos.LISTENER] == idle.by_type[protos.LISTENER]
    assert builder.build(table()).by_type[protos.ROUTES] == idle.by_type[protos.ROUTES]


def test_the_listener_has_these_filters_switched_off():
    message = protos.parse("envoy.config.listener.v3.Listener", listener(SETTINGS))
    manager = protos.message_class(MANAGER).FromString(message.filter_chains[0].filters[0].typed_config.value)
    assert {item.name for item in manager.http_filters if item.disabled} == PICKERS | AFFINITY | LIMITS


def test_a_pod_changes_nothing_but_the_endpoints():
    before, after = (
        build_resources(table(), SETTINGS),
        build_resources(table(m1={"endpoints": (POD,) * 2}), SETTINGS),
    )
    for type_url in (protos.CLUSTER, protos.LISTENER, protos.ROUTES):
        assert before.by_type[type_url] == after.by_type[type_url]
    changed = {
        name
        for name, resource in after.by_type[protos.ENDPOINTS].items()
        if resource != before.by_type[protos.ENDPOINTS][name]
    }
    assert changed == {"t/m1~z0"}


def test_only_what_changed_is_encoded_again(monkeypatch):
    builder = ResourceBuilder(SETTINGS)
    builder.build(table(100))
    encoded = []
    encode = protos.encode
    monkeypatch.setattr(
        resources.protos, "encode", lambda kind, value: encoded.append(kind) or encode(kind, value)
    )
    assert builder.build(table(100)).version
    assert encoded == []
    builder.build(table(100, m7={"endpoints": (POD, POD)}))
    assert encoded == [protos.ENDPOINTS]
    encoded.clear()
    builder.build(table(100, m7={"generation": 1, "endpoints": ()}))
    # The route of the model. Its entry in the list, and the list, are what they were.
    assert len(encoded) == 1


def test_a_name_that_two_routes_have_goes_to_the_first():
    routes = (
        Route("t/first", ("same",), (WeightedTarget("t/m0"),)),
        Route("t/second", ("same",), (WeightedTarget("t/m1"),)),
    )
    built = build_resources(replace(table(), routes=routes), SETTINGS)
    assert "t/m1~z0" not in json.dumps(route_configuration(built))


@pytest.mark.parametrize("targets", [(), (WeightedTarget("t/gone"),), (WeightedTarget("t/m0", 0),)])
def test_a_route_without_a_usable_target_refuses(targets):
    built = build_resources(replace(table(), routes=(Route("t/r", ("r",), targets),)), SETTINGS)
    assert "no target" in json.dumps(route_configuration(built))


def test_alias_has_another_name_and_the_same_pods():
    built = build_resources(table(m1={"generation": 5}), SETTINGS)
    cluster, endpoints = built.alias("t/m1~z4")
    assert (cluster.name, endpoints.name) == ("t/m1~z4", "t/m1~z4")
    assert POD.address.encode() in endpoints.encoded
    assert built.alias("t/none~z4") is None
    assert built.alias("admin") is None
    assert build_resources(table(m1={"endpoints": ()}), SETTINGS).alias("t/m1~z0") is None


def test_a_picker_takes_as_many_requests_at_once_as_the_replicas():
    cluster = picker_cluster(Picker("picker.team.svc", 9002), SETTINGS)
    message = protos.parse("envoy.config.cluster.v3.Cluster", cluster)
    (limits,) = message.circuit_breakers.thresholds
    # Envoy's own default is 1024 in all, and each request is under way until its answer ends.
    assert limits.max_requests.value == limits.max_pending_requests.value == SETTINGS.max_upstream
