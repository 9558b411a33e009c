"""API keys, what each tenant may use, and what a change of keys does to requests under way."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from dev.envoy.process import EnvoyProcess
from modelyard.core.routing import RoutingTable, Tenant
from modelyard.core.tenants import MAX_KEY, MIN_KEY
from modelyard.gateway import ads
from modelyard.render.envoy.tenants import tenant_groups
from tests.gateway.conftest import PATIENCE, Backend, Gateway, table_of

ACME, OTHER = "sk-acme-0123456789abcdef", "sk-other-0123456789abcdef"
CHAT = "/v1/chat/completions"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def closed(table: RoutingTable, **rights: frozenset[str] | None) -> RoutingTable:
    """The table of a gateway that asks for keys; `rights` are the routes of each tenant."""
    tenants = {name: Tenant(routes) for name, routes in rights.items()}
    return replace(table, anonymous=False, tenants=tenants)


@pytest.fixture
async def backend(make_backend) -> Backend:
    return await make_backend()


@pytest.fixture
async def models(gateway: Gateway, backend: Backend) -> Gateway:
    """The models `a` and `b`; `acme` may use both, `other` only `b`."""
    gateway.tenant_keys = {ACME: "acme", OTHER: "other"}
    both = table_of(("a", (backend.endpoint,), 0), ("b", (backend.endpoint,), 0))
    await gateway.apply(closed(both, acme=None, other=frozenset({"team/b"})))
    return gateway


async def test_a_key_is_asked_for(models, backend):
    for headers in (
        bearer(ACME),
        {"authorization": f"bearer  {ACME}"},
        {"x-api-key": ACME},
        {**bearer("sk-of-something-in-between"), "x-api-key": ACME},
    ):
        assert (await models.post({"model": "a"}, headers=headers))[0] == 200, headers
    for headers in (
        {},
        bearer("sk-wrong-0123456789abcdef"),
        bearer(""),
        bearer(f"{ACME} {ACME}"),
        bearer(ACME[:-1]),
        {"authorization": ACME},
        {"authorization": f"Basic {ACME}"},
        {"x-api-key": f"Bearer {ACME}"},
        {"x-modelyard-tenant": "acme", "x-modelyard-groups": ","},
        {"cookie": f"api-key={ACME}"},
        bearer("k" * 40_000),
        bearer("anonymous"),
    ):
        status, body, sent = await models.post({"model": "a"}, headers=headers)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key"), headers
        assert body["error"]["type"] == "invalid_request_error"
        assert sent["www-authenticate"] == "Bearer"
        assert sent["content-type"] == "application/json"
    for path in ("/v1/models", "/v1/models/a", "/v1/files", "/"):
        async with models.session.get(f"{models.envoy.url}{path}") as reply:
            assert reply.status == 401, path
    async with models.session.get(f"{models.envoy.url}/healthz") as reply:
        assert reply.status == 200, "whoever balances load has no key"
    assert len(backend.bodies) == 4
    for headers in backend.headers:
        assert not {"authorization", "x-api-key"} & headers.keys()
        assert [name for name in headers if name.startswith("x-modelyard-")] == []


async def test_keys_of_every_length_are_known(gateway, backend):
    """Each length pads its digest in its own way."""
    keys = {"k" * length: "acme" for length in range(MIN_KEY, MAX_KEY + 1)}
    gateway.tenant_keys = keys
    await gateway.apply(closed(table_of(("a", (backend.endpoint,), 0)), acme=None))
    for key in keys:
        async with gateway.session.get(f"{gateway.envoy.url}/v1/models", headers=bearer(key)) as reply:
            assert reply.status == 200, len(key)
    async with gateway.session.get(
        f"{gateway.envoy.url}/v1/models", headers=bearer("k" * (MAX_KEY + 1))
    ) as reply:
        assert reply.status == 401


async def test_whoever_has_no_key_is_answered_before_the_body_is_read(models):
    reader, writer = await asyncio.open_connection("127.0.0.1", models.settings.listener_port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 10000000\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    assert head.startswith(b"HTTP/1.1 401")
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_reads_while_it_sends_ten_megabytes_gets_its_401(models):
    status, body, _ = await models.post({"model": "a", "x": "y" * 10_000_000})
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


async def test_what_a_tenant_may_not_use_is_refused_once_the_model_is_known(models, backend):
    for name in ("a", "team/a"):
        status, body, _ = await models.post({"model": name}, headers=bearer(OTHER))
        assert (status, body["error"]["code"]) == (403, "model_not_allowed")
        assert body["error"]["message"].startswith(f"This API key may not use the model `{name}`.")
    assert backend.bodies == []
    for key, model in ((OTHER, "b"), (OTHER, "team/b"), (ACME, "a"), (ACME, "b")):
        assert (await models.post({"model": model}, headers=bearer(key)))[0] == 200
    assert (await models.post({"model": "gone"}, headers=bearer(OTHER)))[0] == 404
    arrivals = (await models.counters()).arrivals
    assert (arrivals["team/a"], arrivals["team/b"]) == (1, 3), "what is refused is no demand"


SPOOFED = (
    {"x-modelyard-tenant": "acme"},
    {"X-Modelyard-Groups": ",u0,"},
    {"x-modelyard-route": "model:a"},
    {"x-modelyard-route": "model:a", "x-modelyard-tenant": "acme"},
    {"x-envoy-original-path": "/v1/models"},
)


async def test_no_header_of_a_client_makes_it_another_tenant(models, backend):
    group = ",".join(["", *models_groups(models), ""])
    for headers in (*SPOOFED, {"x-modelyard-groups": group}):
        status, body, _ = await models.post({"model": "a"}, headers={**headers, **bearer(OTHER)})
        assert (status, body["error"]["code"]) == (403, "model_not_allowed"), headers
    for body in (b'{"model":"b","model":"a"}', b'{"mod\\u0065l":"a","model":"b"}'):
        assert (await models.post(body, headers=bearer(OTHER)))[0] == 400
    assert (await models.post(b'{"model":"\\u0061"}', headers=bearer(OTHER)))[0] == 403
    assert backend.bodies == []


def models_groups(gateway: Gateway) -> list[str]:
    """Every group that the gateway knows."""
    groups = tenant_groups(gateway.table)
    return sorted(group for value in groups.members.values() for group in value.split(",") if group)


async def test_what_is_counted_names_the_tenant(models):
    for key, model in ((ACME, "a"), (ACME, "b"), (OTHER, "b")):
        assert (await models.post({"model": model}, headers=bearer(key)))[0] == 200
    assert (await models.post({"model": "a"}, headers=bearer(OTHER)))[0] == 403
    assert (await models.post({"model": "a"}))[0] == 401
    counters = await models.counters()
    assert {(key.route, key.tenant) for key in counters.prompt_tokens} == {
        ("team/a", "acme"),
        ("team/b", "acme"),
        ("team/b", "other"),
    }
    refused = {
        (key.route, key.tenant): count for (key, code), count in counters.requests.items() if code == "4xx"
    }
    assert refused == {("", "other"): 1, ("", ""): 1}


async def listed(gateway: Gateway, key: str | None) -> set[str]:
    headers = bearer(key) if key else {}
    async with gateway.session.get(f"{gateway.envoy.url}/v1/models", headers=headers) as reply:
        return {item["id"] for item in (await reply.json())["data"]}


async def test_a_tenant_is_shown_what_it_may_use(models):
    assert await listed(models, ACME) == {"a", "b", "team/a", "team/b"}
    assert await listed(models, OTHER) == {"b", "team/b"}
    for key, name, status in (
        (ACME, "a", 200),
        (OTHER, "a", 403),
        (OTHER, "team%2Fb", 200),
        (OTHER, "c", 404),
    ):
        async with models.session.get(f"{models.envoy.url}/v1/models/{name}", headers=bearer(key)) as reply:
            assert reply.status == status, (key, name)


async def test_a_refused_tenant_wakes_no_model(gateway):
    gateway.tenant_keys = {OTHER: "other"}
    await gateway.apply(closed(table_of(("a", (), 0)), other=frozenset()))
    assert (await gateway.post({"model": "a"}, headers=bearer(OTHER)))[0] == 403
    assert (await gateway.post({"model": "a"}))[0] == 401
    assert gateway.wakes == []


async def test_a_held_request_keeps_its_tenant_while_keys_change(gateway, backend):
    gateway.tenant_keys = {ACME: "acme"}
    await gateway.apply(closed(table_of(("a", (), 0)), acme=frozenset({"team/a"}), other=frozenset()))
    held = asyncio.create_task(gateway.post({"model": "a"}, headers=bearer(ACME)))
    await gateway.wait_waiting({"team/a": 1})
    gateway.tenant_keys = {OTHER: "acme"}
    await gateway.apply(
        closed(table_of(("a", (backend.endpoint,), 0)), acme=frozenset({"team/a"}), other=None)
    )
    assert (await held)[0] == 200


async def wait_status(gateway: Gateway, key: str, status: int) -> None:
    """Wait until Envoy's workers have what its main thread has acknowledged."""
    async with asyncio.timeout(PATIENCE):
        while (await gateway.post({"model": "a"}, headers=bearer(key)))[0] != status:
            await asyncio.sleep(0.01)


