"""Reads metrics of warm engines straight from their pods: how fast each variant is, and how well requests are served.

Nothing here decides: a page that cannot be read teaches nothing, and what is learned waits in the memory for the next
decision.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import aiohttp

from modelyard.api.meta import split_key
from modelyard.core.choice import find_objective
from modelyard.core.enginemetrics import (
    LONGEST_WINDOW,
    METRICS_PATH,
    EngineReading,
    UnreadablePageError,
    compare_readings,
    has_restarted,
    parse_engine,
)
from modelyard.core.perf.learning import WARM_UP, Factor, Observation, SpeedMemory, observe, remember
from modelyard.core.perf.step import StepTime
from modelyard.core.servicequality import Served
from modelyard.core.snapshot import Pod, ServiceReading
from modelyard.core.variants import Variant, VariantList
from modelyard.runtime.enginesample import PodWindow, SampledVariant
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import (
    ENGINE_READINGS,
    REQUESTS_MISSED,
    SPEED_ERROR,
    SPEED_FACTOR,
    SPEED_UNCERTAINTY,
)
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)

READ_SECONDS = 2.0
"""How long one page may take. An engine answers it in milliseconds; one that is too busy teaches nothing."""
PAGE_BYTES = 2**20
"""Largest page that is read: twenty times that of vLLM 0.32."""
READS_AT_A_TIME = 32
"""Pages in flight: with every pod hanging, a round of `PODS_PER_ROUND` takes 16 s."""
PODS_PER_VARIANT = 8
"""Pods of one variant that are read in a round: one reading scatters by 15 %, eight by 5 %, which is the floor of what
is learned."""
PODS_PER_ROUND = 256
"""Pods that are read in a round, over all variants: 0.1 s of parsing. With more variants than this, one pod of each."""
NOTABLE = math.log(1.1)
"""Change of a factor's logarithm that is worth a decision: 10 %, below the 15 % to which one reading is trusted."""

Labels = tuple[str, str, str, str]


