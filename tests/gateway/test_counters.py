"""Counters of the real Envoy: names come back exactly, and every kind of end is counted."""

import asyncio
from dataclasses import replace

from dev.envoy.process import EnvoyProcess
from modelyard.core.limits.account import Limits
from modelyard.core.routing import (
    BudgetRule,
    Exhausted,
    Route,
    RouteRule,
    RoutingTable,
    Tenant,
    Upstream,
    WeightedTarget,
)
from modelyard.gateway.counters import Answered, CounterTotals, read_counters
from modelyard.runtime.readings import build_reading
from tests.gateway.conftest import PATIENCE, USAGE, table_of

ODD = {
    "team-a/llama-3.1.8b": "meta-llama/Llama-3.1-8B:free",
    "team_b/x": 'a "quoted" \\ name, with = and {braces}',
    "n/r@route": "é漢😀 %41 100%",
    "n/a:b": "a..b:/c://d|e",
    "n/a.http_local_rate_limit.enabled": "modelyard.requests",
}
"""Models by route; deployments are named like their routes."""


async def test_odd_names_come_back_exactly(gateway, make_backend):
    backend = await make_backend()
    routes = tuple(Route(name, (model,), (WeightedTarget(name),)) for name, model in ODD.items())
    upstreams = {name: Upstream(name, 3, "served", (backend.endpoint,)) for name in ODD}
    await gateway.apply(RoutingTable(routes, upstreams, anonymous=True))
    for model in ODD.values():
        assert (await gateway.post({"model": model}))[0] == 200
    counters = await gateway.counters()
    expected = {Answered(name, model, name) for name, model in ODD.items()}
    assert counters.arrivals == dict.fromkeys(ODD, 1)
    assert counters.requests == {(labels, "2xx"): 1 for labels in expected}
    assert counters.prompt_tokens == dict.fromkeys(expected, USAGE["prompt_tokens"])
    assert counters.completion_tokens == dict.fromkeys(expected, USAGE["completion_tokens"])


async def test_every_end_of_a_request_is_counted(gateway, make_backend):
    backend, failing = await make_backend(), await make_backend(status=500)
    await gateway.apply(
        table_of(("a", (backend.endpoint,), 0), ("b", (failing.endpoint,), 0), ("c", (), 0), hold_seconds=1)
    )
    for model, expected in (("a", 200), ("b", 500), ("c", 503), ("unknown", 404)):
        assert (await gateway.post({"model": model}))[0] == expected
    counters = await gateway.counters()
    assert counters.requests == {
        (Answered("team/a", "a", "team/a"), "2xx"): 1,
        (Answered("team/b", "b", "team/b"), "5xx"): 1,
        # Nothing answered it, so there is no deployment.
        (Answered("team/c", "c", ""), "5xx"): 1,
        (Answered("", "", ""), "4xx"): 1,
    }
    assert counters.arrivals == {"team/a": 1, "team/b": 1, "team/c": 1}
    assert counters.prompt_tokens == {Answered("team/a", "a", "team/a"): USAGE["prompt_tokens"]}


async def test_a_client_that_leaves_is_counted(gateway, make_backend):
    await gateway.apply(table_of(("a", (), 0)))
    held = asyncio.create_task(gateway.post({"model": "a"}))
    await gateway.wait_waiting({"team/a": 1})
    held.cancel()
    async with asyncio.timeout(PATIENCE):
        while not (counters := await gateway.counters()).requests:
            await asyncio.sleep(0.05)
    assert counters.requests == {(Answered("team/a", "a", ""), "0xx"): 1}
    assert counters.ended == counters.arrivals == {"team/a": 1}


KEYS = {f"sk-{name}-0123456789abcdef": name for name in ("acme", "other", "small")}


