"""What budgets change for single tenants, through the real Envoy: who is refused, with what, and who is not."""

import json
from dataclasses import replace
from email.utils import formatdate, parsedate_to_datetime

import pytest

from modelyard.core.routing import BudgetRule, Exhausted, RouteRule, RoutingTable, Tenant, WeightedTarget
from modelyard.render.envoy import names
from tests.gateway.conftest import Gateway, table_of
from tests.gateway.test_providers import engine, external, table_to
from tests.gateway.tls import tls_provider

UNTIL = 1_798_758_000
"""Unix time: 2027-01-01T00:00:00+01:00."""
SPENT = Exhausted("Budget search is spent for this month; it resets at 2027-01-01T00:00:00+01:00.", UNTIL)
UNKNOWN = Exhausted("What was spent of budget search is not known, so no provider is used for now.")


def under(table: RoutingTable, *rules: BudgetRule) -> RoutingTable:
    """The table with budget rules on every route."""
    return replace(table, routes=tuple(replace(route, budgets=rules) for route in table.routes))


TENANTS = ("search", "search.ads", "searc", "mail")


@pytest.fixture
def tenants(gateway: Gateway) -> Gateway:
    """A gateway that knows the keys of tenants, some of which look alike."""
    gateway.tenant_keys = {key_of(name): name for name in TENANTS}
    return gateway


def key_of(tenant: str) -> str:
    return f"sk-of-{tenant}-0123456789abcdef"


def as_tenant(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key_of(name)}"}


def known(table: RoutingTable) -> RoutingTable:
    """The table with those tenants; who has no key is served as well."""
    return replace(table, tenants={name: Tenant() for name in TENANTS})


async def test_everybody_is_refused_with_the_budget_and_when_it_resets(gateway, make_backend):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0), ("b", (backend.endpoint,), 0))
    closed = under(table, BudgetRule(closed=True, refusal=SPENT))
    await gateway.apply(replace(table, routes=(closed.routes[0], table.routes[1])))
    for body in ({"model": "a"}, {"model": "a", "stream": True}, {"model": "team/a"}):
        status, answer, headers = await gateway.post(body)
        assert status == 429
        assert answer == {
            "error": {
                "message": SPENT.message,
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        }
        assert headers["content-type"] == "application/json"
        assert headers["retry-after"] == formatdate(UNTIL, usegmt=True)
        assert parsedate_to_datetime(headers["retry-after"]).timestamp() == UNTIL
        assert headers["x-should-retry"] == "false"
    assert backend.bodies == []
    assert (await gateway.post({"model": "b"}))[0] == 200
    async with gateway.session.get(f"{gateway.envoy.url}/v1/models") as reply:
        listed = {item["id"] for item in (await reply.json())["data"]}
    assert listed == {"a", "team/a", "b", "team/b"}, "what is refused is still there"


async def test_a_refused_request_is_no_demand_and_wakes_nothing(gateway):
    await gateway.apply(under(table_of(("a", (), 0)), BudgetRule(closed=True, refusal=SPENT)))
    for _ in range(3):
        assert (await gateway.post({"model": "a"}))[0] == 429
    counters = await gateway.counters()
    assert counters.arrivals.get("team/a", 0) == 0
    assert {key.route for key, _ in counters.requests} <= {""}
    assert gateway.wakes == []


async def test_a_large_request_is_read_whole_and_refused(gateway, make_backend):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0))
    await gateway.apply(under(table, BudgetRule(closed=True, refusal=SPENT)))
    body = json.dumps({"messages": "x" * 10_000_000, "model": "a"}).encode()
    status, answer, _ = await gateway.post(body)
    assert (status, answer["error"]["message"]) == (429, SPENT.message)


async def test_raising_the_amount_opens_at_once(gateway, make_backend):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0))
    await gateway.apply(under(table, BudgetRule(closed=True, refusal=SPENT)))
    assert (await gateway.post({"model": "a"}))[0] == 429
    await gateway.apply(table)
    assert (await gateway.post({"model": "a"}))[0] == 200


