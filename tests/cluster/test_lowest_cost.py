"""A route whose load crosses the break-even twice, through operator, engines, Envoy and a provider behind TLS.

An hour of a real fleet in three minutes: starts take seconds instead of minutes, and all times that the decision waits
for follow from the start that it measures.
"""

import asyncio
import base64
import json
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.cluster.waiting import wait_until
from dev.demo.kube import namespace_manifest
from modelyard.runtime.settings import SYSTEM_NAMESPACE
from tests.gateway.tls import TlsProvider, tls_provider

API_VERSION = "modelyard.dev/v1alpha1"
NAME, LARGE, TINY = "cost-stand-in", "provider:cost-stand-in/large", "provider:cost-stand-in/tiny"
PATIENCE = 150.0
"""Seconds for a change. A load is known after 30 s of readings, and believed two bins of 8 s after it has changed."""
# 6.88 $/h for one replica, and 2 tokens an answer at 318 $ a million: the break-even is at 3.0 requests/s.
OUTPUT_PRICE = "318"
ABOVE, BELOW = 7.0, 0.5
"""Requests per second."""
GPU_SECOND = 6.88 / 3600
"""US dollars of one replica."""
ANSWER_DOLLARS = 2 * float(OUTPUT_PRICE) / 1e6
"""US dollars of one answer of the provider."""
SEEN = 3 * 8.0
"""Seconds until a new load is believed: two bins of 8 s, and the one in which it began."""
SLACK = 10.0
"""Seconds for what is quick on a machine of its own: two readings, a decision, two writes, the poll of this test."""


@dataclass
class Clients:
    """Requests at a rate that can be changed, sent whatever becomes of those before."""

    url: str
    rate: float = BELOW
    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Status and answering model of every request."""
    sent: Counter[float] = field(default_factory=Counter)
    """Requests by the rate at which they were sent."""
    _pending: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Send until cancelled."""
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            try:
                while True:
                    task = asyncio.create_task(self._send(session))
                    self._pending.add(task)
                    self.sent[self.rate] += 1
                    task.add_done_callback(self._pending.discard)
                    await asyncio.sleep(1 / self.rate)
            finally:
                await asyncio.gather(*self._pending)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        body = {"model": "chat-cost", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
                answer = await reply.json(content_type=None)
                self.outcomes[reply.status, str(answer.get("model"))] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.outcomes[0, type(error).__name__] += 1


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[TlsProvider]:
    async with tls_provider(tmp_path / "ca") as started:
        yield started


@pytest.fixture
def provider(bed, server) -> Iterator[None]:
    """A provider with a good model, and one that is cheaper and not good enough."""
    price = {"inputPerMillion": "0", "outputPerMillion": OUTPUT_PRICE}
    manifests = [
        {
            "apiVersion": API_VERSION,
            "kind": "LLMProvider",
            "metadata": {"name": NAME},
            "spec": {
                "baseURL": f"{server.url}/v1",
                "caSecretRef": {"name": NAME, "key": "ca.crt"},
                "models": [
                    {"name": "large", "price": price, "quality": "0.9"},
                    {"name": "tiny", "price": {**price, "outputPerMillion": "1"}, "quality": "0.3"},
                ],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": NAME},
            "data": {"ca.crt": base64.b64encode(server.certificate.encode()).decode()},
        },
    ]
    bed.cluster.apply([namespace_manifest(SYSTEM_NAMESPACE, {})])
    bed.cluster.apply(manifests, SYSTEM_NAMESPACE)
    yield
    bed.cluster.delete(manifests, SYSTEM_NAMESPACE)


@pytest.fixture
def route(bed, own, provider) -> Iterator[None]:
    targets = [
        {"deployment": own, "quality": "0.8"},
        {"provider": NAME, "model": "large"},
        {"provider": NAME, "model": "tiny"},
    ]
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "LLMRoute",
        "metadata": {"name": "cost"},
        "spec": {"model": "chat-cost", "policy": "LowestCost", "minQuality": "0.7", "targets": targets},
    }
    bed.cluster.apply([manifest], bed.namespace)
    yield
    bed.cluster.delete([manifest], bed.namespace)


@dataclass
class Stopwatch:
    """Unix times of what happened, by name."""

    times: dict[str, float] = field(default_factory=dict)

    def note(self, name: str) -> None:
        self.times[name] = time.time()

    def between(self, first: str, last: str) -> float:
        return self.times[last] - self.times[first]


@pytest.fixture
def watch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
async def own(bed, make_model, watch) -> str:
    """A deployment that sleeps, and whose start has been measured."""
    name: str = make_model(
        {"scaling": {"min": 0, "max": 2, "idleAfter": "10s"}, "load": {"inputTokens": 3, "outputTokens": 2}}
    )
    bed.wait_condition(name, "Ready", "True", "ScaledToZero")
    watch.note("asked")
    assert (await bed.chat(name))[0] == 200
    watch.note("started")
    bed.wait_condition(name, "Ready", "True", "ScaledToZero", timeout_s=90)
    return name


def status(bed) -> dict[str, Any]:
    """Return the route's status; empty before it is set."""
    return bed.get(API_VERSION, "LLMRoute", "cost").get("status") or {}


def target(bed) -> str:
    return (status(bed).get("choice") or {}).get("target", "")


async def wait(condition, description: str) -> None:
    """Wait while requests go on."""
    await asyncio.to_thread(wait_until, condition, description, timeout_s=PATIENCE)


def spent(bed, *targets: str) -> float:
    """Return US dollars that the operator has counted for these targets since it started."""
    with urllib.request.urlopen(bed.stack.ports.metrics_url, timeout=30) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "modelyard_spend_dollars_total" and sample.labels["target"] in targets
    )


