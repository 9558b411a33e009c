"""An operator over fake nodes: GitOps tools look at objects, no request is sent.

On a control plane of its own: the examples' AcceleratorClasses and Kueue's stand-in belong to the whole cluster.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.control_plane import ControlPlane
from dev.cluster.fake_nodes import FakeNodes
from dev.cluster.node_classes import parse_node_counts
from dev.cluster.waiting import wait_until
from dev.demo.kube import Cluster, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.stack import Ports, operator_component
from modelyard.api.crd import KINDS
from tests.apiserver.client import APPLY, ApiServer, Reply, resource_path

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Site:
    """What the tests of this tier work on."""

    server: ApiServer
    cluster: Cluster
    ports: Ports
    models: str
    """Namespace of models and routes."""
    system: str
    """Namespace of the gateway, its providers, tenants and budgets."""

    def place(self, manifest: dict[str, Any]) -> str:
        """Return the path of one of our objects; those of the gateway's namespace go there."""
        own = "namespace" in manifest["metadata"]
        return resource_path(
            manifest["kind"], self.system if own else self.models, manifest["metadata"]["name"]
        )

    def apply(self, manifest: dict[str, Any], manager: str, *, dry_run: bool = False) -> Reply:
        """Apply an object as a tool does: on the server, with strict fields; a dry run takes nothing from anybody."""
        path = self.place(manifest)
        body = {
            **manifest,
            "metadata": {key: value for key, value in manifest["metadata"].items() if key != "namespace"},
        }
        query = f"?fieldManager={manager}&fieldValidation=Strict"
        query += "&dryRun=All" if dry_run else "&force=true"
        return self.server.request("PATCH", path + query, body, APPLY)

    def read(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return an object as it stands."""
        return self.server.request("GET", self.place(manifest)).body

    def reconciled(self, manifest: dict[str, Any]) -> bool:
        """Return whether the operator has looked at the newest form of an object and nothing is under way."""
        body = self.read(manifest)
        status = body.get("status", {})
        going = any(
            item["type"] == "Reconciling" and item["status"] == "True"
            for item in status.get("conditions", ())
        )
        return status.get("observedGeneration") == body["metadata"]["generation"] and not going

    def wait_reconciled(self, manifest: dict[str, Any]) -> None:
        """Wait until the operator is done with an object."""
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        wait_until(lambda: self.reconciled(manifest), f"{name} is reconciled", timeout_s=60)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with KWOK."""
    with ControlPlane(tmp_path_factory.mktemp("gitops-plane"), kwok=True) as running:
        yield running


@pytest.fixture(scope="session")
def site(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An operator of two namespaces of its own, with fake GPU nodes."""
    part = uuid.uuid4().hex[:6]
    models, system = f"models-{part}", f"system-{part}"
    spaces = [namespace_manifest(models, RESTRICTED), namespace_manifest(system, RESTRICTED)]
    ports = Ports.choose()
    operator = operator_component(
        plane.user_kubeconfig("modelyard-gitops", ["system:masters"]),
        [models],
        ports,
        tmp_path_factory.mktemp("gitops") / "operator.log",
        *("--namespace", system, "--no-read-hub", "--read-interval", "0.5", "--provider-interval", "1"),
        *("--tenant-interval", "1", "--scaler-interval", "0.5"),
        *("--gateway-parent", "infra/public/https", "--gateway-hostname", "llm.example.com"),
    )
    with (
        ApiServer(plane.url, plane.ca, plane.certificate, plane.key) as server,
        Cluster(plane.kubeconfig) as cluster,
        closing(FakeNodes(plane.kubeconfig)) as nodes,
    ):
        cluster.apply_crds(load_manifests([CRDS]))
        cluster.apply(spaces)
        try:
            nodes.add(parse_node_counts("l4:1=8,h100:1=2,cpu=2"), prefix=f"gitops-{part}-")
            operator.start()
            operator.wait_ready()
            yield Site(server, cluster, ports, models, system)
        finally:
            operator.stop()
            cluster.delete(spaces)
            nodes.remove()


@pytest.fixture(scope="session")
def examples() -> list[dict[str, Any]]:
    """Every manifest of examples/ that is meant to be applied."""
    folder = Path(__file__).parents[2] / "examples"
    files = [path for path in sorted(folder.rglob("*.yaml")) if "invalid" not in path.parts]
    return [item for item in load_manifests(files) if item.get("kind") in KINDS]
