"""Nodes that KWOK plays: they take pods, whose containers count as Running without a process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kubernetes import client, watch

from dev.cluster.api import api_client
from dev.cluster.components import FAKE_NODE_ANNOTATION
from dev.cluster.node_classes import NodeClass, node_manifests

READY_TIMEOUT_S = 60
"""Seconds in which fake nodes must become Ready. On two cores 500 nodes take 19 s in all."""


class FakeNodes:
    """Adds and removes fake nodes of a cluster that runs KWOK (`ControlPlane(..., kwok=True)`)."""

    def __init__(self, kubeconfig: Path) -> None:
        self._api_client = api_client(kubeconfig)
        self._api = client.CoreV1Api(self._api_client)
        self.names: list[str] = []

    def add(self, counts: Sequence[tuple[NodeClass, int]], *, prefix: str = "") -> list[str]:
        """Create the nodes, wait until they are Ready, and return their names.

        `prefix` sets several calls' nodes apart. Raises TimeoutError if a node is not Ready in time.
        """
        key, value = FAKE_NODE_ANNOTATION
        manifests = node_manifests(counts, annotations={key: value}, prefix=prefix)
        for manifest in manifests:
            node = client.V1Node.from_dict(manifest)
            if node is not None:
                self._api.create_node(node)
        names = [str(manifest["metadata"]["name"]) for manifest in manifests]
        self.names += names
        self._wait_ready(set(names))
        return names

    def remove(self) -> None:
        """Delete every node that this object added."""
        for name in self.names:
            self._api.delete_node(name)
        self.names.clear()

    def close(self) -> None:
        """Close the connections."""
        self._api_client.close()  # type: ignore[no-untyped-call]

    def _wait_ready(self, missing: set[str]) -> None:
        if not missing:
            return
        # The client types its models but not yet its watches.
        stream = watch.Watch()  # type: ignore[no-untyped-call]
        # A watch without a resource version begins with every node that exists.
        nodes = stream.stream(  # type: ignore[no-untyped-call]
            self._api.list_node, timeout_seconds=READY_TIMEOUT_S
        )
        for event in nodes:
            node = event["object"]
            if _is_ready(node):
                missing.discard(node.metadata.name)
            if not missing:
                stream.stop()  # type: ignore[no-untyped-call]
                return
        raise TimeoutError(
            f"fake nodes not Ready within {READY_TIMEOUT_S} s (does KWOK run?): {', '.join(sorted(missing))}"
        )


def _is_ready(node: client.V1Node) -> bool:
    conditions = (node.status and node.status.conditions) or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)
