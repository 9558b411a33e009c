"""A Kubernetes control plane as child processes of this one."""

from __future__ import annotations

import shutil
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from dev.cluster import components
from dev.cluster.binaries import Binaries, ensure_binaries
from dev.cluster.certificates import CertificateAuthority, KeyPair, service_account_keys
from dev.cluster.components import Files, Ports
from dev.cluster.instance import Instance
from dev.cluster.kubeconfig import write_kubeconfig
from dev.cluster.processes import STOP_TIMEOUT_S, Component, free_ports

ADMIN_USER = "admin"
ADMIN_GROUP = "system:masters"
"""The group that the API server lets do everything, whatever RBAC says."""


class ControlPlane:
    """etcd, kube-apiserver, kube-scheduler and kube-controller-manager, and KWOK if asked for.

    `folder` holds everything of this instance: certificates, kubeconfigs, logs, etcd's data. Every
    start is a new, empty cluster on ports of its own; use it as a context manager, or call `start`
    and `stop`. After a stop the folder stays, for its logs. The processes end with this one, by
    SIGKILL too. Safe to start from any thread.

    `audit` writes who changed what to `audit_log`, and what `audited_groups` read. `address` is where the API server
    listens: one that nodes and pods reach if there are any, else loopback. `report` hears each step, a line at a time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kwok: bool = False,
        audit: bool = False,
        audited_groups: Iterable[str] = (),
        address: str = components.LOOPBACK,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.kubeconfig = self.folder / "kubeconfig"
        self.ca = self.folder / "certificates" / "ca.crt"
        self.certificate = self.folder / "certificates" / f"{ADMIN_USER}.crt"
        self.key = self.folder / "certificates" / f"{ADMIN_USER}.key"
        self.audit_log = self.folder / "audit.log" if audit else None
        self._audited_groups = tuple(audited_groups)
        self.components: dict[str, Component] = {}
        self.address = address
        self._kwok = kwok
        self._report = report or _say_nothing
        self._instance = Instance(self.folder)
        self._authority: CertificateAuthority | None = None
        self._ports: Ports | None = None

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self._started_ports.api_server}"

    @property
    def server_certificate(self) -> KeyPair:
        """The API server's certificate and key, for a proxy that stands before it in a test."""
        certificates = self.folder / "certificates"
        return KeyPair(certificates / "server.crt", certificates / "server.key")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Build the programs if need be, start all components and wait until all are ready.

        On failure everything is stopped again and ComponentError (with the log's end), BuildError or
        InstanceBusyError is raised.
        """
        binaries = ensure_binaries(self._report)
        for name in self._instance.acquire():
            self._report(f"ended {name}, left by an earlier run")
        try:
            self._prepare()
            self._create_components(binaries)
            self._start_in_order()
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop all components, last started first; `timeout_s` seconds of patience with each."""
        for component in reversed(self.components.values()):
            component.stop(timeout_s)
        self._instance.release()

    def user_kubeconfig(self, name: str, groups: Iterable[str] = ()) -> Path:
        """Return the kubeconfig of a new user, who has the rights that RBAC gives to name and groups."""
        if self._authority is None:
            raise RuntimeError("the control plane has not been started")
        file = name.replace(":", "-").replace("/", "-")
        client = self._authority.client(file, name, groups)
        path = self.folder / "kubeconfigs" / f"{file}.kubeconfig"
        return write_kubeconfig(path, url=self.url, ca=self.ca, client=client, user=name)

    @property
    def _started_ports(self) -> Ports:
        if self._ports is None:
            raise RuntimeError("the control plane has not been started")
        return self._ports

    def _prepare(self) -> None:
        """Clear what an earlier run left in the folder, then choose ports and sign certificates."""
        for name in ("etcd", "certificates", "kubeconfigs", "logs"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "audit.log").unlink(missing_ok=True)
        self._ports = Ports(*free_ports(6))
        self._authority = CertificateAuthority(self.folder / "certificates")
        admin = self._authority.client(ADMIN_USER, ADMIN_USER, [ADMIN_GROUP])
        write_kubeconfig(self.kubeconfig, url=self.url, ca=self.ca, client=admin, user=ADMIN_USER)

    def _create_components(self, binaries: Binaries) -> None:
        if self._authority is None:
            raise RuntimeError("certificates are made before components")
        ports = self._started_ports
        certificates = self.folder / "certificates"
        private, public = service_account_keys(certificates)
        files = Files(
            folder=self.folder,
            ca=self.ca,
            server=self._authority.server(
                "server", sorted({components.LOOPBACK, self.address, components.API_SERVICE_IP})
            ),
            kubelet_client=KeyPair(self.certificate, self.key),
            service_account_key=private,
            service_account_public_key=public,
            admin_kubeconfig=self.kubeconfig,
            scheduler_kubeconfig=self.user_kubeconfig("system:kube-scheduler"),
            controller_manager_kubeconfig=self.user_kubeconfig("system:kube-controller-manager"),
        )
        tls = ssl.create_default_context(cafile=str(self.ca))
        tls.load_cert_chain(self.certificate, self.key)
        created = [
            components.etcd(binaries, files, ports),
            components.api_server(
                binaries, files, ports, tls, self.audit_log, self.address, self._audited_groups
            ),
            components.scheduler(binaries, files, ports, tls),
            components.controller_manager(binaries, files, ports, tls),
        ]
        if self._kwok:
            created.append(components.kwok(binaries, files, ports))
        self.components = {component.name: component for component in created}

    def _start_in_order(self) -> None:
        """Start etcd, then the API server, then the rest together."""
        names = list(self.components)
        for stage in (names[:1], names[1:2], names[2:]):
            began = time.monotonic()
            for name in stage:
                self.components[name].start()
                self._record()
            for name in stage:
                self.components[name].wait_ready()
                self._report(f"{name} is ready ({time.monotonic() - began:.1f} s)")

    def _record(self) -> None:
        running = {
            name: process
            for name, component in self.components.items()
            if (process := component.process_id) is not None
        }
        self._instance.write(self.url, self.kubeconfig, running)


def _say_nothing(line: str) -> None:
    del line
