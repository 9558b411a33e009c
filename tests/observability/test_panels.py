"""Dashboards and alerts against a real run: operator, engines, Envoy and a provider, scraped by a real Prometheus.

Every panel must have data and be drawn by Grafana's components in a browser, every alert must be evaluated, and of the
alerts those that should be quiet are quiet.
"""

import asyncio
import base64
import json
import re
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dev.cluster.control_plane import ControlPlane
from dev.cluster.waiting import wait_until
from dev.dashboards.__main__ import files
from dev.dashboards.drawing import Drawer, Drawn
from dev.dashboards.shared import NONE
from dev.demo.kube import Cluster, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.prometheus import STEP, Prometheus
from dev.stack import Stack
from tests.cluster.conftest import accelerator_class
from tests.gateway.tls import TlsProvider, tls_provider
from tests.observability.conftest import ALERTS

API_VERSION = "modelyard.dev/v1alpha1"
KEY = "sk-observe-0123456789"
BUSY, SLEEPY = "busy", "sleepy"
PATIENCE = 180.0
"""Seconds until every panel has data: a forecast needs 30 s of readings, and rates need two scrapes of a change."""

MINUTE = 60
"""Seconds: the least step of panels that count events."""

NOT_IN_THIS_RUN = {
    "Requests outside the objective": "engines count only after two minutes of warm pods",
    "Latency relative to what was worked out": "the same",
    "Error of the learned speed": "the same",
    "Certificate ends in": "the gateway serves without TLS here",
}
"""Panels without data, and why. Their metrics have tests of their own."""

MAY_FIRE = {"ModelyardBudgetSoftLimit", "ModelyardBudgetExhausted"}
"""Alerts that this run brings about."""


def condition(body: dict[str, Any], kind: str) -> tuple[str, str]:
    """Return status and reason of a condition; empty strings before it is set."""
    found = [item for item in (body.get("status") or {}).get("conditions") or () if item["type"] == kind]
    return (found[0]["status"], found[0]["reason"]) if found else ("", "")


@dataclass
class Site:
    """Everything that runs."""

    cluster: Cluster
    stack: Stack
    prometheus: Prometheus
    namespace: str
    system: str
    began: float = field(default_factory=time.time)
    until: float = 0.0
    """The end of what was drawn."""

    def ready(self, kind: str, name: str, namespace: str) -> tuple[str, str]:
        resource = self.cluster.dynamic.resources.get(api_version=API_VERSION, kind=kind)
        return condition(resource.get(name=name, namespace=namespace).to_dict(), "Ready")

    def metrics(self) -> str:
        """Return the operator's page."""
        with urllib.request.urlopen(self.stack.ports.metrics_url, timeout=10) as reply:
            return str(reply.read().decode())

    def fill(self, expression: str, dashboard: str = "", step: int = STEP) -> str:
        """Put the choices of a dashboard's variables into an expression, as Grafana does."""
        values = {
            "$namespace": self.namespace if dashboard in {"", "model"} else ".*",
            "$deployment": BUSY,
            "$__rate_interval": "30s",
            "$__interval": f"{step}s",
            "$__range": f"{max(round((self.until or time.time()) - self.began), 10)}s",
        }
        for name, value in values.items():
            expression = expression.replace(name, value)
        assert "$" not in expression
        return expression

    def without_data(self) -> dict[str, list[str]]:
        """Return the panels that show nothing, with their expressions."""
        empty: dict[str, list[str]] = {}
        for path, text in files().items():
            for panel in json.loads(text)["panels"]:
                without: list[str] = []
                for target in panel.get("targets", ()):
                    step = MINUTE if target["interval"] else STEP
                    expression = self.fill(target["expr"], step=step)
                    if target["instant"]:
                        found = self.prometheus.instant(expression)
                    else:
                        found = self.prometheus.range(expression, self.began, time.time(), step)
                    if expression.startswith(NONE):
                        # It has data whenever the query before it has none.
                        assert found or expression.removeprefix(NONE)[1:-1] not in without
                        without = [item for item in without if item != expression.removeprefix(NONE)[1:-1]]
                    elif not found:
                        without.append(expression)
                if without:
                    empty[f"{path.stem}: {panel['title']}"] = without
        return empty

    def draw(self) -> dict[str, Drawn]:
        """Draw all dashboards, from the beginning to now."""
        choices = {"namespace": self.namespace, "deployment": BUSY}
        self.until = time.time()
        with Drawer(self.prometheus.url, scrape_interval=STEP) as drawer:
            return {
                path.stem: drawer.draw(
                    path.stem, self.began, self.until, choices if path.stem == "model" else {}
                )
                for path in files()
            }


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TlsProvider]:
    async with tls_provider(tmp_path / "ca") as started:
        yield started


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    classes = [{"class": item, "requestsPerMinute": 600} for item in ("h100", "l4")]
    common = {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "placement": {"accelerators": classes},
        "rollout": {"drainTimeout": "10s"},
    }
    metadata = {"name": name}
    return {"apiVersion": API_VERSION, "kind": "LLMDeployment", "metadata": metadata, "spec": common | spec}


