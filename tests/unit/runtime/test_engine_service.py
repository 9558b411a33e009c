"""How requests were served, as the engines say: those that missed the objective are counted."""

import pytest
from aiohttp import web

from modelyard.core.enginemetrics import FEWEST_REQUESTS
from modelyard.runtime import engines
from modelyard.runtime.metrics import REGISTRY
from tests.unit.core.build import KEY, NOW
from tests.unit.runtime.enginestage import ROUND, Stage, make_engine


@pytest.fixture
async def stage():
    async with Stage() as stage:
        yield stage


SLO = {"timeToFirstToken": "2s", "interTokenLatency": "60ms"}
SCALING = {"min": 1, "max": 9, "slo": SLO}


def finished(engine, seconds):
    """Requests that an engine of the stage finishes in a time."""
    return engine.batch * seconds / engine.inter_token / engine.output_tokens


def slow_share(engine):
    """Share of its answers that are slower than the objective."""
    return 1 - engine.share_below(engine.inter_token, 0.06)


def missed(key=KEY):
    namespace, name = key.split("/")
    labels = {"namespace": namespace, "deployment": name}
    return REGISTRY.get_sample_value("modelyard_requests_missed_share", labels)


async def test_requests_that_miss_the_objective_are_counted_between_any_two_readings(stage):
    engine = make_engine()
    stage.deploy(scaling=SCALING)
    await stage.start(engine)
    await stage.rounds(1, 15)
    assert KEY not in stage.fleet.services
    # Fewer requests than the speed is learned from.
    assert finished(engine, 15) < FEWEST_REQUESTS
    await stage.rounds(1, 15)
    assert stage.speed() is None
    service = stage.fleet.services[KEY]
    assert service.time == NOW + 15
    assert service.requests == pytest.approx(finished(engine, 15))
    assert service.missed == pytest.approx(slow_share(engine) * service.requests, rel=0.05)
    assert missed() == pytest.approx(service.missed / service.requests)
    # Windows that end make no gap.
    await stage.rounds(20, 15)
    assert stage.speed().readings > 1
    assert stage.fleet.services[KEY].requests == pytest.approx(finished(engine, 21 * 15))


async def test_the_decision_sees_how_requests_were_served(stage):
    stage.deploy(scaling=SCALING)
    await stage.start(make_engine())
    await stage.rounds(2)
    deployment = stage.fleet.indices.deployments[KEY][0].object
    stage.fleet.indices.accelerators = {}
    stage.fleet.indices.children = {}
    stage.fleet.indices.nodes = {}
    snapshot = stage.fleet.snapshot_one(KEY, deployment)
    assert snapshot.services == {KEY: stage.fleet.services[KEY]}
    assert stage.fleet.snapshot_one("team/other", deployment).services == {}


@pytest.mark.parametrize("pods", [3, 5])
async def test_a_sample_counts_for_all_pods_that_serve(stage, monkeypatch, pods):
    monkeypatch.setattr(engines, "PODS_PER_VARIANT", 2)
    stage.deploy(scaling=SCALING)
    for number in range(pods):
        await stage.start(make_engine(), f"pod-{number}")
    # Two readings of each before it is another's turn: what was not read in between counts, too.
    await stage.rounds(6)
    engine = stage.engines[0]
    assert stage.speed().readings == 6
    assert stage.fleet.services[KEY].requests == pytest.approx(finished(engine, 5 * ROUND) * pods)


async def test_a_pod_that_fails_is_stood_for_by_the_others(stage):
    engine, broken = make_engine(), []
    stage.deploy(scaling=SCALING)
    await stage.start(make_engine())
    stage.engines.append(engine)
    await stage.serve(
        lambda _request: web.Response(status=503) if broken else web.Response(text=engine.page()), "pod-b"
    )
    await stage.rounds(2)
    broken.append(True)
    await stage.rounds(2)
    assert stage.fleet.services[KEY].requests == pytest.approx(finished(engine, 3 * ROUND) * 2)
    broken.clear()
    await stage.rounds(1)
    assert stage.fleet.services[KEY].requests == pytest.approx(finished(engine, 4 * ROUND) * 2)


