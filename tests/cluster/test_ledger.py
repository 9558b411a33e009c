"""What clients were told that they used is what the ledger says, although the operator is killed in the middle."""

import asyncio
import base64
import json
import time
import uuid

import aiohttp
import pytest
from typer.testing import CliRunner

from dev.demo.kube import namespace_manifest
from modelyard.cli.costread import read_view
from modelyard.cli.kubeconfig import Access
from modelyard.cli.main import app
from modelyard.core.ledger.settle import sum_lines
from modelyard.core.ledger.usage import Use
from modelyard.gateway.counters import Answered, read_counters
from modelyard.runtime.settings import SYSTEM_NAMESPACE

READING = "modelyard_gateway_reading_timestamp_seconds"

WRITTEN_S = 60
"""Seconds: the ledger is written every 2 s, on a machine that does more than that."""


async def ask(bed, model, *, words, streamed, key=None):
    """Send a chat request; return what the client was told that it used."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "word " * words}],
        "max_tokens": 3 + words % 5,
        "stream": streamed,
    }
    if streamed:
        body["stream_options"] = {"include_usage": True}
    url = f"{bed.stack.url}/v1/chat/completions"
    timeout = aiohttp.ClientTimeout(total=60)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, json=body, headers=headers) as reply,
    ):
        assert reply.status == 200
        text = await reply.text()
    if streamed:
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        text = events[-1]
    usage = json.loads(text)["usage"]
    return Use(requests=1, prompt=usage["prompt_tokens"], completion=usage["completion_tokens"])


async def ask_many(bed, model, first, key=None):
    told = await asyncio.gather(
        *(ask(bed, model, words=first + number, streamed=number % 2 == 0, key=key) for number in range(12))
    )
    return sum(told, Use())


async def written(bed, target):
    """Return the line of a deployment, as it is written."""
    view = await read_view(Access((bed.stack.kubeconfig,)), SYSTEM_NAMESPACE)
    lines = sum_lines(line for _, found in view.periods for line in found if line.key.target == target)
    return {line.key.route: line for line in lines}


async def wait_written(bed, target, use):
    async with asyncio.timeout(WRITTEN_S):
        while (lines := await written(bed, target)).get(target) is None or lines[target].use != use:
            await asyncio.sleep(0.2)
    return lines


async def test_sums_equal_what_clients_were_told(bed, make_model):
    bed.cluster.apply([namespace_manifest(SYSTEM_NAMESPACE, {})])
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    target = f"{bed.namespace}/{name}"

    told = await ask_many(bed, name, 1)
    await wait_written(bed, target, told)
    # Some of these may be read before the operator dies, none may be written.
    told += await ask_many(bed, name, 20)
    bed.stack.operator.kill()
    told += await ask_many(bed, name, 40)
    await asyncio.to_thread(bed.stack.operator.start)
    await asyncio.to_thread(bed.stack.operator.wait_ready)
    told += await ask_many(bed, name, 60)

    lines = await wait_written(bed, target, told)
    used = lines[target]
    assert used.hours > 0
    assert used.dollars == pytest.approx(6.88 * used.hours, rel=0.01), "one H100 at its price"
    assert 0 < used.marginal < used.dollars
    assert not used.unpriced

    options = ["--by", "deployment", "--since", "1h", "-o", "json", "--kubeconfig", str(bed.stack.kubeconfig)]
    report = json.loads((await asyncio.to_thread(CliRunner().invoke, app, ["cost", *options])).stdout)
    row = next(row for row in report["rows"] if row["name"] == target)
    assert (row["requests"], row["promptTokens"], row["completionTokens"]) == (
        48,
        told.prompt,
        told.completion,
    )


async def test_an_envoy_that_crashes_loses_nothing_that_was_read(bed, make_model):
    """And what its successor counts from zero is counted, be it more or less than before."""
    bed.cluster.apply([namespace_manifest(SYSTEM_NAMESPACE, {})])
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    target = f"{bed.namespace}/{name}"
    told = await ask_many(bed, name, 1)
    await wait_written(bed, target, told)
    for rounds in (2, 1):
        bed.stack.envoy.kill()
        await asyncio.to_thread(bed.stack.envoy.start)
        await asyncio.to_thread(bed.stack.envoy.wait_ready)
        await asyncio.to_thread(bed.wait_routed, name)
        for number in range(rounds):
            told += await ask_many(bed, name, 100 + number)
        await wait_written(bed, target, told)


async def last_reading(session, bed):
    """Return when the operator read Envoy last, as Unix time."""
    async with session.get(bed.stack.ports.metrics_url) as reply:
        page = await reply.text()
    (line,) = (line for line in page.splitlines() if line.startswith(READING))
    return float(line.split()[-1])


async def test_an_envoy_that_crashes_loses_no_more_than_since_the_last_reading(bed, make_model):
    """It is killed under load, and what was read then need not be written yet."""
    bed.cluster.apply([namespace_manifest(SYSTEM_NAMESPACE, {})])
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    target = f"{bed.namespace}/{name}"
    told = []

    async def go_on():
        while True:
            use = await ask(bed, name, words=3, streamed=False)
            told.append((time.time(), use))

    asking = asyncio.create_task(go_on())
    async with aiohttp.ClientSession() as session, asyncio.timeout(WRITTEN_S):
        while len(told) < 20 or (before := await last_reading(session, bed)) <= told[19][0]:
            await asyncio.sleep(0.1)
        # The next reading began after that one had ended.
        while await last_reading(session, bed) == before:
            await asyncio.sleep(0.02)
    bed.stack.envoy.kill()
    with pytest.raises(aiohttp.ClientError):
        await asking
    await asyncio.to_thread(bed.stack.envoy.start)
    await asyncio.to_thread(bed.stack.envoy.wait_ready)
    await asyncio.to_thread(bed.wait_routed, name)
    read = sum((use for moment, use in told if moment < before), Use())
    assert read.requests >= 20
    async with asyncio.timeout(WRITTEN_S):
        while (line := (await written(bed, target)).get(target)) is None or line.use.requests < read.requests:
            await asyncio.sleep(0.2)
    assert line.use.prompt >= read.prompt
    assert line.use.completion >= read.completion
    assert line.use.requests <= len(told) + 1, "and the one that was broken off, at most"


@pytest.fixture
def blue(bed):
    """A tenant, and its key. It is deleted after the test."""
    key = f"sk-blue-{uuid.uuid4().hex}"
    data = {"blue": base64.b64encode(key.encode()).decode()}
    manifests = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ledger-keys"}, "data": data},
        {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMTenant",
            "metadata": {"name": "blue"},
            "spec": {"keys": [{"name": "ledger-keys", "key": "blue"}]},
        },
    ]
    bed.cluster.apply([namespace_manifest(SYSTEM_NAMESPACE, {})])
    bed.cluster.apply(manifests, SYSTEM_NAMESPACE)
    yield key
    bed.cluster.delete(manifests, SYSTEM_NAMESPACE)


async def test_what_a_tenant_used_is_its_own(bed, make_model, blue):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    target = f"{bed.namespace}/{name}"

    async def counted():
        async with aiohttp.ClientSession() as session:
            return (await read_counters(session, bed.stack.stats_url)).prompt_tokens

    # The gateway is open, and its keys are read every 10 s: until then the tenant is nobody.
    early = Use()
    async with asyncio.timeout(60):
        while Answered(target, name, target, "blue") not in await counted():
            early += await ask(bed, name, words=5, streamed=False, key=blue)
            await asyncio.sleep(0.1)
    own = await ask_many(bed, name, 1, key=blue)
    nobody = await ask_many(bed, name, 1)

    async with asyncio.timeout(WRITTEN_S):
        while True:
            view = await read_view(Access((bed.stack.kubeconfig,)), SYSTEM_NAMESPACE)
            lines = sum_lines(
                line for _, found in view.periods for line in found if line.key.target == target
            )
            used = {line.key.tenant: line for line in lines if line.use}
            if sum((line.use for line in lines), Use()) == early + own + nobody:
                break
            await asyncio.sleep(0.2)
    assert used.keys() == {"", "blue"}
    assert own.requests < used["blue"].use.requests <= own.requests + early.requests
    assert used["blue"].use.prompt > own.prompt
    assert used[""].use.requests >= nobody.requests
    assert used["blue"].dollars > 0