async def test_a_key_is_changed_while_a_stream_runs(models, backend):
    asked = {"model": "a", "stream": True}
    url = f"{models.envoy.url}{CHAT}"
    async with models.session.post(url, json=asked, headers=bearer(ACME)) as reply:
        first = await reply.content.readline()
        assert b'"content":"a"' in first
        models.tenant_keys = {"sk-acme-renewed-0123456789": "acme"}
        await models.apply(models.table)
        await wait_status(models, ACME, 401)
        await wait_status(models, "sk-acme-renewed-0123456789", 200)
        backend.release.set()
        assert (await reply.content.read()).endswith(b"data: [DONE]\n\n"), "the stream ends whole"
    assert await statistic(models, "downstream_cx_drain_close") == 0, "no connection was drained for it"


async def statistic(gateway: Gateway, name: str) -> int:
    """Return a statistic of the connections to clients."""
    async with gateway.session.get(
        f"http://127.0.0.1:{gateway.envoy.admin_port}/stats?filter=http.gateway.{name}"
    ) as reply:
        return int((await reply.text()).strip().rpartition(" ")[2])


async def test_old_and_new_key_work_side_by_side(models):
    models.tenant_keys = {ACME: "acme", "sk-acme-renewed-0123456789": "acme"}
    await models.apply(models.table)
    await wait_status(models, "sk-acme-renewed-0123456789", 200)
    assert (await models.post({"model": "a"}, headers=bearer(ACME)))[0] == 200


