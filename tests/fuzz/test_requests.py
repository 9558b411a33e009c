"""Bodies, headers and framing against the real Envoy with the configuration that the operator sends."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from aiohttp import web

from modelyard.core.limits.account import Limits
from modelyard.core.routing import Tenant
from tests.fuzz.conftest import EFFORT, TRIED
from tests.fuzz.wire import INFERENCE, INTERNAL, SPOOFED, Wire, make_request
from tests.gateway.conftest import Backend, Gateway, table_of

REQUESTS = 400
"""Tried by each test in CI."""
AT_ONCE = 16
"""Connections at a time."""

KEYS = {f"sk-{name}-0123456789abcdef": name for name in ("wide", "narrow", "limited")}
KEY = {name: key for key, name in KEYS.items()}
LIMIT = 5
"""Requests per minute of the tenant `limited`; the clock of the limits stands still."""

REFUSALS = {400, 401, 403, 404, 405, 413, 415, 426, 429, 431, 501, 505}
"""What the gateway and Envoy's codec answer to requests that are not as they should be. Of the 5xx, 501 is Envoy's
answer to an unknown transfer encoding and 505 that to an unknown version of HTTP."""


@pytest.fixture
async def backend(gateway, make_backend) -> Backend:
    """The models `a` and `b` on an engine that says what reached it; `narrow` may use `a` only."""
    gateway.clock.stopped = 0
    engine = await make_backend()
    engine.reply = answer
    made = table_of(("a", (engine.endpoint,), 0), ("b", (engine.endpoint,), 0))
    gateway.tenant_keys = KEYS
    tenants = {
        "wide": Tenant(),
        "narrow": Tenant(routes=frozenset({"team/a"})),
        "limited": Tenant(limits=Limits(requests=LIMIT)),
    }
    await gateway.apply(replace(made, anonymous=False, tenants=tenants))
    return engine


def seeds(name: str) -> Iterator[tuple[int, Random]]:
    """Yield as many generators as requests are tried; in CI always the same."""
    base = 1 if EFFORT == 1 else int.from_bytes(os.urandom(6), "big")
    for number in range(REQUESTS * EFFORT):
        TRIED[name] += 1
        yield base + number, Random(base + number)


async def send(gateway: Gateway, wire: Wire) -> int | None:
    """Send a request as it is; returns the status of its answer, None where there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.listener_port)
    try:
        writer.write(wire.data)
        await writer.drain()
        if not wire.complete:
            return None
        async with asyncio.timeout(60):
            answer = await reader.read()
    except ConnectionError:
        return None
    finally:
        writer.close()
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


async def flood(gateway: Gateway, tenant: str | None, name: str) -> dict[int, int | None]:
    """Send all requests of a test in the name of a tenant, and return what was answered, by seed."""
    answers: dict[int, int | None] = {}
    source = seeds(name)

    async def work() -> None:
        for seed, random in source:
            answers[seed] = await send(gateway, make_request(random, KEY.get(tenant or "")))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return answers


def check_answers(answers: dict[int, int | None]) -> None:
    odd = {seed: status for seed, status in answers.items() if status not in {None, 200, *REFUSALS}}
    assert odd == {}, "seeds of make_request, and the status of each"


async def check_alive(gateway: Gateway, engine: Backend) -> None:
    """The same process still serves."""
    before = len(engine.bodies)
    pid = gateway.envoy.pid
    status, _, _ = await gateway.post({"model": "a"}, headers={"authorization": f"Bearer {KEY['wide']}"})
    assert (status, len(engine.bodies), gateway.envoy.pid) == (200, before + 1, pid)
    assert gateway.envoy._process is not None
    assert gateway.envoy._process.returncode is None


def check_received(engine: Backend, allowed: set[str]) -> None:
    """Whatever came through is one request for a model that the tenant may use, in the gateway's own words."""
    for path, headers, body in zip(engine.paths, engine.headers, engine.bodies, strict=True):
        assert path.partition("?")[0] in INFERENCE
        pairs = json.loads(_mend(body), object_pairs_hook=list, strict=False)
        models = [value for key, value in pairs if key == "model"]
        assert len(models) == 1
        assert models[0] in allowed
        assert int(headers["content-length"]) == len(body)
        assert "transfer-encoding" not in headers
        assert not {"authorization", "x-api-key"} & headers.keys()
        for name, value in headers.items():
            plain = name.lower().replace("_", "-")
            assert not (plain in INTERNAL and SPOOFED in value), name
            assert KEY["wide"] not in value


def _mend(body: bytes) -> str:
    """Return it without what the gateway leaves to the engine: odd escapes and bytes in strings, the name's aside."""
    text = body.decode("utf-8", "replace")
    return re.sub(
        r"\\(.)", lambda match: match[0] if match[1] in '"\\/bfnrtu' else "?", text, flags=re.DOTALL
    )


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer as an engine that takes everything."""
    return web.json_response({"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})


async def test_what_reaches_an_engine_is_what_was_allowed(gateway, backend):
    answers = await flood(gateway, "wide", "requests of a tenant that may use all models")
    check_answers(answers)
    check_received(backend, {"served-a", "served-b"})
    # The test is about something: a good part of it came through, and a good part was refused.
    statuses = list(answers.values())
    assert statuses.count(200) > len(statuses) / 20
    assert statuses.count(400) > len(statuses) / 20
    assert len(backend.bodies) > len(statuses) / 20
    await check_alive(gateway, backend)


async def test_no_odd_request_reaches_a_model_that_the_tenant_may_not_use(gateway, backend):
    check_answers(await flood(gateway, "narrow", "requests of a tenant that may use one model"))
    check_received(backend, {"served-a"})
    await check_alive(gateway, backend)


async def test_nobody_without_a_key_reaches_an_engine(gateway, backend):
    answers = await flood(gateway, None, "requests without a key")
    check_answers(answers)
    assert backend.bodies == []
    assert 200 not in answers.values()
    await check_alive(gateway, backend)


async def test_no_odd_request_passes_a_spent_limit(gateway, backend):
    used: list[Any] = [
        await gateway.post({"model": "a"}, headers={"authorization": f"Bearer {KEY['limited']}"})
        for _ in range(LIMIT + 1)
    ]
    assert [status for status, _, _ in used] == [200] * LIMIT + [429]
    del backend.bodies[:], backend.headers[:], backend.paths[:]
    answers = await flood(gateway, "limited", "requests of a tenant whose limit is spent")
    check_answers(answers)
    assert backend.bodies == []
    assert list(answers.values()).count(429) > len(answers) / 20
    await check_alive(gateway, backend)
