"""The LeaderWorkerSets of replicas that span nodes: whether the cluster has the kind, and what stands of it.

The kind is optional, so nothing is watched: it is asked for from time to time, where some deployment may span nodes or
did so before. Their pods are watched like all others, so that what serves is known at once.
"""

import asyncio
import logging
import time

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.groups import GROUPS_READY, explain_groups
from modelyard.core.status import Verdict
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.informers import Change, owner_key, spec_version
from modelyard.kube.projections import SeenChild, project_groups
from modelyard.kube.resources import LEADER_WORKER_SETS
from modelyard.runtime.children import ChildApplier
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.support import find_group_support, list_labelled

logger = logging.getLogger(__name__)

_NOT_FOUND = 404
"""Answer of an API server that does not have the kind, and so no objects of it either."""


class GroupKeeper:
    """Knows where replicas can span nodes, and reads the LeaderWorkerSets."""

    def __init__(
        self,
        client: KubeClient,
        children: ChildApplier,
        fleet: Fleet,
        queue: WorkQueue,
        settings: OperatorSettings,
    ) -> None:
        self._client = client
        self._children = children
        self._fleet = fleet
        self._queue = queue
        self._settings = settings
        self._asked: dict[str, float] = {}
        """Monotonic time of the newest question, by namespace."""
        self._versions: dict[str, dict[str, str]] = {}
        """`spec_version` of each object, by `namespace/name` of the LLMDeployment and name."""
        self._late: frozenset[str] = frozenset()
        """Deployments with groups that have not become ready in time."""

    async def start(self) -> None:
        """Find the objects of an earlier process: nothing may be decided before."""
        await self._list()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._settings.scaler_interval)
            used = {item.metadata.namespace for item in self._users()}
            if not used and not self._fleet.groups:
                continue
            due = time.monotonic() - self._settings.support_interval
            for namespace in sorted(used):
                # Where something is missing each look asks, since somebody waits for it.
                known = self._fleet.group_support.get(namespace)
                if known is None or not known.complete or self._asked.get(namespace, due) <= due:
                    await self._ask(namespace)
            await self._list()
            self._look_at_deadlines(time.time())

    async def ask_first(self, deployment: LLMDeployment) -> None:
        """Find out what a deployment that may span nodes can have, if nobody has asked in its namespace."""
        namespace = deployment.metadata.namespace
        if deployment.spec.spans_nodes and namespace not in self._asked:
            await self._ask(namespace)

    def look_again(self, key: str) -> None:
        """Ask for another look at a deployment whose LeaderWorkerSet was deleted."""
        self._queue.add(key)

    def explain(self, deployment: LLMDeployment) -> tuple[Verdict, ...]:
        """Return the condition of a deployment that may span nodes."""
        if not deployment.spec.spans_nodes:
            return ()
        namespace = deployment.metadata.namespace
        support = self._fleet.group_support.get(namespace)
        return (Verdict(GROUPS_READY, *explain_groups(support, namespace)),)

    def _users(self) -> list[LLMDeployment]:
        return [item for item in self._fleet.readable() if item.spec.spans_nodes]

    async def _ask(self, namespace: str) -> None:
        """Find out what the cluster offers; what is known stays where it does not answer."""
        self._asked[namespace] = time.monotonic()
        try:
            support = await find_group_support(self._client, namespace)
        except ApiError as error:
            logger.warning("Whether replicas can span nodes in %s is not known: %s", namespace, error)
            return
        if support == self._fleet.group_support.get(namespace):
            return
        self._fleet.group_support[namespace] = support
        self._queue.add_all(item.key for item in self._users() if item.metadata.namespace == namespace)

    async def _list(self) -> None:
        """Read the objects. Those that changed are compared again."""
        found: dict[str, list[SeenChild]] = {}
        versions: dict[str, dict[str, str]] = {}
        try:
            async for body in list_labelled(self._client, LEADER_WORKER_SETS, self._settings.namespaces):
                key = owner_key(body["metadata"])
                found.setdefault(key, []).append(project_groups(body))
                versions.setdefault(key, {})[body["metadata"]["name"]] = spec_version(body["metadata"])
        except ApiError as error:
            if error.status != _NOT_FOUND:
                # What was read before stands: it is not known to have gone.
                logger.warning("LeaderWorkerSets cannot be listed: %s", error)
                return
            found, versions = {}, {}
        self._take(
            {key: tuple(sorted(items, key=lambda item: item.name)) for key, items in found.items()}, versions
        )

    def _take(self, found: dict[str, tuple[SeenChild, ...]], versions: dict[str, dict[str, str]]) -> None:
        before, self._fleet.groups = self._fleet.groups, found
        changed = [key for key in before.keys() | found.keys() if before.get(key) != found.get(key)]
        for key in changed:
            now, old = versions.get(key, {}), self._versions.get(key, {})
            for name in now.keys() | old.keys():
                change = Change(name, now.get(name, ""), name not in now)
                self._children.notice(LEADER_WORKER_SETS, key, change)
        self._versions = versions
        self._queue.add_all(changed)

    def _look_at_deadlines(self, now: float) -> None:
        """Ask for work on deployments whose groups have become late, which no event tells. `now`: Unix time."""
        late = frozenset(
            key for key, items in self._fleet.groups.items() if any(item.child.late(now) for item in items)
        )
        self._queue.add_all(late ^ self._late)
        self._late = late
