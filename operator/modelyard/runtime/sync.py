"""When the watches have shown everything that is there: nothing may be decided before."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from modelyard.api.meta import LABEL_DEPLOYMENT
from modelyard.kube.client import KubeClient
from modelyard.kube.informers import Indices
from modelyard.kube.resources import (
    ACCELERATOR_CLASSES,
    DEPLOYMENTS,
    LLM_DEPLOYMENTS,
    LLM_ROUTES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    Resource,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""Between two looks at the indices while they fill."""
LIST_AGAIN_SECONDS = 10.0
"""Until the API server is asked again: objects may have gone meanwhile."""


async def wait_synced(
    client: KubeClient,
    indices: Indices,
    namespaces: Iterable[str],
    optional: frozenset[Resource] = frozenset(),
) -> None:
    """Wait until the indices hold every object that the API server lists.

    `optional` are the kinds that are watched beside those that always are.

    Kopf calls no handler on an empty cluster, so its own readiness cannot be waited for from outside.
    """
    views: dict[Resource, Callable[[], set[str]]] = {
        NODES: lambda: _uids(indices.nodes or {}),
        PRIORITY_CLASSES: lambda: _uids(indices.priorities or {}),
    }
    seen: tuple[tuple[Resource, str, Callable[[], set[str]]], ...] = (
        (LLM_DEPLOYMENTS, "", lambda: _uids(indices.deployments)),
        (LLM_ROUTES, "", lambda: _uids(indices.routes)),
        (ACCELERATOR_CLASSES, "", lambda: _uids(indices.accelerators)),
        (PODS, LABEL_DEPLOYMENT, lambda: _uids(indices.pods)),
        (DEPLOYMENTS, LABEL_DEPLOYMENT, lambda: _uids(indices.children)),
        *((resource, "", view) for resource, view in views.items() if resource in optional),
    )
    while True:
        expected = [await _list(client, resource, selector, namespaces) for resource, selector, _ in seen]
        for _ in range(int(LIST_AGAIN_SECONDS / POLL_SECONDS)):
            if indices.started and all(
                wanted <= view() for wanted, (_, _, view) in zip(expected, seen, strict=True)
            ):
                return
            await asyncio.sleep(POLL_SECONDS)
        logger.info("Still waiting for the watches to show everything")


async def _list(client: KubeClient, resource: Resource, selector: str, namespaces: Iterable[str]) -> set[str]:
    scopes = tuple(namespaces) if resource.namespaced else ()
    uids: set[str] = set()
    for namespace in scopes or ("",):
        uids |= set((await client.list_identities(resource, namespace, selector)).values())
    return uids


class _HasUid(Protocol):
    @property
    def uid(self) -> str: ...


def _uids(index: Mapping[str, Iterable[_HasUid]]) -> set[str]:
    return {view.uid for key in list(index) for view in index[key]}
