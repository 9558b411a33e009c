"""A budget over three gateways and a restart of the operator: how much more than its amount is spent."""

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.cluster.control_plane import ControlPlane
from dev.cluster.processes import free_ports
from dev.cluster.waiting import wait_until
from dev.demo.kube import Cluster, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.stack import Stack, envoy_component
from modelyard.gateway.counters import read_counters
from modelyard.runtime.settings import SYSTEM_NAMESPACE
from tests.cluster.conftest import Bed
from tests.gateway.tls import USAGE, Received, TlsProvider, tls_provider

API_VERSION = "modelyard.dev/v1alpha1"
GATEWAYS = 3
CLIENTS = 6
ANSWER_SECONDS = 0.4
"""What the provider takes for an answer."""
PRICE = 1_000_000 // 2
"""US dollars for a million output tokens: each answer has two, so it costs one dollar."""
READ_INTERVAL = 0.5
PUSH = 0.5
"""Seconds for what follows a reading: a judgement, a table, its way to three Envoys and their answer. A few
milliseconds on a machine of its own."""
POLL = 0.05
"""Seconds between two looks at how often the operator has read."""
LEAD = 7.0
"""Seconds in which a new amount is read: budgets are looked at every second."""


@dataclass
class Traffic:
    """Clients that ask one after the other, each time over a new connection, and so through any of the gateways."""

    url: str
    answered: list[float] = field(default_factory=list)
    """Unix times of answers."""
    refused: int = 0
    """Refusals since the last answer."""
    refusal: dict[str, Any] = field(default_factory=dict)
    retry_after: str = ""

    async def ask(self) -> int:
        """Send one request."""
        body = {"model": "outside", "messages": [{"role": "user", "content": "Hello"}]}
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"{self.url}/v1/chat/completions", json=body) as reply,
        ):
            content = await reply.json(content_type=None)
            if reply.status == 200:
                self.answered.append(time.time())
                self.refused = 0
            else:
                assert reply.status == 429, content
                self.refused += 1
                self.refusal, self.retry_after = content["error"], reply.headers["retry-after"]
                # One that is refused asks again, but not as fast as it can.
                await asyncio.sleep(0.05)
            return reply.status

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()

    async def until(self, condition: Any, timeout_s: float = 180) -> None:
        """Wait until something holds of the traffic."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.05)

    def most_within(self, seconds: float) -> int:
        """Return the most answers in any window of so many seconds."""
        return max(
            sum(begin <= moment < begin + seconds for moment in self.answered) for begin in self.answered
        )

    def between(self, begin: float, end: float) -> int:
        """Return the answers between two Unix times."""
        return sum(begin <= moment < end for moment in self.answered)


@dataclass
class Readings:
    """When the operator read its Envoys, as its own counter tells."""

    url: str
    times: list[float] = field(default_factory=list)
    """Unix times at which a further reading was seen."""

    async def run(self) -> None:
        """Look until cancelled. While the operator is away, nothing is read."""
        last = 0.0
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(self.url) as reply:
                        found = _COMPLETE.search(await reply.text())
                    count = float(found.group(1)) if found else 0.0
                    if count != last:
                        self.times.append(time.time())
                    last = count
                await asyncio.sleep(POLL)

    def bound(self, traffic: Traffic, moment: float) -> int:
        """Return the answers that may come after the amount was reached at a moment, without those in flight.

        The first reading that began after it finds it, and is followed by refusals. One may have been under way.
        """
        later = [seen for seen in self.times if seen > moment + POLL]
        return traffic.between(moment, later[1] + PUSH)


_COMPLETE = re.compile(r'^modelyard_gateway_readings_total\{outcome="complete"\} (\S+)$', re.MULTILINE)


@dataclass
class Site:
    """An operator with a system namespace of its own, and three Envoys on one address."""

    cluster: Cluster
    stack: Stack
    system: str
    """Namespace of the operator and its budgets."""
    stats_urls: list[str]
    """Where the counters of each Envoy are read."""

    def budget(self) -> Any:
        resource = self.cluster.dynamic.resources.get(api_version=API_VERSION, kind="LLMBudget")
        return resource.get(name="all", namespace=self.system).to_dict()

    def set_amount(self, amount: int) -> None:
        self.cluster.apply([budget_manifest(amount)], self.system)

    def condition(self, kind: str) -> tuple[str, str]:
        found = (self.budget().get("status") or {}).get("conditions", ())
        return next(((item["status"], item["reason"]) for item in found if item["type"] == kind), ("", ""))

    async def spent_share(self) -> float | None:
        """Return the share of the amount that the operator says is spent; None before it says."""
        async with aiohttp.ClientSession() as session, session.get(self.stack.ports.metrics_url) as reply:
            families = text_string_to_metric_families(await reply.text())
        samples = (sample for family in families for sample in family.samples)
        return next((item.value for item in samples if item.name == "modelyard_budget_spent_ratio"), None)


def budget_manifest(amount: int) -> dict[str, Any]:
    spec = {"amount": str(amount), "period": "Month", "timeZone": "Europe/Berlin"}
    return {"apiVersion": API_VERSION, "kind": "LLMBudget", "metadata": {"name": "all"}, "spec": spec}


async def answered_by(stats_url: str) -> int:
    """Return how many requests one Envoy has answered well."""
    async with aiohttp.ClientSession() as session:
        counters = await read_counters(session, stats_url)
    return sum(value for (_, code), value in counters.requests.items() if code == "2xx")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TlsProvider]:
    async with tls_provider(tmp_path / "ca") as started:

        async def respond(_: Received, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(ANSWER_SECONDS)
            await started.reply(
                writer, 200, b'{"model":"large","usage":%s}' % str(USAGE).replace("'", '"').encode()
            )

        started.respond = respond
        yield started


@pytest.fixture
def site(control_plane: ControlPlane, server: TlsProvider, tmp_path: Path) -> Iterator[Site]:
    name = f"budget-{uuid.uuid4().hex[:6]}"
    system = f"{name}-system"
    ca = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca"}}
    provider = {
        "apiVersion": API_VERSION,
        "kind": "LLMProvider",
        "metadata": {"name": "stand-in"},
        "spec": {
            "baseURL": f"{server.url}/v1",
            "caSecretRef": {"name": "ca", "key": "ca.crt"},
            "models": [{"name": "large", "price": {"inputPerMillion": "0", "outputPerMillion": str(PRICE)}}],
        },
    }
    route = {
        "apiVersion": API_VERSION,
        "kind": "LLMRoute",
        "metadata": {"name": "outside"},
        "spec": {"model": "outside", "targets": [{"provider": "stand-in", "model": "large"}]},
    }
    with Cluster(control_plane.kubeconfig) as cluster:
        cluster.apply_crds(load_manifests([CRDS]))
        cluster.apply([namespace_manifest(name, {}), namespace_manifest(system, {})])
        cluster.apply([{**ca, "stringData": {"ca.crt": server.certificate}}, provider], system)
        cluster.apply([route], name)
        stack = Stack(
            folder=tmp_path / "stack",
            kubeconfig=control_plane.kubeconfig,
            operator_kubeconfig=control_plane.user_kubeconfig(name, ["system:masters"]),
            namespaces=(name,),
            nodes="cpu=1",
            node_prefix=f"b{uuid.uuid4().hex[:5]}",
            operator_options=(
                *("--namespace", system, "--provider-interval", "1", "--no-read-hub"),
                *("--read-interval", str(READ_INTERVAL)),
            ),
        )
        # Envoy shares its port with other processes: the kernel spreads new connections over them.
        others, stats_urls = [], [stack.stats_url]
        for number in range(1, GATEWAYS):
            stats, admin = free_ports(2)
            ports = replace(stack.ports, stats=stats, admin=admin)
            stats_urls.append(ports.stats_url)
            node = f"{stack.node_prefix}-envoy-{number}"
            others.append(
                envoy_component(stack.folder / f"{node}.json", ports, stack.folder / f"{node}.log", node)
            )
        try:
            with stack:
                for envoy in others:
                    envoy.start()
                    envoy.wait_ready()
                yield Site(cluster, stack, system, stats_urls)
        finally:
            for envoy in others:
                envoy.stop()
            cluster.delete([namespace_manifest(name), namespace_manifest(system)])


async def test_overspend_is_one_interval_and_what_is_in_flight_whatever_restarts(
    site: Site, server: TlsProvider
) -> None:
    plenty = 1_000_000
    await asyncio.to_thread(site.set_amount, plenty)
    wait_until(
        lambda: site.condition("Ready") == ("True", "SpendRead"), "the budget is counted", timeout_s=60
    )
    traffic, readings = Traffic(site.stack.url), Readings(site.stack.ports.metrics_url)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(traffic.run()) for _ in range(CLIENTS)]
        watching = group.create_task(readings.run())
        # More than one reading: were it forgotten, it would be missed in the end.
        await traffic.until(lambda: len(traffic.answered) > CLIENTS and len(readings.times) > 20)
        await asyncio.to_thread(site.stack.operator.kill)
        meanwhile = len(traffic.answered)
        await asyncio.to_thread(site.stack.operator.start)
        await asyncio.to_thread(site.stack.operator.wait_ready)
        await traffic.until(lambda: len(traffic.answered) > meanwhile)
        amount = len(traffic.answered) + traffic.most_within(LEAD)
        await asyncio.to_thread(site.set_amount, amount)
        await traffic.until(lambda: len(traffic.answered) >= amount)
        # Each client is refused often enough to have met every gateway.
        await traffic.until(lambda: traffic.refused > CLIENTS * GATEWAYS * 10)
        for task in (*clients, watching):
            task.cancel()
    overspent = len(traffic.answered) - amount
    assert 0 <= overspent <= readings.bound(traffic, traffic.answered[amount - 1]) + CLIENTS
    assert overspent < len(traffic.answered) / 4, "the bound is no excuse for spending on"
    assert len(server.received) == len(traffic.answered), "what is refused does not leave"

    assert traffic.refusal["code"] == "insufficient_quota"
    assert traffic.refusal["message"].startswith("Budget all is spent for this month; it resets at ")
    assert traffic.retry_after.endswith(" GMT")
    through = [await answered_by(url) for url in site.stats_urls]
    assert sum(through) == len(traffic.answered)
    assert min(through) > 0, "each gateway has a part"
    async with asyncio.timeout(60):
        # Every answer is counted once, whichever gateway it went through and whichever operator read it.
        while await site.spent_share() != pytest.approx(len(traffic.answered) / amount, abs=1e-9):
            await asyncio.sleep(0.2)
    wait_until(
        lambda: site.condition("BudgetExhausted") == ("True", "AmountSpent"),
        "the status says so",
        timeout_s=60,
    )

    await asyncio.to_thread(site.set_amount, plenty)
    async with asyncio.timeout(60):
        while await traffic.ask() != 200:
            await asyncio.sleep(0.1)


async def test_an_amount_that_is_spent_while_no_operator_runs_closes_with_the_first_reading_of_the_next(
    site: Site, server: TlsProvider
) -> None:
    """Envoys serve on meanwhile: the interval of a restart is as long as the restart, and not longer."""
    amount = 40
    await asyncio.to_thread(site.set_amount, amount)
    wait_until(
        lambda: site.condition("Ready") == ("True", "SpendRead"), "the budget is counted", timeout_s=60
    )
    traffic, readings = Traffic(site.stack.url), Readings(site.stack.ports.metrics_url)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(traffic.run()) for _ in range(CLIENTS)]
        await traffic.until(lambda: len(traffic.answered) >= amount // 4)
        await asyncio.to_thread(site.stack.operator.kill)
        assert len(traffic.answered) < amount, "it is not spent yet"
        await traffic.until(lambda: len(traffic.answered) > amount + CLIENTS)
        assert traffic.refused == 0, "nobody can tell the Envoys to refuse"
        watching = group.create_task(readings.run())
        await asyncio.to_thread(site.stack.operator.start)
        await traffic.until(lambda: len(readings.times) > 2)
        await traffic.until(lambda: traffic.refused > CLIENTS * GATEWAYS * 10)
        for task in (*clients, watching):
            task.cancel()
    # After the first reading only what was in flight is answered.
    assert traffic.between(readings.times[0] + PUSH, time.time()) <= CLIENTS
    assert len(server.received) == len(traffic.answered), "what is refused does not leave"
    async with asyncio.timeout(60):
        # What was spent without an operator is counted, and once.
        while await site.spent_share() != pytest.approx(len(traffic.answered) / amount, abs=1e-9):
            await asyncio.sleep(0.2)
    assert traffic.refusal["code"] == "insufficient_quota"


@pytest.fixture
def sleeps_soon(bed: Bed) -> Iterator[Callable[[str], None]]:
    """Puts a budget on a deployment that is at its soft limit at once."""
    made = []

    def limit(name: str) -> None:
        spec = {
            "amount": "1",
            "period": "Month",
            "scope": {"deployments": [f"{bed.namespace}/{name}"]},
            # What an H100 of these tests costs in a twentieth of a second.
            "soft": {"at": "0.0001", "action": "Sleep"},
            "hard": {"action": "Warn"},
        }
        manifest = {"apiVersion": API_VERSION, "kind": "LLMBudget", "metadata": {"name": name}, "spec": spec}
        bed.cluster.apply([namespace_manifest(SYSTEM_NAMESPACE, {})])
        bed.cluster.apply([manifest], SYSTEM_NAMESPACE)
        made.append(manifest)

    yield limit
    bed.cluster.delete(made, SYSTEM_NAMESPACE)


async def test_at_its_soft_limit_a_model_sleeps_as_soon_as_it_is_idle(
    bed: Bed, make_model: Callable[..., str], sleeps_soon: Callable[[str], None]
) -> None:
    """The hours of own accelerators count; requests wake the model as ever."""
    scaling = {"scaling": {"min": 0, "max": 2, "idleAfter": "1h"}}
    limited, free = make_model(scaling), make_model(scaling)
    for name in (limited, free):
        assert (await bed.chat(name))[0] == 200
    sleeps_soon(limited)
    bed.wait_condition(limited, "Ready", "True", "ScaledToZero", timeout_s=90)
    status = bed.deployment(limited).status.scaling
    assert status is not None
    slept = status.history[-1]
    assert (slept.from_replicas, slept.to_replicas, slept.reason) == (1, 0, "BudgetLimited")
    assert f"as budget {limited} asks" in slept.message
    assert bed.condition(free, "Ready") == ("True", "Serving"), "idleAfter is an hour"
    assert (await bed.chat(limited))[0] == 200
