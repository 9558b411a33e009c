"""A cluster with two real nodes and Modelyard, installed once by the README's commands."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.cluster.binaries import HELM, NODE, ensure_module
from dev.cluster.waiting import wait_until
from dev.realnode import requirements
from dev.realnode.images import OWN_IMAGE, ensure_images
from tests.e2e_node.support import (
    BUILD,
    INSTALL,
    POD_TIMEOUT_S,
    README,
    SMALL,
    SYSTEM,
    TEAM,
    TENANT,
    Bed,
    Traffic,
    commands_of,
    model,
    own,
)
from tests.e2e_node.terminal import Terminal, make_checkout

README_IMAGE = OWN_IMAGE.replace("docker.io/library", "registry.example.com")
"""What the README's commands name."""

AUDITED = [f"system:serviceaccounts:{namespace}" for namespace in (SYSTEM, TEAM)]
"""Whose requests are in the audit log: the operator's, and those of gateway and engines, which should make none."""

_missing = requirements.lacks()
REASON = requirements.explain(_missing) if _missing else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave this folder's tests out where real nodes cannot run."""
    if REASON:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=REASON))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, where it is not overlooked, that nothing ran on a real node."""
    if REASON:
        terminalreporter.section("REAL NODE: NOT TESTED", red=True, bold=True)
        terminalreporter.line(REASON)


def say(line: str) -> None:
    """Show progress: pytest prints it when something fails, or with -s."""
    sys.stderr.write(line + "\n")


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two nodes with the images, and the programs to work on them; nothing installed."""
    from dev.realnode.cluster import RealCluster

    tools = tmp_path_factory.mktemp("tools")
    (tools / "helm").symlink_to(ensure_module(HELM, say) / "helm")
    (tools / "kubectl").symlink_to(ensure_module(NODE, say) / "kubectl")
    # kubectl runs a program of this name as `kubectl modelyard`.
    (tools / "kubectl-modelyard").symlink_to(Path(sys.executable).parent / "kubectl-modelyard")
    # What README does with Docker is done here without it: the image has the name that it says.
    assert commands_of(README, BUILD) == [
        f"docker build --tag {README_IMAGE} .",
        f"docker push {README_IMAGE}",
    ]
    images = ensure_images(say)
    folder = tmp_path_factory.mktemp("node")
    with RealCluster(folder, nodes=2, audited_groups=AUDITED, report=say) as cluster:
        cluster.import_images(images)
        for node in cluster.nodes:
            node.ctr("images", "tag", OWN_IMAGE, README_IMAGE)
        yield Bed(cluster, tools, key=f"sk-{secrets.token_hex(16)}")


@pytest.fixture(scope="session")
def terminal(bare: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Where the README's commands are typed."""
    folder = make_checkout(tmp_path_factory.mktemp("reader") / "modelyard")
    with Terminal(folder, bare.environment) as running:
        yield running


@pytest.fixture(scope="session")
def bed(bare: Bed, terminal: Terminal) -> Bed:
    """Modelyard, installed as the README says, with a tenant and a class of machines."""
    for command in commands_of(README, INSTALL):
        terminal.run(command)
    bare.wait_rolled_out(SYSTEM)
    bare.kubectl("create", "secret", "generic", TENANT, "-n", SYSTEM, f"--from-literal=key={bare.key}")
    bare.apply(
        own("LLMTenant", TENANT, SYSTEM, {"keys": [{"name": TENANT, "key": "key"}]}),
        own("AcceleratorClass", "cpu", "", {"requests": SMALL, "price": {"onDemand": "0.05"}}),
    )
    return bare


@pytest.fixture(scope="session")
def gemma(bed: Bed) -> str:
    """A model with two replicas that serve."""
    name = "gemma"
    bed.apply(model(name, replicas=2))
    bed.wait_serving(name, 2)
    wait_until(lambda: bed.chat(name)[0] == 200, f"{name} is routed", timeout_s=POD_TIMEOUT_S)
    return name


@pytest.fixture
def traffic(bed: Bed, gemma: str) -> Callable[[], Traffic]:
    """Makes traffic for the model."""
    return lambda: Traffic(bed, gemma)
