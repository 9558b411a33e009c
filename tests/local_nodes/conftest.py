"""Fixtures: an agent of its own for each test, on the shared control plane."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dev.cluster.control_plane import ControlPlane
from dev.nodes import LocalNodes, RestartBackoff
from dev.nodes.api import KubeApi
from tests.local_nodes.support import Cluster


@pytest.fixture
def name_prefix() -> str:
    """The beginning of the names of this test's nodes."""
    return f"n{uuid.uuid4().hex[:6]}"


@pytest.fixture
async def cluster(control_plane: ControlPlane, make_namespace: Callable[..., str]) -> AsyncIterator[Cluster]:
    """A namespace of the control plane."""
    async with KubeApi(control_plane.kubeconfig) as api:
        yield Cluster(api, make_namespace())


@pytest.fixture
async def nodes(
    control_plane: ControlPlane, cluster: Cluster, name_prefix: str, tmp_path: Path
) -> AsyncIterator[LocalNodes]:
    """An agent with an H100 node of two GPUs and a CPU node; restarts come 60 times sooner."""
    async with LocalNodes(
        control_plane.kubeconfig,
        "h100:2=1,cpu=1",
        tmp_path / "nodes",
        name_prefix=name_prefix,
        backoff=RestartBackoff(initial=10 / 60, maximum=300 / 60),
    ) as agent:
        yield agent


@pytest.fixture
def cpu_node(nodes: LocalNodes) -> str:
    """The name of the CPU node."""
    return next(name for name in nodes.names if "-cpu-" in name)


@pytest.fixture
def gpu_node(nodes: LocalNodes) -> str:
    """The name of the node with two GPUs."""
    return next(name for name in nodes.names if "-h100-" in name)
