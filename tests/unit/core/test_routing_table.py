"""The routing table that follows from names, pods and generations."""

from modelyard.core.names import (
    Exposure,
    build_routing_table,
    resolve_names,
    serving_endpoints,
    weigh_variants,
)
from modelyard.core.routing import (
    Endpoint,
    Route,
    RoutingTable,
    Upstream,
    WeightedTarget,
    cluster_name,
    parse_cluster_name,
)
from modelyard.core.snapshot import Snapshot
from tests.unit.core.build import KEY, make_deployment, make_pod, make_route, make_snapshot

EMPTY = RoutingTable()
SERVED = (Endpoint("10.0.0.1", 8000),)


def test_pods_of_unequal_variants_get_their_share():
    assert weigh_variants({"a": 1.0, "b": 3.4, "c": 1000.0}) == {"a": 1, "b": 3, "c": 128}
    assert weigh_variants({"a": 1.0}) == {}
    assert weigh_variants({"a": 1.0, "b": 1.2}) == {}, "rounding makes them equal"
    pods = (make_pod("a", address="10.0.0.1", variant="a"), make_pod("b", address="10.0.0.2", variant="b"))
    assert [item.weight for item in serving_endpoints(pods, {"a": 1, "b": 5})] == [1, 5]


def _build(
    snapshot: Snapshot, exposures: dict[str, Exposure] | None = None, previous: RoutingTable = EMPTY
) -> RoutingTable:
    return build_routing_table(snapshot, resolve_names(snapshot), exposures or {}, previous, anonymous=True)


def _route(table: RoutingTable, name: str) -> Route:
    return next(route for route in table.routes if route.name == name)


def _serving(**spec) -> Snapshot:
    return make_snapshot(make_deployment(**spec), pods={KEY: (make_pod(),)})


def test_a_deployment_has_a_route_without_any_llmroute():
    table = _build(_serving())
    assert table.anonymous
    assert [(route.name, sorted(route.models)) for route in table.routes] == [(KEY, ["llama", KEY])]
    assert table.upstreams == {KEY: Upstream(KEY, 0, "llama", SERVED)}
    assert _route(table, KEY).owner == "team"
    assert _route(table, KEY).created == 1767225600


def test_only_serving_pods_are_endpoints_and_they_are_sorted():
    pods = (
        make_pod("b", address="10.0.0.2"),
        make_pod("a", address="10.0.0.1"),
        make_pod("loading", address="10.0.0.3", ready=False),
        make_pod("leaving", address="10.0.0.4", terminating=True),
        make_pod("new", address=""),
    )
    table = _build(make_snapshot(make_deployment(), pods={KEY: pods}))
    assert table.upstreams[KEY].endpoints == (Endpoint("10.0.0.1", 8000), Endpoint("10.0.0.2", 8000))


def test_the_last_endpoints_stay_until_the_generation_is_raised():
    before = _build(_serving(), {KEY: Exposure(generation=4)})
    gone = make_snapshot(make_deployment())
    kept = _build(gone, {KEY: Exposure(generation=4)}, before)
    assert kept.upstreams[KEY].endpoints == SERVED
    still = _build(gone, {KEY: Exposure(generation=4)}, kept)
    assert still.upstreams[KEY].endpoints == SERVED
    raised = _build(gone, {KEY: Exposure(generation=5)}, still)
    assert raised.upstreams[KEY] == Upstream(KEY, 5, "llama", ())


def test_new_endpoints_replace_the_kept_ones():
    before = _build(_serving())
    moved = make_snapshot(make_deployment(), pods={KEY: (make_pod(address="10.0.0.9"),)})
    assert _build(moved, {}, before).upstreams[KEY].endpoints == (Endpoint("10.0.0.9", 8000),)


def test_pods_of_a_deployment_put_to_sleep_get_no_new_requests():
    awake = _build(_serving(), {KEY: Exposure(generation=1)})
    asleep = _build(_serving(), {KEY: Exposure(generation=2, asleep=True)}, awake)
    assert asleep.upstreams[KEY].endpoints == ()


