"""Endpoint pickers: asks whether they answer, and keeps the InferencePools that they read.

The kind is optional and nothing is watched: it is asked for from time to time, where some deployment names a picker or
did so before.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.picking import (
    PICKER_ANSWERS,
    POOL_READY,
    PoolState,
    explain_picker,
    explain_pool,
    find_picker,
)
from modelyard.core.routing import Picker
from modelyard.core.status import Verdict
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.compare import is_applied
from modelyard.kube.resources import INFERENCE_POOLS
from modelyard.render.inference_pool import build_inference_pool
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import WRITES
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.support import is_served, list_labelled

logger = logging.getLogger(__name__)

PROBE_INTERVAL = 1.0
"""Seconds between two looks at each picker, and how long one may take: a connection inside a cluster takes
milliseconds."""

PATIENCE = 2
"""Looks in a row that must fail before a picker counts as silent: one lost packet is none. With FailOpen requests fail
for at most (PATIENCE + 1) intervals and as many time limits."""

Probe = Callable[[Picker], Awaitable[bool]]


LOOKUPS = 64
"""Names that are looked up at once. A Service can lead to a name of which no server ever tells the address, and a
look-up cannot be broken off: it must not take the threads of everything else that the operator does."""


class Connector:
    """Finds out whether a picker takes a connection.

    Its own health service is on a port that nobody names (gRPC health checking, by default 9003).
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, "picker-names")
        self._running: dict[str, asyncio.Future[list[str]]] = {}
        """Look-ups that have not ended, by name: a name takes one thread, however often it is asked for."""

    async def __call__(self, picker: Picker) -> bool:
        """Return whether a connection to any address of the picker comes about in time."""
        try:
            async with asyncio.timeout(PROBE_INTERVAL):
                for address in await self._look_up(picker.host):
                    if await _connects(address, picker.port):
                        return True
        except (OSError, UnicodeError, TimeoutError):
            pass
        return False

    async def _look_up(self, host: str) -> list[str]:
        running = self._running.get(host)
        if running is None:
            running = asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host)
            self._running[host] = running
            running.add_done_callback(lambda done: self._forget(host, done))
        return await asyncio.shield(running)

    def _forget(self, host: str, done: asyncio.Future[list[str]]) -> None:
        self._running.pop(host, None)
        # Whoever waited may have gone; nobody needs to hear of an error then.
        if not done.cancelled():
            done.exception()


