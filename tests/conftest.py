"""Fixtures that every tier shares: one control plane for the whole run, a namespace for each test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from dev.cluster.control_plane import ControlPlane
from dev.cluster.waiting import wait_until

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# The Kubernetes client takes about a second to import; only the fixtures that need it import it, so
# that the tiers without a cluster stay fast.

# A shell starts background jobs with SIGINT ignored, and programs inherit that: those that are tested would not hear
# Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on the machine's other work and says nothing about what is tested. Every run tries
# the same examples, so that what passed once passes again; with MODELYARD_FUZZ above 1 each run tries others.
settings.register_profile(
    "modelyard",
    deadline=None,
    derandomize=os.environ.get("MODELYARD_FUZZ", "1") == "1",
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("modelyard")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running control plane with KWOK and an audit log. Shared: isolate by namespace."""
    folder = tmp_path_factory.mktemp("control-plane")
    with ControlPlane(folder, kwok=True, audit=True) as running:
        yield running


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[ApiClient]:
    """A client of the shared control plane that acts as its administrator."""
    from dev.cluster.api import api_client

    with api_client(control_plane.kubeconfig) as client:
        yield client


@pytest.fixture
def make_namespace(api: ApiClient) -> Iterator[Callable[..., str]]:
    """Makes namespaces under restricted Pod Security, ready for pods; they are deleted after the test.

    `make_namespace(**labels)` returns the new namespace's name; labels add to or replace its own.
    """
    from kubernetes import client

    core = client.CoreV1Api(api)
    made: list[str] = []

    def make(**labels: str) -> str:
        own = {"pod-security.kubernetes.io/enforce": "restricted", **labels}
        metadata = client.V1ObjectMeta(generate_name="test-", labels=own)
        created = core.create_namespace(client.V1Namespace(metadata=metadata))
        name = str(created.metadata and created.metadata.name)
        made.append(name)
        # Pods are refused until the controller manager has made their service account.
        wait_until(
            lambda: core.list_namespaced_service_account(name).items,
            f"namespace {name} has a service account",
        )
        return name

    yield make
    for name in made:
        core.delete_namespace(name)
