"""The autoscaler objects of `actuator: External`: made, compared, removed; and what the cluster lacks for them.

The kinds are optional, so nothing is watched: what is offered and what stands is asked for from time to time, and only
for kinds that some deployment uses. Nothing here ever stops the work on a deployment.
"""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.external import (
    Scaler,
    ScalerKind,
    ScalerSupport,
    explain_leftover,
    explain_scaler,
    wanted_scaler,
)
from modelyard.core.reasons import Reason
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.informers import Change, owner_key
from modelyard.kube.projections import project_scaler
from modelyard.kube.resources import SCALERS
from modelyard.render.autoscaler import build_autoscaler
from modelyard.render.workload import Workload
from modelyard.runtime.children import ChildApplier, Stranger
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import WRITES
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.support import find_support, list_labelled

logger = logging.getLogger(__name__)

_ABSENT = frozenset({403, 404})
"""Answers that mean that the kind is not there for us."""


class ScalerKeeper:
    """Keeps the autoscaler of each deployment as its spec wants it."""

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
        self._support: dict[tuple[ScalerKind, str], ScalerSupport] = {}
        """By kind and namespace."""
        self._asked: dict[tuple[ScalerKind, str], float] = {}
        """Monotonic time of the newest question about that."""
        self._seen: dict[ScalerKind, dict[str, Scaler]] = {}
        """By kind, then by `namespace/name` of the LLMDeployment. A kind is missing until it was listed."""
        self._taken: set[tuple[ScalerKind, str]] = set()

    async def start(self) -> None:
        """Find the objects of an earlier process, also those that nobody wants any more."""
        for kind in SCALERS:
            await self._list(kind)

    async def run(self) -> None:
        """Look at objects and support until cancelled."""
        while True:
            await asyncio.sleep(self._settings.scaler_interval)
            used = self._used()
            due = time.monotonic() - self._settings.support_interval
            for kind, namespace in sorted(used):
                if self._asked.get((kind, namespace), due) <= due:
                    await self._ask(kind, namespace)
            kinds = {kind for kind, _ in used}
            for kind in SCALERS:
                if kind in kinds or self._seen.get(kind) or kind not in self._seen:
                    await self._list(kind)

    async def remove_unwanted(self, deployment: LLMDeployment) -> bool:
        """Delete the autoscalers of a deployment that it does not want any more. Returns whether there was one."""
        removed = False
        for kind in self._leftovers(deployment):
            scaler = self._seen[kind][deployment.key]
            try:
                gone = await self._children.remove(deployment.key, SCALERS[kind], scaler.name, scaler.uid)
            except ApiError as error:
                if error.status != 403:
                    raise
                logger.warning("%s of %s cannot be deleted: %s", kind, deployment.key, error)
                continue
            self._seen[kind].pop(deployment.key, None)
            if gone:
                WRITES.labels(kind=kind).inc()
            removed |= gone
        return removed

    async def apply(self, deployment: LLMDeployment, workload: Workload) -> None:
        """Make the autoscaler that a deployment wants, if any, as far as the cluster lets us."""
        kind = wanted_scaler(deployment)
        if kind is None:
            return
        key, namespace = deployment.key, deployment.metadata.namespace
        if (kind, namespace) not in self._asked:
            await self._ask(kind, namespace)
        support = self._support.get((kind, namespace))
        if support is None or not support.served or support.missing_rights:
            return
        manifest = build_autoscaler(kind, workload, self._settings.render, tolerance=support.tolerance)
        self._taken.discard((kind, key))
        try:
            written = await self._children.apply(key, manifest)
        except ApiError as error:
            if error.status not in _ABSENT:
                raise
            # It changed since it was asked for.
            self._support[kind, namespace] = (
                replace(support, served=False)
                if error.status == 404
                else replace(support, missing_rights=("patch",))
            )
            return
        if isinstance(written, Stranger):
            self._taken.add((kind, key))
        elif written is not None:
            WRITES.labels(kind=kind).inc()
            self._seen.setdefault(kind, {})[key] = project_scaler(kind, written)

    def explain(self, deployment: LLMDeployment) -> tuple[bool, Reason] | None:
        """Return whether the autoscaler of a deployment works, None if there is and should be none."""
        kind = wanted_scaler(deployment)
        if kind is None:
            leftover = next(iter(self._leftovers(deployment)), None)
            return explain_leftover(leftover) if leftover is not None else None
        support = self._support.get((kind, deployment.metadata.namespace))
        scaler = self._own(kind, deployment)
        return explain_scaler(kind, support, scaler, taken=(kind, deployment.key) in self._taken)

    def forget(self, key: str) -> None:
        """Drop what is remembered of a deployment that is gone; garbage collection takes its objects."""
        for kind in SCALERS:
            self._taken.discard((kind, key))
            self._seen.get(kind, {}).pop(key, None)

    def _own(self, kind: ScalerKind, deployment: LLMDeployment) -> Scaler | None:
        scaler = self._seen.get(kind, {}).get(deployment.key)
        return scaler if scaler is not None and scaler.owner == deployment.metadata.uid else None

    def _leftovers(self, deployment: LLMDeployment) -> list[ScalerKind]:
        wanted = wanted_scaler(deployment)
        return [kind for kind in SCALERS if kind != wanted and self._own(kind, deployment) is not None]

    def _used(self) -> set[tuple[ScalerKind, str]]:
        """Return the kinds that are wanted, with the namespaces where they are."""
        return {
            (kind, deployment.metadata.namespace)
            for deployment in self._fleet.readable()
            if (kind := wanted_scaler(deployment)) is not None
        }

    async def _ask(self, kind: ScalerKind, namespace: str) -> None:
        """Find out what the cluster offers; what is known stays where it does not answer."""
        self._asked[kind, namespace] = time.monotonic()
        try:
            support = await find_support(self._client, kind, namespace)
        except ApiError as error:
            logger.warning("What %s needs in %s is not known: %s", kind, namespace, error)
            return
        if support == self._support.get((kind, namespace)):
            return
        self._support[kind, namespace] = support
        self._queue.add_all(
            item.key
            for item in self._fleet.readable()
            if item.metadata.namespace == namespace and wanted_scaler(item) == kind
        )

    async def _list(self, kind: ScalerKind) -> None:
        """Read the objects of a kind; those that changed are compared again."""
        found: dict[str, Scaler] = {}
        try:
            async for body in list_labelled(self._client, SCALERS[kind], self._settings.namespaces):
                if _controlled(body):
                    found[owner_key(body["metadata"])] = project_scaler(kind, body)
        except ApiError as error:
            if error.status not in _ABSENT:
                logger.warning("%s objects cannot be listed: %s", kind, error)
                return
            found = {}
        before = self._seen.get(kind, {})
        self._seen[kind] = found
        changed = [key for key in before.keys() | found.keys() if before.get(key) != found.get(key)]
        for key in changed:
            view = found.get(key) or before[key]
            self._children.notice(SCALERS[kind], key, Change(view.name, view.version, key not in found))
        self._queue.add_all(changed)


def _controlled(body: dict[str, Any]) -> bool:
    """Return whether an object belongs to an LLMDeployment: KEDA copies our labels to an HPA of its own."""
    owners = body["metadata"].get("ownerReferences", ())
    return any(item.get("controller") and item["kind"] == "LLMDeployment" for item in owners)
