"""An operator whose pod is deleted acts until the next one stands by: Envoy must not be left without one meanwhile.

A drain of a node takes pods of engines and the operator together. Pods that become Ready while no operator acts are
known to Kubernetes, which lets the next old ones go for them, and to no Envoy. Kubernetes starts the next operator as
soon as the pod of this one is being deleted, so this one only has to stay for as long as that takes.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import PODS

logger = logging.getLogger(__name__)

OPERATOR_PODS = "app.kubernetes.io/name=modelyard,app.kubernetes.io/component=operator"
"""Labels of the operator's pods in the chart."""

LOOK_SECONDS = 0.5
"""Between two looks at the pods."""

APPEAR_SECONDS = 10.0
"""How long the pod of the next operator may take to appear; then none will. The ReplicaSet makes it at once, on a busy
control plane within a few seconds. After `kubectl scale --replicas=0` an operator stays for so long for nobody."""

END_SECONDS = 10.0
"""What is left of the pod's grace period for the end itself: to stop what acts, and to give the Lease back."""

_NO_RIGHTS = frozenset({401, 403})
"""What the API server answers while the chart is uninstalled: Helm takes the roles away before the pod has ended."""


@dataclass(slots=True)
class _Seen:
    """What the looks at the pods have shown so far."""

    grace: float | None = None
    """Seconds that the own pod has from its deletion to its end; None: no look has succeeded yet."""
    others: bool = False
    """Whether the pod of another operator has appeared."""
    failure: bool = False
    """Whether it is in the log that pods cannot be listed."""


class Succession:
    """Waits for the operator that comes after this one."""

    def __init__(
        self, client: KubeClient, namespace: str, pod: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`pod` is the name of this process's own pod."""
        self._client = client
        self._namespace = namespace
        self._pod = pod
        self._clock = clock

    async def wait(self) -> None:
        """Return when another operator stands by, or none is to be waited for: the reason is in the log.

        To be called when the process is told to end.
        """
        began, seen = self._clock(), _Seen()
        while True:
            if await self._is_over(self._clock() - began, seen):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _is_over(self, waited: float, seen: _Seen) -> bool:
        """Look at the pods, unless there is no time left for it. `waited`: seconds so far."""
        if seen.grace is not None and waited >= seen.grace - END_SECONDS:
            logger.warning("No other operator stands by, and the grace period of this pod is over")
            return True
        try:
            pods = await self._list()
        except ApiError as error:
            return self._is_over_unseen(error, waited, seen)
        return self._is_over_with(pods, waited, seen)

    def _is_over_unseen(self, error: ApiError, waited: float, seen: _Seen) -> bool:
        if error.status in _NO_RIGHTS:
            logger.info("No other operator is waited for, since this one has no rights any more: %s", error)
            return True
        if not seen.failure:
            logger.warning(
                "Pods of %s cannot be listed, so it is not known whether another operator stands by: %s",
                self._namespace,
                error,
            )
        # Without the API server the Lease is lost soon, and that ends this process.
        seen.failure = True
        return seen.grace is None and waited >= APPEAR_SECONDS

    def _is_over_with(self, pods: dict[str, dict[str, Any]], waited: float, seen: _Seen) -> bool:
        own = pods.pop(self._pod, {"metadata": {}})["metadata"]
        if "deletionTimestamp" not in own:
            # Only the container ends, or the node does: Kubernetes starts no other pod meanwhile.
            return True
        seen.grace = float(own.get("deletionGracePeriodSeconds") or 0)
        others = [pod for pod in pods.values() if _stays(pod)]
        if any(map(_is_ready, others)):
            logger.info("Another operator stands by")
            return True
        if others and not seen.others:
            names = ", ".join(sorted(pod["metadata"]["name"] for pod in others))
            logger.info("This operator acts until the next one stands by: %s", names)
            seen.others = True
        if not seen.others and waited >= APPEAR_SECONDS:
            logger.info("No other operator is being started")
            return True
        return False

    async def _list(self) -> dict[str, dict[str, Any]]:
        query = {"labelSelector": OPERATOR_PODS}
        return {
            pod["metadata"]["name"]: pod
            async for pod in self._client.list_pages(PODS, query, namespace=self._namespace)
        }


class Ending:
    """When this process ends after it was told to."""

    def __init__(self, acting: Callable[[], bool], succession: Succession | None) -> None:
        """`acting` says whether this process decides; without a Succession, or before it does, nobody is waited for."""
        self._acting = acting
        self._succession = succession
        self._told = asyncio.Event()

    def tell(self) -> None:
        """Tell it to end: a handler of signals."""
        self._told.set()

    async def run(self) -> None:
        """Return when it may end."""
        await self._told.wait()
        logger.info("This operator is told to end")
        if self._succession is not None and self._acting():
            await self._succession.wait()


def _stays(pod: dict[str, Any]) -> bool:
    """Return whether a pod runs, or will."""
    ended = pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    return not ended and "deletionTimestamp" not in pod["metadata"]


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
