"""What is learned of the speed of engines: from which pods, when, and when not."""

import asyncio
import logging
from dataclasses import replace

import pytest
from aiohttp import web

from modelyard.catalog.accelerators import find_hardware
from modelyard.core.enginemetrics import FEWEST_REQUESTS
from modelyard.core.perf.learning import WARM_UP, remember
from modelyard.runtime import engines
from modelyard.runtime.metrics import REGISTRY
from tests.unit.core.build import KEY, NOW, make_variant
from tests.unit.core.enginepages import FIXTURE
from tests.unit.runtime.enginestage import BATCH, SHAPE, STEP, Stage, make_engine, make_prior


@pytest.fixture
async def stage():
    async with Stage() as stage:
        yield stage


def count(outcome):
    return REGISTRY.get_sample_value("modelyard_engine_readings_total", {"outcome": outcome}) or 0


def gauge(latency="inter_token", key=KEY, name="modelyard_learned_speed_factor"):
    namespace, deployment = key.split("/")
    labels = {
        "namespace": namespace,
        "deployment": deployment,
        "variant": make_variant().label,
        "latency": latency,
    }
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
    # The first reading was 30 % off, and each later one less: what is left of it after 40.
    assert gauge(name="modelyard_learned_speed_error_ratio") == pytest.approx(0.1, abs=0.05)


async def test_an_engine_as_fast_as_thought_asks_for_no_work(stage):
    stage.deploy()
    await stage.start(make_engine())
    await stage.rounds(10)
    assert stage.speed().readings == 9
    assert stage.queue.added == []


async def test_readings_accumulate_until_there_is_enough(stage):
    stage.deploy()
    await stage.start(make_engine())
    # So many seconds until enough requests have finished.
    needed = FEWEST_REQUESTS * SHAPE.output_tokens / BATCH * STEP.inter_token_latency(SHAPE, BATCH)
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
    monkeypatch.setattr(engines, "READ_SECONDS", 0.2 if answer is hang else 30.0)
    stage.deploy()
    await stage.serve(answer)
    before, memory = count("failed"), stage.fleet.memory[KEY]
    await stage.rounds(2)
    assert count("failed") - before == len(stage.reads) == 2
    assert stage.fleet.memory[KEY] is memory
    assert stage.queue.added == []
    # Others are learned from all the same; they may take their time on a busy machine.
    monkeypatch.setattr(engines, "READ_SECONDS", 2.0 if answer is hang else 30.0)
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
    await stage.serve(
        lambda _request: web.Response(status=503) if broken else web.Response(text=engine.page())
    )
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
    assert f"Not learned from pod pod-a of {KEY}: input tokens is not" in caplog.text


async def test_an_engine_that_hardly_works_is_not_learned_from(stage):
    stage.deploy()
    page = make_engine().page()
    await stage.serve(lambda _request: web.Response(text=page))
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
        return web.Response(text=engine.page())

    await stage.serve(answer)
    await stage.rounds(3)
    assert stage.fleet.memory[KEY].generation == 3
    assert stage.speed().readings == 2


async def test_a_deployment_that_goes_meanwhile_does_not_come_back(stage):
    stage.deploy()
    await stage.forget_while_read(make_engine(1.3))
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
    assert gauge(name="modelyard_learned_speed_error_ratio") is None
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
        return web.Response(text=FIXTURE)

    await stage.serve(answer)
    running = asyncio.create_task(stage.reader.run())
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