async def test_a_tenants_budget_refuses_nobody_else(tenants, make_backend):
    gateway = tenants
    backend = await make_backend()
    backend.release.set()
    rules = (BudgetRule(tenant="search", closed=True, refusal=SPENT),)
    table = known(table_of(("a", (backend.endpoint,), 0), first_token_seconds=5))
    await gateway.apply(under(table, *rules))
    expected = {"search": 429, "search.ads": 200, "searc": 200, "mail": 200}
    url = f"{gateway.envoy.url}/v1/chat/completions"
    for tenant, status in expected.items():
        for body in ({"model": "a"}, {"model": "a", "stream": True}):
            async with gateway.session.post(url, json=body, headers=as_tenant(tenant)) as reply:
                assert reply.status == status, (tenant, body)
                await reply.read()
    assert (await gateway.post({"model": "a"}))[0] == 200, "without a tenant"


async def test_a_tenant_named_by_the_client_is_not_believed(gateway, make_backend):
    backend = await make_backend()
    table = under(
        table_of(("a", (backend.endpoint,), 0)),
        BudgetRule(tenant="rich"),
        BudgetRule(closed=True, refusal=SPENT),
    )
    await gateway.apply(table)
    assert (await gateway.post({"model": "a"}, headers={names.TENANT_HEADER: "rich"}))[0] == 429


async def test_only_the_provider_is_taken_away_and_only_from_that_tenant(tenants, tmp_path, make_backend):
    gateway, own = tenants, await make_backend()
    async with tls_provider(tmp_path / "ca") as provider:
        outside = external(provider, keyed=False)
        rule = BudgetRule(tenant="search", without=(outside.cluster,), refusal=SPENT)
        await gateway.apply(under(known(table_to(outside, engine(own))), rule))

        async def answered_by(tenant: str) -> str:
            status, body, _ = await gateway.post({"model": "chat"}, headers=as_tenant(tenant))
            assert status == 200
            return str(body["model"])

        assert [await answered_by("search") for _ in range(3)] == ["served-own"] * 3
        assert provider.received == []
        assert await answered_by("mail") == "acme/large-4.1"
        # The engine fails: what is taken away is no fallback either.
        own.status = 503
        status, _, _ = await gateway.post({"model": "chat"}, headers=as_tenant("search"))
        assert status == 503
        assert len(provider.received) == 1


async def test_where_no_target_is_left_the_answer_is_429(gateway, tmp_path):
    async with tls_provider(tmp_path / "ca") as provider:
        outside = external(provider, keyed=False)
        table = table_to(outside)
        await gateway.apply(under(table, BudgetRule(without=(outside.cluster,), refusal=UNKNOWN)))
        status, body, headers = await gateway.post({"model": "chat"})
        assert (status, body["error"]["message"]) == (429, UNKNOWN.message)
        assert headers["retry-after"] == str(gateway.settings.retry_after)
        assert "x-should-retry" not in headers, "it may be known again soon"
        assert provider.handshakes == 0


async def test_the_cheapest_goes_first_and_the_others_help_out(gateway, make_backend):
    dear, cheap = await make_backend(), await make_backend()
    table = table_to(engine(dear, name="dear", model="dear"), engine(cheap, name="cheap", model="cheap"))
    await gateway.apply(under(table, BudgetRule(order=("team/cheap", "team/dear"))))
    answers = [(await gateway.post({"model": "chat"}))[1]["model"] for _ in range(4)]
    assert answers == ["cheap"] * 4
    cheap.status = 503
    assert (await gateway.post({"model": "chat"}))[1]["model"] == "dear"


async def test_a_rule_of_the_route_leads_to_nothing_that_a_budget_takes_away(tenants, tmp_path, make_backend):
    """Requests with a header go to the provider; for one tenant that is taken away, and nothing is left of the rule."""
    gateway, own = tenants, await make_backend()
    async with tls_provider(tmp_path / "ca") as provider:
        outside = external(provider, keyed=False)
        table = known(table_to(engine(own), outside))
        rule = RouteRule((WeightedTarget(outside.cluster),), headers=(("x-tier", "gold"),))
        ruled = replace(table, routes=tuple(replace(route, rules=(rule,)) for route in table.routes))
        await gateway.apply(
            under(ruled, BudgetRule(tenant="search", without=(outside.cluster,), refusal=SPENT))
        )

        async def ask(tenant: str, **headers: str) -> tuple[int, str]:
            status, body, _ = await gateway.post({"model": "chat"}, headers={**as_tenant(tenant), **headers})
            return status, body["error"]["message"] if status != 200 else body["model"]

        assert await ask("mail", **{"x-tier": "gold"}) == (200, "acme/large-4.1")
        assert len(provider.received) == 1
        assert await ask("search", **{"x-tier": "gold"}) == (429, SPENT.message)
        assert await ask("search") == (200, "served-own")
        assert len(provider.received) == 1
