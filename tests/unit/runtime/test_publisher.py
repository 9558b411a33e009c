"""Tables that cannot be built, and requests that are let go before one is."""

import asyncio
import contextlib
import logging

import pytest

from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.routing import Endpoint, RoutingTable
from modelyard.gateway import protos
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.resources import build_resources
from modelyard.kube.projections import Seen
from modelyard.runtime import publisher as module
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.metrics import REGISTRY
from modelyard.runtime.publisher import Publisher, TableError
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import KEY, make_deployment, make_pod, make_targets_route
from tests.unit.runtime.test_off_the_loop import Gate
from tests.unit.runtime.test_publisher_names import make_fleet

OWN = {"deployment": "llama"}
ADDRESS = "10.0.0.7"
ADAPTER = f"{KEY}:law"


class Stage:
    """A publisher of one deployment with an adapter, and what it offers."""

    def __init__(self):
        self.fleet = make_fleet(make_targets_route("team/one", "one", OWN))
        self.deploy(1)
        self.offered = []
        server = AdsServer(lambda *_: None)
        server.set_resources = self.offered.append
        self.publisher = Publisher(self.fleet, server, LimitBook(), OperatorSettings())

    def deploy(self, generation):
        """Write the generation of its name."""
        adapters = [{"name": "law", "source": "hf://org/law"}]
        status = {"observedGeneration": 3, "gateway": {"generation": generation}}
        item = make_deployment(KEY, model={"source": "hf://org/llama", "adapters": adapters}, status=status)
        self.fleet.indices.deployments[KEY] = [Seen(uid="1", version=str(generation), object=item)]

    def ready(self, *addresses):
        """Let these pods, and no others, be ready."""
        self.fleet.indices.pods[KEY] = [make_pod(address, address=address) for address in addresses]

    def endpoints(self, name=KEY):
        return [endpoint.address for endpoint in self.fleet.table.upstreams[name].endpoints]

    def whole(self):
        """Return what follows from everything that is known, without any history."""
        snapshot = self.fleet.snapshot_names()
        return build_routing_table(
            snapshot, resolve_names(snapshot), self.fleet.exposures(), RoutingTable(), anonymous=False
        )


@pytest.fixture
async def stage():
    stage = Stage()
    running = asyncio.create_task(stage.publisher.run())
    yield stage
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture
def builds(monkeypatch):
    """The gate before builds, each of which waits there once it is put up; opened at the end."""
    gate = Gate(module.build_routing_table)
    yield lambda: monkeypatch.setattr(module, "build_routing_table", gate) or gate
    gate.open()