async def test_cold_pods_are_stood_for_but_not_counted(stage):
    stage.deploy(scaling=SCALING)
    cold = make_engine(10.0)
    await stage.start(cold, "pod-cold", ready_since=NOW)
    await stage.rounds(1)
    assert KEY not in stage.fleet.services
    warm = make_engine()
    await stage.start(warm, "pod-warm")
    await stage.rounds(1, 10)
    await stage.rounds(1, 10)
    assert stage.fleet.services[KEY].requests == pytest.approx(2 * finished(warm, 10))


async def test_what_an_engine_served_before_it_started_anew_does_not_count(stage):
    engine = make_engine()
    engine.created = NOW - 600
    stage.deploy(scaling=SCALING)
    await stage.start(engine)
    await stage.rounds(2)
    before = stage.fleet.services[KEY]
    engine.restart()
    engine.created = stage.now
    # It is cold for two minutes, and counted from the second reading after; that stands for the last round before, too.
    await stage.rounds(3)
    assert stage.fleet.services[KEY] == before
    await stage.rounds(1)
    gained = stage.fleet.services[KEY].requests - before.requests
    assert gained == pytest.approx(2 * finished(engine, ROUND))


async def test_another_pod_of_the_same_name_is_counted_from_its_own_first_reading(stage):
    stage.deploy(scaling=SCALING)
    await stage.start(make_engine())
    await stage.rounds(1)
    stage.change_pod(restarts=1)
    await stage.rounds(1)
    assert KEY not in stage.fleet.services
    await stage.rounds(1)
    assert stage.fleet.services[KEY].requests == pytest.approx(finished(stage.engines[0], ROUND))


async def test_time_without_pods_is_not_stood_for(stage):
    stage.deploy(scaling=SCALING)
    await stage.start(make_engine())
    await stage.rounds(2)
    pods = list(stage.fleet.indices.pods[KEY])
    stage.fleet.indices.pods[KEY].clear()
    await stage.rounds(5)
    stage.fleet.indices.pods[KEY].extend(pods)
    await stage.rounds(2)
    assert stage.fleet.services[KEY].requests == pytest.approx(finished(stage.engines[0], 2 * ROUND))


async def test_a_page_without_histograms_teaches_speed_all_the_same(stage):
    engine = make_engine()
    stage.deploy(scaling=SCALING)
    stage.engines.append(engine)

    def answer(_request):
        lines = engine.page().splitlines()
        return web.Response(text="\n".join(line for line in lines if "_bucket" not in line))

    await stage.serve(answer)
    await stage.rounds(2)
    assert stage.speed().readings == 1
    assert stage.fleet.services == {}


async def test_without_scaling_nothing_is_counted(stage):
    stage.deploy()
    await stage.start(make_engine())
    await stage.rounds(2)
    assert stage.fleet.services == {}


async def test_an_idle_round_counts_no_requests(stage):
    engine = make_engine()
    stage.deploy(scaling=SCALING)
    await stage.start(engine)
    await stage.rounds(2)
    before, share = stage.fleet.services[KEY], missed()
    stage.engines.clear()
    await stage.rounds(1)
    await stage.rounds(2)
    last = stage.fleet.services[KEY]
    assert last.time == NOW + 4 * ROUND
    assert last.requests == pytest.approx(before.requests + finished(engine, ROUND))
    assert missed() == pytest.approx(share)


async def test_how_requests_were_served_is_forgotten_with_the_deployment(stage):
    stage.deploy(scaling=SCALING)
    await stage.start(make_engine())
    await stage.rounds(2)
    assert missed() is not None
    del stage.fleet.indices.deployments[KEY]
    stage.fleet.forget(KEY)
    assert stage.fleet.services == {}
    await stage.rounds(1)
    assert missed() is None
    assert stage.fleet.services == {}


async def test_a_deployment_that_is_scaled_no_more_has_no_share(stage):
    stage.deploy(scaling=SCALING)
    await stage.start(make_engine())
    await stage.rounds(2)
    assert missed() is not None
    stage.deploy()
    await stage.rounds(1)
    assert missed() is None


async def test_a_deployment_that_goes_while_it_is_read_is_not_counted(stage):
    stage.deploy(scaling=SCALING)
    await stage.forget_while_read(make_engine())
    assert stage.fleet.services == {}
