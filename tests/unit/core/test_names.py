"""Who owns a model name."""

from modelyard.core.names import (
    DEPLOYMENT,
    ROUTE,
    build_routing_table,
    explain_deployment,
    explain_route,
    resolve_names,
)
from modelyard.core.reasons import Code
from modelyard.core.routing import RoutingTable
from tests.unit.core.build import make_deployment, make_route, make_snapshot

OLDER, NEWER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def _owners(*deployments, routes=()):
    owners = resolve_names(make_snapshot(*deployments, routes=routes))
    return {name: (owner.kind, owner.key) for name, owner in owners.items()}


def test_a_deployment_is_reached_by_its_served_name_and_by_its_key():
    plain, named = make_deployment("a/llama"), make_deployment("a/phi", model={"name": "phi-4"})
    assert _owners(plain, named) == {
        "llama": (DEPLOYMENT, "a/llama"),
        "a/llama": (DEPLOYMENT, "a/llama"),
        "phi-4": (DEPLOYMENT, "a/phi"),
        "a/phi": (DEPLOYMENT, "a/phi"),
    }


def test_the_oldest_namespace_keeps_a_name():
    first, second = make_deployment("b/llama", created=OLDER), make_deployment("a/llama", created=NEWER)
    owners = _owners(second, first)
    assert owners["llama"] == (DEPLOYMENT, "b/llama")
    assert owners["a/llama"] == (DEPLOYMENT, "a/llama")


def test_claims_of_one_second_go_by_namespace():
    assert _owners(make_deployment("b/llama"), make_deployment("a/llama"))["llama"][1] == "a/llama"


def test_the_oldest_deployment_of_one_namespace_keeps_a_name():
    first = make_deployment("a/z", created=OLDER, model={"name": "chat"})
    second = make_deployment("a/b", created=NEWER, model={"name": "chat"})
    assert _owners(second, first)["chat"] == (DEPLOYMENT, "a/z")


def test_a_route_goes_before_an_older_deployment_of_its_namespace():
    deployment = make_deployment("a/llama", created=OLDER)
    route = make_route("a/llama", "llama", {"llama": 1}, created=NEWER)
    assert _owners(deployment, routes=(route,))["llama"] == (ROUTE, "a/llama")


def test_a_route_does_not_take_a_name_from_an_older_namespace():
    deployment = make_deployment("b/llama", created=OLDER)
    route = make_route("a/llama", "llama", {"mine": 1}, created=NEWER)
    assert _owners(deployment, routes=(route,))["llama"] == (DEPLOYMENT, "b/llama")


def test_a_younger_route_goes_before_where_its_namespace_had_the_name_first():
    mine = make_deployment("b/llama", created=OLDER)
    foreign = make_deployment("a/llama", created="2026-01-15T00:00:00Z")
    route = make_route("b/front", "llama", {"llama": 1}, created=NEWER)
    assert _owners(mine, foreign, routes=(route,))["llama"] == (ROUTE, "b/front")


def test_nobody_takes_the_full_name_of_a_deployment():
    deployment = make_deployment("b/llama", created=NEWER)
    thief = make_deployment("a/thief", created=OLDER, model={"name": "b/llama"})
    route = make_route("b/front", "b/llama", {"llama": 1}, created=OLDER)
    assert _owners(thief, deployment, routes=(route,))["b/llama"] == (DEPLOYMENT, "b/llama")


def test_adapters_claim_their_own_names():
    adapter = {"name": "lora", "source": "hf://org/lora"}
    first = make_deployment("a/llama", created=OLDER, model={"adapters": [adapter]})
    second = make_deployment("b/phi", created=NEWER, model={"adapters": [adapter]})
    assert _owners(first, second)["lora"] == (DEPLOYMENT, "a/llama")


LORA = {"adapters": [{"name": "lora", "source": "hf://org/lora"}]}


def test_an_adapter_is_always_reached_by_its_deployments_name_and_its_own():
    first = make_deployment("a/llama", created=OLDER, model=LORA)
    second = make_deployment("b/phi", created=NEWER, model=LORA)
    owners = _owners(first, second)
    assert owners["a/llama:lora"] == (DEPLOYMENT, "a/llama")
    assert owners["b/phi:lora"] == (DEPLOYMENT, "b/phi")


def test_nobody_takes_the_full_name_of_an_adapter():
    deployment = make_deployment("b/llama", created=NEWER, model=LORA)
    thief = make_deployment("b/thief", created=OLDER, model={"name": "b/llama:lora"})
    route = make_route("b/front", "b/llama:lora", {"llama": 1}, created=OLDER)
    assert _owners(thief, deployment, routes=(route,))["b/llama:lora"] == (DEPLOYMENT, "b/llama")


