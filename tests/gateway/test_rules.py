"""Rules of routes through the real Envoy: whose requests go where, and that policy and budgets hold in them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.routing import BudgetRule, Exhausted, RoutingTable
from modelyard.core.snapshot import Snapshot
from tests.gateway.conftest import Backend, Gateway
from tests.gateway.test_tenants import ACME, OTHER, bearer
from tests.gateway.tls import TlsProvider, tls_provider
from tests.unit.core.build import make_deployment, make_pod, make_provider, make_targets_route, make_tenant

LARGE = {"provider": "acme", "model": "large"}
GOLD = {"X-Tier": "gold"}


def rule(*targets: dict[str, Any], tenants: list[str] | None = None, **headers: str) -> dict[str, Any]:
    match: dict[str, Any] = {"tenants": tenants} if tenants else {}
    if headers:
        match["headers"] = [
            {"name": name.replace("_", "-"), "value": value} for name, value in headers.items()
        ]
    return {"match": match, "targets": list(targets)}


@dataclass
class Fleet:
    """The deployments `one` and `two`, a provider, and two tenants."""

    gateway: Gateway
    backends: dict[str, Backend]
    provider: TlsProvider

    async def apply(self, *targets: dict[str, Any], anonymous: bool = False, **spec: Any) -> RoutingTable:
        """Build the table of one route, `chat`, as the operator does, and wait until Envoy has it."""
        table = self.build(*targets, anonymous=anonymous, **spec)
        await self.gateway.apply(table)
        return table

    def build(self, *targets: dict[str, Any], anonymous: bool = False, **spec: Any) -> RoutingTable:
        route = make_targets_route("team/chat", "chat", *targets, **spec)
        provider = make_provider("acme", baseURL=f"{self.provider.url}/v1", trust=self.provider.certificate)
        pods = {
            f"team/{name}": (make_pod(name, f"team/{name}", address="127.0.0.1", port=backend.endpoint.port),)
            for name, backend in self.backends.items()
        }
        snapshot = Snapshot(
            {key: make_deployment(key, model={"name": key.partition("/")[2]}) for key in pods},
            {route.key: route},
            {"acme": provider},
            {name: make_tenant(name) for name in ("acme", "other")},
            pods=pods,
        )
        return build_routing_table(snapshot, resolve_names(snapshot), {}, RoutingTable(), anonymous=anonymous)

    async def ask(self, key: str | None = ACME, **headers: str) -> str:
        """Return the model that answers."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | (
            bearer(key) if key else {}
        )
        status, body, _ = await self.gateway.post({"model": "chat"}, headers=sent)
        return str(body["model"] if status == 200 else (status, body["error"]["code"]))


@pytest.fixture
async def fleet(gateway, make_backend, tmp_path) -> AsyncIterator[Fleet]:
    gateway.tenant_keys = {ACME: "acme", OTHER: "other"}
    async with tls_provider(tmp_path / "ca") as provider:
        yield Fleet(gateway, {name: await make_backend() for name in ("one", "two")}, provider)


ONE, TWO = {"deployment": "one"}, {"deployment": "two"}


async def test_the_first_rule_that_matches_decides(fleet):
    await fleet.apply(
        ONE,
        rules=[
            rule(LARGE, tenants=["other"], x_tier="gold"),
            rule(TWO, tenants=["other", "nobody"]),
            rule(LARGE, x_tier="gold", x_task="draft"),
            rule(TWO, X_Task="draft"),
        ],
    )
    assert await fleet.ask() == "one"
    assert await fleet.ask(x_tier="gold") == "one", "only half of what a rule asks for"
    assert await fleet.ask(x_task="draft") == "two"
    assert await fleet.ask(x_tier="gold", x_task="draft") == "large"
    assert await fleet.ask(x_task="Draft") == "one", "values are compared as they are"
    assert await fleet.ask(x_task="draft,draft") == "one"
    assert await fleet.ask(OTHER) == "two"
    assert await fleet.ask(OTHER, x_tier="gold") == "large"
    assert await fleet.ask(OTHER, x_modelyard_groups=",", x_modelyard_tenant="acme") == "two"
    arrivals = (await fleet.gateway.counters()).arrivals
    assert arrivals == {
        "team/chat@route": 4,
        "team/chat@route#0": 1,
        "team/chat@route#1": 2,
        "team/chat@route#2": 1,
        "team/chat@route#3": 1,
        "team/one": 0,
        "team/two": 0,
    }


async def test_a_rule_for_tenants_takes_nobody_without_a_key(fleet):
    await fleet.apply(ONE, rules=[rule(TWO, tenants=["acme"])], anonymous=True)
    assert await fleet.ask(None) == "one"
    assert await fleet.ask(OTHER) == "one"
    assert await fleet.ask(ACME) == "two"


