"""Looks from time to time whether the fleet should be placed otherwise, and at deployments that wait for capacity."""

import asyncio
import logging
import time

from modelyard.core.placement.problem import PlacementProblem
from modelyard.core.placement.solve import solve
from modelyard.core.rearrange import adopt, build_problem
from modelyard.core.state import DeploymentMemory
from modelyard.core.variants import VariantList
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import PLACEMENT_GAP, PLACEMENT_SECONDS
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)


class Placer:
    """Solves the placement of the whole fleet whenever it changed."""

    def __init__(self, fleet: Fleet, queue: WorkQueue, settings: OperatorSettings) -> None:
        self._fleet = fleet
        self._queue = queue
        self._settings = settings
        self._solved: PlacementProblem | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._settings.placement_interval)
            self._look_at_waiting()
            await self._place()

    def _look_at_waiting(self) -> None:
        """Ask for work on deployments whose decision time alone may change: pods wait, or a variant is tried later."""
        for key, memory in self._fleet.memory.items():
            if count_variants(memory) < 2:
                continue
            availability = memory.availability
            waiting = any(pod.live and not pod.scheduled for pod in self._fleet.pods(key))
            if waiting or availability.shortages or availability.failures:
                self._queue.add(key)

    async def _place(self) -> None:
        fleet = self._fleet
        if not any(count_variants(memory) > 1 for memory in fleet.memory.values()):
            return
        accelerators = fleet.accelerators()
        inventory, _ = fleet.capacity.measure(fleet.indices, accelerators)
        current = {
            deployment.key: {
                variant: seen.child.replicas
                for variant, seen in fleet.children(deployment.key, deployment.metadata.uid).items()
            }
            for deployment in fleet.readable()
            if count_variants(fleet.memory.get(deployment.key))
        }
        policy = self._settings.policy.placement
        # Off the event loop, as the search: it looks at the whole fleet.
        problem = await asyncio.to_thread(
            build_problem, dict(fleet.memory), current, accelerators, inventory, policy
        )
        if problem is None or problem == self._solved:
            return
        self._solved = problem
        started = time.perf_counter()
        # Off the event loop: HiGHS holds no lock while it searches.
        result = await asyncio.to_thread(solve, problem)
        PLACEMENT_SECONDS.observe(time.perf_counter() - started)
        PLACEMENT_GAP.set(result.gap)
        for key, memory in adopt(fleet.memory, problem, result).items():
            allocation = memory.allocation.allocation if memory.allocation is not None else None
            logger.info("Placement of %s: %s", key, allocation.replicas if allocation is not None else {})
            fleet.memory[key] = memory
            self._queue.add(key)


def count_variants(memory: DeploymentMemory | None) -> int:
    """Return in how many ways a deployment may run; 0 if it is not known or refused."""
    choice = memory.choice.answer if memory is not None and memory.choice is not None else None
    return len(choice.variants) if isinstance(choice, VariantList) else 0