def test_a_route_is_always_reached_by_its_full_name():
    first = make_deployment("b/llama", created=OLDER)
    thief = make_deployment("b/thief", created=OLDER, model={"name": "a/front"})
    route = make_route("a/front", "llama", {"mine": 1}, created=NEWER)
    owners = _owners(first, thief, routes=(route,))
    assert (owners["llama"], owners["a/front"]) == ((DEPLOYMENT, "b/llama"), (ROUTE, "a/front"))


def test_the_full_name_of_a_deployment_goes_before_that_of_a_route():
    route = make_route("a/llama", "chat", {"llama": 1}, created=OLDER)
    owners = _owners(make_deployment("a/llama", created=NEWER), routes=(route,))
    assert (owners["a/llama"], owners["chat"]) == ((DEPLOYMENT, "a/llama"), (ROUTE, "a/llama"))


def test_who_asks_for_a_full_name_inside_the_namespace_goes_before_the_route_that_is_called_so():
    called = make_route("a/front", "chat", {"llama": 1}, created=OLDER)
    asking = make_route("a/other", "a/front", {"llama": 1}, created=NEWER)
    assert _owners(routes=(called, asking))["a/front"] == (ROUTE, "a/other")


def test_the_order_of_the_objects_does_not_order_the_names_of_a_route():
    front = make_route("a/front", "llama", {"mine": 1})
    other = make_route("b/other", "a/front", {"mine": 1})
    tables = []
    for routes in ((front, other), (other, front)):
        snapshot = make_snapshot(routes=routes)
        owners = resolve_names(snapshot)
        tables.append(build_routing_table(snapshot, owners, {}, RoutingTable(), anonymous=True))
    assert tables[0] == tables[1]
    assert {"a/front", "llama"} in [set(route.models) for route in tables[0].routes]


def _explain(name: str, kind: str, key: str, *deployments, routes=()):
    snapshot = make_snapshot(*deployments, routes=routes)
    owners = resolve_names(snapshot)
    if kind == DEPLOYMENT:
        assert snapshot.deployments[key].served_name == name
        accepted, reason = explain_deployment(snapshot.deployments[key], owners)
    else:
        assert snapshot.routes[key].spec.model == name
        accepted, reason = explain_route(snapshot.routes[key], owners)
    return accepted, reason.code, reason.message


def test_the_owner_of_a_name_is_told_so():
    accepted, code, _ = _explain("llama", DEPLOYMENT, "a/llama", make_deployment("a/llama"))
    assert (accepted, code) == (True, Code.ROUTED)


def test_a_deployment_under_a_route_of_its_namespace_is_accepted():
    route = make_route("a/front", "llama", {"llama": 1})
    accepted, code, message = _explain(
        "llama", DEPLOYMENT, "a/llama", make_deployment("a/llama"), routes=(route,)
    )
    assert (accepted, code) == (True, Code.ROUTED_BY_ROUTE)
    assert "a/front" in message


def test_who_lost_a_name_is_told_the_owner_and_the_remedy():
    first, second = make_deployment("b/llama", created=OLDER), make_deployment("a/llama", created=NEWER)
    accepted, code, message = _explain("llama", DEPLOYMENT, "a/llama", first, second)
    assert (accepted, code) == (False, Code.SERVED_NAME_CONFLICT)
    assert "LLMDeployment b/llama" in message
    assert "a/llama" in message.partition(";")[2]
    route = make_route("a/front", "llama", {"llama": 1}, created=NEWER)
    accepted, code, message = _explain("llama", ROUTE, "a/front", first, routes=(route,))
    assert (accepted, code) == (False, Code.SERVED_NAME_CONFLICT)
    assert message.endswith("; clients can use a/front")
    twin = make_deployment("a/front")
    message = _explain("llama", ROUTE, "a/front", first, twin, routes=(route,))[2]
    assert message.endswith("; choose another model name"), "the full name is the deployment's"


def test_a_deployment_is_told_which_of_its_adapters_lost_their_names():
    first = make_deployment("a/llama", created=OLDER, model=LORA)
    second = make_deployment("b/phi", created=NEWER, model=LORA)
    accepted, code, message = _explain("phi", DEPLOYMENT, "b/phi", first, second)
    assert (accepted, code) == (False, Code.SERVED_NAME_CONFLICT)
    assert message == (
        "the name lora belongs to LLMDeployment a/llama, which had it first; clients can use b/phi:lora"
    )
    assert _explain("llama", DEPLOYMENT, "a/llama", first, second)[:2] == (True, Code.ROUTED)
