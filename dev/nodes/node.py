"""Nodes: registered as a kubelet registers them and kept alive by Leases."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp

from dev.cluster.node_classes import ZONES, NodeClass, node_manifest
from dev.nodes.api import ApiError, KubeApi
from dev.nodes.gpus import GpuLedger
from dev.nodes.status import timestamp

logger = logging.getLogger(__name__)

LEASE_SECONDS = 40
"""How long a node counts as alive after a renewal: the kubelet's `nodeLeaseDurationSeconds`,
https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/"""

RENEW_SECONDS = LEASE_SECONDS / 4
"""The kubelet renews its Lease four times within its duration."""

REPORT_SECONDS = 300.0
"""How often an unchanged node status is written: the kubelet's `nodeStatusReportFrequency`."""

LEASES = "apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
VERSION = "v1.37.2"
"""The kubelet version that the nodes report: that of the control plane in `dev/cluster`."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One node of the agent."""

    name: str
    node_class: NodeClass
    address: str
    zone: str
    gpus: GpuLedger = field(compare=False)
    log_port: int = 0
    """Where it serves logs; 0: nowhere."""

    def manifest(self) -> dict[str, Any]:
        """Return the Node as this agent registers it, its status included."""
        manifest = node_manifest(self.name, self.node_class, zone=self.zone)
        manifest["status"] |= self.status()
        return manifest

    def status(self) -> dict[str, Any]:
        """Return the changing part of the node's status: healthy, as of now."""
        now = timestamp(datetime.now(UTC))
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the agent runs"}
        healthy = [
            {"type": kind, "status": "False", "reason": f"KubeletHasNo{kind}", "message": "not measured"}
            for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
        ]
        return {
            "conditions": [{**condition, "lastHeartbeatTime": now} for condition in (ready, *healthy)],
            "addresses": [
                {"type": "InternalIP", "address": self.address},
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.log_port}},
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": f"process://{VERSION.removeprefix('v')}",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": VERSION,
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "local process",
                "systemUUID": "",
            },
        }


def make_nodes(
    counts: Iterable[tuple[NodeClass, int]], prefix: str, addresses: Sequence[str]
) -> list[LocalNode]:
    """Return the nodes, named `PREFIX-CLASS-0` and so on within each class and spread over the zones."""
    nodes: list[LocalNode] = []
    taken: dict[str, int] = {}
    for node_class, count in counts:
        for _ in range(count):
            index = taken.get(node_class.name, 0)
            taken[node_class.name] = index + 1
            name = f"{prefix}-{node_class.name}-{index}" if prefix else f"{node_class.name}-{index}"
            nodes.append(
                LocalNode(
                    name=name,
                    node_class=node_class,
                    address=addresses[len(nodes)],
                    zone=ZONES[index % len(ZONES)],
                    gpus=GpuLedger(name, node_class.gpus),
                )
            )
    return nodes


class NodeRegistry:
    """Registers nodes, keeps them alive and removes them."""

    def __init__(self, api: KubeApi, nodes: Sequence[LocalNode]) -> None:
        self._api = api
        self._nodes = nodes

    async def register(self) -> None:
        """Create the nodes, or take over those that an earlier agent left, and their Leases."""
        await asyncio.gather(*(self._register(node) for node in self._nodes))

    async def keep_alive(self) -> None:
        """Renew Leases and repair Ready conditions until cancelled."""
        await asyncio.gather(*(self._keep_alive(node) for node in self._nodes))

    async def remove(self) -> None:
        """Delete the nodes and their Leases."""
        paths = [
            path for node in self._nodes for path in (f"api/v1/nodes/{node.name}", f"{LEASES}/{node.name}")
        ]
        await asyncio.gather(*(self._delete(path) for path in paths))

    async def _register(self, node: LocalNode) -> None:
        manifest = node.manifest()
        path = f"api/v1/nodes/{node.name}"
        try:
            created = await self._api.create("api/v1/nodes", manifest)
        except ApiError as error:
            if error.status != 409:
                raise
            status = manifest.pop("status")
            created = await self._api.patch(path, manifest)
            await self._api.patch(f"{path}/status", {"status": status})
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": node.name,
                "namespace": "kube-node-lease",
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": created["metadata"]["uid"]}
                ],
            },
            "spec": {"holderIdentity": node.name, "leaseDurationSeconds": LEASE_SECONDS, **_renewal()},
        }
        try:
            await self._api.create(LEASES, lease)
        except ApiError as error:
            if error.status != 409:
                raise
            await self._api.patch(f"{LEASES}/{node.name}", lease)

    async def _keep_alive(self, node: LocalNode) -> None:
        loop = asyncio.get_running_loop()
        reported = loop.time()
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            path = f"api/v1/nodes/{node.name}"
            try:
                await self._api.patch(f"{LEASES}/{node.name}", {"spec": _renewal()})
                if loop.time() - reported >= REPORT_SECONDS or not _is_ready(await self._api.get(path)):
                    await self._api.patch(f"{path}/status", {"status": node.status()})
                    reported = loop.time()
            except ApiError as error:
                if error.status == 404:
                    # As with a kubelet, a deleted node stays away until its agent starts again.
                    logger.warning("Node %s was deleted", node.name)
                    return
                logger.warning("Heartbeat of node %s refused: %s", node.name, error)
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("Heartbeat of node %s failed: %s", node.name, error)

    async def _delete(self, path: str) -> None:
        try:
            await self._api.delete(path)
        except ApiError as error:
            if error.status != 404:
                raise


def _renewal() -> dict[str, str]:
    return {"renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def _is_ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