async def test_an_open_gateway_knows_whose_key_is_sent(gateway, backend):
    gateway.tenant_keys = {OTHER: "other"}
    table = table_of(("a", (backend.endpoint,), 0), ("b", (backend.endpoint,), 0))
    await gateway.apply(replace(closed(table, other=frozenset({"team/b"})), anonymous=True))
    assert (await gateway.post({"model": "a"}))[0] == 200
    assert (await gateway.post({"model": "a"}, headers=bearer("EMPTY")))[0] == 200
    assert (await gateway.post({"model": "a"}, headers=bearer(OTHER)))[0] == 403
    assert await listed(gateway, None) == {"a", "b", "team/a", "team/b"}
    assert await listed(gateway, OTHER) == {"b", "team/b"}


async def test_keys_stay_out_of_everything_that_envoy_is_given_shows_or_writes(models):
    assert (await models.post({"model": "a"}, headers=bearer(ACME)))[0] == 200
    assert (await models.post({"model": "a"}, headers={"x-api-key": OTHER}))[0] == 403
    shown = []
    for page in ("config_dump?include_eds", "stats/prometheus", "clusters", "init_dump"):
        async with models.session.get(f"http://127.0.0.1:{models.envoy.admin_port}/{page}") as reply:
            assert reply.status == 200, page
            shown.append(await reply.text())
    assert any('"tenant' in text or "acme" in text for text in shown), "the tenants themselves are shown"
    shown += [path.read_text(errors="replace") for path in models.folder.rglob("*") if path.is_file()]
    resources = models.server._resources
    assert resources is not None
    shown += [repr(resources), repr(models.table)]
    shown += [str(item.encoded) for kind in resources.by_type.values() for item in kind.values()]
    assert [text for text in shown if ACME in text or OTHER in text] == []


async def test_an_envoy_elsewhere_is_given_digests_too(models, monkeypatch):
    """Whoever listens to a connection that is not encrypted learns no key from it."""
    monkeypatch.setattr(ads, "_is_loopback", lambda address: False)
    await models.envoy.stop()
    models.envoy = EnvoyProcess(
        models.folder, models.xds_port, models.settings.listener_port, node_id="envoy-2"
    )
    async with models.envoy:
        assert (await models.post({"model": "a"}, headers=bearer(ACME)))[0] == 200
        assert (await models.post({"model": "a"}))[0] == 401


async def test_five_hundred_tenants(gateway, backend):
    names = [f"m{number}" for number in range(50)]
    keys = {f"sk-{number:04}-0123456789abcdef": f"tenant-{number}" for number in range(500)}
    rights = {tenant: frozenset({f"team/{names[i % 50]}"}) for i, tenant in enumerate(keys.values())}
    gateway.tenant_keys = keys
    table = closed(table_of(*((name, (backend.endpoint,), 0) for name in names)), **rights)
    await gateway.apply(table)
    for number, key in list(enumerate(keys))[::50]:
        own = names[number % 50]
        assert await listed(gateway, key) == {own, f"team/{own}"}
        assert (await gateway.post({"model": own}, headers=bearer(key)))[0] == 200
        other = names[(number + 1) % 50]
        assert (await gateway.post({"model": other}, headers=bearer(key)))[0] == 403
    resources: Any = gateway.server._resources
    size = sum(len(item.encoded) for kind in resources.by_type.values() for item in kind.values())
    assert size < 2_000_000, json.dumps({name: len(kind) for name, kind in resources.by_type.items()})
