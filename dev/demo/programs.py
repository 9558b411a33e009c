"""The programs that the demo runs beside the control plane: local nodes, operator and Envoy."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dev.cluster.processes import Component, free_ports, responds
from dev.demo.settings import (
    DEMO_NAMESPACE,
    ENGINE_PROFILE,
    NODES,
    OPERATOR_NAMESPACE,
    TRAFFIC_MODEL,
    DemoSettings,
)
from dev.envoy.binary import envoy_binary
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of one run."""

    xds: int
    """Where the operator tells Envoy what to serve."""
    health: int
    """The operator's probes."""
    gateway: int
    """Where clients connect to Envoy."""
    stats: int
    """Envoy's counters."""
    admin: int
    """Envoy's own pages."""

    @classmethod
    def choose(cls) -> Self:
        """Return free ports."""
        return cls(*free_ports(5))

    @property
    def url(self) -> str:
        """Where clients send requests."""
        return f"http://{LOOPBACK}:{self.gateway}"

    @property
    def stats_url(self) -> str:
        """Where Envoy's counters are read."""
        return f"http://{LOOPBACK}:{self.stats}"


def local_nodes(settings: DemoSettings, kubeconfig: Path) -> Component:
    """Return the agent whose nodes run pods as processes; the API server tells when its nodes are Ready."""
    rule = f"model={TRAFFIC_MODEL}:STANDIN_"
    options = {
        "--kubeconfig": str(kubeconfig),
        "--nodes": NODES,
        "--folder": str(settings.folder / "nodes"),
    }
    command = [
        *_module("dev.nodes", options),
        *("--standin-env", f"{rule}PROFILE={ENGINE_PROFILE}"),
        *("--standin-env", f"{rule}LOAD_SECONDS={settings.engine_start_s:g}"),
    ]
    return Component("local nodes", command, _log(settings, "local-nodes"), lambda: True)


def operator(settings: DemoSettings, kubeconfig: Path, ports: Ports) -> Component:
    """Return the operator, as it runs in a cluster except for its kubeconfig and its loopback ports."""
    options = {
        "--kubeconfig": str(kubeconfig),
        "--namespace": OPERATOR_NAMESPACE,
        "--watch-namespace": DEMO_NAMESPACE,
        "--xds-address": f"{LOOPBACK}:{ports.xds}",
        "--health-address": f"{LOOPBACK}:{ports.health}",
        "--gateway-address": f"{LOOPBACK}:{ports.gateway}",
        "--scale-down-window": f"{settings.down_window_s:g}",
    }
    # There are no tenants yet, and without one the default is to answer 401.
    command = [*_module("modelyard.runtime", options), "--anonymous"]
    return Component(
        "operator", command, _log(settings, "operator"), lambda: responds(ports.health, "/readyz")
    )


def envoy(settings: DemoSettings, ports: Ports) -> Component:
    """Return Envoy with the bootstrap that it has in a cluster; all else it is told by the operator."""
    configuration = bootstrap(
        BootstrapSettings(
            control_plane_host=LOOPBACK,
            control_plane_port=ports.xds,
            node_id="demo-envoy",
            stats_address=LOOPBACK,
            stats_port=ports.stats,
            admin_port=ports.admin,
        )
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    file = settings.folder / "envoy.json"
    file.write_text(json.dumps(configuration, indent=1), encoding="utf-8")
    command = [
        *(str(envoy_binary()), "--config-path", str(file)),
        *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
    ]
    return Component("Envoy", command, _log(settings, "envoy"), lambda: responds(ports.stats, "/ready"))


def _module(name: str, options: dict[str, str]) -> list[str]:
    return [sys.executable, "-m", name, *(part for option in options.items() for part in option)]


def _log(settings: DemoSettings, name: str) -> Path:
    return settings.folder / "logs" / f"{name}.log"
