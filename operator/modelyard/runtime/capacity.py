"""What the process knows of nodes: a view of free accelerators that is made anew when something changed."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.meta import LABEL_DEPLOYMENT
from modelyard.core.inventory import Inventory, Usage, build_inventory, measure_node_sizes
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.informers import Indices, first
from modelyard.kube.projections import project_usage
from modelyard.kube.resources import PODS

logger = logging.getLogger(__name__)

REBUILD_SECONDS = 1.0
"""Between two views: hundreds of nodes and thousands of pods take tens of milliseconds, and a burst changes them
hundreds of times a second. What changes meanwhile shows as Pending pods, which the next decision acts on."""

_OTHERS = {
    "labelSelector": f"!{LABEL_DEPLOYMENT}",
    "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
}
"""Pods that are not ours and have a node."""


@dataclass
class CapacityView:
    """Free accelerators, as far as they can be seen."""

    others: tuple[Usage, ...] = ()
    """What pods of others hold."""
    others_known: bool = False
    changed: bool = True
    """Whether nodes, pods or classes changed since the view was made."""
    _made_at: float = field(default=0.0)
    _inventory: Inventory | None = None
    _node_sizes: Mapping[str, int] = field(default_factory=dict)

    def measure(
        self, indices: Indices, accelerators: Mapping[str, AcceleratorClass]
    ) -> tuple[Inventory | None, Mapping[str, int]]:
        """Return the inventory (None: nodes may not be read) and the accelerators of one node of each class."""
        now = time.monotonic()
        fresh = self._made_at and now - self._made_at < REBUILD_SECONDS
        if self._made_at and (fresh or not self.changed) and accelerators.keys() <= self._node_sizes.keys():
            return self._inventory, self._node_sizes
        self.changed = False
        self._made_at = now
        self._inventory = None
        if indices.nodes is not None:
            nodes = (seen.node for name in list(indices.nodes) if (seen := first(indices.nodes, name)))
            self._inventory = build_inventory(
                (node for node in nodes if node.accelerators),
                (*_own_usages(indices), *self.others),
                complete=self.others_known,
            )
        self._node_sizes = measure_node_sizes(accelerators, self._inventory)
        return self._inventory, self._node_sizes


def _own_usages(indices: Indices) -> Iterator[Usage]:
    for key in list(indices.pods):
        for pod in indices.pods[key]:
            if pod.node and pod.accelerators and pod.phase in {"Pending", "Running"}:
                # A pod on its way out holds its accelerators until it is gone, but nobody can count on them.
                owner = key if pod.live else ""
                yield Usage(pod.node, owner, pod.variant, pod.accelerators, nodes=pod.nodes)


class OccupancyReader:
    """Reads which accelerators pods of others hold.

    A list from time to time and no watch: a cluster may have far more pods than ours, and nothing of them but this is
    needed.
    """

    def __init__(self, client: KubeClient, view: CapacityView, interval: float) -> None:
        self._client = client
        self._view = view
        self._interval = interval

    async def run(self) -> None:
        """Read until cancelled. A reading that fails leaves the last one."""
        while True:
            try:
                usages = [
                    usage
                    async for pod in self._client.list_pages(PODS, _OTHERS)
                    if (usage := project_usage(pod)) is not None
                ]
            except ApiError as error:
                logger.warning(
                    "Pods of others cannot be read, free accelerators are an upper bound: %s", error
                )
            else:
                found = tuple(usages)
                if found != self._view.others or not self._view.others_known:
                    self._view.others, self._view.others_known = found, True
                    self._view.changed = True
            await asyncio.sleep(self._interval)
