"""Which targets of a route may get requests, what the table makes of them, and what the status says."""

from dataclasses import replace

import pytest

from modelyard.api.meta import Refusal
from modelyard.core.demand import Share, find_shares
from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.providers import build_provider_status
from modelyard.core.reasons import Code, Reason
from modelyard.core.routing import ExternalUpstream, Route, RoutingTable, WeightedTarget
from modelyard.core.snapshot import Provider, Snapshot
from modelyard.core.status import build_route_status
from tests.unit.core.build import (
    NOW,
    make_deployment,
    make_provider,
    make_snapshot,
    make_targets_route,
)

OWN, ACME = {"deployment": "llama"}, {"provider": "acme", "model": "large"}
LLAMA, LARGE = WeightedTarget("team/llama"), WeightedTarget("provider:acme/large")
ROUTED = (True, Reason(Code.ROUTED, "requests come here"))


def _snapshot(*routes, providers: tuple[Provider, ...] = (make_provider(),), **spec) -> Snapshot:
    snapshot = make_snapshot(make_deployment("team/llama", **spec), routes=routes)
    return replace(snapshot, providers={item.object.name: item for item in providers})


def _table(snapshot: Snapshot) -> RoutingTable:
    return build_routing_table(snapshot, resolve_names(snapshot), {}, RoutingTable(), anonymous=True)


def _route(snapshot: Snapshot, name: str = "team/chat@route") -> Route:
    return next(route for route in _table(snapshot).routes if route.name == name)


def _ready(route, snapshot: Snapshot) -> tuple[str, str, str]:
    ready, *_ = build_route_status(route, snapshot, ROUTED, NOW).conditions
    return ready.status, ready.reason, ready.message


def test_a_route_leads_to_deployments_and_providers_in_the_order_of_its_list():
    route = make_targets_route(
        "team/chat", "chat", OWN, {**ACME, "weight": 3}, timeouts={"firstToken": "20s", "request": "5m"}
    )
    snapshot = _snapshot(route)
    found = _route(snapshot)
    assert found.targets == (LLAMA, replace(LARGE, weight=3))
    assert (found.priority, found.sovereign, found.refusal) == (False, False, None)
    assert (found.first_token_seconds, found.request_seconds, found.hold_seconds) == (20, 300, 600)
    assert _table(snapshot).externals == {
        "provider:acme/large": ExternalUpstream(
            "acme", "large", "api.acme.example", 443, "/v1", keyed=False, trust=None
        )
    }
    assert _ready(route, snapshot)[:2] == ("True", Code.ROUTED)
    assert _route(_snapshot(make_targets_route("team/chat", "chat", OWN, ACME, policy="Priority"))).priority


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://api.acme.example", "api.acme.example", 443, ""),
        ("https://api.acme.example/", "api.acme.example", 443, ""),
        ("https://localhost:8443/v1beta/openai/", "localhost", 8443, "/v1beta/openai"),
    ],
)
def test_a_base_url_is_taken_apart(url, host, port, path):
    provider = make_provider(
        baseURL=url,
        trust="PEM",
        secretRef={"name": "keys", "key": "acme"},
        caSecretRef={"name": "ca", "key": "x"},
    )
    table = _table(_snapshot(make_targets_route("team/chat", "chat", ACME), providers=(provider,)))
    (external,) = table.externals.values()
    assert external == ExternalUpstream("acme", "large", host, port, path, keyed=True, trust="PEM")


def test_a_provider_that_no_route_uses_is_not_in_the_table():
    assert _table(_snapshot()).externals == {}
    switched_off = make_targets_route("team/chat", "chat", OWN, {**ACME, "weight": 0})
    assert _table(_snapshot(switched_off)).externals == {}


def test_a_sovereign_route_is_refused_its_provider_where_the_table_is_made():
    route = make_targets_route("team/chat", "chat", OWN, ACME, dataPolicy="Sovereign")
    snapshot = _snapshot(route)
    found = _route(snapshot)
    assert (found.targets, found.sovereign, found.refusal) == ((LLAMA,), True, None)
    assert _table(snapshot).externals == {}
    state, code, message = _ready(route, snapshot)
    assert (state, code) == ("False", Code.DATA_POLICY_VIOLATED)
    assert "provider acme gets no request" in message
    only = make_targets_route("team/chat", "chat", ACME, dataPolicy="Sovereign")
    assert _route(_snapshot(only)).targets == ()
    assert "Sovereign" in (_route(_snapshot(only)).refusal or "")


def test_one_sovereign_route_of_a_name_is_enough_for_all_of_its_namespace():
    first = make_targets_route("team/chat", "chat", OWN, ACME, created="2026-01-01T00:00:00Z")
    second = make_targets_route(
        "team/other", "chat", OWN, dataPolicy="Sovereign", created="2026-02-01T00:00:00Z"
    )
    snapshot = _snapshot(first, second)
    assert resolve_names(snapshot)["chat"].key == "team/chat"
    assert _route(snapshot).targets == (LLAMA,)
    assert _ready(first, snapshot)[1] == Code.DATA_POLICY_VIOLATED
    elsewhere = make_targets_route(
        "b/chat", "chat", OWN, dataPolicy="Sovereign", created="2026-02-01T00:00:00Z"
    )
    assert _route(_snapshot(first, elsewhere)).targets == (LLAMA, LARGE), "nobody rules in another namespace"


