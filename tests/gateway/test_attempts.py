"""What Envoy counts of attempts at providers, and what clients get whose provider's limit is used up."""

import asyncio
import json
import math
import time
from email.utils import formatdate

import pytest

from dev.envoy.process import free_port
from modelyard.core.answering import Attempts
from modelyard.core.ledger.usage import Use, lost_use
from modelyard.core.routing import BudgetRule, Exhausted
from modelyard.core.spend import OTHER_TENANTS, SpendKey
from modelyard.gateway.counters import sum_attempts
from modelyard.runtime.usage import count_use
from tests.gateway.conftest import PATIENCE
from tests.gateway.test_budgets import under
from tests.gateway.test_fallback import hang, reset, two
from tests.gateway.test_providers import external, provider, table_to

__all__ = ["provider", "two"]

FIRST = "provider:first/a-rather-long-model-name"
DOTTED = "provider:first/acme/large-4.1"
"""The model of `external`: a name with dots and slashes, as providers have them."""


async def end_with_connection(request, writer):
    """Answer as HTTP/1.0 does: the body has no length and ends where the connection does."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{}")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (200, Attempts(sent=1, answered=1)),
        (404, Attempts(sent=1, answered=1)),
        (401, Attempts(sent=1, refused=1)),
        (429, Attempts(sent=1, limited=1)),
        (500, Attempts(sent=1, errors=1)),
        (503, Attempts(sent=1, failed=1)),
        ("ends with the connection", Attempts(sent=1, answered=1)),
        ("reset", Attempts(sent=1, failed=1, lost=1)),
        ("dead port", Attempts(failed=1)),
        ("no first token", Attempts(sent=1, failed=1, lost=1)),
        ("no answer", Attempts(sent=1, failed=1)),
        ("client left", Attempts(sent=1)),
    ],
)
async def test_each_attempt_is_counted_by_what_became_of_it_also_where_another_target_answers(
    gateway, two, outcome, counted
):
    (first, one), (_, other) = two
    key, changes, body = FIRST, {}, {"model": "chat"}
    if isinstance(outcome, int):
        first.status = outcome
    elif outcome == "ends with the connection":
        first.respond = end_with_connection
    elif outcome == "reset":
        first.respond = reset
    elif outcome == "dead port":
        key, one = DOTTED, external(first, "first", port=free_port())
    else:
        first.respond = hang
    if outcome == "no first token":
        changes = {"first_token_seconds": 1}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    elif outcome == "no answer":
        changes = {"request_seconds": 1}
    await gateway.apply(table_to(one, other, **changes))
    if outcome == "client left":
        asking = asyncio.create_task(gateway.post(body))
        async with asyncio.timeout(PATIENCE):
            while not first.received:
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    else:
        await gateway.post(body)
    async with asyncio.timeout(PATIENCE):
        while (found := sum_attempts(await gateway.counters())).get(key) != counted:
            await asyncio.sleep(0.05)
    answered_by_other = outcome in {429, 500, 503, "reset", "dead port", "no first token"}
    assert found.get("provider:second/short", Attempts()).answered == answered_by_other
    used = count_use(await gateway.counters(), 0.0).counts
    lost = {item: use for item, use in used.items() if item.tenant == OTHER_TENANTS}
    assert lost == ({SpendKey(OTHER_TENANTS, target=key): lost_use(1)} if counted.lost else {})
    if outcome == "no answer":
        # The provider goes on working for nobody: its tenant pays, by estimate.
        ((_, use),) = used.items()
        assert use == Use(
            requests=1,
            estimated_requests=1,
            estimated_prompt=math.ceil(len(json.dumps(body)) / 4),
            estimated_completion=211,
        )


async def test_a_used_up_limit_is_answered_as_limits_are_and_clients_may_ask_again(gateway, provider):
    until = int(time.time()) + 7
    refusal = Exhausted(
        "Provider acme is asked for no more than 60 requests per minute.", until, limited=True
    )
    upstream = external(provider)
    rule = BudgetRule(without=(upstream.cluster,), unknown=(upstream.cluster,), refusal=refusal)
    await gateway.apply(under(table_to(upstream), rule))
    status, answer, headers = await gateway.post({"model": "chat"})
    assert status == 429
    assert answer["error"] == {
        "message": refusal.message,
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert headers["retry-after"] == formatdate(until, usegmt=True)
    assert "x-should-retry" not in headers
    assert provider.received == []
