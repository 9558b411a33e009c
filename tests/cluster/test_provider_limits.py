"""A provider's limit per minute and whether it answers, from Envoy's counters through the operator and back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from modelyard.runtime.settings import SYSTEM_NAMESPACE
from tests.cluster.test_providers import API_VERSION, NAME, make_route, secret, server
from tests.cluster.test_routes import wait_route

__all__ = ["make_route", "secret", "server"]

LIMIT = 12
"""Requests per minute."""
PAUSE = 0.2
"""Seconds between two requests: those of one reading, and of the way back to Envoy, are few beside the limit."""
BEYOND = 10
"""Requests that may be sent beyond the limit: two seconds' worth, for a reading every 0.5 s."""
PATIENCE = 90.0
"""Seconds: a status is written every 10 s, and a provider is left out by Envoy for as long the first time."""


def conditions(bed: Any) -> dict[str, tuple[str, str]]:
    resource = bed.cluster.dynamic.resources.get(api_version=API_VERSION, kind="LLMProvider")
    found = resource.get(name=NAME, namespace=SYSTEM_NAMESPACE).to_dict()
    told = (found.get("status") or {}).get("conditions", ())
    return {item["type"]: (item["status"], item["reason"]) for item in told}


Ask = Callable[[], Awaitable[tuple[int, dict[str, Any], str]]]


@pytest.fixture
def ask(bed: Any) -> Ask:
    """Sends one request, after a pause; returns status, body and `Retry-After`."""

    async def send() -> tuple[int, dict[str, Any], str]:
        await asyncio.sleep(PAUSE)
        body = {"model": "outside", "messages": [{"role": "user", "content": "Hello"}]}
        url = f"{bed.stack.url}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as reply:
            return reply.status, await reply.json(content_type=None), reply.headers.get("retry-after", "")

    return send


async def test_a_used_up_limit_is_answered_429_until_enough_has_come_back(
    bed: Any, server: Any, secret: Any, make_route: Any, ask: Ask
) -> None:
    bed.cluster.apply([secret], SYSTEM_NAMESPACE)
    resource = bed.cluster.dynamic.resources.get(api_version=API_VERSION, kind="LLMProvider")
    limits = {"spec": {"limits": {"requestsPerMinute": LIMIT}}}
    resource.patch(
        name=NAME, namespace=SYSTEM_NAMESPACE, body=limits, content_type="application/merge-patch+json"
    )
    make_route("outside", {"provider": NAME, "model": "large"})
    wait_route(bed, "outside", "True", "Routed")
    async with asyncio.timeout(PATIENCE):
        while conditions(bed).get("LimitReached") != ("False", "LimitNotReached"):
            await asyncio.sleep(PAUSE)
        while (found := await ask())[0] == 200:
            pass
    status, body, retry_after = found
    assert status == 429
    assert (body["error"]["code"], body["error"]["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert f"no more than {LIMIT} requests per minute" in body["error"]["message"]
    again = parsedate_to_datetime(retry_after).timestamp()
    assert time.time() < again < time.time() + 60
    sent = len(server.received)
    assert LIMIT <= sent <= LIMIT + BEYOND
    async with asyncio.timeout(PATIENCE):
        while conditions(bed)["LimitReached"] != ("True", "LimitReached"):
            await asyncio.sleep(PAUSE)
        while (await ask())[0] != 200:
            pass
    assert time.time() >= again - 1.0, "it says when"
    assert len(server.received) == sent + 1, "what is refused does not leave"


async def test_the_status_follows_whether_the_provider_answers(
    bed: Any, server: Any, secret: Any, make_route: Any, ask: Ask
) -> None:
    bed.cluster.apply([secret], SYSTEM_NAMESPACE)
    make_route("outside", {"provider": NAME, "model": "large"})
    wait_route(bed, "outside", "True", "Routed")
    assert "Answering" not in conditions(bed), "nobody has asked"
    for code, wanted in (
        (200, ("True", "ProviderAnswers")),
        (503, ("False", "ProviderFailing")),
        (200, ("True", "ProviderAnswers")),
    ):
        server.status = code
        async with asyncio.timeout(PATIENCE):
            while conditions(bed).get("Answering") != wanted:
                await ask()
    # Other tests have providers of their own.
    assert bed.operator_metric("modelyard_provider_answering", provider=NAME, model="large") == 1
