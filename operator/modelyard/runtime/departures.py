"""Envoys that leave: their pods are being deleted, and what they counted is read and written before they end.

Nothing is kept of it that a restart would lose: who leaves stands in the API server, what is written in the ledger, and
an Envoy whose question was not answered asks again.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import PODS
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)

GATEWAY_PODS = "app.kubernetes.io/name=modelyard,app.kubernetes.io/component=gateway"
"""Labels of the gateway's pods in the chart."""

SETTLE_SECONDS, SETTLE_READINGS = 30.0, 3.0
"""How long an Envoy waits for one answer, in seconds and in read intervals: a reading and a write take two of these,
and where pages are large 25 s. Then it asks again."""

LOOK_SECONDS = 0.1
"""Time between two looks at whether it is written: nothing beside a read interval."""

LIST_SECONDS = 1.0
"""Age of a list of pods that still serves. Envoys ask once each, and nobody who asks more often makes more work."""


class DepartureKeeper:
    """Answers Envoys that are to leave (`gateway.departures.Departures`)."""

    def __init__(
        self,
        client: KubeClient,
        settings: OperatorSettings,
        read_since: Callable[[str, float], bool],
        write: Callable[[str], bool],
        finish: Callable[[str], None],
    ) -> None:
        """Three things are said of a node, which is named by its id.

        `read_since`: whether a reading that began at a Unix time or later was taken in. `write`: whether all that was
        taken in is written, which it asks for. `finish` hears that it may end, so that nobody misses it.
        """
        self._client = client
        self._namespace = settings.render.gateway.namespace
        self._patience = SETTLE_SECONDS + SETTLE_READINGS * settings.read_interval
        self._read_since = read_since
        self._write = write
        self._finish = finish
        self._leaving: frozenset[str] = frozenset()
        self._listed = float("-inf")
        """Monotonic time of the list of pods."""
        self._listing = asyncio.Lock()
        self._complained = False

    async def is_leaving(self, node: str) -> bool:
        """Return whether the pod of an Envoy is being deleted; an Envoy is named by its pod's UID.

        Where pods may not be listed, nobody leaves: then clients are not told, and the rest goes on.
        """
        async with self._listing:
            if time.monotonic() - self._listed > LIST_SECONDS:
                await self._list()
        return node in self._leaving

    async def settle(self, node: str) -> bool:
        """Return whether all that an Envoy had counted when it asked is written, after a time at the latest."""
        asked, end = time.time(), time.monotonic() + self._patience
        while not (self._read_since(node, asked) and self._write(node)):
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        if node in self._leaving or await self.is_leaving(node):
            logger.info("Envoy %s may end: all that it counted is written", node)
            self._finish(node)
        return True

    async def _list(self) -> None:
        query = {"labelSelector": GATEWAY_PODS}
        try:
            self._leaving = frozenset(
                [
                    pod["metadata"]["uid"]
                    async for pod in self._client.list_pages(PODS, query, namespace=self._namespace)
                    if pod["metadata"].get("deletionTimestamp")
                ]
            )
        except ApiError as error:
            if not self._complained:
                logger.warning(
                    "Pods of %s cannot be listed, so Envoys that leave do not tell their clients: %s (grant list on "
                    "pods of that namespace)",
                    self._namespace,
                    error,
                )
            self._complained = True
            return
        self._complained = False
        self._listed = time.monotonic()
