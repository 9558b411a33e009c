"""Whether the watches still show what the API server has: a watch that went silent looks like a quiet cluster.

From time to time the identities of our own kinds are listed. A moment later the views must hold every object in that
version or a later one, else the watch is behind. Pods and Deployments are too many to list; for them the last event
must do.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelyard.kube.client import ApiError, Identity, KubeClient
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.kube.resources import ACCELERATOR_CLASSES, LLM_DEPLOYMENTS, LLM_ROUTES, Resource

logger = logging.getLogger(__name__)

AUDITED = (LLM_DEPLOYMENTS, LLM_ROUTES, ACCELERATOR_CLASSES)

GRACE = 5.0
"""Seconds that a watch may be behind a list: one event takes milliseconds, a burst of thousands takes seconds."""


class WatchAudit:
    """Compares the views with what the API server lists."""

    def __init__(
        self,
        client: KubeClient,
        indices: Callable[[], Indices],
        namespaces: Iterable[str],
        interval: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`interval`: seconds between two lists. `namespaces`: empty for all."""
        self._client = client
        self._indices = indices
        self._namespaces = tuple(namespaces)
        self._interval = interval
        self._clock = clock
        self._agreed: dict[Resource, float] = {}
        self._behind: set[Resource] = set()
        self.listed = False
        """Whether the lists of the present look are there."""
        self.events: dict[Resource, float] = {}
        """Unix time of the last event of each watch."""

    def note(self, resource: Resource) -> None:
        """Take in that a watch has shown something."""
        self.events[resource] = self._clock()

    def ages(self) -> Mapping[Resource, float]:
        """Return the seconds since each audited view was known to be what the API server has."""
        now = self._clock()
        return {resource: now - time for resource, time in self._agreed.items()}

    def begin(self) -> None:
        """Take in that the views hold everything, which a start waits for."""
        self._agreed = dict.fromkeys(AUDITED, self._clock())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(max(self._interval - GRACE, 0.0))
            await self.look()

    async def look(self) -> None:
        """List, wait a moment, and compare the views with what was listed."""
        self.listed = False
        began = self._clock()
        listed = [(resource, await self._list(resource)) for resource in AUDITED]
        self.listed = True
        await asyncio.sleep(min(GRACE, self._interval))
        for resource, identities in listed:
            if identities is not None:
                await self._judge(resource, identities, began)

    async def _judge(self, resource: Resource, listed: Mapping[str, Identity], began: float) -> None:
        """Compare a view with what was listed from a Unix time on, of which it must know by now."""
        view = self._view(resource)
        apart = _differ(view, listed)
        # Objects may have come and gone since. That is rare, so a second list costs nothing.
        again = await self._list(resource) if apart else {}
        if again is None:
            return
        view = self._view(resource)
        behind = sorted(key for key in apart & _differ(view, listed) if (key in again) == (key in listed))
        if not behind:
            self._agreed[resource] = max(self._agreed.get(resource, 0.0), began)
            self._behind.discard(resource)
        elif resource not in self._behind:
            self._behind.add(resource)
            logger.warning(
                "The watch of %s is behind the API server: %d objects differ, one of them is %s",
                resource.plural,
                len(behind),
                behind[0],
            )

    async def _list(self, resource: Resource) -> dict[str, Identity] | None:
        """Return what the API server has; None if it does not say."""
        found: dict[str, Identity] = {}
        try:
            for namespace in (self._namespaces if resource.namespaced else ()) or ("",):
                found |= await self._client.list_versions(resource, namespace)
        except ApiError as error:
            logger.warning("%s cannot be listed: %s", resource.plural, error)
            return None
        return found

    def _view(self, resource: Resource) -> dict[str, Identity]:
        indices = self._indices()
        views: dict[Resource, Mapping[str, Iterable[Seen[Any]]]] = {
            LLM_DEPLOYMENTS: indices.deployments,
            LLM_ROUTES: indices.routes,
            ACCELERATOR_CLASSES: indices.accelerators,
        }
        found = views[resource]
        return {key: Identity(seen.uid, seen.version) for key in list(found) for seen in found[key]}


def _differ(view: Mapping[str, Identity], listed: Mapping[str, Identity]) -> set[str]:
    """Return the keys of objects that only one of both has, or of which the view has an older version."""
    older = {
        key
        for key, there in listed.items()
        if key in view and view[key].uid == there.uid and int(view[key].version) < int(there.version)
    }
    return older | (view.keys() ^ listed.keys())
