"""A whole cluster with real nodes: control plane, DNS and nodes, started and removed together."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from kubernetes import client, utils

from dev.cluster.api import api_client
from dev.cluster.binaries import COREDNS, NODE, cache_folder, ensure_module
from dev.cluster.control_plane import ControlPlane
from dev.cluster.instance import Instance
from dev.cluster.processes import Component
from dev.cluster.waiting import wait_until
from dev.realnode import cgroups, configs, network
from dev.realnode.node import Node, Programs
from dev.realnode.requirements import cni_folder, explain, lacks

READY_TIMEOUT_S = 60.0
"""Seconds in which a node must become Ready. On two cores it takes about ten."""

STOP_TIMEOUT_S = 180.0
"""Seconds that another process gets to stop its cluster; an API server with open watches has been seen to take 41."""

LOCK = cache_folder() / "realnode.lock"
"""Held by the one cluster with real nodes that a machine runs: its addresses are fixed."""


class NotPossibleError(RuntimeError):
    """This machine cannot run real nodes; the message says what is missing and how to get it."""


class BusyError(RuntimeError):
    """Another process on this machine runs real nodes."""


class RealCluster:
    """Control plane, CoreDNS and real nodes. A context manager; `folder` keeps the logs afterwards.

    `report` hears each step, a line at a time. With `audited_groups` the control plane has an audit log of all that
    these asked for, and of who changed what. Everything ends with this process, by SIGKILL too; what a killed one left
    (an empty bridge, empty control groups, files) the next one removes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 1,
        audited_groups: Iterable[str] = (),
        report: Callable[[str], None] | None = None,
    ) -> None:
        if not 1 <= nodes <= network.MAX_NODES:
            raise ValueError(f"nodes must be from 1 to {network.MAX_NODES}, not {nodes}")
        self.folder = folder.resolve()
        groups = tuple(audited_groups)
        self.control_plane = ControlPlane(
            self.folder / "control-plane",
            audit=bool(groups),
            audited_groups=groups,
            address=network.HOST_ADDRESS,
            report=report,
        )
        self.nodes: list[Node] = []
        self._count = nodes
        self._report = report or _say_nothing
        self._stack = ExitStack()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.control_plane.kubeconfig

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Build what is missing, start everything and wait until the nodes are Ready.

        Raises NotPossibleError, BusyError, NetworkError, BuildError or ComponentError; nothing is left running then.
        """
        if missing := lacks():
            raise NotPossibleError(explain(missing))
        programs = Programs(ensure_module(NODE, self._report), cni_folder())
        dns = ensure_module(COREDNS, self._report) / "coredns"
        with ExitStack() as stack:
            stack.enter_context(_only_one())
            network.raise_bridge(self._count)
            stack.callback(network.remove_bridge)
            self.control_plane.start()
            stack.callback(self.control_plane.stop)
            self._start_dns(dns, stack)
            self._start_nodes(programs, stack)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End everything: nodes first, all at once, then the control plane."""
        self._stack.close()

    def import_images(self, archives: Mapping[str, Path]) -> None:
        """Put image archives, by name, into every node, all nodes at once."""

        def put(node: Node) -> None:
            began = time.monotonic()
            for archive in archives.values():
                node.import_image(archive)
            self._report(f"{node.name} has {', '.join(archives)} ({time.monotonic() - began:.1f} s)")

        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(put, self.nodes))

    def _start_dns(self, program: Path, stack: ExitStack) -> None:
        folder = self.folder / "dns"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        corefile = folder / "Corefile"
        corefile.write_text(configs.corefile(self.kubeconfig))
        component = Component(
            "CoreDNS", [str(program), "-conf", str(corefile)], folder / "coredns.log", lambda: True
        )
        component.start()
        stack.callback(component.stop)
        with api_client(self.kubeconfig) as api:
            for manifest in configs.dns_service():
                utils.create_from_dict(api, manifest)  # type: ignore[no-untyped-call]

    def _start_nodes(self, programs: Programs, stack: ExitStack) -> None:
        began = time.monotonic()
        numbers = range(1, self._count + 1)
        self.nodes = [
            Node(number, self.folder / f"node-{number}", self.control_plane, programs) for number in numbers
        ]
        for node in self.nodes:
            stack.callback(node.stop)
            node.start(peer for peer in numbers if peer != node.number)
        with api_client(self.kubeconfig) as api:
            core = client.CoreV1Api(api)
            for node in self.nodes:
                node.wait_ready()
                wait_until(
                    lambda node=node: _is_ready(core, node),  # type: ignore[misc]
                    f"{node.name} is Ready (its logs: {node.folder / 'logs'})",
                    timeout_s=READY_TIMEOUT_S,
                )
                self._report(f"{node.name} is Ready ({time.monotonic() - began:.1f} s)")


def _is_ready(core: client.CoreV1Api, node: Node) -> bool:
    if not node.component.running:
        raise NotPossibleError(f"{node.name} has ended\n{node.component.tail()}")
    found = core.list_node(field_selector=f"metadata.name={node.name}").items
    conditions = [one for item in found if item.status for one in item.status.conditions or ()]
    return any(one.type == "Ready" and one.status == "True" for one in conditions)


def stop_or_clear(folder: Path) -> str:
    """Stop the cluster of a folder that another process runs, or remove what a killed one left; say which."""
    instance = Instance(folder / "control-plane")
    record = instance.read()
    if instance.held() and record is not None:
        os.kill(record.owner.pid, signal.SIGTERM)
        wait_until(lambda: not instance.held(), "the cluster stops", timeout_s=STOP_TIMEOUT_S)
        return "stopped"
    with _only_one():
        network.remove_bridge()
        for number in range(1, network.MAX_NODES + 1):
            cgroups.remove_soon(Node.cgroup_of(number))
    return "nothing runs here"


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the machine's lock, which the kernel releases when the process ends. Raises BusyError."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError("another process on this machine runs real nodes: stop it first") from None
        yield


def _say_nothing(line: str) -> None:
    del line
