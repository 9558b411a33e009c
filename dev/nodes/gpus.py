"""Which pod holds which GPU of a node."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from dev.cluster.node_classes import GPU_RESOURCE

_NAMESPACE = uuid.UUID("6f1f3f0a-5f0f-4a39-8a0f-7f6b1d0c8c11")
"""Makes the ids of fake GPUs; any constant would do."""


class GpuShortageError(Exception):
    """A pod asks for more GPUs than its node has free."""


class GpuLedger:
    """The GPUs of one node. No GPU is ever held by two pods.

    Ids have the form that NVIDIA's device plugin passes on, `GPU-<uuid>`:
    https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
    """

    def __init__(self, node: str, count: int) -> None:
        self.ids = tuple(f"GPU-{uuid.uuid5(_NAMESPACE, f'{node}/{index}')}" for index in range(count))
        self._holder: dict[str, str] = {}

    def allot(self, pod_uid: str, count: int) -> tuple[str, ...]:
        """Give `count` free GPUs to a pod. Raises GpuShortageError and gives none if they are too few."""
        free = [gpu for gpu in self.ids if gpu not in self._holder]
        if count > len(free):
            raise GpuShortageError(
                f"requested number of devices unavailable for {GPU_RESOURCE}. "
                f"Requested: {count}, Available: {len(free)}"
            )
        given = tuple(free[:count])
        self._holder.update(dict.fromkeys(given, pod_uid))
        return given

    def release(self, pod_uid: str) -> None:
        """Take back all GPUs of a pod."""
        self._holder = {gpu: holder for gpu, holder in self._holder.items() if holder != pod_uid}

    def held(self) -> Mapping[str, str]:
        """Return the pod uid by GPU id, for the GPUs in use."""
        return dict(self._holder)


def gpu_request(container: Mapping[str, Any]) -> int:
    """Return how many GPUs a container asks for. Extended resources are whole and set as limits."""
    limits = container.get("resources", {}).get("limits", {})
    return int(limits.get(GPU_RESOURCE, 0))
