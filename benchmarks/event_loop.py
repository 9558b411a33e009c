"""How long the operator's event loop is held while it works on a large fleet: `python -m benchmarks.event_loop`.

2,000 deployments with 10 pods each and 2,000 routes of lowest cost, half of the deployments unreadable for the page. In
memory and without a cluster: what is measured is the operator's own work. While each piece of work runs, a task looks
at how long the loop's thread worked before it came round; Envoys' streams, probes and watch events wait as long. All
times are processor time, so that a busy machine changes none of them; by the clock, what runs beside the loop shares
the interpreter with it and may make it wait twice as long. Each row also says that the work was done.
"""

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmbudget import LLMBudget
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmroute import LLMRoute
from modelyard.api.llmtenant import LLMTenant
from modelyard.core.budget.judge import Standing
from modelyard.core.budget.period import Period
from modelyard.core.decide import decide_deployment
from modelyard.core.routing import route_name
from modelyard.core.snapshot import GatewayReading, Pod, Provider
from modelyard.gateway.ads import AdsServer
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.fleetmetrics import FleetCollector
from modelyard.runtime.holds import HoldBoard
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.publisher import Publisher
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.readings import Reader
from modelyard.runtime.routes import RouteDecider
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.web import WebPages, serve_web

DEPLOYMENTS = 2000
PODS = 10
"""Of each deployment."""
BAR = 0.1
"""Seconds that anything may wait for the loop."""
TICK = 0.002
"""Seconds between two looks of whoever measures: small against the bar."""
CREATED = "2026-01-01T00:00:00Z"
SYSTEM = "modelyard-system"


@dataclass(frozen=True)
class Row:
    """One piece of work."""

    work: str
    seconds: float
    """Processor time of the process from its begin to its end."""
    held: float
    """Processor time of the loop's thread, in seconds, until the loop came round, at most."""
    done: str
    """What came of it."""


