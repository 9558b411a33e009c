"""Everything around a control plane that serves models: local nodes, operator and Envoy.

The demo, the cluster tests and the benchmarks start the same programs through the functions here.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from dev.cluster.processes import Component, free_ports, responds
from dev.envoy.binary import envoy_binary
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap
from modelyard.render.envoy.control_plane import ControlPlaneTls, secret_files

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of one run."""

    xds: int
    """Where the operator tells Envoy what to serve."""
    health: int
    """The operator's probes and metrics."""
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

    @property
    def metrics_url(self) -> str:
        """Where the operator's metrics are read."""
        return f"http://{LOOPBACK}:{self.health}/metrics"


def nodes_component(
    kubeconfig: Path, nodes: str, folder: Path, log: Path, rules: Iterable[str], *options: str
) -> Component:
    """Return the agent whose nodes run pods as processes; the API server tells when its nodes are Ready."""
    command = [sys.executable, "-m", "dev.nodes", "--kubeconfig", str(kubeconfig)]
    command += ["--nodes", nodes, "--folder", str(folder), *options]
    for rule in rules:
        command += ["--standin-env", rule]
    return Component("local nodes", command, log, lambda: True)


def operator_component(
    kubeconfig: Path,
    namespaces: Iterable[str],
    ports: Ports,
    log: Path,
    *options: str,
    anonymous: bool = True,
) -> Component:
    """Return the operator, as it runs in a cluster except for its kubeconfig and its loopback ports.

    Unless there are tenants it must run with `--anonymous`: the default is to answer 401.
    """
    command = [sys.executable, "-m", "modelyard.cli", "operator", "--kubeconfig", str(kubeconfig)]
    for namespace in namespaces:
        command += ["--watch-namespace", namespace]
    command += ["--xds-address", f"{LOOPBACK}:{ports.xds}", "--health-address", f"{LOOPBACK}:{ports.health}"]
    command += ["--gateway-address", f"{LOOPBACK}:{ports.gateway}", *options]
    if anonymous:
        command.append("--anonymous")
    return Component("operator", command, log, lambda: responds(ports.health, "/readyz"))


def envoy_component(
    file: Path, ports: Ports, log: Path, node_id: str, tls: ControlPlaneTls | None = None
) -> Component:
    """Return Envoy with the bootstrap that it has in a cluster, written to `file`; the operator tells it the rest."""
    settings = BootstrapSettings(
        control_plane_host=LOOPBACK,
        control_plane_port=ports.xds,
        control_plane_tls=tls,
        node_id=node_id,
        stats_address=LOOPBACK,
        stats_port=ports.stats,
        admin_port=ports.admin,
        # No load balancer has to hear of it first.
        drain_seconds=1,
        # A busy machine may take minutes to start an operator.
        patience_seconds=600,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    for path, content in (secret_files(tls) if tls is not None else {}).items():
        Path(path).write_text(json.dumps(content, indent=1), encoding="utf-8")
    file.write_text(json.dumps(bootstrap(settings), indent=1), encoding="utf-8")
    command = [str(envoy_binary()), "--config-path", str(file), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--log-level", "warning"]
    return Component("Envoy", command, log, lambda: responds(ports.stats, "/ready"))


@dataclass
class Stack:
    """Local nodes, operator and Envoy on one control plane. A context manager; each part can be killed alone."""

    folder: Path
    kubeconfig: Path
    """What the nodes' agent uses."""
    operator_kubeconfig: Path
    namespaces: tuple[str, ...]
    """What the operator watches."""
    nodes: str = "h100:8=1,cpu=1"
    node_prefix: str = "stack"
    standin_rules: Sequence[str] = ("class=h100:STANDIN_PROFILE=zero",)
    operator_options: Sequence[str] = ()
    anonymous: bool = True
    """Whether clients are asked for no key."""
    ports: Ports = field(default_factory=Ports.choose)

    def __post_init__(self) -> None:
        self.agent = nodes_component(
            self.kubeconfig,
            self.nodes,
            self.folder / "nodes",
            self.folder / "nodes.log",
            self.standin_rules,
            *("--name-prefix", self.node_prefix),
        )
        self.operator = operator_component(
            self.operator_kubeconfig,
            self.namespaces,
            self.ports,
            self.folder / "operator.log",
            *self.operator_options,
            anonymous=self.anonymous,
        )
        self.envoy = envoy_component(
            self.folder / "envoy.json", self.ports, self.folder / "envoy.log", f"{self.node_prefix}-envoy"
        )

    @property
    def url(self) -> str:
        """Where clients send requests."""
        return self.ports.url

    @property
    def stats_url(self) -> str:
        """Where Envoy's counters are read."""
        return self.ports.stats_url

    def __enter__(self) -> Self:
        try:
            for part in (self.agent, self.operator, self.envoy):
                part.start()
                part.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all parts."""
        for part in (self.envoy, self.operator, self.agent):
            part.stop()