def _addresses(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connects(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


class PickerKeeper:
    """Knows which pickers answer, and keeps one InferencePool for each deployment that names one."""

    def __init__(
        self,
        client: KubeClient,
        fleet: Fleet,
        queue: WorkQueue,
        settings: OperatorSettings,
        publish: Callable[[], None],
        probe: Probe | None = None,
    ) -> None:
        """`publish` asks for a new routing table."""
        self._client = client
        self._fleet = fleet
        self._queue = queue
        self._settings = settings
        self._publish = publish
        self._probe = probe or Connector()
        self._failures: dict[str, int] = {}
        """Looks in a row that failed, by `namespace/name` of the LLMDeployment."""
        self._pools: dict[str, PoolState] = {}
        self._kept = True
        """Whether pools may stand: also those of an earlier process, which nobody may want any more."""

    async def run(self) -> None:
        """Look until cancelled. An API server that is slow keeps no picker from being asked."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe_all())
            group.create_task(self._keep_all())

    async def _probe_all(self) -> None:
        while True:
            await self.probe()
            await asyncio.sleep(PROBE_INTERVAL)

    async def _keep_all(self) -> None:
        while True:
            try:
                await self.keep()
            except ApiError as error:
                logger.warning("InferencePools are not known: %s", error)
            await asyncio.sleep(self._settings.scaler_interval)

    async def probe(self) -> None:
        """Ask every picker once whether it takes a connection."""
        domain = self._fleet.cluster_domain
        named = ((item.key, find_picker(item, domain)) for item in self._users())
        asked = [(key, picker) for key, picker in named if picker is not None]
        answers = await asyncio.gather(*(self._probe(picker) for _, picker in asked))
        failures = {
            key: 0 if answer else self._failures.get(key, 0) + 1
            for (key, _), answer in zip(asked, answers, strict=True)
        }
        self._failures = failures
        silent = frozenset(key for key, count in failures.items() if count >= PATIENCE)
        if silent != self._fleet.silent_pickers:
            changed = silent ^ self._fleet.silent_pickers
            self._fleet.silent_pickers = silent
            self._publish()
            self._queue.add_all(changed)

    async def keep(self) -> None:
        """Make, compare and remove the pools.

        Raises ApiError where the API server does not answer.
        """
        users = {item.key: item for item in self._users()}
        if not users and not self._kept:
            return
        states: dict[str, PoolState] = {}
        if not await is_served(self._client, INFERENCE_POOLS):
            states = dict.fromkeys(users, "Missing")
            self._kept = False
        else:
            found, forbidden = await self._list()
            for key, item in users.items():
                if forbidden & {"", item.metadata.namespace}:
                    states[key] = "Forbidden"
                    continue
                try:
                    states[key] = await self._keep(item, found.get(key))
                except ApiError as error:
                    if error.status in {0, 429} or error.status >= 500:
                        raise
                    # Refused for what it is, such as by an admission policy: those of other teams are kept.
                    logger.warning("InferencePool %s cannot be kept: %s", key, error)
                    states[key] = "Refused"
            for key in found.keys() - users.keys():
                await self._remove(key, found[key])
            self._kept = bool(users.keys() - {key for key, state in states.items() if state == "Forbidden"})
        changed = {key for key in users if states.get(key) != self._pools.get(key)}
        self._pools = states
        self._queue.add_all(changed)

    def explain(self, deployment: LLMDeployment) -> tuple[Verdict, ...]:
        """Return the conditions of a deployment that names a picker."""
        if deployment.spec.endpoint_picker is None:
            return ()
        state = self._pools.get(deployment.key, "Unknown")
        return (
            Verdict(
                PICKER_ANSWERS,
                *explain_picker(
                    deployment,
                    self._fleet.silent_pickers,
                    sovereign=self._fleet.is_sovereign(deployment.key),
                ),
            ),
            Verdict(POOL_READY, *explain_pool(deployment, state)),
        )

    def _users(self) -> list[LLMDeployment]:
        return [item for item in self._fleet.readable() if item.spec.endpoint_picker is not None]

    async def _list(self) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Return the pools that carry our label, by `namespace/name`, and the namespaces where none may be listed.

        An empty name among these stands for all namespaces.
        """
        found: dict[str, dict[str, Any]] = {}
        forbidden: set[str] = set()
        for namespace in self._settings.namespaces or ("",):
            try:
                async for body in list_labelled(self._client, INFERENCE_POOLS, (namespace,)):
                    found[f"{body['metadata']['namespace']}/{body['metadata']['name']}"] = body
            except ApiError as error:
                if error.status != 403:
                    raise
                forbidden.add(namespace)
        return found, forbidden

    async def _keep(self, deployment: LLMDeployment, live: dict[str, Any] | None) -> PoolState:
        manifest = build_inference_pool(deployment)
        metadata = deployment.metadata
        if live is None:
            # It may have lost its label, or be another's.
            live = await self._client.get(INFERENCE_POOLS, metadata.namespace, metadata.name)
        if live is not None and metadata.uid not in _owners(live):
            return "Taken"
        if live is not None and is_applied(manifest, live):
            return "Applied"
        try:
            await self._client.apply(INFERENCE_POOLS, manifest)
        except ApiError as error:
            if error.status != 403:
                raise
            return "Forbidden"
        WRITES.labels(kind=INFERENCE_POOLS.kind).inc()
        logger.info("Applied InferencePool %s", deployment.key)
        return "Applied"

    async def _remove(self, key: str, live: dict[str, Any]) -> None:
        """Delete the pool of a deployment that names no picker any more; garbage collection takes other ones."""
        deployment = next((item for item in self._fleet.readable() if item.key == key), None)
        if deployment is None or deployment.metadata.uid not in _owners(live):
            return
        metadata = live["metadata"]
        try:
            gone = await self._client.delete(
                INFERENCE_POOLS, metadata["namespace"], metadata["name"], metadata["uid"]
            )
        except ApiError as error:
            if error.status != 403:
                raise
            logger.warning("InferencePool %s is not wanted any more and may not be deleted", key)
            return
        if gone:
            WRITES.labels(kind=INFERENCE_POOLS.kind).inc()
            logger.info("Deleted InferencePool %s", key)


def _owners(live: dict[str, Any]) -> set[str]:
    return {owner["uid"] for owner in live["metadata"].get("ownerReferences", ())}
