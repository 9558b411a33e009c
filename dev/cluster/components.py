"""The command lines of a local cluster's components, and how each tells that it is ready."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.binaries import Binaries
from dev.cluster.certificates import KeyPair
from dev.cluster.processes import Component, responds

LOOPBACK = "127.0.0.1"

SERVICE_CIDR = "10.96.0.0/16"
"""Cluster IPs of Services: 65,534, enough for the scale tests. kubeadm's default starts there too."""

API_SERVICE_IP = "10.96.0.1"
"""Cluster IP of the Service `kubernetes`: always the first of the range."""

FAKE_POD_CIDR = "10.244.0.1/14"
"""Addresses of KWOK's pods: 262,142, and apart from `SERVICE_CIDR` (KWOK's own default is not)."""

FAKE_NODE_ANNOTATION = ("kwok.x-k8s.io/node", "fake")
"""Marks the nodes that KWOK plays: https://kwok.sigs.k8s.io/docs/user/kwok-manage-nodes-and-pods/"""

FAKE_NODE_LEASE_S = 40
"""Seconds a fake node's Lease lasts: the kubelet's default `nodeLeaseDurationSeconds`."""

CLIENT_QPS = 500
"""Requests per second that scheduler and controllers may make (default 20 to 50): on one machine
the client-side limits, made for shared API servers, would only slow the tests."""

AUDITED_GROUP = "modelyard:audited"
"""Group of users whose reads are in the audit log, too."""


def audit_policy(groups: Iterable[str] = ()) -> dict[str, Any]:
    """Return what the audit log has: who changed what, once per request, and reads of some groups only."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "userGroups": [AUDITED_GROUP, *groups]},
            {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "None"},
        ],
    }


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports of one cluster on 127.0.0.1."""

    etcd: int
    etcd_peer: int
    api_server: int
    scheduler: int
    controller_manager: int
    kwok: int


@dataclass(frozen=True, slots=True)
class Files:
    """Paths that several components read."""

    folder: Path
    ca: Path
    server: KeyPair
    kubelet_client: KeyPair
    """As whom the API server calls kubelets."""
    service_account_key: Path
    service_account_public_key: Path
    admin_kubeconfig: Path
    scheduler_kubeconfig: Path
    controller_manager_kubeconfig: Path

    def log(self, component: str) -> Path:
        """Return the log file of a component."""
        return self.folder / "logs" / f"{component}.log"


def etcd(binaries: Binaries, files: Files, ports: Ports) -> Component:
    """Return etcd, without fsync: its data need not survive the machine."""
    client, peer = f"http://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd_peer}"
    command = [
        str(binaries.path("etcd")),
        f"--data-dir={files.folder / 'etcd'}",
        "--name=local",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    return Component("etcd", command, files.log("etcd"), lambda: responds(ports.etcd, "/health"))


def api_server(
    binaries: Binaries,
    files: Files,
    ports: Ports,
    tls: ssl.SSLContext,
    audit_log: Path | None,
    address: str = LOOPBACK,
    audited_groups: Iterable[str] = (),
) -> Component:
    """Return kube-apiserver with RBAC, every default admission plugin, and the audit log if asked.

    It listens on `address` alone. On another one than loopback it also serves pods and speaks to kubelets. Reads of
    `audited_groups` are in the audit log, too.
    """
    command = [
        str(binaries.path("kube-apiserver")),
        f"--etcd-servers=http://127.0.0.1:{ports.etcd}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        *_node_flags(files, address),
        f"--secure-port={ports.api_server}",
        f"--tls-cert-file={files.server.certificate}",
        f"--tls-private-key-file={files.server.key}",
        f"--client-ca-file={files.ca}",
        f"--service-account-key-file={files.service_account_public_key}",
        f"--service-account-signing-key-file={files.service_account_key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        # Names of nodes are in no DNS: their logs are asked for at their addresses.
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
        "--profiling=false",
    ]
    if audit_log is not None:
        policy = files.folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(audit_policy(audited_groups), sort_keys=False))
        # Blocking: the line is in the file before the client has its reply.
        command += [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={audit_log}",
            "--audit-log-mode=blocking",
        ]
    name = "kube-apiserver"
    return Component(
        name,
        command,
        files.log(name),
        lambda: responds(ports.api_server, "/readyz", tls=tls, address=address),
    )


def _node_flags(files: Files, address: str) -> list[str]:
    """Return the API server's flags for what its address lets it reach."""
    if address == LOOPBACK:
        # The `kubernetes` Service gets no endpoint: a loopback address is refused there.
        return ["--endpoint-reconciler-type=none"]
    # For `kubectl logs` and `exec`.
    return [
        f"--kubelet-client-certificate={files.kubelet_client.certificate}",
        f"--kubelet-client-key={files.kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def scheduler(binaries: Binaries, files: Files, ports: Ports, tls: ssl.SSLContext) -> Component:
    """Return kube-scheduler."""
    name = "kube-scheduler"
    command = [
        str(binaries.path(name)),
        *_client_flags(files.scheduler_kubeconfig, files, ports.scheduler),
    ]
    return Component(name, command, files.log(name), lambda: responds(ports.scheduler, "/healthz", tls=tls))


def controller_manager(binaries: Binaries, files: Files, ports: Ports, tls: ssl.SSLContext) -> Component:
    """Return kube-controller-manager with its default controllers."""
    name = "kube-controller-manager"
    command = [
        str(binaries.path(name)),
        *_client_flags(files.controller_manager_kubeconfig, files, ports.controller_manager),
        f"--service-account-private-key-file={files.service_account_key}",
        f"--root-ca-file={files.ca}",
        "--use-service-account-credentials=true",
    ]
    port = ports.controller_manager
    return Component(name, command, files.log(name), lambda: responds(port, "/healthz", tls=tls))


def kwok(binaries: Binaries, files: Files, ports: Ports) -> Component:
    """Return KWOK, which plays the nodes that bear `FAKE_NODE_ANNOTATION` and their pods."""
    command = [
        str(binaries.path("kwok")),
        f"--kubeconfig={files.admin_kubeconfig}",
        *(f"--config={stage}" for stage in binaries.stages),
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={'='.join(FAKE_NODE_ANNOTATION)}",
        f"--node-lease-duration-seconds={FAKE_NODE_LEASE_S}",
        f"--cidr={FAKE_POD_CIDR}",
        f"--server-address=127.0.0.1:{ports.kwok}",
    ]
    return Component("kwok", command, files.log("kwok"), lambda: responds(ports.kwok, "/healthz"))


def _client_flags(kubeconfig: Path, files: Files, port: int) -> list[str]:
    """Return the flags that scheduler and controller manager share."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={files.server.certificate}",
        f"--tls-private-key-file={files.server.key}",
        f"--kube-api-qps={CLIENT_QPS}",
        f"--kube-api-burst={2 * CLIENT_QPS}",
        "--profiling=false",
    ]