async def test_what_decides_does_not_reach_a_provider(fleet):
    await fleet.apply(ONE, rules=[rule(LARGE, x_tier="gold")])
    assert await fleet.ask(x_tier="gold") == "large"
    (request,) = fleet.provider.received
    assert not {"x-tier", "x-modelyard-tenant", "x-modelyard-groups"} & request.headers.keys()


async def test_a_rule_falls_back_among_its_own_targets_only(fleet):
    await fleet.apply(LARGE, rules=[rule(ONE, TWO, x_tier="gold")], policy="Priority")
    assert await fleet.ask(x_tier="gold") == "one"
    fleet.backends["one"].status = 503
    assert await fleet.ask(x_tier="gold") == "two"
    fleet.backends["two"].status = 503
    status, _, _ = await fleet.gateway.post({"model": "chat"}, headers=GOLD | bearer(ACME))
    assert status == 503
    assert fleet.provider.handshakes == 0


async def test_a_rule_without_a_usable_target_refuses_and_says_why(fleet):
    await fleet.apply(ONE, rules=[rule({"deployment": "gone"}, x_tier="gold")])
    status, body, _ = await fleet.gateway.post({"model": "chat"}, headers=GOLD | bearer(ACME))
    assert (status, body["error"]["message"]) == (503, "LLMDeployment team/gone does not exist")
    assert await fleet.ask() == "one"


@pytest.mark.parametrize("policy", ["Weighted", "Priority"])
async def test_no_rule_opens_a_sovereign_route(fleet, policy):
    """No validation was asked: the API server would refuse it."""
    rules = [rule(LARGE, x_tier="gold"), rule(LARGE, TWO, tenants=["other"])]
    await fleet.apply(ONE, rules=rules, policy=policy)
    assert await fleet.ask(x_tier="gold") == "large", "else silence would prove nothing"
    fleet.provider.handshakes = 0
    fleet.provider.received.clear()
    fleet.provider.drop_connections()
    await fleet.apply(ONE, rules=rules, policy=policy, dataPolicy="Sovereign")
    for backend in fleet.backends.values():
        for status in (200, 503):
            backend.status = status
            for key in (ACME, OTHER):
                for headers in ({}, GOLD):
                    await fleet.gateway.post({"model": "chat"}, headers=headers | bearer(key))
    status, body, _ = await fleet.gateway.post({"model": "chat"}, headers=GOLD | bearer(ACME))
    assert status == 503
    assert "dataPolicy Sovereign" in body["error"]["message"]
    assert (fleet.provider.handshakes, fleet.provider.received) == (0, [])


async def test_the_least_quality_holds_in_rules(fleet):
    await fleet.apply(
        {**ONE, "quality": "0.9"},
        rules=[rule({**TWO, "quality": "0.4"}, {**ONE, "quality": "0.9"}, x_tier="gold")],
        minQuality="0.5",
        policy="Priority",
    )
    assert await fleet.ask(x_tier="gold") == "one"
    assert fleet.backends["two"].bodies == []


async def test_budgets_hold_in_rules(fleet):
    spent = Exhausted("Budget search is spent.")
    table = fleet.build(ONE, LARGE, rules=[rule(LARGE, x_tier="gold"), rule(LARGE, TWO, x_tier="silver")])
    (acme,) = table.externals
    rules = (
        BudgetRule("other", closed=True, refusal=spent),
        BudgetRule(without=(acme,), refusal=spent),
    )
    budgeted = tuple(
        replace(route, budgets=rules) if route.name == "team/chat@route" else route for route in table.routes
    )
    await fleet.gateway.apply(replace(table, routes=budgeted))
    assert await fleet.ask() == "one"
    assert await fleet.ask(x_tier="gold") == "(429, 'insufficient_quota')"
    assert await fleet.ask(x_tier="silver") == "two"
    assert await fleet.ask(OTHER) == "(429, 'insufficient_quota')"
    assert await fleet.ask(OTHER, x_tier="silver") == "(429, 'insufficient_quota')"
    assert fleet.provider.handshakes == 0


async def test_streams_and_shares_work_in_rules(fleet):
    await fleet.apply(
        LARGE,
        rules=[rule({**ONE, "weight": 1}, {**TWO, "weight": 1}, x_tier="gold")],
        timeouts={"firstToken": "20s"},
    )
    answers = [await fleet.ask(x_tier="gold") for _ in range(40)]
    assert set(answers) == {"one", "two"}
    for backend in fleet.backends.values():
        backend.release.set()
    url = f"{fleet.gateway.envoy.url}/v1/chat/completions"
    asked = {"model": "chat", "stream": True}
    async with fleet.gateway.session.post(url, json=asked, headers=GOLD | bearer(ACME)) as reply:
        assert (await reply.read()).endswith(b"data: [DONE]\n\n")
    assert fleet.provider.handshakes == 0
