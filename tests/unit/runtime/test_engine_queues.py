"""What waits in the engines, as the decision is told of it."""

import pytest

from modelyard.runtime import engines
from tests.unit.core.build import KEY
from tests.unit.runtime.enginestage import Stage, make_engine

SCALING = {"min": 1, "max": 9, "slo": {"timeToFirstToken": "2s", "interTokenLatency": "60ms"}}


@pytest.fixture
async def stage():
    async with Stage() as stage:
        stage.deploy(scaling=SCALING)
        yield stage


async def test_the_queues_of_all_engines_are_added_up(stage):
    busy, idle = make_engine(), make_engine()
    await stage.start(busy, "pod-a")
    await stage.start(idle, "pod-b")
    busy.waiting = 30
    await stage.rounds(2, 15)
    assert stage.fleet.services[KEY].waiting == 30
    busy.waiting, idle.waiting = 10, 2
    await stage.rounds(1, 15)
    assert stage.fleet.services[KEY].waiting == 12
    busy.waiting = idle.waiting = 0
    await stage.rounds(1, 15)
    assert stage.fleet.services[KEY].waiting == 0


async def test_a_sample_stands_for_the_queues_of_all_that_serve(stage, monkeypatch):
    monkeypatch.setattr(engines, "PODS_PER_VARIANT", 2)
    for number in range(4):
        engine = make_engine()
        engine.waiting = 5
        await stage.start(engine, f"pod-{number}")
    await stage.rounds(6)
    assert stage.fleet.services[KEY].waiting == pytest.approx(20)