def test_adapters_share_pods_and_generation_under_their_own_model_name():
    adapters = [{"name": name, "source": "hf://org/lora"} for name in ("taken", "lora")]
    snapshot = make_snapshot(
        make_deployment(created="2026-02-01T00:00:00Z", model={"adapters": adapters}),
        make_deployment("old/taken", created="2026-01-01T00:00:00Z"),
        pods={KEY: (make_pod(),)},
    )
    table = _build(snapshot, {KEY: Exposure(generation=7)})
    assert table.upstreams[f"{KEY}:lora"] == Upstream(f"{KEY}:lora", 7, "lora", SERVED)
    assert _route(table, f"{KEY}:lora").models == ("lora", f"{KEY}:lora")
    assert _route(table, f"{KEY}:lora").targets == (WeightedTarget(f"{KEY}:lora"),)
    assert sorted(_route(table, KEY).models) == ["llama", KEY]
    assert _route(table, "old/taken").models.count("taken") == 1
    assert _route(table, f"{KEY}:taken").models == (f"{KEY}:taken",), "its full name is always its own"


def test_a_deployment_and_its_adapters_balance_alike():
    adapter = {"name": "lora", "source": "hf://a/lora"}
    for choice, affinity in (("PrefixAffinity", True), ("LeastRequests", False)):
        table = _build(_serving(loadBalancing=choice, model={"adapters": [adapter]}))
        assert {item.affinity for item in table.upstreams.values()} == {affinity}
        assert len(table.upstreams) == 2


def test_no_name_is_in_two_routes():
    snapshot = make_snapshot(
        make_deployment("a/llama"),
        make_deployment("b/llama"),
        make_deployment("b/phi", model={"name": "llama"}),
        routes=(make_route("a/front", "llama", {"llama": 1}), make_route("b/front", "llama", {"llama": 1})),
    )
    names = [name for route in _build(snapshot).routes for name in route.models]
    assert sorted(names) == ["a/front", "a/llama", "b/front", "b/llama", "b/phi", "llama"]


def test_an_llmroute_splits_by_weight_and_leaves_out_weight_zero():
    snapshot = make_snapshot(
        make_deployment("a/one"),
        make_deployment("a/two"),
        make_deployment("a/three"),
        routes=(make_route("a/chat", "chat", {"one": 9, "two": 1, "three": 0}),),
    )
    route = _route(_build(snapshot), "a/chat@route")
    assert sorted(route.models) == ["a/chat", "chat"]
    assert route.targets == (WeightedTarget("a/one", 9), WeightedTarget("a/two", 1))
    assert (route.hold_seconds, route.request_seconds, route.refusal) == (600, 600, None)


def test_an_llmroute_leaves_out_targets_that_can_never_answer():
    snapshot = make_snapshot(
        make_deployment("a/one"),
        make_deployment("a/two", suspend=True),
        routes=(make_route("a/chat", "chat", {"one": 1, "two": 1, "gone": 1}),),
    )
    route = _route(_build(snapshot), "a/chat@route")
    assert route.targets == (WeightedTarget("a/one", 1),)
    assert route.refusal is None


def test_an_llmroute_without_any_target_refuses_and_says_why():
    snapshot = make_snapshot(
        make_deployment("a/two", suspend=True),
        make_deployment("a/unused"),
        routes=(make_route("a/chat", "chat", {"two": 1, "gone": 1, "unused": 0}),),
    )
    route = _route(_build(snapshot), "a/chat@route")
    assert route.targets == ()
    assert route.refusal is not None
    assert "a/gone does not exist" in route.refusal
    assert "two is suspended" in route.refusal
    assert "unused" not in route.refusal


def test_an_llmroute_that_lost_its_name_is_served_under_its_full_name():
    snapshot = make_snapshot(
        make_deployment("old/chat", created="2026-01-01T00:00:00Z"),
        make_deployment("new/one", created="2026-02-01T00:00:00Z"),
        routes=(make_route("new/chat", "chat", {"one": 1}, created="2026-02-01T00:00:00Z"),),
    )
    table = _build(snapshot)
    assert _route(table, "new/chat@route").models == ("new/chat",)
    assert "chat" in _route(table, "old/chat").models


def test_suspended_and_switched_off_deployments_refuse():
    suspended = _route(_build(_serving(suspend=True)), KEY)
    assert suspended.refusal == "model llama is suspended"
    off = _route(_build(_serving(replicas=0)), KEY)
    assert off.refusal == "model llama is switched off (replicas: 0)"
    sleeping = _route(_build(_serving(scaling={"min": 0, "max": 1})), KEY)
    assert sleeping.refusal is None


def test_cluster_names_are_read_back():
    assert parse_cluster_name(cluster_name("team/llama:lora", 12)) == ("team/llama:lora", 12)
    for stranger in ("admin", "team/llama", "team/llama~z", "team/llama~z-1"):
        assert parse_cluster_name(stranger) is None
