"""Everything around a control plane that serves models: local nodes, operator and Envoy, for tests and benchmarks."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from dev.cluster.processes import Component, free_ports, responds
from dev.envoy.binary import envoy_binary
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap

LOOPBACK = "127.0.0.1"


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
    ports: list[int] = field(default_factory=lambda: free_ports(5))

    def __post_init__(self) -> None:
        self.agent = self._agent()
        self.operator = self._operator()
        self.envoy = self._envoy()

    @property
    def url(self) -> str:
        """Where clients send requests."""
        return f"http://{LOOPBACK}:{self.ports[2]}"

    @property
    def stats_url(self) -> str:
        """Where Envoy's counters are read."""
        return f"http://{LOOPBACK}:{self.ports[3]}"

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

    def _agent(self) -> Component:
        command = [sys.executable, "-m", "dev.nodes", "--kubeconfig", str(self.kubeconfig)]
        command += [
            "--nodes",
            self.nodes,
            "--folder",
            str(self.folder / "nodes"),
            "--name-prefix",
            self.node_prefix,
        ]
        for rule in self.standin_rules:
            command += ["--standin-env", rule]
        return Component("local nodes", command, self.folder / "nodes.log", lambda: True)

    def _operator(self) -> Component:
        command = [sys.executable, "-m", "modelyard.runtime", "--kubeconfig", str(self.operator_kubeconfig)]
        for namespace in self.namespaces:
            command += ["--watch-namespace", namespace]
        xds, health, listener, _, _ = self.ports
        command += ["--xds-address", f"{LOOPBACK}:{xds}", "--health-address", f"{LOOPBACK}:{health}"]
        command += ["--gateway-address", f"{LOOPBACK}:{listener}", "--anonymous", *self.operator_options]
        return Component(
            "operator", command, self.folder / "operator.log", lambda: responds(health, "/readyz")
        )

    def _envoy(self) -> Component:
        xds, _, _, stats, admin = self.ports
        settings = BootstrapSettings(
            control_plane_host=LOOPBACK,
            control_plane_port=xds,
            node_id=f"{self.node_prefix}-envoy",
            stats_address=LOOPBACK,
            stats_port=stats,
            admin_port=admin,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "envoy.json"
        file.write_text(json.dumps(bootstrap(settings), indent=1), encoding="utf-8")
        command = [str(envoy_binary()), "--config-path", str(file), "--concurrency", "1"]
        command += ["--disable-hot-restart", "--log-level", "warning"]
        return Component("Envoy", command, self.folder / "envoy.log", lambda: responds(stats, "/ready"))
