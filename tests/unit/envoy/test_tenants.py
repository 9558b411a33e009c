"""Groups of tenants: who may use what, in one header that stays small however many tenants there are."""

from dataclasses import replace

from google.protobuf import json_format

from modelyard.core.limits.account import Limits
from modelyard.core.routing import Endpoint, Route, RouteRule, RoutingTable, Tenant, Upstream, WeightedTarget
from modelyard.core.tenants import hash_key
from modelyard.gateway import protos
from modelyard.gateway.resources import ResourceBuilder, build_resources
from modelyard.render.envoy.routes import ROUTE_CONFIGURATION
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.tenants import known_keys, rule_group, tenant_groups

SETTINGS = GatewaySettings()
POD = Endpoint("10.0.0.1", 8000)
KEY = "sk-0123456789abcdef0123"


def table(*names: str, rules: tuple[RouteRule, ...] = (), **rights: frozenset[str] | None) -> RoutingTable:
    routes = tuple(Route(name, (name,), (WeightedTarget(name),), rules) for name in names)
    upstreams = {name: Upstream(name, 0, name, (POD,)) for name in names}
    return RoutingTable(routes, upstreams, tenants={name: Tenant(routes) for name, routes in rights.items()})


def test_without_limits_nobody_needs_a_group():
    groups = tenant_groups(table("t/a", "t/b", one=None, two=None))
    assert groups.members == {"one": "", "two": ""}
    assert (groups.users, groups.lists, groups.anonymous) == ({}, (), "")


def test_a_route_is_for_those_who_have_its_group():
    groups = tenant_groups(
        table(
            "t/a", "t/b", "t/c", all=None, a=frozenset({"t/a"}), ab=frozenset({"t/a", "t/b"}), no=frozenset()
        )
    )
    allowed = {
        name: {route for route, group in groups.users.items() if f",{group}," in value}
        for name, value in groups.members.items()
    }
    assert allowed == {"all": {"t/a", "t/b", "t/c"}, "a": {"t/a"}, "ab": {"t/a", "t/b"}, "no": set()}
    assert {route for route, group in groups.users.items() if f",{group}," in groups.anonymous} == {
        "t/a",
        "t/b",
        "t/c",
    }
    lists = {
        name: [routes for group, routes in groups.lists if f",{group}," in value]
        for name, value in groups.members.items()
    }
    assert lists == {"all": [], "a": [{"t/a"}], "ab": [{"t/a", "t/b"}], "no": [set()]}


def test_equal_rights_make_one_group_and_what_everybody_may_use_none():
    rights = frozenset({"t/a"})
    groups = tenant_groups(table("t/a", "t/b", **{f"t{n}": rights for n in range(1000)}))
    assert groups.users.keys() == {"t/b"}
    assert len(groups.lists) == 1
    assert len(set(groups.members.values())) == 1


def test_groups_keep_their_names_while_other_tenants_come_and_go():
    rights = {"a": frozenset({"t/a"}), "b": frozenset({"t/b"})}
    before = tenant_groups(table("t/a", "t/b", **rights))
    after = tenant_groups(table("t/a", "t/b", **rights, c=None, d=frozenset({"t/a"})))
    assert after.users == before.users
    assert {name: after.members[name] for name in "ab"} == before.members


def test_a_rule_is_for_the_tenants_that_it_names():
    rule = RouteRule((WeightedTarget("t/a"),), tenants=frozenset({"one", "gone"}))
    groups = tenant_groups(table("t/a", rules=(rule,), one=None, two=None))
    assert groups.members == {"one": f",{rule_group(rule.tenants)},", "two": ""}
    assert groups.anonymous == "", "whoever sends no key is nobody's tenant"


def test_keys_of_tenants_that_are_not_there_are_left_out():
    groups = tenant_groups(table("t/a", one=None))
    known = known_keys(groups, {"d1": "one", "d2": "gone"}, anonymous=False)
    assert known == {"filter_metadata": {"envoy.filters.http.lua": {"key:d1": "one ", "keys": True}}}
    known = known_keys(groups, {}, anonymous=True)
    assert known == {"filter_metadata": {"envoy.filters.http.lua": {"anonymous": ""}}}


def test_resources_hold_digests_and_no_keys():
    built = build_resources(table("t/a", one=None), SETTINGS, tenant_keys={hash_key(KEY): "one"})
    encoded = built.by_type[protos.ROUTES][ROUTE_CONFIGURATION].encoded
    assert hash_key(KEY).encode() in encoded
    assert KEY.encode() not in encoded


def test_a_new_key_changes_the_routes_alone_and_encodes_no_model_again(monkeypatch):
    builder = ResourceBuilder(SETTINGS)
    names = [f"t/m{n}" for n in range(50)]
    before = builder.build(table(*names, one=None), tenant_keys={"d1": "one"})
    encoded = []
    encode = protos.encode
    monkeypatch.setattr(protos, "encode", lambda kind, value: encoded.append(kind) or encode(kind, value))
    after = builder.build(table(*names, one=None), tenant_keys={"d2": "one"})
    assert encoded == [], "nothing of any model depends on a key"
    changed = {kind for kind in before.by_type if before.by_type[kind] != after.by_type[kind]}
    assert changed == {protos.ROUTES}
    assert builder.build(table(*names, one=None), tenant_keys={"d2": "one"}) == after


def test_a_thousand_tenants_with_different_rights_stay_small():
    names = [f"t/m{n}" for n in range(200)]
    rights = {f"tenant-{n}": frozenset(names[n % 50 :: 50]) for n in range(1000)}
    keys = {hash_key(f"{name}-{n}"): name for name in rights for n in range(2)}
    closed = replace(table(*names, **rights), anonymous=False)
    built = build_resources(closed, SETTINGS, tenant_keys=keys)
    size = len(built.by_type[protos.ROUTES][ROUTE_CONFIGURATION].encoded)
    plain = len(build_resources(table(*names), SETTINGS).by_type[protos.ROUTES][ROUTE_CONFIGURATION].encoded)
    # Bytes: a digest, a name and its groups for each key, and a refusal for each model.
    assert size < plain + 2000 * 300 + 200 * 1500


def test_the_scan_sees_when_what_it_knows_of_callers_has_changed():
    one = table("t/a", one=None)
    limited = replace(one, tenants={"one": Tenant(limits=Limits(requests=1))})
    keys = {hash_key(KEY): "one"}

    def version(of: RoutingTable, known: dict[str, str]) -> str:
        resources = build_resources(of, SETTINGS, tenant_keys=known)
        encoded = resources.by_type[protos.ROUTES][ROUTE_CONFIGURATION].encoded
        message = protos.message_class("envoy.config.route.v3.RouteConfiguration").FromString(encoded)
        host = json_format.MessageToDict(message, descriptor_pool=protos.pool())["virtualHosts"][0]
        route = host["matcher"]["onNoMatch"]["action"]["typedConfig"]
        return str(route["metadata"]["filterMetadata"]["envoy.filters.http.lua"]["version"])

    versions = [
        version(one, {}),
        version(one, keys),
        version(limited, keys),
        version(replace(one, anonymous=True), {}),
    ]
    assert len(set(versions)) == len(versions)
    assert version(table("t/a", "t/b", one=None), keys) == versions[1], "models are nothing of it"
