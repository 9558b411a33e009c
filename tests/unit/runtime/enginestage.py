"""A fleet whose pods serve metrics on the loopback interface, for tests of the reader of engines."""

import asyncio
import contextlib
from dataclasses import replace

import aiohttp
from aiohttp import web

from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.models import find_model
from modelyard.core.choice import ChoiceMemory
from modelyard.core.load import LoadShape
from modelyard.core.perf.prior import prior
from modelyard.core.replicas import SizeMemory
from modelyard.core.state import DeploymentMemory
from modelyard.core.variants import VariantList
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.runtime.engines import EngineReader
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import KEY, NOW, make_deployment, make_pod, make_variant
from tests.unit.core.enginepages import Engine

ROUND = 60.0
"""Seconds between two rounds: enough work for the engines here to be learned from in each."""


def make_prior(model="meta-llama/Llama-3.1-8B-Instruct"):
    hardware = find_hardware("L4")
    split = make_variant().parallelism
    return prior(find_model(model).profile, None, hardware, split, None, "vLLM")


STEP = make_prior()
SHAPE = LoadShape(200.0, 40.0)
BATCH = 8.0


def make_engine(factor=1.0) -> Engine:
    """An engine whose latencies are so many times the prior."""
    return Engine(
        batch=BATCH,
        inter_token=factor * STEP.inter_token_latency(SHAPE, BATCH),
        first_token=factor * STEP.time_to_first_token(SHAPE, BATCH),
        input_tokens=SHAPE.input_tokens,
        output_tokens=SHAPE.output_tokens,
    )


class Queue(WorkQueue):
    """Remembers what was asked for."""

    def __init__(self):
        super().__init__()
        self.added = []

    def add(self, key):
        self.added.append(key)
        super().add(key)


class Stage:
    """A fleet, its pods on the loopback interface, and a clock that is set by hand."""

    def __init__(self):
        self.now = NOW
        self.queue = Queue()
        self.fleet = Fleet(indices=Indices(deployments={}, pods={}))
        self.reader = EngineReader(
            self.fleet, self.queue, OperatorSettings(engine_interval=0.01), lambda: self.now
        )
        self.engines: list[Engine] = []
        self.reads: list[str] = []
        self.stack = contextlib.AsyncExitStack()
        self.session = aiohttp.ClientSession()

    async def __aenter__(self):
        await self.stack.enter_async_context(self.session)
        return self

    async def __aexit__(self, *error):
        await self.stack.aclose()

    def deploy(self, key=KEY, *, step=STEP, variant=None, engine="vLLM", **spec):
        """Add a deployment that was decided on, or decide anew."""
        variant = variant or replace(make_variant(), prior=step)
        deployment = make_deployment(key, engine={"name": engine}, **spec)
        self.fleet.indices.deployments[key] = [Seen(uid=key, version="1", object=deployment)]
        self.fleet.indices.pods.setdefault(key, [])
        known = self.fleet.memory.get(key) or DeploymentMemory(size=SizeMemory(since=NOW))
        self.fleet.memory[key] = replace(known, choice=ChoiceMemory((), VariantList((variant,))))
        return variant

    async def serve(self, answer, name="pod-a", key=KEY, **changes):
        """Start a pod; `answer` makes the response to a request for its page."""

        async def get(request):
            self.reads.append(name)
            answered = answer(request)
            return await answered if asyncio.iscoroutine(answered) else answered

        app = web.Application()
        app.router.add_get("/metrics", get)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fields = {"port": runner.addresses[0][1], "variant": make_variant().name, "ready_since": NOW - 600}
        pod = make_pod(name, key, **{"address": "127.0.0.1", **fields, **changes})
        self.fleet.indices.pods[key].append(pod)

    async def start(self, engine: Engine, name="pod-a", key=KEY, **changes):
        """Start a pod with an engine that works while time passes."""
        self.engines.append(engine)
        await self.serve(lambda _request: web.Response(text=engine.page()), name, key, **changes)

    async def rounds(self, count, seconds=ROUND):
        """Read, then let time pass."""
        for _ in range(count):
            await self.reader.read_round(self.session)
            self.now += seconds
            for engine in self.engines:
                engine.work(seconds)

    def speed(self, key=KEY):
        """What was learned of the variant; None: nothing."""
        return self.fleet.memory[key].speeds.get(make_variant().name)

    def change_pod(self, key=KEY, **changes):
        """The watch brings a new view of the pods."""
        self.fleet.indices.pods[key] = [replace(pod, **changes) for pod in self.fleet.indices.pods[key]]

    async def forget_while_read(self, engine: Engine):
        """Read once, and a second time during which the deployment goes."""
        gone = []
        self.engines.append(engine)

        def answer(_request):
            if gone:
                self.fleet.forget(KEY)
            return web.Response(text=engine.page())

        await self.serve(answer)
        await self.rounds(1)
        gone.append(True)
        await self.rounds(1)
