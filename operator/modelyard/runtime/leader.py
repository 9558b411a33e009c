"""Which operator acts: takes the Lease, keeps it, and marks the pod that has it."""

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Callable
from math import inf
from typing import NoReturn

from modelyard.api.meta import LABEL_ACTIVE
from modelyard.core.lease import Candidate, Terms
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.lease import LeaseStore
from modelyard.kube.resources import PODS
from modelyard.runtime.metrics import LEADER

logger = logging.getLogger(__name__)

MARK_SECONDS = 10.0
"""Between two looks at the labels: how long one that somebody else set or took may stay so."""


class LeaseLostError(Exception):
    """Another process has the Lease, or it could not be renewed in time: this one must not go on."""


def boot_seconds() -> float:
    """Return seconds since boot, those of a suspension included: it must not lengthen what a holder thinks it has."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> str:
    """Return the time as Kubernetes writes a MicroTime."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Leader:
    """Takes part in the election, on connections of its own: renewals must not wait behind other requests."""

    def __init__(
        self,
        store: LeaseStore,
        identity: str,
        terms: Terms | None = None,
        clock: Callable[[], float] = boot_seconds,
        place: str = "",
    ) -> None:
        self._store = store
        self._candidate = Candidate(identity, terms or Terms(), place)
        self._clock = clock
        self._told = ""
        self._heard = -inf
        """When the Lease was last read or written."""
        self.acquired = asyncio.Event()
        LEADER.set(0)

    def holds(self) -> bool:
        """Say whether this process may act at this moment. Asked before each write."""
        return self._candidate.holds(self._clock())

    def informed(self) -> bool:
        """Say whether this process knows who holds the Lease: one that may not read it cannot follow anybody."""
        return self._clock() - self._heard < self._candidate.terms.duration

    async def run(self) -> NoReturn:
        """Wait for the Lease, then renew it.

        Raises LeaseLostError when it is not this process's any more: whatever acts must end before the next holder can
        begin, and the surest end is the process's.
        """
        while True:
            done = False
            # A request must not outlast the time that is left.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._left()):
                    done = await self._try_round()
            self._check()
            now = self._clock()
            delay = self._candidate.wait(now) if done else self._candidate.terms.retry
            await asyncio.sleep(min(delay, self._left() or delay))
            self._check()

    async def release(self) -> None:
        """Give the Lease back, for the next to take at once. Nothing may act any more."""
        self._candidate = self._candidate.stop()
        LEADER.set(0)
        try:
            # The second try is for a renewal that was broken off, and stored all the same.
            for _ in range(2):
                record = self._candidate.release(_now())
                if record is None:
                    return
                if await self._store.write(record) is not None:
                    logger.info("The Lease is given back")
                    return
                await self._look()
        except ApiError as error:
            logger.warning(
                "The Lease cannot be given back, the next holder waits until it expires: %s", error
            )

    def _left(self) -> float | None:
        """Return the seconds that the Lease is held for; None: it is not held."""
        now = self._clock()
        return self._candidate.held_until - now if self._candidate.holds(now) else None

    def _check(self) -> None:
        if self.holds():
            if not self.acquired.is_set():
                self.acquired.set()
                LEADER.set(1)
                logger.info("This operator acts: %s holds the Lease", self._candidate.identity)
        elif self.acquired.is_set():
            LEADER.set(0)
            holder = self._candidate.seen.holder if self._candidate.seen else ""
            mine = holder == self._candidate.identity
            why = "could not be renewed in time" if mine or not holder else f"is held by {holder}"
            raise LeaseLostError(f"the Lease {why}")

    async def _try_round(self) -> bool:
        """Look and claim once; returns False if the API server refused or did not answer."""
        try:
            await self._round()
        except ApiError as error:
            logger.warning("The Lease cannot be read or written: %s", error)
            return False
        self._heard = self._clock()
        return True

    async def _round(self) -> None:
        # A holder writes over what it wrote last; everybody else must look first.
        if not self.holds():
            await self._look()
        for _ in range(2):
            if not self._candidate.may_take(self._clock()):
                return
            sent = self._clock()
            stored = await self._store.write(self._candidate.claim(_now()))
            if stored is not None:
                self._candidate = self._candidate.written(stored, sent, self._clock())
                return
            await self._look()

    async def _look(self) -> None:
        record = await self._store.read()
        now = self._clock()
        self._candidate = self._candidate.look(record, now)
        holder = record.holder if record is not None else ""
        if holder not in {self._told, "", self._candidate.identity} and not self._candidate.may_take(now):
            logger.info("Standing by: %s holds the Lease", holder)
            self._told = holder


class ActiveMark:
    """The label by which the Service of the ADS server finds the operator that acts."""

    def __init__(self, client: KubeClient, namespace: str, pod: str) -> None:
        self._client = client
        self._namespace = namespace
        self._pod = pod

    async def run(self) -> NoReturn:
        """Keep the label on this process's pod and on no other, until cancelled."""
        while True:
            await asyncio.sleep(MARK_SECONDS)
            await self.try_set()

    async def try_set(self) -> None:
        """Do what `set` does, or say why it cannot be done."""
        try:
            await self.set()
        except ApiError as error:
            logger.warning(
                "Label %s cannot be kept on pod %s/%s, so Envoy may not find this operator: %s (it needs list and "
                "patch on pods of that namespace)",
                LABEL_ACTIVE,
                self._namespace,
                self._pod,
                error,
            )

    async def set(self) -> None:
        """Take the label from other pods, and give it to this process's own.

        Raises ApiError where the API server refuses or cannot be reached.
        """
        selector = f"{LABEL_ACTIVE}=true"
        marked = await self._client.list_identities(PODS, self._namespace, selector)
        mine = f"{self._namespace}/{self._pod}"
        for key in marked.keys() - {mine}:
            await self._label(key.partition("/")[2], None)
            logger.info("Pod %s had the label of the operator that acts; taken", key)
        if mine not in marked and not await self._label(self._pod, "true"):
            raise ApiError(404, "NotFound", f"there is no pod {mine}: POD_NAME must be the name of this pod")

    async def _label(self, pod: str, value: str | None) -> bool:
        return await self._client.merge(
            PODS, self._namespace, pod, {"metadata": {"labels": {LABEL_ACTIVE: value}}}
        )