def test_targets_below_the_quality_are_never_chosen():
    providers = (make_provider("acme", {"name": "large", "quality": "0.9"}, {"name": "small"}),)
    route = make_targets_route(
        "team/chat",
        "chat",
        {**OWN, "quality": "0.6"},
        {**ACME},
        {"provider": "acme", "model": "small"},
        minQuality="0.75",
    )
    snapshot = _snapshot(route, providers=providers)
    assert _route(snapshot).targets == (LARGE,)
    assert _ready(route, snapshot)[0] == "True", "that is what minQuality is for"
    lower = replace(snapshot, providers={"acme": make_provider("acme", {"name": "large", "quality": "0.7"})})
    without_small = make_targets_route(
        "team/chat", "chat", {**OWN, "quality": "0.6"}, ACME, minQuality="0.75"
    )
    lower = replace(lower, routes={"team/chat": without_small})
    assert _route(lower).targets == ()
    state, code, message = _ready(without_small, lower)
    assert (state, code) == ("False", Code.QUALITY_TOO_LOW)
    assert "has quality 0.7, and minQuality is 0.75" in message
    itself = make_targets_route("team/chat", "chat", {**ACME, "quality": "0.8"}, minQuality="0.75")
    assert _route(replace(lower, routes={"team/chat": itself})).targets == (LARGE,), (
        "the route's own word counts"
    )


@pytest.mark.parametrize(
    ("target", "code", "part"),
    [
        (
            {"provider": "nobody", "model": "large"},
            Code.TARGET_NOT_FOUND,
            "LLMProvider nobody does not exist",
        ),
        ({"provider": "acme", "model": "huge"}, Code.TARGET_NOT_FOUND, "LLMProvider acme has no model huge"),
        ({"deployment": "gone"}, Code.TARGET_NOT_FOUND, "LLMDeployment team/gone does not exist"),
        (ACME, Code.PROVIDER_NOT_READY, "LLMProvider acme cannot be used: Secret x is missing"),
    ],
)
def test_a_target_that_cannot_be_used_is_named_and_the_others_serve(target, code, part):
    refusal = Refusal(Code.SECRET_NOT_FOUND, "Secret x is missing")
    provider = make_provider(refusal=refusal if code == Code.PROVIDER_NOT_READY else None)
    route = make_targets_route("team/chat", "chat", OWN, target)
    snapshot = _snapshot(route, providers=(provider,))
    assert _route(snapshot).targets == (LLAMA,)
    state, reason, message = _ready(route, snapshot)
    assert (state, reason) == ("False", code)
    assert part in message
    alone = make_targets_route("team/chat", "chat", target)
    assert part in (_route(_snapshot(alone, providers=(provider,))).refusal or "")


def test_a_suspended_target_gives_its_requests_to_the_others():
    route = make_targets_route("team/chat", "chat", OWN, ACME, policy="Priority")
    assert _route(_snapshot(route, suspend=True)).targets == (LARGE,)


def test_offered_load_is_what_comes_to_a_target_first():
    weighted = Route(
        "r@route", ("chat",), (WeightedTarget("team/llama", 1), WeightedTarget("provider:acme/large", 3))
    )
    deployments = {"team/llama": None}
    assert find_shares((weighted,), deployments) == {"team/llama": (Share("r@route", 0.25),)}
    first = replace(weighted, priority=True)
    assert find_shares((first,), deployments) == {"team/llama": (Share("r@route", 1.0),)}
    last = replace(first, targets=first.targets[::-1])
    assert find_shares((last,), deployments) == {"team/llama": ()}


def test_the_status_of_a_provider_says_what_it_lacks():
    provider = make_provider("acme", {"name": "large"}, {"name": "small"}).object
    status = build_provider_status(provider, None, NOW)
    (ready,) = status.conditions
    assert (status.observed_generation, ready.status, ready.reason) == (4, "True", Code.CONFIGURED)
    assert ready.message == "routes may use large, small"
    refused = build_provider_status(provider, Refusal(Code.SECRET_NOT_FOUND, "it is missing"), NOW)
    (ready,) = refused.conditions
    assert (ready.status, ready.reason, ready.message) == ("False", Code.SECRET_NOT_FOUND, "it is missing")


LORA = {"adapters": [{"name": "lora", "source": "hf://org/lora"}]}


def test_an_adapter_is_a_target_of_its_own_beside_its_model():
    adapter = {**OWN, "adapter": "lora"}
    route = make_targets_route("team/chat", "chat", {**adapter, "weight": 3}, OWN)
    snapshot = _snapshot(route, model=LORA)
    found = _route(snapshot)
    assert found.targets == (WeightedTarget("team/llama:lora", 3), LLAMA)
    assert _table(snapshot).upstreams["team/llama:lora"].model == "lora"
    assert find_shares((found,), snapshot.deployments) == {
        "team/llama": (Share("team/chat@route", 0.75), Share("team/chat@route", 0.25))
    }
    assert _ready(route, snapshot)[:2] == ("True", Code.ROUTED)


def test_an_adapter_that_the_deployment_does_not_have_gets_no_request():
    route = make_targets_route("team/chat", "chat", {**OWN, "adapter": "other"}, OWN)
    snapshot = _snapshot(route, model=LORA)
    assert _route(snapshot).targets == (LLAMA,)
    assert _ready(route, snapshot) == (
        "False",
        Code.TARGET_NOT_FOUND,
        "LLMDeployment team/llama has no adapter other: add it to its model.adapters, or correct the target",
    )


def test_the_full_name_of_a_sovereign_route_is_sovereign_whoever_has_it():
    closed = make_targets_route("team/inner", "inside", OWN, dataPolicy="Sovereign")
    other = make_targets_route("team/chat", "team/inner", ACME, OWN)
    snapshot = _snapshot(closed, other)
    assert resolve_names(snapshot)["team/inner"].key == "team/chat"
    assert _route(snapshot).targets == (LLAMA,)
    assert _ready(other, snapshot)[1] == Code.DATA_POLICY_VIOLATED
