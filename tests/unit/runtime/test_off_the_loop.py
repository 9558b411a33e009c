"""What thousands of objects make long is worked out beside the event loop, and nothing newer is lost by it.

Nothing is timed: the work waits for the event loop. Where it ran on the loop, it would wait for ever.
"""

import asyncio
import contextlib
import threading
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.core.ledger.usage import Use
from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.plan import DeploymentPlan
from modelyard.core.routing import RoutingTable
from modelyard.core.snapshot import GatewayReading
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.resources import build_resources
from modelyard.kube.projections import Seen
from modelyard.runtime import fleetmetrics, ledger, publisher, readings, routes
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.publisher import Publisher
from modelyard.runtime.readings import Reader
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.slices import Slices
from tests.unit.core.build import KEY, NOW, make_deployment, make_targets_route
from tests.unit.core.test_routeplan import NAME, ROUTE
from tests.unit.runtime.enginestage import Queue
from tests.unit.runtime.ledgerstage import KEYS, Envoy, Server, make_keeper, read
from tests.unit.runtime.test_fleetmetrics import Scene as MetricsScene
from tests.unit.runtime.test_publisher_names import make_fleet
from tests.unit.runtime.test_routes import Scene

OWN = {"deployment": "llama"}
PATIENCE = 20
"""Seconds after which something stands still."""


class Gate:
    """Lets a function begin, and end only after the event loop has said so."""

    def __init__(self, function):
        self._function = function
        self._begun, self._free = threading.Event(), threading.Event()

    def __call__(self, *arguments, **options):
        self._begun.set()
        assert self._free.wait(PATIENCE), "the event loop stands still"
        return self._function(*arguments, **options)

    async def begun(self):
        """Wait until the function has begun."""
        assert await asyncio.to_thread(self._begun.wait, PATIENCE)

    def open(self):
        self._free.set()


@pytest.fixture
def gate(monkeypatch):
    """Put a gate before a function of a module."""
    gates = []

    def put(module, name):
        gates.append(Gate(getattr(module, name)))
        monkeypatch.setattr(module, name, gates[-1])
        return gates[-1]

    yield put
    for item in gates:
        item.open()


async def test_a_table_is_built_beside_the_loop_and_what_changes_meanwhile_is_in_the_next(gate):
    fleet, server = make_fleet(make_targets_route("team/one", "one", OWN)), AdsServer(lambda *_: None)
    offered = []
    server.set_resources = offered.append
    keeper = Publisher(fleet, server, LimitBook(), OperatorSettings())
    building = gate(publisher, "build_routing_table")
    running = asyncio.create_task(keeper.run())
    try:
        first = asyncio.create_task(keeper.published())
        await building.begun()
        later = make_targets_route("team/two", "two", OWN)
        fleet.indices.routes["team/two"] = [Seen(uid="9", version="1", object=later)]
        fleet.tenant_keys["0a"] = "blue"
        second = asyncio.create_task(keeper.published())
        await asyncio.sleep(0)
        building.open()
        await first
        assert {"one"} <= names_of(fleet.table)
        assert "two" not in names_of(fleet.table), "what came later is not in a table that was begun before"
        assert not second.done(), "who asked later waits for the next one"
        await second
        assert {"one", "two"} <= names_of(fleet.table)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    snapshot = fleet.snapshot_names()
    whole = build_routing_table(
        snapshot, resolve_names(snapshot), fleet.exposures(), RoutingTable(), anonymous=False
    )
    assert fleet.table == whole
    settings = OperatorSettings().gateway
    assert offered[-1] == build_resources(whole, settings, tenant_keys=fleet.tenant_keys)
    assert fleet.names.routes.keys() == {"team/one", "team/two"}


def names_of(table):
    return {model for route in table.routes for model in route.models}


async def test_routes_are_decided_beside_the_loop_and_one_that_went_meanwhile_goes(gate):
    scene = Scene()
    deciding = gate(routes, "decide_routes")
    scene.fleet.reading = GatewayReading(NOW + 2, {NAME: 0.0})
    decision = asyncio.create_task(scene.decider.decide(NOW + 2))
    await deciding.begun()
    del scene.routes[ROUTE]
    # Somebody else remembers something of a deployment.
    scene.fleet.plans[KEY] = DeploymentPlan(KEY, replicas=1)
    deciding.open()
    await decision
    scene.publish()
    assert names_of(scene.fleet.table) >= {KEY}
    assert not any(route.name == NAME for route in scene.fleet.table.routes), "it is not brought back"
    await scene.decide(4, 0.0)
    assert scene.fleet.routes_plan.routes == {}
    assert scene.fleet.plans[KEY].replicas == 1