async def turn():
    """Let the loop come round for whatever is due."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_are_let_go_before_any_table_is_built(stage, builds):
    await stage.publisher.published()
    gate = builds()
    stage.ready(ADDRESS)
    assert stage.publisher.release(KEY)
    # At once: no build can have ended, and nothing else on the loop had its turn.
    assert stage.endpoints() == stage.endpoints(ADAPTER) == [ADDRESS]
    assert len(stage.offered) == 2
    assert stage.fleet.table == stage.whole()
    assert stage.offered[-1] == build_resources(stage.whole(), OperatorSettings().gateway)
    gate.open()
    await stage.publisher.published()
    assert len(stage.offered) == 2, "the table says the same"


async def test_a_table_that_was_begun_before_takes_nothing_back(stage, builds):
    await stage.publisher.published()
    gate = builds()
    stage.fleet.indices.routes["team/two"] = [
        Seen(uid="9", version="1", object=make_targets_route("team/two", "two", OWN))
    ]
    building = asyncio.create_task(stage.publisher.published())
    await gate.begun()
    stage.ready(ADDRESS)
    stage.publisher.release(KEY)
    await turn()
    assert stage.endpoints() == [ADDRESS]
    # Gone again before the table is there: its name must stay until its generation is raised.
    stage.ready()
    gate.open()
    await building
    assert "two" in {model for route in stage.fleet.table.routes for model in route.models}
    assert stage.endpoints() == stage.endpoints(ADAPTER) == [ADDRESS]
    clusters = stage.offered[-1].by_type[protos.CLUSTER]
    assert clusters.keys() == {f"{KEY}~z1", f"{ADAPTER}~z1"}
    assert stage.offered[-1].by_type[protos.ENDPOINTS].keys() == clusters.keys()
    assert stage.offered[-1] == build_resources(stage.fleet.table, OperatorSettings().gateway)


async def test_a_release_under_a_name_that_is_over_is_not_kept(stage, builds):
    await stage.publisher.published()
    gate = builds()
    stage.ready(ADDRESS)
    known = stage.publisher
    stage.deploy(2)
    stage.ready()
    building = asyncio.create_task(known.published())
    await gate.begun()
    stage.deploy(1)
    stage.ready(ADDRESS)
    known.release(KEY)
    await turn()
    assert stage.endpoints() == [ADDRESS]
    stage.deploy(2)
    gate.open()
    await building
    upstream = stage.fleet.table.upstreams[KEY]
    assert (upstream.generation, upstream.endpoints) == (2, ())
    assert not stage.offered[-1].by_type[protos.CLUSTER]


async def test_pods_under_a_name_that_no_table_has_wait_for_one(stage):
    await stage.publisher.published()
    stage.deploy(2)
    stage.ready(ADDRESS)
    stage.publisher.release(KEY)
    await turn()
    assert stage.endpoints() == []
    await stage.publisher.published()
    assert stage.fleet.table.upstreams[KEY].generation == 2
    assert stage.endpoints() == [ADDRESS]


async def with_another(stage):
    """Publish a second model that has no pods yet, and return its key."""
    other = "team/other"
    item = make_deployment(other, status={"observedGeneration": 3})
    stage.fleet.indices.deployments[other] = [Seen(uid="2", version="1", object=item)]
    stage.fleet.indices.pods[other] = []
    await stage.publisher.published()
    return other


async def test_releases_that_follow_each_other_are_gathered(stage, monkeypatch):
    """Each costs a look at all models: in a burst one release serves many."""
    monkeypatch.setattr(module, "RELEASE_PAUSE", 3600.0)
    other = await with_another(stage)
    stage.ready(ADDRESS)
    assert stage.publisher.release(KEY)
    assert len(stage.offered) == 2, "the first waits for nothing"
    stage.fleet.indices.pods[other] = [make_pod("b", key=other)]
    assert not stage.publisher.release(other)
    await turn()
    assert len(stage.offered) == 2
    assert not stage.fleet.table.upstreams[other].endpoints
    await stage.publisher.published()
    assert stage.fleet.table.upstreams[other].endpoints, "a table that is asked for does not wait"


async def test_after_the_pause_the_gathered_are_released(stage, monkeypatch):
    monkeypatch.setattr(module, "RELEASE_PAUSE", 0.01)
    other = await with_another(stage)
    stage.ready(ADDRESS)
    stage.publisher.release(KEY)
    await turn()
    stage.fleet.indices.pods[other] = [make_pod("b", key=other)]
    stage.publisher.release(other)
    async with asyncio.timeout(20):
        while not stage.fleet.table.upstreams[other].endpoints:
            await asyncio.sleep(0.001)


def failed():
    return REGISTRY.get_sample_value("modelyard_table_builds_total", {"outcome": "failed"}) or 0.0


async def test_a_table_that_cannot_be_built_is_told_and_the_last_one_stays(stage, monkeypatch, caplog):
    await stage.publisher.published()
    table, before = stage.fleet.table, failed()

    def refuse(*_, **__):
        raise KeyError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(module, "build_routing_table", refuse)
        stage.ready(ADDRESS)
        for _ in range(2):
            async with asyncio.timeout(20):
                with pytest.raises(TableError, match="KeyError: 'broken'"):
                    await stage.publisher.published()
    assert stage.fleet.table is table
    assert len(stage.offered) == 1
    assert failed() == before + 2
    assert REGISTRY.get_sample_value("modelyard_table_failing") == 1
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1, "what stays the same is said once"
    assert told[0].exc_info is not None
    await stage.publisher.published()
    assert stage.fleet.table.upstreams[KEY].endpoints == (Endpoint(ADDRESS, 8000),)
    assert REGISTRY.get_sample_value("modelyard_table_failing") == 0


async def test_a_table_that_could_not_be_built_is_tried_again_by_itself(stage, monkeypatch):
    await stage.publisher.published()
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    real, tries = module.build_routing_table, []

    def refuse_once(*arguments, **options):
        tries.append(1)
        if len(tries) == 1:
            raise KeyError("broken")
        return real(*arguments, **options)

    monkeypatch.setattr(module, "build_routing_table", refuse_once)
    stage.ready(ADDRESS)
    stage.publisher.request()
    async with asyncio.timeout(20):
        while stage.endpoints() != [ADDRESS]:
            await asyncio.sleep(0.001)
    assert len(tries) == 2