def make(model: type[Any], namespace: str, name: str, spec: dict[str, Any], status: dict[str, Any]) -> Any:
    """Return an object as the API server gives it."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": name,
        "generation": 1,
        "creationTimestamp": CREATED,
    }
    body = {"metadata": metadata, "spec": spec, "status": {"observedGeneration": 1, **status}}
    return model.model_validate(body)


def seen(
    model: type[Any], namespace: str, name: str, spec: dict[str, Any], status: dict[str, Any]
) -> Seen[Any]:
    """Return an object as a watch has it."""
    return Seen(uid=name, version="1", object=make(model, namespace, name, spec, status))


def make_fleet(count: int) -> Fleet:
    """Return a fleet whose deployments are decided and serve."""
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": CREATED}
    fleet = Fleet(
        indices=Indices(
            deployments={
                f"team/m{number}": [
                    seen(
                        LLMDeployment,
                        "team",
                        f"m{number}",
                        {
                            "model": {"source": f"hf://org/m{number}"},
                            "placement": {
                                "accelerators": [{"class": "l4", "requestsPerMinute": 60, "count": 1}]
                            },
                            "scaling": {"min": 1, "max": 20},
                        },
                        {"conditions": [ready], "readyReplicas": PODS, "gateway": {"generation": 1}},
                    )
                ]
                for number in range(count)
            },
            routes={
                f"team/r{number}": [
                    seen(
                        LLMRoute,
                        "team",
                        f"r{number}",
                        {
                            "model": f"r{number}",
                            "policy": "LowestCost",
                            "targets": [{"deployment": f"m{number}"}, {"provider": "acme", "model": "large"}],
                        },
                        {"conditions": [ready]},
                    )
                ]
                for number in range(count)
            },
            accelerators={
                "l4": [
                    seen(
                        AcceleratorClass,
                        "",
                        "l4",
                        {"resourceName": "nvidia.com/gpu", "price": {"onDemand": "0.8"}},
                        {},
                    )
                ]
            },
            pods={
                f"team/m{number}": [make_pod(number, pod) for pod in range(PODS)] for number in range(count)
            },
        )
    )
    price = {"inputPerMillion": "1", "outputPerMillion": "3"}
    provider = {"baseURL": "https://api.acme.example/v1", "models": [{"name": "large", "price": price}]}
    fleet.providers = {"acme": Provider(make(LLMProvider, SYSTEM, "acme", provider, {}))}
    keys = [{"name": "blue", "key": "key"}]
    fleet.tenants = {"blue": make(LLMTenant, SYSTEM, "blue", {"keys": keys}, {})}
    fleet.tenant_keys = {"0a" * 32: "blue"}
    return fleet


def make_pod(number: int, pod: int) -> Pod:
    """Return a pod that serves."""
    address = f"10.{number // 200}.{number % 200}.{pod}"
    name = f"m{number}-{pod}"
    return Pod(
        name, name, f"team/m{number}", address, 8000, "l4", phase="Running", scheduled=True, ready=True,
        created=1.0, ready_since=1.0,
    )  # fmt: skip


class Watch:
    """Notes how long the loop's thread works before the loop comes round."""

    def __init__(self) -> None:
        self._worst = 0.0
        self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(TICK)
            self._worst = max(self._worst, time.thread_time() - began)

    async def measure(self, name: str, work: Callable[[], Awaitable[str]]) -> Row:
        """Do some work and return how long it took, and held the loop."""
        await asyncio.sleep(10 * TICK)
        self._worst, began = 0.0, time.process_time()
        done = await work()
        took = time.process_time() - began
        # What held the loop when the work ended is noted by the next look.
        await asyncio.sleep(10 * TICK)
        return Row(name, took, self._worst, done)

    async def close(self) -> None:
        """Stop looking."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class NoWatches:
    """Nothing is watched here."""

    def __init__(self) -> None:
        self.events: dict[Any, float] = {}

    def ages(self) -> dict[Any, float]:
        """Return nothing."""
        return {}


async def run(count: int) -> list[Row]:
    """Measure everything."""
    fleet, settings, queue = make_fleet(count), OperatorSettings(anonymous=True), WorkQueue()
    server = AdsServer(lambda *_: None)
    publisher = Publisher(fleet, server, LimitBook(), settings)
    publishing = asyncio.create_task(publisher.run())
    looked: list[str] = []
    decider = RouteDecider(fleet, publisher.request, looked.append, settings)
    reader = Reader(fleet, server, queue, settings, decider.decide)
    now = time.time()
    for deployment in fleet.readable():
        snapshot = fleet.snapshot_one(deployment.key, deployment)
        fleet.plans[deployment.key], fleet.memory[deployment.key] = decide_deployment(
            deployment.key, snapshot, None, now, settings.policy
        )
    watch, rows = Watch(), []
    pods = fleet.indices.pods
    assert isinstance(pods, dict)
    # One has no pods yet.
    pods["team/m8"] = []

    async def publish() -> str:
        await publisher.published()
        return f"{len(fleet.table.routes)} routes in the table"

    async def read() -> str:
        nonlocal now
        now += settings.read_interval
        arrivals = {route_name(f"team/r{number}"): (now % 1e6) * 3 for number in range(count)}
        fleet.reading = GatewayReading(now, arrivals)
        await reader.decide(now)
        return f"{len(fleet.routes_plan.routes)} routes and {len(fleet.memory)} deployments decided"

    async def release() -> str:
        pods["team/m8"] = [make_pod(8, 0)]
        publisher.release("team/m8")
        while not (endpoints := fleet.table.upstreams["team/m8"].endpoints):
            await asyncio.sleep(0)
        return f"{len(endpoints)} endpoint of the model, before any table is built"

    async def ready_pod() -> str:
        pods["team/m7"] = [*pods["team/m7"], make_pod(7, PODS)]
        await publisher.published()
        return f"{len(fleet.table.upstreams['team/m7'].endpoints)} endpoints of the model"

    async def spend() -> str:
        budget = {
            "amount": "1",
            "period": "Day",
            "scope": {"tenants": ["blue"]},
            "hard": {"action": "Refuse"},
        }
        found = make(LLMBudget, SYSTEM, "blue", budget, {})
        fleet.budgets = (Standing(found, Period(now - 3600, now + 3600), 2.0, 2.0),)
        await publisher.published()
        refused = sum(bool(route.budgets) for route in fleet.table.routes)
        return f"{refused} routes refuse the tenant"

    async def scrape() -> str:
        registry = CollectorRegistry()
        holds = HoldBoard(lambda _: True)
        envoys = server.nodes.values
        collector = FleetCollector(fleet, queue, holds, NoWatches(), envoys, settings.policy, lambda: True)
        registry.register(collector)
        page = await collector.write(registry)
        return f"{page.count(b'modelyard_')} lines"

    rows.append(await watch.measure("the first table", publish))
    rows.append(await watch.measure("the first reading", read))
    rows.append(await watch.measure("the table after it", publish))
    rows.append(await watch.measure("a reading", read))
    await publisher.published()
    rows.append(await watch.measure("requests that wait for a pod", release))
    await publisher.published()
    rows.append(await watch.measure("a pod becomes ready", ready_pod))
    rows.append(await watch.measure("a tenant's budget is spent", spend))
    rows.append(await watch.measure("a scrape", scrape))
    deployments = fleet.indices.deployments
    assert isinstance(deployments, dict)
    for number in range(count):
        # As many again that cannot be read, for the page.
        deployments[f"team/x{number}"] = [
            Seen(uid=f"x{number}", version="1", object=None, error="spec: wrong")
        ]
    runner = await serve_web(WebPages(fleet, settings.policy, "operator", lambda: True), "127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:

        async def page(path: str) -> str:
            async with session.get(f"http://127.0.0.1:{runner.addresses[0][1]}{path}") as reply:
                text = await reply.text()
            return f"status {reply.status}, {len(text) // 1000} kB"

        for path in ("/", "/routes", "/api/overview"):
            rows.append(await watch.measure(f"page {path}", functools.partial(page, path)))
            await asyncio.sleep(1.1)
    await runner.cleanup()
    await watch.close()
    publishing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await publishing
    return rows


def main(
    count: Annotated[int, typer.Option(help="Deployments, and routes.")] = DEPLOYMENTS,
    output: Annotated[Path | None, typer.Option(help="Write the rows there, as JSON.")] = None,
) -> None:
    """Measure, print, and exit 1 where the loop was held longer than it may be."""
    rows = asyncio.run(run(count))
    table = Table("work", "took, s", "loop held, s", "held / took", "done")
    for row in rows:
        share = row.held / row.seconds if row.seconds else 0.0
        table.add_row(row.work, f"{row.seconds:.3f}", f"{row.held:.3f}", f"{share:.2f}", row.done)
    Console().print(table)
    if output is not None:
        output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    if any(row.held > BAR for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
