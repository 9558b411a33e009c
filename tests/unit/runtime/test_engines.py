import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.models import find_model
from modelyard.core.choice import ChoiceMemory
from modelyard.core.load import LoadShape
from modelyard.core.perf.learning import WARM_UP, remember
from modelyard.core.perf.prior import prior
from modelyard.core.replicas import SizeMemory
from modelyard.core.state import DeploymentMemory
from modelyard.core.variants import VariantList
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.runtime import engines
from modelyard.runtime.engines import EngineReader
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import REGISTRY
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import KEY, NOW, make_deployment, make_pod, make_variant
from tests.unit.core.enginepages import FIXTURE, Engine

ROUND = 60.0
"""Seconds between two rounds: enough work for the engines here to be learned from in each."""


def make_prior(model="meta-llama/Llama-3.1-8B-Instruct"):
    hardware = find_hardware("L4")
    split = make_variant().parallelism
    return prior(find_model(model).profile, None, hardware, split, None, "vLLM")


STEP = make_prior()
SHAPE = LoadShape(1000.0, 200.0)
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

    def deploy(self, key=KEY, *, step=STEP, variant=None, engine="vLLM"):
        """Add a deployment that was decided on, or decide anew."""
        variant = variant or replace(make_variant(), prior=step)
        deployment = make_deployment(key, engine={"name": engine})
        self.fleet.indices.deployments[key] = [Seen(uid=key, version="1", object=deployment)]
        self.fleet.indices.pods.setdefault(key, [])
        known = self.fleet.memory.get(key) or DeploymentMemory(size=SizeMemory(since=NOW))
        self.fleet.memory[key] = replace(known, choice=ChoiceMemory((), VariantList((variant,))))
        return variant

    async def serve(
        self, answer: Callable[[], str] | Callable[[web.Request], object], name="pod-a", key=KEY, **changes
    ):
        """Start a pod; `answer` gives its page, or answers the request."""

        async def get(request):
            self.reads.append(name)
            answered = (
                answer(request)
                if answer.__code__.co_argcount and not hasattr(answer, "__self__")
                else answer()
            )
            if asyncio.iscoroutine(answered):
                answered = await answered
            return web.Response(text=answered) if isinstance(answered, str) else answered

        app = web.Application()
        app.router.add_get("/metrics", get)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        fields = {
            "address": "127.0.0.1",
            "port": port,
            "variant": make_variant().name,
            "ready_since": NOW - 600,
        }
        self.fleet.indices.pods[key].append(make_pod(name, key, **{**fields, **changes}))

    async def start(self, engine: Engine, name="pod-a", key=KEY, **changes):
        """Start a pod with an engine that works while time passes."""
        self.engines.append(engine)
        await self.serve(engine.page, name, key, **changes)

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


@pytest.fixture
async def stage():
    async with Stage() as stage:
        yield stage


def count(outcome):
    return REGISTRY.get_sample_value("modelyard_engine_readings_total", {"outcome": outcome}) or 0


def gauge(latency="inter_token", key=KEY, name="modelyard_learned_speed_factor"):
    labels = {"deployment": key, "variant": make_variant().label, "latency": latency}
    return REGISTRY.get_sample_value(name, labels)


async def test_a_slower_engine_than_thought_is_learned(stage):
    stage.deploy()
    await stage.start(make_engine(1.3))
    await stage.rounds(41)
    speed = stage.speed()
    assert speed.readings == speed.first_token_readings == 40
    assert speed.inter_token.value == pytest.approx(1.3, rel=0.03)
    assert speed.first_token.value == pytest.approx(1.3, rel=0.03)
    assert speed.resets == 0
    # Work is asked for when the factor moved by a tenth, not at every reading.
    assert set(stage.queue.added) == {KEY}
    assert 1 <= len(stage.queue.added) <= 3
    assert gauge() == speed.inter_token.value
    assert gauge("first_token") == speed.first_token.value
    assert gauge(name="modelyard_learned_speed_uncertainty") == pytest.approx(0.06, abs=0.02)


async def test_an_engine_as_fast_as_thought_asks_for_no_work(stage):
    stage.deploy()
    await stage.start(make_engine())
    await stage.rounds(10)
    assert stage.speed().readings == 9
    assert stage.queue.added == []