def gateway_objects(server: TlsProvider, namespace: str) -> list[dict[str, Any]]:
    """Return a provider with its Secret, and a budget that makes the sleepy model sleep."""
    encoded = {
        key: base64.b64encode(value.encode()).decode()
        for key, value in {"key": KEY, "ca.crt": server.certificate}.items()
    }
    provider = {
        "baseURL": f"{server.url}/v1",
        "secretRef": {"name": "outside", "key": "key"},
        "caSecretRef": {"name": "outside", "key": "ca.crt"},
        "models": [{"name": "large", "price": {"inputPerMillion": "1", "outputPerMillion": "2"}}],
    }
    budget = {
        "amount": "1",
        "period": "Month",
        "scope": {"deployments": [f"{namespace}/{SLEEPY}"]},
        # What an H100 of these tests costs in a twentieth of a second.
        "soft": {"at": "0.0001", "action": "Sleep"},
        "hard": {"action": "Warn"},
    }
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "outside"}, "data": encoded},
        {"apiVersion": API_VERSION, "kind": "LLMProvider", "metadata": {"name": "outside"}, "spec": provider},
        {"apiVersion": API_VERSION, "kind": "LLMBudget", "metadata": {"name": "sleep"}, "spec": budget},
    ]


@pytest.fixture
def site(control_plane: ControlPlane, server: TlsProvider, programs: Path, tmp_path: Path) -> Iterator[Site]:
    name = f"observe-{uuid.uuid4().hex[:6]}"
    system = f"{name}-system"
    l4 = accelerator_class("l4")
    l4["spec"] |= {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}, "price": {"onDemand": "0.8"}}
    targets = [{"deployment": BUSY}, {"provider": "outside", "model": "large"}]
    routes = [
        {"model": "cheap", "policy": "LowestCost", "targets": targets},
        {"model": "outside", "targets": targets[1:]},
    ]
    with Cluster(control_plane.kubeconfig) as cluster:
        cluster.apply_crds(load_manifests([CRDS]))
        cluster.apply([namespace_manifest(name, {}), namespace_manifest(system, {})])
        cluster.apply([accelerator_class(), l4])
        cluster.apply(gateway_objects(server, name), system)
        cluster.apply(
            [
                deployment(BUSY, scaling={"min": 1, "max": 2, "slo": {"timeToFirstToken": "2s"}}),
                deployment(SLEEPY, scaling={"min": 0, "max": 2, "idleAfter": "1h"}),
                *(
                    {
                        "apiVersion": API_VERSION,
                        "kind": "LLMRoute",
                        "metadata": {"name": spec["model"]},
                        "spec": spec,
                    }
                    for spec in routes
                ),
            ],
            name,
        )
        stack = Stack(
            folder=tmp_path / "stack",
            kubeconfig=control_plane.kubeconfig,
            operator_kubeconfig=control_plane.user_kubeconfig(name, ["system:masters"]),
            namespaces=(name,),
            nodes="h100:8=1,l4=4,cpu=1",
            node_prefix=f"o{uuid.uuid4().hex[:5]}",
            standin_rules=("class=h100:STANDIN_PROFILE=zero", "class=l4:STANDIN_PROFILE=zero"),
            operator_options=(
                *("--namespace", system, "--provider-interval", "1", "--no-read-hub"),
                *("--read-interval", "0.5", "--ledger-interval", "2", "--placement-interval", "1"),
                *("--log-format", "json"),
            ),
        )
        prometheus = Prometheus(programs, tmp_path / "prometheus", stack.ports, ALERTS)
        try:
            prometheus.process.start()
            with stack:
                prometheus.process.wait_ready()
                yield Site(cluster, stack, prometheus, name, system)
        finally:
            prometheus.process.stop()
            cluster.delete([namespace_manifest(name), namespace_manifest(system)])


async def ask(session: aiohttp.ClientSession, url: str, model: str) -> int:
    """Send one chat request and return its status."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
        await reply.read()
        return reply.status


async def traffic(url: str, statuses: list[tuple[str, int]]) -> None:
    """Ask every model in turn until cancelled."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        while True:
            for model in (BUSY, "cheap", "outside", BUSY):
                statuses.append((model, await ask(session, url, model)))
                await asyncio.sleep(0.1)


async def until(condition: Any, what: str, timeout_s: float) -> Any:
    """Wait until something holds, and let other tasks run meanwhile."""
    return await asyncio.to_thread(wait_until, condition, what, timeout_s=timeout_s, interval_s=1.0)