def check_cost(clients: Clients, watch: Stopwatch, dollars: float) -> None:
    """Compare what was spent with the best in hindsight, which knows the load and whose replicas serve at once.

    Beyond a twentieth, each change may cost as much as the dearer target asks until it is followed: the provider at the
    high load and the replica that starts, the replica at the low one until it is gone.
    """
    high = watch.between("above", "below")
    low, many = clients.sent[BELOW] * ANSWER_DOLLARS, clients.sent[ABOVE] * ANSWER_DOLLARS
    switching = low + high * GPU_SECOND
    always_fleet = watch.between("begin", "end") * GPU_SECOND
    best = min(switching, low + many, always_fleet)
    assert best == switching, "the load crosses the break-even for long enough"
    followed = SEEN + watch.between("asked", "started") + SLACK
    allowed = followed * (ABOVE * ANSWER_DOLLARS + 2 * GPU_SECOND)
    assert dollars <= 1.05 * best + allowed, (dollars, best, allowed)
    # Less than what happens without changes, so that the route has earned something.
    assert dollars < low + many


async def test_the_fleet_takes_over_above_the_break_even_and_the_provider_below(
    bed, server, own, route, watch
):
    key = f"{bed.namespace}/{own}"
    start = watch.between("asked", "started")
    clients = Clients(bed.stack.url)
    await wait(lambda: target(bed) == LARGE, "the provider is chosen")
    before, spent_before = bed.operator_metric("modelyard_route_changes_total"), spent(bed, key, LARGE)
    watch.note("begin")
    sending = asyncio.create_task(clients.run())
    try:
        await wait(lambda: status(bed)["choice"]["reason"] == "ProviderCheaper", "the load is known")
        assert bed.deployment(own).status.replicas == 0

        clients.rate = ABOVE
        watch.note("above")
        await wait(lambda: target(bed) == key, "the fleet takes over")
        watch.note("chosen")
        assert watch.between("above", "chosen") <= SEEN + start + SLACK
        # No replica serves yet: what comes goes to the provider, and the status says so with the change.
        await wait(lambda: status(bed).get("spillPercent", 0) > 0, "requests spill while replicas start")
        spilling = {item["type"]: item for item in status(bed)["conditions"]}["Spilling"]
        assert (spilling["status"], spilling["reason"]) == ("True", "Starting")
        await wait(lambda: status(bed).get("spillPercent") == 0, "nothing spills any more")
        bed.wait_condition(own, "Ready", "True", "Serving")
        choice = status(bed)["choice"]
        costs = {item["target"]: item for item in choice["costs"]}
        assert costs[TINY]["reason"] == "QualityTooLow"
        assert float(costs[key]["perHour"]) == pytest.approx(6.88)
        assert float(costs[LARGE]["perHour"]) > 6.88
        # 3.0 requests/s, as far as the mean answer of 200 requests is 2 tokens.
        assert float(choice["breakEvenPerMinute"]) == pytest.approx(180, rel=0.02)
        served = clients.outcomes[200, own]
        # Long enough that the fleet earns back what its start has cost.
        await wait(lambda: clients.outcomes[200, own] >= served + 300, "the fleet answers")

        clients.rate = BELOW
        watch.note("below")
        await wait(lambda: target(bed) == LARGE, "the provider gets the requests back")
        watch.note("returned")
        assert watch.between("below", "returned") <= SEEN + start + SLACK
        await wait(lambda: bed.deployment(own).status.replicas == 0, "the deployment sleeps")
        bed.wait_condition(own, "Ready", "True", "ScaledToZero")
        sizes = [(item.to_replicas, item.reason) for item in bed.deployment(own).status.scaling.history]
        grown = max(number for number, size in enumerate(sizes) if size == (1, "FleetCheaper"))
        assert sizes[-1] == (0, "ProviderCheaper")
        assert grown < len(sizes) - 1
        answered = len(server.received)
        await wait(lambda: len(server.received) >= answered + 5, "the provider answers")
        watch.note("end")
        # The ledger of this test's operator is written every 2 s.
        paid = clients.outcomes[200, "large"] * ANSWER_DOLLARS
        await wait(lambda: spent(bed, LARGE) >= paid * 0.999, "what was answered is counted")
        check_cost(clients, watch, spent(bed, key, LARGE) - spent_before)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert {code for code, _ in clients.outcomes} == {200}, clients.outcomes
    assert {model for _, model in clients.outcomes} == {own, "large"}
    assert {json.loads(request.body)["model"] for request in server.received} == {"large"}
    assert bed.operator_metric("modelyard_route_changes_total") == before + 2
    told = [
        item["message"]
        for item in bed.get("v1", "Event")["items"]
        if item["involvedObject"]["kind"] == "LLMRoute"
    ]
    assert any(message.startswith(f"from {LARGE} to {key}: ") for message in told)
    assert any(message.startswith(f"from {key} to {LARGE}: ") for message in told)