async def test_what_ends_has_arrived_under_the_same_name(gateway, make_backend):
    """What is refused before it arrives does not end either, and is counted as a request all the same."""
    backend = await make_backend()
    gateway.tenant_keys = KEYS
    gateway.clock.stopped = 0
    names = "abcde"
    table = table_of(*((name, (backend.endpoint,), 0) for name in names), ("f", (), 0), hold_seconds=1)
    routes = {route.name: route for route in table.routes}
    own = RouteRule((WeightedTarget("team/b"),), tenants=frozenset({"acme"}))
    changes = {
        "team/b": {"rules": (own, RouteRule((), headers=(("x-tier", "none"),), refusal="None is served."))},
        "team/c": {"budgets": (BudgetRule(closed=True, refusal=Exhausted("The budget is spent.")),)},
        "team/d": {"refusal": "The model is suspended."},
        "team/e": {"targets": ()},
    }
    tenants = {
        "acme": Tenant(),
        "other": Tenant(frozenset({"team/b"})),
        "small": Tenant(limits=Limits(requests=3)),
    }
    await gateway.apply(
        replace(
            table,
            routes=tuple(replace(route, **changes.get(name, {})) for name, route in routes.items()),
            tenants=tenants,
            anonymous=False,
        )
    )
    for model, tenant, statuses, headers in (
        ("a", "acme", [200, 200], {}),
        ("a", "other", [403, 403], {}),
        ("a", "nobody", [401], {}),
        ("b", "acme", [200, 200, 200], {}),
        ("b", "other", [200], {}),
        ("b", "other", [503, 503], {"x-tier": "none"}),
        ("c", "acme", [429, 429], {}),
        ("d", "acme", [503], {}),
        ("e", "acme", [503], {}),
        ("f", "acme", [503], {}),
        ("unknown", "acme", [404], {}),
        ("a", "small", [200, 200], {}),
        ("f", "small", [503], {}),
        ("a", "small", [200, 429, 429, 429, 429], {}),
        ("b", "small", [429], {}),
    ):
        sent = {"Authorization": f"Bearer sk-{tenant}-0123456789abcdef", **headers}
        found = [(await gateway.post({"model": model}, headers=sent))[0] for _ in statuses]
        assert found == statuses, (model, tenant)
    counters = await gateway.counters()
    expected = {
        "team/a": 5,
        "team/b": 1,
        "team/b#0": 3,
        "team/b#1": 2,
        "team/d": 1,
        "team/e": 1,
        "team/f": 2,
    }
    assert counters.arrivals == expected
    assert counters.ended == expected
    refused = {
        (key.model, key.tenant): count
        for (key, code), count in counters.requests.items()
        if code == "4xx" and key.route
    }
    assert refused == {("a", "small"): 4, ("b", "small"): 1}
    reading = build_reading(counters, {"envoy-1": counters}, gateway.table.routes, 0.0)
    assert set(reading.active.values()) == {0}


async def test_what_was_held_ends_where_it_arrived(gateway, make_backend):
    """Also if the rule that took it is gone by then."""
    backend = await make_backend()
    table = table_of(("a", (), 0))
    rule = RouteRule((WeightedTarget("team/a"),), headers=(("x-tier", "gold"),))
    await gateway.apply(replace(table, routes=(replace(table.routes[0], rules=(rule,)),)))
    held = asyncio.create_task(gateway.post({"model": "a"}, headers={"x-tier": "gold"}))
    await gateway.wait_waiting({"team/a#0": 1})
    counters = await gateway.counters()
    assert (counters.arrivals, counters.ended) == ({"team/a": 0, "team/a#0": 1}, {})
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    assert (await held)[0] == 200
    counters = await gateway.counters()
    assert counters.ended == {"team/a#0": 1}
    assert counters.arrivals == {"team/a": 0, "team/a#0": 1}, "those of a rule that is gone stay"


async def test_counts_go_on_over_generations_and_route_changes(gateway, make_backend):
    backend = await make_backend()
    for generation in range(3):
        await gateway.apply(table_of(("a", (backend.endpoint,), generation), request_seconds=60 + generation))
        assert (await gateway.post({"model": "a"}))[0] == 200
        await gateway.apply(table_of(("a", (), generation + 1), request_seconds=60 + generation))
    counters = await gateway.counters()
    assert counters.arrivals == {"team/a": 3}
    assert counters.requests == {(Answered("team/a", "a", "team/a"), "2xx"): 3}


async def test_two_envoys_add_up(gateway, make_backend, tmp_path):
    """Both listen on one port, and the kernel spreads new connections over them."""
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    second = EnvoyProcess(tmp_path, gateway.xds_port, gateway.settings.listener_port, node_id="envoy-2")
    sent = 0
    async with second:
        version = gateway.offer(gateway.table)
        for node in ("envoy-1", "envoy-2"):
            await asyncio.wait_for(gateway.server.wait_applied(node, version), PATIENCE)
        urls = [gateway.envoy.stats_url, second.stats_url]
        async with asyncio.timeout(PATIENCE):
            while True:
                read = [await read_counters(gateway.session, url) for url in urls]
                if all(counters.arrivals.get("team/a") for counters in read):
                    break
                # A new connection each time.
                assert (await gateway.post({"model": "a"}, headers={"Connection": "close"}))[0] == 200
                sent += 1
        totals = CounterTotals()
        for node, counters in zip(("envoy-1", "envoy-2"), read, strict=True):
            totals = totals.advance(node, counters)
        assert totals.totals.arrivals == {"team/a": sent}
        ports = {node.id: node.stats_port for node in gateway.server.nodes.values()}
        assert ports == {"envoy-1": gateway.envoy.stats_port, "envoy-2": second.stats_port}


async def test_only_two_pages_of_the_admin_interface_are_open(gateway):
    for path, expected in (
        ("/ready", 200),
        ("/stats/prometheus", 200),
        ("/", 404),
        ("/stats", 404),
        ("/config_dump", 404),
        ("/stats/prometheus/../../config_dump", 404),
        ("/quitquitquit", 404),
    ):
        async with gateway.session.get(gateway.envoy.stats_url + path) as reply:
            assert reply.status == expected, path
    async with gateway.session.post(gateway.envoy.stats_url + "/quitquitquit") as reply:
        assert reply.status == 404
