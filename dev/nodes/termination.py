"""The end of a pod: when it was asked for, and until when its containers may take."""

from __future__ import annotations

import asyncio

from dev.nodes.process import ContainerProcess

MINIMUM_GRACE_SECONDS = 2.0
"""What a container gets between SIGTERM and SIGKILL however long its preStop hook took:
`minimumGracePeriodInSeconds` in
https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/kubelet/kuberuntime/kuberuntime_container.go"""

DEFAULT_GRACE_SECONDS = 30.0
"""The API's default for `terminationGracePeriodSeconds`."""


class Termination:
    """Whether a pod is to end, and by when. A later request can only shorten the time."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._changed = asyncio.Event()
        self._deadline = float("inf")

    def request(self, grace_seconds: float) -> None:
        """Ask for the end within `grace_seconds` from now."""
        deadline = asyncio.get_running_loop().time() + grace_seconds
        if deadline < self._deadline:
            self._deadline = deadline
            self._changed.set()
            self._changed = asyncio.Event()
        self.requested.set()

    async def stop(self, process: ContainerProcess, pre_stop_seconds: float, grace_seconds: float) -> None:
        """End one process: preStop's sleep, SIGTERM, and SIGKILL when the time is up.

        The time is `grace_seconds` from now or the pod's own deadline, whichever is sooner.
        """
        clock = asyncio.get_running_loop().time
        own_deadline = clock() + grace_seconds
        if pre_stop_seconds and await self._exits(process, clock() + pre_stop_seconds, own_deadline):
            return
        process.terminate()
        least = clock() + MINIMUM_GRACE_SECONDS
        if not await self._exits(process, float("inf"), own_deadline, least):
            process.kill()
            await process.wait()

    async def _exits(
        self, process: ContainerProcess, until: float, own_deadline: float, least: float = 0.0
    ) -> bool:
        """Wait for the exit until `until` or the deadline (but not less than `least`); return if it came."""
        clock = asyncio.get_running_loop().time
        while process.running:
            limit = min(until, max(min(own_deadline, self._deadline), least))
            if clock() >= limit:
                return False
            changed = asyncio.ensure_future(self._changed.wait())
            ended = asyncio.ensure_future(process.wait())
            try:
                await asyncio.wait(
                    {changed, ended}, timeout=limit - clock(), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                changed.cancel()
                ended.cancel()
        return True
