"""A run to draw: local cluster, operator, Envoy, engines and a provider under traffic, scraped by a real Prometheus."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from aiohttp import web

from dev.cluster.binaries import PROMETHEUS, ensure_binaries, ensure_module
from dev.cluster.certificates import CertificateAuthority
from dev.cluster.control_plane import ControlPlane
from dev.cluster.node_classes import parse_node_counts
from dev.cluster.processes import free_ports
from dev.cluster.waiting import wait_until
from dev.dashboards import scenario
from dev.demo.kube import Cluster, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.loadgen.player import LoadGenerator
from dev.prometheus import Prometheus
from dev.stack import LOOPBACK, Stack
from dev.standin.arguments import parse_arguments
from dev.standin.faults import FaultInjector
from dev.standin.server import build
from dev.standin.settings import Faults, Settings

SCRAPE_INTERVAL_S = 5
"""Seconds between scrapes: a run of minutes has its shape at that distance; installations choose 15 to 60."""

MODELS_TIMEOUT_S = 180.0
"""Seconds until the models that always run serve."""

PROGRESS_INTERVAL_S = 30.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recording:
    """A folder with Prometheus' data of one run, and when that was (Unix times)."""

    folder: Path
    begin: float
    end: float

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the recording of an earlier run. Raises FileNotFoundError if there is none."""
        times = json.loads((folder / "recording.json").read_text(encoding="utf-8"))
        return cls(folder, times["begin"], times["end"])

    def write(self) -> None:
        """Keep the times beside the data."""
        times = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / "recording.json").write_text(json.dumps(times) + "\n", encoding="utf-8")

    def open(self) -> Prometheus:
        """Return a Prometheus over the data; it scrapes nothing, and has to be started."""
        return Prometheus(ensure_module(PROMETHEUS), self.folder, None)


def record(folder: Path, report: Report) -> Recording:
    """Run it all for about ten minutes, stop it, and return what Prometheus has of it."""
    ensure_binaries(report)
    programs = ensure_module(PROMETHEUS, report)
    with ExitStack() as running:
        report("starting etcd, API server, scheduler and controller manager")
        plane = running.enter_context(ControlPlane(folder / "cluster"))
        cluster = running.enter_context(Cluster(plane.kubeconfig))
        cluster.apply_crds(load_manifests([CRDS]))
        cluster.apply([namespace_manifest(scenario.NAMESPACE), namespace_manifest(scenario.SYSTEM)])
        stack = Stack(
            folder=folder / "stack",
            kubeconfig=plane.kubeconfig,
            operator_kubeconfig=plane.kubeconfig,
            namespaces=(scenario.NAMESPACE,),
            nodes=scenario.NODES,
            node_prefix="node",
            standin_rules=scenario.STANDIN_RULES,
            operator_options=("--namespace", scenario.SYSTEM, "--no-read-hub"),
            anonymous=False,
        )
        prometheus = Prometheus(
            programs, folder / "prometheus", stack.ports, scrape_interval=SCRAPE_INTERVAL_S
        )
        running.callback(prometheus.process.stop)
        report("starting nodes, operator, Envoy and Prometheus")
        running.enter_context(stack)
        nodes = sum(count for _, count in parse_node_counts(scenario.NODES))
        wait_until(lambda: cluster.ready_nodes() == nodes, f"{nodes} nodes are Ready")
        prometheus.process.start()
        prometheus.process.wait_ready()
        begin, end = asyncio.run(_play(cluster, stack.url, folder, report))
    recording = Recording(folder / "prometheus", begin, end)
    recording.write()
    return recording


async def _play(cluster: Cluster, url: str, folder: Path, report: Report) -> tuple[float, float]:
    async with AsyncExitStack() as running:
        provider = await running.enter_async_context(_provider(folder / "provider"))
        cluster.apply(scenario.platform(provider.url, provider.certificate), scenario.SYSTEM)
        cluster.apply(scenario.models(), scenario.NAMESPACE)
        report("waiting for the models")
        await asyncio.to_thread(_wait_for_models, cluster)
        begin = time.time()
        generators = [
            (
                item,
                LoadGenerator(
                    url, item.model, headers={"Authorization": f"Bearer {scenario.KEYS[item.tenant]}"}
                ),
            )
            for item in scenario.traffic()
        ]
        tasks = [running.enter_context(_Task(generator.run(item.planned))) for item, generator in generators]
        running.enter_context(_Task(_fail_for_a_while(provider.faults)))
        while (left := begin + scenario.DURATION_S - time.time()) > 0:
            await asyncio.sleep(min(left, PROGRESS_INTERVAL_S))
            counts = ", ".join(
                f"{item.model} {generator.progress.answered} of {generator.progress.sent}"
                for item, generator in generators
            )
            report(f"{time.time() - begin:.0f} of {scenario.DURATION_S:.0f} s; answered: {counts}")
        for task in tasks:
            task.check()
        return begin, time.time()


class _Task:
    """A task that ends with its context."""

    def __init__(self, work: Awaitable[object]) -> None:
        self._task = asyncio.ensure_future(work)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._task.cancel()

    def check(self) -> None:
        """Raise what the work has raised, if it has ended so."""
        if self._task.done():
            self._task.result()


def _wait_for_models(cluster: Cluster) -> None:
    def serve() -> bool:
        found = {item.metadata.name: item for item in cluster.llm_deployments(scenario.NAMESPACE)}
        return all(found[name].status.ready_replicas > 0 for name in (scenario.BUSY, scenario.FAST))

    wait_until(serve, "the models serve", timeout_s=MODELS_TIMEOUT_S, interval_s=1.0)


@dataclass(frozen=True, slots=True)
class _Provider:
    url: str
    certificate: str
    """PEM of its authority."""
    faults: FaultInjector


@asynccontextmanager
async def _provider(folder: Path) -> AsyncIterator[_Provider]:
    """Serve a model behind TLS, as a provider does: the stand-in without step times."""
    authority = CertificateAuthority(folder)
    (port,) = free_ports(1)
    pair = authority.server("provider", (), ("localhost",))
    arguments = parse_arguments([scenario.MODEL_OF_PROVIDER, "--host", LOOPBACK, "--port", str(port)])
    standin = build(arguments, Settings(profile="zero"), Faults())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    runner = web.AppRunner(standin.api.application())
    await runner.setup()
    engine = asyncio.create_task(standin.engine.run())
    try:
        standin.api.ready = True
        await web.TCPSite(runner, LOOPBACK, port, ssl_context=context).start()
        certificate = authority.certificate.read_text(encoding="utf-8")
        yield _Provider(f"https://localhost:{port}", certificate, standin.injector)
    finally:
        engine.cancel()
        await runner.cleanup()


async def _fail_for_a_while(faults: FaultInjector) -> None:
    await asyncio.sleep(scenario.PROVIDER_FAILS_FROM_S)
    faults.set(Faults(error_share=scenario.FAILING_SHARE, error_status=500))
    await asyncio.sleep(scenario.PROVIDER_FAILS_FOR_S)
    faults.set(Faults())
