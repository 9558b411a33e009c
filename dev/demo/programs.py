"""The programs that the demo runs beside the control plane: local nodes, operator and Envoy."""

from pathlib import Path

from dev.cluster.processes import Component
from dev.demo.settings import (
    DEMO_NAMESPACE,
    ENGINE_PROFILE,
    NODES,
    OPERATOR_NAMESPACE,
    TRAFFIC_MODEL,
    DemoSettings,
)
from dev.stack import Ports, envoy_component, nodes_component, operator_component


def local_nodes(settings: DemoSettings, kubeconfig: Path) -> Component:
    """Return the agent whose nodes run pods as processes."""
    rule = f"model={TRAFFIC_MODEL}:STANDIN_"
    rules = (f"{rule}PROFILE={ENGINE_PROFILE}", f"{rule}LOAD_SECONDS={settings.engine_start_s:g}")
    return nodes_component(kubeconfig, NODES, settings.folder / "nodes", _log(settings, "local-nodes"), rules)


def operator(settings: DemoSettings, kubeconfig: Path, ports: Ports) -> Component:
    """Return the operator, with its own defaults."""
    return operator_component(
        kubeconfig,
        (DEMO_NAMESPACE,),
        ports,
        _log(settings, "operator"),
        *("--namespace", OPERATOR_NAMESPACE),
    )


def envoy(settings: DemoSettings, ports: Ports) -> Component:
    """Return Envoy."""
    return envoy_component(settings.folder / "envoy.json", ports, _log(settings, "envoy"), "demo-envoy")


def _log(settings: DemoSettings, name: str) -> Path:
    return settings.folder / "logs" / f"{name}.log"