async def test_what_others_remember_while_a_reading_is_taken_in_stays(gate):
    scene = Scene()
    fleet = scene.fleet
    reader = Reader(fleet, AdsServer(lambda *_: None), Queue(), OperatorSettings())
    fleet.reading = GatewayReading(NOW, {KEY: 0.0})
    await reader.decide(NOW)
    observing = gate(readings, "observe_demand")
    fleet.reading = GatewayReading(NOW + 2, {KEY: 6.0})
    taking = asyncio.create_task(reader.decide(NOW + 2))
    await observing.begun()
    fleet.memory[KEY] = replace(fleet.memory[KEY], generation=7)
    observing.open()
    await taking
    remembered = fleet.memory[KEY]
    assert remembered.generation == 7
    assert remembered.demand.samples[-1].total == 6.0


async def test_a_deployment_that_goes_while_a_reading_is_taken_in_is_not_remembered(gate):
    scene = Scene()
    fleet = scene.fleet
    reader = Reader(fleet, AdsServer(lambda *_: None), Queue(), OperatorSettings())
    observing = gate(readings, "observe_demand")
    fleet.reading = GatewayReading(NOW, {KEY: 6.0})
    taking = asyncio.create_task(reader.decide(NOW))
    await observing.begun()
    del fleet.indices.deployments[KEY]
    fleet.forget(KEY)
    observing.open()
    await taking
    assert KEY not in fleet.memory


async def test_what_was_spent_is_worked_out_beside_the_loop_and_nothing_older_is_told_after_it(gate):
    server = Server()
    keeper, fleet = make_keeper(server, NOW)
    await keeper.start()
    envoy, own = Envoy(NOW - 100), next(key for key in KEYS if key.target == "team/a")
    told = []
    keeper._on_spend = lambda: told.append(fleet.spend.time)

    def reading(now):
        envoy.serve(own, Use(requests=1))
        read(fleet, "x", envoy.page(now))
        fleet.counted_until = now

    drawing = gate(ledger, "draw_up")
    reading(NOW + 1e9)
    looking = asyncio.create_task(keeper.look(NOW + 1e9))
    await drawing.begun()
    reading(NOW + 1e9 + 2)
    writing = asyncio.create_task(keeper.round(NOW + 1e9 + 2))
    await asyncio.sleep(0)
    drawing.open()
    await asyncio.gather(looking, writing)
    assert told == [NOW + 1e9, NOW + 1e9 + 2]
    assert server.total().requests == 2


async def count_turns(work):
    """Return how often the event loop came round while something was done."""
    turns, done = 0, asyncio.ensure_future(work)
    while not done.done():
        await asyncio.sleep(0)
        turns += 1
    return turns, done.result()


async def test_decisions_about_many_deployments_let_everything_else_have_its_turn(monkeypatch):
    scene, count = Scene(), 50
    for number in range(count):
        key = f"team/m{number}"
        item = make_deployment(key, scaling={"min": 0, "max": 4}, status={"observedGeneration": 3})
        scene.fleet.indices.deployments[key] = [Seen(uid=key, version="1", object=item)]
        scene.fleet.plans[key] = DeploymentPlan(key, replicas=0)
    decided = []
    decide = readings.decide_deployment
    monkeypatch.setattr(
        readings, "decide_deployment", lambda key, *rest: decided.append(key) or decide(key, *rest)
    )
    monkeypatch.setattr(readings, "Slices", partial(Slices, 0.0))
    reader = Reader(scene.fleet, AdsServer(lambda *_: None), Queue(), OperatorSettings())
    scene.fleet.reading = GatewayReading(NOW, {KEY: 0.0})
    turns, _ = await count_turns(reader.decide(NOW))
    assert len(decided) == count
    assert turns >= count


async def test_a_slice_is_left_only_when_it_is_over():
    turns, _ = await count_turns(pause_often(Slices(1e9)))
    few, _ = await count_turns(pause_often(Slices(0.0)))
    assert turns < 10 <= few


async def pause_often(slices):
    for _ in range(100):
        await slices.pause()


async def test_a_scrape_lets_everything_else_have_its_turn_and_says_what_there_is(monkeypatch):
    scene = MetricsScene()
    for number in range(30):
        scene.add(f"team/m{number}")
    monkeypatch.setattr(fleetmetrics, "Slices", partial(Slices, 0.0))
    turns, page = await count_turns(scene.collector.write(scene.registry))
    assert turns >= 30
    told = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }
    live = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in scene.collector.collect()
        for sample in family.samples
    }
    moving = "modelyard_queue_oldest_seconds"
    assert {key: value for key, value in told.items() if key[0] != moving} == {
        key: value for key, value in live.items() if key[0] != moving
    }
    # The next scrape works everything out anew.
    scene.objects.clear()
    again = (await scene.collector.write(scene.registry)).decode()
    assert 'modelyard_objects{kind="LLMDeployment"} 0.0' in again
