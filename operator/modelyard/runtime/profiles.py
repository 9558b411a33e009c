"""Reads the architecture of models that the catalogue lacks from the model hub, off the event loop."""

import asyncio
import logging
import time

from modelyard.api.meta import Refusal
from modelyard.catalog.models import find_model
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.hub import read_profile
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks for models that are not known yet."""
READ_TIMEOUT = 10.0
"""Seconds for one request to the hub."""
RETRY_SECONDS = 3600.0
"""Until a model that could not be read is tried again."""


class ProfileReader:
    """Fills `Fleet.profiles`. A model that cannot be read runs as the spec says, without a check of memory."""

    def __init__(self, fleet: Fleet, queue: WorkQueue, settings: OperatorSettings) -> None:
        self._fleet = fleet
        self._queue = queue
        self._settings = settings
        self._tried: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            if self._settings.read_hub:
                await self._read_missing()
            await asyncio.sleep(LOOK_SECONDS)

    async def _read_missing(self) -> None:
        wanted: dict[str, list[str]] = {}
        for deployment in self._fleet.readable():
            model = deployment.spec.model
            known = model.profile is not None or model.source in self._fleet.profiles
            if not known and model.source.startswith("hf://") and find_model(model.source) is None:
                wanted.setdefault(model.source, []).append(deployment.key)
        self._tried = {source: at for source, at in self._tried.items() if source in wanted}
        for source, keys in wanted.items():
            now = time.monotonic()
            if source in self._tried and now - self._tried[source] < RETRY_SECONDS:
                continue
            self._tried[source] = now
            profile = await asyncio.to_thread(
                read_profile,
                source,
                endpoint=self._settings.render.hub_endpoint,
                token=None,
                timeout=READ_TIMEOUT,
            )
            if isinstance(profile, Refusal):
                logger.info("Memory and speed of %s are not known: %s", source, profile.message)
                continue
            self._fleet.profiles[source] = profile
            for key in keys:
                self._queue.add(key)