class EngineReader:
    """Keeps `DeploymentMemory.speeds` and `Fleet.services`, and asks for a decision when a speed moved notably."""

    def __init__(
        self,
        fleet: Fleet,
        queue: WorkQueue,
        settings: OperatorSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._sources: dict[tuple[str, str], SampledVariant] = {}
        self._exported: set[Labels] = set()
        self._served: set[str] = set()
        self._last_round = 0.0
        self._slots = asyncio.Semaphore(READS_AT_A_TIME)

    async def run(self) -> None:
        """Read until cancelled."""
        # A connection a page: pods come and go, and an idle one is closed by the engine before the next round.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            while True:
                await self.read_round(session)
                await asyncio.sleep(self._settings.engine_interval)

    async def read_round(self, session: aiohttp.ClientSession) -> None:
        """Read a sample of the warm pods of every variant once."""
        started = self._clock()
        warm = await self._find_pods()
        busy = [(source, pods) for source, pods in warm if pods or source.windows]
        size = max(1, min(PODS_PER_VARIANT, PODS_PER_ROUND // max(1, len(busy))))
        async with asyncio.TaskGroup() as group:
            for source, pods in busy:
                source.choose(pods, size)
                for window in source.windows.values():
                    group.create_task(self._read(session, source, window))
        self._last_round = started
        self._count_served(started)
        self._export()

    async def _find_pods(self) -> list[tuple[SampledVariant, list[Pod]]]:
        """Return the warm pods of every variant whose speed can be learned; forget all others."""
        sources: dict[tuple[str, str], SampledVariant] = {}
        found = []
        for deployment in self._fleet.readable():
            engine = deployment.spec.engine.name
            if engine not in METRICS_PATH:
                continue
            by_variant: dict[str, list[Pod]] = {}
            for pod in self._fleet.pods(deployment.key):
                if pod.serving and pod.port and pod.ready_since is not None:
                    by_variant.setdefault(pod.variant, []).append(pod)
            for variant, prior in self._variants(deployment.key):
                where = (deployment.key, variant.name)
                source = self._sources.get(where)
                if source is None:
                    source = SampledVariant(deployment.key, engine, variant, prior)
                source.follow(variant, prior, self._last_round)
                serving = by_variant.get(variant.name, [])
                source.serving = len(serving)
                source.objective = find_objective(deployment) if deployment.spec.scaling is not None else None
                sources[where] = source
                found.append((source, self._warm(source, serving)))
            # Thousands of pods are looked through: let others work in between.
            await asyncio.sleep(0)
        self._sources = sources
        return found

    def _variants(self, key: str) -> Iterator[tuple[Variant, StepTime]]:
        memory = self._fleet.memory.get(key)
        choice = memory.choice.answer if memory is not None and memory.choice is not None else None
        if isinstance(choice, VariantList):
            for variant in choice.variants:
                if variant.prior is not None:
                    yield variant, variant.prior

    def _warm(self, source: SampledVariant, pods: list[Pod]) -> list[Pod]:
        now = self._clock()
        warm = [
            pod
            for pod in pods
            if now - (pod.ready_since or now) >= WARM_UP and pod.created >= source.not_before
        ]
        if len(warm) < len(pods):
            logger.debug(
                "Not read of %s on %s: %d of %d pods, ready for less than %.0f s or of an earlier spec",
                source.key,
                source.variant.label,
                len(pods) - len(warm),
                len(pods),
                WARM_UP,
            )
        return warm

    async def _read(self, session: aiohttp.ClientSession, source: SampledVariant, window: PodWindow) -> None:
        """Read one pod. What fails is counted and changes nothing."""
        pod = window.pod
        async with self._slots:
            try:
                page = await read_page(session, _page_url(source.engine, pod))
                outcome = self._take(source, window, parse_engine(source.engine, page, self._clock()))
            except (aiohttp.ClientError, TimeoutError, OSError, UnreadablePageError) as error:
                outcome = "failed"
                logger.debug("Metrics of pod %s of %s cannot be read: %r", pod.name, source.key, error)
                source.finish(pod.uid)
        ENGINE_READINGS.labels(outcome=outcome).inc()

    def _take(self, source: SampledVariant, window: PodWindow, reading: EngineReading) -> str:
        """Take in a reading and return what came of it. Never waits: the memory is read and written in one go."""
        pod, first, last = window.pod, window.first, window.last
        if last is not None and has_restarted(last, reading):
            logger.debug("The engine in pod %s of %s started anew", pod.name, source.key)
            window.first, window.last, window.restarted = None, None, reading.time
            return "restarted"
        since = max(pod.ready_since or reading.time, window.restarted, reading.started)
        if reading.time - since < WARM_UP:
            logger.debug("The engine in pod %s of %s started a moment ago", pod.name, source.key)
            return "cold"
        window.last = reading
        if last is not None:
            source.count(last, reading)
        if first is None:
            window.first = reading
            return "unfinished"
        if reading.time - first.time > LONGEST_WINDOW:
            logger.debug("Pod %s of %s did too little to learn from", pod.name, source.key)
            window.first = reading
            source.finish(pod.uid)
            return "idle"
        # All of the window must be warm, so that what counts is how warm the pod was at its beginning.
        observation = compare_readings(first, reading, first.time - since)
        if observation is None:
            return "unfinished"
        window.first = reading
        source.finish(pod.uid)
        return self._learn(source, pod, observation)

    def _learn(self, source: SampledVariant, pod: Pod, observation: Observation) -> str:
        memory = self._fleet.memory.get(source.key)
        name = source.variant.name
        priors = {variant.name: prior for variant, prior in self._variants(source.key)}
        if memory is None or priors.get(name) != source.prior:
            logger.debug("The variant of pod %s of %s changed meanwhile", pod.name, source.key)
            return "refused"
        speed = memory.speeds.get(name)
        if speed is None or speed.prior != source.prior:
            speed = remember(source.prior)
            source.told = _logarithms(speed)
        learned = observe(speed, observation, self._clock())
        if learned.refusal:
            logger.debug("Not learned from pod %s of %s: %s", pod.name, source.key, learned.refusal)
            return "refused"
        self._fleet.memory[source.key] = replace(memory, speeds={**memory.speeds, name: learned})
        logger.debug("%s on %s: %s", source.key, source.variant.label, learned.explain())
        if any(abs(new - old) > NOTABLE for new, old in zip(_logarithms(learned), source.told, strict=True)):
            source.told = _logarithms(learned)
            logger.info("%s on %s: %s", source.key, source.variant.label, learned.explain())
            self._queue.add(source.key)
        return "learned"

    def _count_served(self, now: float) -> None:
        """Add to `Fleet.services` what this round counted."""
        rounds: dict[str, list[Served]] = {}
        for (key, _), source in self._sources.items():
            served = source.close_round(now)
            # A deployment may go while its pods are read.
            if served is not None and key in self._fleet.memory:
                rounds.setdefault(key, []).append(served)
        for key, parts in rounds.items():
            requests, missed = sum(part.requests for part in parts), sum(part.missed for part in parts)
            known = self._fleet.services.get(key, ServiceReading(now, 0.0, 0.0))
            waiting = sum(part.waiting for part in parts)
            self._fleet.services[key] = ServiceReading(
                now, known.requests + requests, known.missed + missed, waiting
            )
            if requests > 0:
                REQUESTS_MISSED.labels(*split_key(key)).set(missed / requests)
                self._served.add(key)
        told = {key for (key, _), source in self._sources.items() if source.objective is not None}
        for key in self._served - (told & self._fleet.services.keys()):
            REQUESTS_MISSED.remove(*split_key(key))
            self._served.discard(key)

    def _export(self) -> None:
        """Show what is known of each variant's speed; take away what is gone."""
        shown: set[Labels] = set()
        for (key, name), source in self._sources.items():
            memory = self._fleet.memory.get(key)
            speed = memory.speeds.get(name) if memory is not None else None
            if speed is None or not speed.readings or speed.prior != source.prior:
                continue
            for latency, factor, prior, error in _factors(speed):
                labels = (*split_key(key), source.variant.label, latency)
                SPEED_FACTOR.labels(*labels).set(factor.value)
                SPEED_UNCERTAINTY.labels(*labels).set(factor.uncertainty(prior))
                SPEED_ERROR.labels(*labels).set(error)
                shown.add(labels)
        for labels in self._exported - shown:
            SPEED_FACTOR.remove(*labels)
            SPEED_UNCERTAINTY.remove(*labels)
            SPEED_ERROR.remove(*labels)
        self._exported = shown


async def read_page(session: aiohttp.ClientSession, url: str) -> str:
    """Read a page of metrics.

    Raises aiohttp.ClientError or OSError if the pod does not answer properly, TimeoutError if it takes too long,
    UnreadablePageError if it answers anything but a page of a sensible size.
    """
    timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
    # Uncompressed, and from the pod itself: a page must not grow after it was measured, nor be another's.
    headers = {"Accept-Encoding": "identity"}
    async with session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as reply:
        if reply.status != 200:
            raise UnreadablePageError(f"the answer is {reply.status}")
        body = bytearray()
        async for chunk in reply.content.iter_any():
            body += chunk
            if len(body) > PAGE_BYTES:
                raise UnreadablePageError(f"the page is larger than {PAGE_BYTES} bytes")
        return body.decode(errors="replace")


def _page_url(engine: str, pod: Pod) -> str:
    host = f"[{pod.address}]" if ":" in pod.address else pod.address
    return f"http://{host}:{pod.port}{METRICS_PATH[engine]}"


def _logarithms(speed: SpeedMemory) -> tuple[float, float]:
    return speed.inter_token.logarithm, speed.first_token.logarithm


def _factors(speed: SpeedMemory) -> Iterator[tuple[str, Factor, float, float]]:
    yield "inter_token", speed.inter_token, speed.prior.uncertainty, speed.error or 0.0
    if speed.first_token_readings:
        error = speed.first_token_error or 0.0
        yield "first_token", speed.first_token, speed.prior.first_token_uncertainty, error