def check_drawn(site: Site, name: str, drawn: Drawn) -> int:
    """Check one dashboard; return how many of its numbers were compared with Prometheus' answers."""
    panels = {
        panel["id"]: panel
        for path, text in files().items()
        for panel in json.loads(text)["panels"]
        if path.stem == name and panel["type"] != "row"
    }
    assert drawn.messages == []
    assert [item.id for item in drawn.panels] == list(panels)
    titles = {item.title for item in drawn.panels}
    assert drawn.problems() == dict.fromkeys(titles & NOT_IN_THIS_RUN.keys(), "No data")
    compared = 0
    for item in drawn.panels:
        panel = panels[item.id]
        assert item.title in item.text
        if item.problem:
            assert panel["fieldConfig"]["defaults"]["noValue"] in item.text
        elif item.type == "timeseries":
            assert item.series
            # The legend scrolls, but all of it is there.
            assert [series for series in item.series if series not in item.text] == [], item.title
        elif item.type in {"stat", "bargauge"}:
            assert item.values
            assert all(value.strip("$").split()[0].rstrip("%") in item.text for value in item.values), item
        defaults = panel["fieldConfig"]["defaults"]
        if item.type == "stat" and defaults["unit"] in {"short", "currencyUSD"} and not defaults["mappings"]:
            (found,) = site.prometheus.instant(site.fill(panel["targets"][0]["expr"], name), site.until)
            (shown,) = item.values
            assert float(shown.strip("$")) == pytest.approx(float(found["value"][1]), rel=0.01), item.title
            compared += 1
    return compared


async def test_every_panel_has_data_and_quiet_alerts_are_quiet(
    site: Site, server: TlsProvider, drawable: bool
) -> None:
    ready = [("LLMDeployment", BUSY, site.namespace), ("LLMProvider", "outside", site.system)]
    for kind, name, namespace in ready:
        await until(lambda: site.ready(kind, name, namespace)[0] == "True", f"{name} is Ready", 120)  # noqa: B023
    statuses: list[tuple[str, int]] = []
    clients = asyncio.create_task(traffic(site.stack.url, statuses))
    try:
        # One wake, and the budget's soft limit after it.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
            assert await ask(session, site.stack.url, SLEEPY) == 200
        await until(
            lambda: site.ready("LLMDeployment", SLEEPY, site.namespace) == ("True", "ScaledToZero"),
            "the budget lets it sleep",
            120,
        )
        assert site.prometheus.targets() == {"operator": "up", "gateway": "up"}

        expected = set(NOT_IN_THIS_RUN)
        missing: dict[str, list[str]] = {}

        def all_there() -> bool:
            nonlocal missing
            missing = site.without_data()
            return {name.partition(": ")[2] for name in missing} <= expected

        try:
            await until(all_there, "every panel has data", PATIENCE)
        except TimeoutError:
            pytest.fail(f"no data: {json.dumps(missing, indent=1)}")
        assert {name.partition(": ")[2] for name in missing} == expected, (
            "an exemption is not needed any more"
        )
        assert {status for _, status in statuses} == {200}

        if drawable:
            # In a thread: Playwright's plain interface wants one without an event loop.
            drawings = await asyncio.to_thread(site.draw)
            compared = sum(check_drawn(site, name, drawn) for name, drawn in drawings.items())
            assert compared > 15, "most numbers can be compared"

        alerts = site.prometheus.alerts()
        assert {rule["health"] for rule in alerts.values()} == {"ok"}, alerts
        assert {name for name, rule in alerts.items() if rule["state"] != "inactive"} <= MAY_FIRE
        assert alerts["ModelyardBudgetSoftLimit"]["state"] == "firing"
    finally:
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)

    # What is gone has no series; what was spent on it stays in the sums of the hour.
    site.cluster.delete([deployment(SLEEPY)], site.namespace)
    gone = re.compile(rf'^(?!modelyard_spend_dollars).*"{SLEEPY}"', re.MULTILINE)
    await until(lambda: not gone.search(site.metrics()), "no series of the deleted model is left", 60)

    # The log: JSON throughout, with what it is about, and without the provider's key.
    log = (site.stack.folder / "operator.log").read_text(encoding="utf-8")
    records = [json.loads(line) for line in log.splitlines()]
    assert {
        "kind": "LLMDeployment",
        "namespace": site.namespace,
        "object": SLEEPY,
        "reason": "BudgetLimited",
    } in [{key: record.get(key) for key in ("kind", "namespace", "object", "reason")} for record in records]
    assert KEY not in log
    assert KEY not in site.metrics()

    # Without an operator the first alert is on its way.
    site.stack.operator.stop()
    await until(
        lambda: site.prometheus.alerts()["ModelyardOperatorDown"]["state"] == "pending",
        "the alert about the operator is pending",
        60,
    )
