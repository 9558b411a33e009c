"""Helm, and a control plane of this tier: kinds and releases are cluster-wide, so it is not shared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from dev.charts.helm import CRDS_CHART, NAMESPACE, Helm
from dev.cluster.control_plane import ControlPlane
from dev.cluster.fake_nodes import FakeNodes
from dev.cluster.node_classes import parse_node_counts
from dev.demo.kube import Cluster, namespace_manifest
from tests.apiserver.client import ApiServer

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
TAINT = {"key": "tests", "value": "fake", "effect": "NoSchedule"}
"""Of the node without processes."""
MODELS = "team-a"
"""Namespace of models."""


@pytest.fixture
def helm(tmp_path) -> Helm:
    """Helm without a cluster."""
    return Helm(tmp_path)


@dataclass(frozen=True)
class Place:
    """A cluster to install the charts in."""

    plane: ControlPlane
    cluster: Cluster
    server: ApiServer
    helm: Helm
    node: str
    """A node whose pods run without a process: the chart's own."""

    def install(self, chart: str, release: str, *options: str) -> None:
        """Install or upgrade a release, and wait until its pods are Ready."""
        command = ["upgrade", "--install", release, chart, f"--namespace={NAMESPACE}"]
        self.helm.run(*command, "--wait", "--timeout=2m", *options)

    def pinned(self) -> list[str]:
        """Values that put the chart's pods on the node without processes."""
        selector = rf"nodeSelector.kubernetes\.io/hostname={self.node}"
        values = (selector, f"tolerations[0].key={TAINT['key']}", "tolerations[0].operator=Exists")
        return [f"--set={part}.{value}" for part in ("operator", "gateway") for value in values]


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Iterator[Place]:
    """A cluster with the kinds, and two namespaces under restricted Pod Security."""
    plane = ControlPlane(tmp_path_factory.mktemp("chart"), kwok=True, audit=True)
    with plane, Cluster(plane.kubeconfig) as cluster:
        nodes = FakeNodes(plane.kubeconfig)
        ((kind, count),) = parse_node_counts("cpu=1")
        # No engine may come here: nothing would answer.
        (node,) = nodes.add([(replace(kind, taints=(TAINT,)), count)], prefix="fake")
        for name in (NAMESPACE, MODELS, "team-b"):
            cluster.apply([namespace_manifest(name, RESTRICTED)])
        helm = Helm(tmp_path_factory.mktemp("helm"), plane.kubeconfig)
        with ApiServer(plane.url, plane.ca, plane.certificate, plane.key) as server:
            found = Place(plane, cluster, server, helm, node)
            found.install(str(CRDS_CHART), "modelyard-crds")
            yield found
        nodes.close()
