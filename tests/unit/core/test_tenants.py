"""What a tenant may use, and whose a key is."""

import pytest

from modelyard.api.meta import Refusal
from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.reasons import Code
from modelyard.core.routing import RoutingTable
from modelyard.core.tenants import (
    KeyReading,
    KeyReport,
    TenantReading,
    assign_keys,
    build_tenant_status,
    find_missing,
    hash_key,
)
from tests.unit.core.build import NOW, make_deployment, make_snapshot, make_targets_route, make_tenant


def rights(*allow: dict[str, object]) -> frozenset[str] | None:
    tenant = make_tenant("acme", allow=list(allow) or None)
    adapters = {"adapters": [{"name": "lora", "source": "hf://org/lora"}]}
    snapshot = make_snapshot(
        make_deployment("a/own", model=adapters),
        make_deployment("a/other"),
        make_deployment("b/own"),
        routes=(make_targets_route("a/own", "chat", {"deployment": "own"}),),
        tenants=(tenant,),
    )
    table = build_routing_table(snapshot, resolve_names(snapshot), {}, RoutingTable(), anonymous=False)
    return table.tenants["acme"].routes


@pytest.mark.parametrize(
    ("allow", "expected"),
    [
        ((), None),
        (({"namespace": "b"},), {"b/own"}),
        # A route and a deployment may have one name.
        (({"namespace": "a", "names": ["own"]},), {"a/own@route", "a/own", "a/own:lora"}),
        (({"namespace": "a", "names": ["other", "gone"]}, {"namespace": "b"}), {"a/other", "b/own"}),
        (({"namespace": "gone"},), set()),
        (({"namespace": "a", "names": ["ow"]},), set()),
    ],
)
def test_what_a_tenant_may_use(allow, expected):
    assert rights(*allow) == expected


def reading(name: str, *keys: str | Refusal, created: str = "2026-01-01T00:00:00Z") -> TenantReading:
    found = (
        KeyReading(refusal=key) if isinstance(key, Refusal) else KeyReading(hash_key(key)) for key in keys
    )
    return TenantReading(make_tenant(name, created=created), tuple(found))


def test_of_two_tenants_with_one_key_the_older_has_it():
    young = reading("a", "shared", "own", created="2026-02-01T00:00:00Z")
    old = reading("b", "shared", created="2026-01-01T00:00:00Z")
    for readings in ((young, old), (old, young)):
        owners, reports = assign_keys(readings)
        assert owners == {hash_key("shared"): "b", hash_key("own"): "a"}
        assert reports["b"] == KeyReport(1)
        assert reports["a"].accepted == 1
        (refusal,) = reports["a"].refusals
        assert refusal.reason == Code.KEY_CONFLICT
        assert refusal.message.startswith("keys[0]: the same key belongs to LLMTenant b, which had it first")
    twins = (reading("d", "shared"), reading("c", "shared"))
    assert assign_keys(twins)[0] == {hash_key("shared"): "c"}


def test_a_tenant_may_name_one_key_twice():
    owners, reports = assign_keys([reading("a", "same", "same")])
    assert (owners, reports["a"]) == ({hash_key("same"): "a"}, KeyReport(2))


def test_a_key_that_may_not_be_read_any_more_still_counts():
    refusal = Refusal(Code.SECRET_FORBIDDEN, "grant it")
    known = TenantReading(make_tenant("a"), (KeyReading("digest", refusal),))
    assert assign_keys([known]) == ({"digest": "a"}, {"a": KeyReport(1, (refusal,))})


def test_the_status_names_what_is_allowed_and_does_not_exist():
    tenant = make_tenant(allow=[{"namespace": "a", "names": ["chat", "chta"]}, {"namespace": "b"}])
    missing = find_missing(tenant, {"a/chat", "b/chta"})
    assert missing == ("a/chta",)
    (ready,) = build_tenant_status(tenant, KeyReport(1), NOW, missing).conditions
    assert ready.status == "True", "it may still come"
    assert ready.message == "accepted keys: 1 of 1; allow names what does not exist (yet): a/chta"
    assert find_missing(make_tenant(), set()) == ()


def test_the_status_says_what_somebody_must_mend():
    tenant = make_tenant("a", keys=[{"name": "keys", "key": "one"}, {"name": "keys", "key": "two"}])
    (ready,) = build_tenant_status(tenant, KeyReport(2), NOW).conditions
    assert (ready.type, ready.status, ready.reason, ready.message) == (
        "Ready",
        "True",
        Code.CONFIGURED,
        "accepted keys: 2 of 2",
    )
    refusals = (Refusal(Code.SECRET_NOT_FOUND, "keys[0]: gone"), Refusal(Code.KEY_CONFLICT, "keys[1]: taken"))
    (ready,) = build_tenant_status(tenant, KeyReport(0, refusals), NOW).conditions
    assert (ready.status, ready.reason) == ("False", Code.SECRET_NOT_FOUND)
    assert ready.message == "accepted keys: 0 of 2; keys[0]: gone; keys[1]: taken"
