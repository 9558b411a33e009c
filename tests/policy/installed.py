"""The pods of an installation and the policies around them, from any list of manifests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.policy.networkpolicy import Peer

CHART = Path(__file__).parents[1] / "chart" / "golden" / "network-policies.yaml"
"""What the chart renders with `networkPolicy.enabled`; tests of the chart keep it so."""


@dataclass(frozen=True)
class Installation:
    """What manifests put into a cluster."""

    pods: Mapping[str, Peer]
    """By `app.kubernetes.io/component`."""
    policies: tuple[Mapping[str, Any], ...]


def read_manifests(path: Path) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(path.read_text(encoding="utf-8")) if item]


def install(manifests: Iterable[Mapping[str, Any]]) -> Installation:
    """Return the first pod of every Deployment, and all policies."""
    known = tuple(manifests)
    pods = {}
    for number, item in enumerate(item for item in known if item["kind"] == "Deployment"):
        template = item["spec"]["template"]
        labels = template["metadata"]["labels"]
        component = labels["app.kubernetes.io/component"]
        ports = {
            port["name"]: (port.get("protocol", "TCP"), port["containerPort"])
            for container in template["spec"]["containers"]
            for port in container.get("ports", ())
        }
        namespace = item["metadata"]["namespace"]
        pods[component] = Peer(component, f"10.1.1.{number}", namespace, labels, ports=ports, node="c")
    return Installation(pods, tuple(item for item in known if item["kind"] == "NetworkPolicy"))