async def test_readings_accumulate_until_there_is_enough(stage):
    stage.deploy()
    await stage.start(make_engine())
    # 8 sequences of 200 tokens: 50 requests take so many seconds.
    needed = 50 * 200 / BATCH * STEP.inter_token_latency(SHAPE, BATCH)
    rounds = 1 + int(needed // 15)
    await stage.rounds(rounds, 15)
    assert len(stage.reads) == rounds
    assert stage.speed() is None
    await stage.rounds(1, 15)
    assert stage.speed().readings == 1


async def test_a_cold_pod_is_neither_read_nor_learned_from(stage, caplog):
    caplog.set_level(logging.DEBUG, "modelyard.runtime.engines")
    stage.deploy()
    await stage.start(make_engine(3.0), ready_since=NOW)
    await stage.rounds(int(WARM_UP // 15), 15)
    assert stage.reads == []
    assert stage.speed() is None
    assert f"Not read of {KEY} on 1 x l4: 1 of 1 pods" in caplog.text
    await stage.rounds(2)
    assert stage.speed().readings == 1


async def test_a_pod_that_does_not_serve_is_not_read(stage):
    stage.deploy()
    await stage.start(make_engine(), ready=False)
    await stage.start(make_engine(), "pod-b", terminating=True)
    await stage.rounds(2)
    assert stage.reads == []


async def test_an_engine_that_started_anew_is_cold_again(stage, caplog):
    caplog.set_level(logging.DEBUG, "modelyard.runtime.engines")
    engine = make_engine(1.3)
    engine.created = NOW - 600
    stage.deploy()
    await stage.start(engine)
    await stage.rounds(3)
    learned = stage.speed()
    assert learned.readings == 2
    engine.restart()
    engine.created = stage.now
    # Two minutes cold, then one window.
    await stage.rounds(3)
    assert stage.speed() == learned
    assert "started anew" in caplog.text
    assert "started a moment ago" in caplog.text
    await stage.rounds(1)
    assert stage.speed().readings == 3


async def test_a_restarted_container_begins_a_new_window(stage):
    stage.deploy()
    await stage.start(make_engine(1.3))
    await stage.rounds(1)
    stage.change_pod(restarts=1)
    await stage.rounds(1)
    assert stage.speed() is None
    await stage.rounds(1)
    assert stage.speed().readings == 1


async def test_another_pod_of_the_same_name_begins_a_new_window(stage):
    stage.deploy()
    await stage.start(make_engine(1.3))
    await stage.rounds(1)
    stage.change_pod(uid="other")
    await stage.rounds(1)
    assert stage.speed() is None


async def hang(_request):
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "answer",
    [
        hang,
        lambda _request: web.Response(status=503),
        lambda _request: web.Response(status=307, headers={"Location": "/metrics"}),
        lambda _request: web.Response(body=b'vllm:num_requests_running{engine="0 NaN\n\xff\xfe}} 12..5e\n'),
        lambda _request: web.Response(text=FIXTURE.replace("vllm:", "other:")),
        lambda _request: web.Response(text=FIXTURE + "# " + "x" * engines.PAGE_BYTES),
    ],
    ids=["hangs", "error", "redirect", "garbage", "renamed", "huge"],
)
async def test_a_page_that_cannot_be_read_changes_nothing(stage, answer, monkeypatch):
    monkeypatch.setattr(engines, "READ_SECONDS", 0.2)
    stage.deploy()
    await stage.serve(answer)
    before, memory = count("failed"), stage.fleet.memory[KEY]
    await stage.rounds(2)
    assert count("failed") - before == len(stage.reads) == 2
    assert stage.fleet.memory[KEY] is memory
    assert stage.queue.added == []
    # Others are learned from all the same.
    await stage.start(make_engine(1.3), "pod-b")
    await stage.rounds(2)
    assert stage.speed().readings == 1


async def test_a_pod_that_refuses_connections_changes_nothing(stage):
    stage.deploy()
    await stage.start(make_engine(), port=1)
    before = count("failed")
    await stage.rounds(1)
    assert count("failed") - before == 1


async def test_a_failed_reading_does_not_end_the_window(stage):
    engine, broken = make_engine(1.3), []
    stage.deploy()
    stage.engines.append(engine)
    await stage.serve(lambda _request: web.Response(status=503) if broken else engine.page())
    await stage.rounds(1)
    broken.append(True)
    await stage.rounds(1)
    broken.clear()
    await stage.rounds(1)
    assert stage.speed().readings == 1


async def test_a_refusal_says_why_and_changes_nothing(stage, caplog):
    caplog.set_level(logging.DEBUG, "modelyard.runtime.engines")
    stage.deploy()
    engine = make_engine()
    engine.input_tokens = 0.0
    await stage.start(engine)
    memory = stage.fleet.memory[KEY]
    await stage.rounds(2)
    assert stage.fleet.memory[KEY] is memory
    assert f"Not learned from pod pod-a of {KEY}: input tokens is not a positive number" in caplog.text


async def test_an_engine_that_hardly_works_is_not_learned_from(stage):
    stage.deploy()
    await stage.serve(make_engine().page)
    before = count("idle")
    await stage.rounds(17)
    assert stage.speed() is None
    assert count("idle") - before == 1


async def test_an_engine_without_latencies_is_not_read(stage):
    stage.deploy(engine="LlamaCpp")
    await stage.start(make_engine())
    await stage.rounds(2)
    assert stage.reads == []


async def test_a_variant_of_unknown_speed_is_not_read(stage):
    stage.deploy(step=None)
    await stage.start(make_engine())
    await stage.rounds(2)
    assert stage.reads == []


async def test_a_sample_of_many_pods_is_read_and_all_have_their_turn(stage, monkeypatch):
    monkeypatch.setattr(engines, "PODS_PER_VARIANT", 2)
    stage.deploy()
    for number in range(5):
        await stage.start(make_engine(), f"pod-{number}")
    await stage.rounds(1)
    assert sorted(stage.reads) == ["pod-0", "pod-1"]
    await stage.rounds(1)
    # The same pods, until they taught something.
    assert sorted(stage.reads) == ["pod-0", "pod-0", "pod-1", "pod-1"]
    assert stage.speed().readings == 2
    await stage.rounds(4)
    assert set(stage.reads) == {f"pod-{number}" for number in range(5)}
    assert len(stage.reads) == 12
    assert stage.speed().readings == 6


async def test_many_variants_share_what_a_round_may_read(stage, monkeypatch):
    monkeypatch.setattr(engines, "PODS_PER_ROUND", 4)
    for key in ("team/a", "team/b"):
        stage.deploy(key)
        for number in range(3):
            await stage.start(make_engine(), f"{key}-{number}", key)
    await stage.rounds(1)
    assert sorted(stage.reads) == ["team/a-0", "team/a-1", "team/b-0", "team/b-1"]


async def test_few_pages_are_read_at_a_time(stage, monkeypatch):
    monkeypatch.setattr(stage.reader, "_slots", asyncio.Semaphore(2))
    stage.deploy()
    gate, open_now, most = asyncio.Event(), 0, 0

    async def answer(_request):
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if open_now == 2:
            gate.set()
        await gate.wait()
        await asyncio.sleep(0)
        open_now -= 1
        return web.Response(text=FIXTURE)

    for number in range(6):
        await stage.serve(answer, f"pod-{number}")
    await stage.rounds(1)
    assert len(stage.reads) == 6
    assert most == 2


async def test_what_others_write_meanwhile_is_kept(stage):
    engine = make_engine(1.3)
    stage.deploy()
    stage.engines.append(engine)

    def answer(_request):
        memory = stage.fleet.memory[KEY]
        stage.fleet.memory[KEY] = replace(memory, generation=memory.generation + 1)
        return engine.page()

    await stage.serve(answer)
    await stage.rounds(3)
    assert stage.fleet.memory[KEY].generation == 3
    assert stage.speed().readings == 2


async def test_a_deployment_that_goes_meanwhile_does_not_come_back(stage):
    engine, gone = make_engine(1.3), []
    stage.deploy()
    stage.engines.append(engine)

    def answer(_request):
        if gone:
            stage.fleet.forget(KEY)
        return engine.page()

    await stage.serve(answer)
    await stage.rounds(1)
    gone.append(True)
    await stage.rounds(1)
    assert KEY not in stage.fleet.memory


async def test_what_is_gone_is_forgotten(stage):
    stage.deploy()
    await stage.start(make_engine(1.3))
    await stage.rounds(2)
    assert gauge() is not None
    del stage.fleet.indices.deployments[KEY]
    stage.fleet.forget(KEY)
    await stage.rounds(1)
    assert gauge() is None
    assert gauge(name="modelyard_learned_speed_uncertainty") is None
    assert stage.reader._sources == {}


async def test_windows_of_pods_that_are_gone_are_forgotten(stage):
    stage.deploy()
    await stage.start(make_engine())
    await stage.rounds(1)
    stage.fleet.indices.pods[KEY].clear()
    await stage.rounds(1)
    assert [source.windows for source in stage.reader._sources.values()] == [{}]


async def test_pods_of_an_earlier_spec_are_not_learned_from(stage):
    stage.deploy()
    await stage.start(make_engine(1.3), created=NOW - 700)
    await stage.rounds(3)
    stage.deploy(step=make_prior("mistralai/Mistral-7B-Instruct-v0.3"))
    read = len(stage.reads)
    await stage.rounds(3)
    assert len(stage.reads) == read
    stage.change_pod(uid="new", created=stage.now, ready_since=stage.now)
    stage.now += WARM_UP
    await stage.rounds(2)
    assert stage.speed().readings == 1
    assert stage.speed().prior == make_prior("mistralai/Mistral-7B-Instruct-v0.3")


async def test_new_figures_of_the_class_begin_anew_with_the_pods_that_run(stage):
    variant = replace(make_variant(), hardware=find_hardware("L4"), prior=STEP)
    stage.deploy(variant=variant)
    await stage.start(make_engine(1.3), created=NOW - 700)
    await stage.rounds(3)
    slower = replace(STEP, fixed=2 * STEP.fixed)
    stage.deploy(variant=replace(variant, hardware=find_hardware("A10G"), prior=slower))
    await stage.rounds(2)
    assert (stage.speed().prior, stage.speed().readings) == (slower, 1)
    assert stage.speed() != remember(slower)


async def test_it_reads_at_its_own_pace_until_cancelled(stage):
    stage.deploy()
    done = asyncio.Event()

    def answer(_request):
        if len(stage.reads) >= 3:
            done.set()
        return FIXTURE

    await stage.serve(answer)
    running = asyncio.create_task(stage.reader.run())
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
