"""What the loop over the gateway's readings leaves in the memory, and what it asks for."""

import pytest

from modelyard.core.decide import decide_deployment
from modelyard.core.replicas import SizeMemory
from modelyard.core.routing import Route, RoutingTable, WeightedTarget
from modelyard.core.snapshot import GatewayReading
from modelyard.core.state import DeploymentMemory
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.counters import Answered, GatewayCounters
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.readings import Reader, build_reading
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import KEY, NOW, make_accelerator, make_deployment
from tests.unit.runtime.enginestage import Queue

RATE = 3.0
"""Requests per second."""
INTERVAL = 2.0
"""Seconds between two readings."""


@pytest.fixture
def fleet():
    deployment = make_deployment(scaling={"max": 4})
    fleet = Fleet(
        indices=Indices(
            deployments={KEY: [Seen(uid="1", version="1", object=deployment)]},
            accelerators={"l4": [Seen(uid="2", version="1", object=make_accelerator())]},
            pods={KEY: []},
        )
    )
    fleet.table = RoutingTable(routes=(Route(KEY, ("llama",), (WeightedTarget(KEY),)),))
    fleet.memory[KEY] = DeploymentMemory(size=SizeMemory(since=NOW))
    snapshot = fleet.snapshot_one(KEY, deployment)
    # What a reconciliation left, long ago.
    fleet.plans[KEY], _ = decide_deployment(KEY, snapshot, fleet.memory[KEY], NOW, OperatorSettings().policy)
    return fleet


async def test_every_reading_counts_towards_the_forecast(fleet):
    """Also while no decision changes anything, and so nothing is reconciled."""
    reader = Reader(fleet, AdsServer(lambda _node, _names: None), Queue(), OperatorSettings())
    for number in range(40):
        now = NOW + number * INTERVAL
        fleet.reading = GatewayReading(now, {KEY: number * INTERVAL * RATE})
        await reader.decide(now)
    forecast = fleet.memory[KEY].size.load.forecast
    assert forecast is not None
    assert NOW + 39 * INTERVAL - forecast.time < 30
    assert forecast.fast == pytest.approx(RATE)


async def test_only_the_size_is_remembered_of_a_decision_that_is_not_carried_out(fleet):
    before = fleet.memory[KEY]
    reader = Reader(fleet, AdsServer(lambda _node, _names: None), Queue(), OperatorSettings())
    fleet.reading = GatewayReading(NOW, {KEY: 0.0})
    await reader.decide(NOW)
    after = fleet.memory[KEY]
    assert (after.generation, after.serving, after.allocation) == (
        before.generation,
        before.serving,
        before.allocation,
    )


def test_requests_and_tokens_are_summed_by_route_whoever_answers():
    own = Answered("team/chat@route", "chat", "team/llama")
    api = Answered("team/chat@route", "chat", "provider:acme/large", "search")
    counters = GatewayCounters(
        arrivals={"team/chat@route": 9},
        requests={(own, "2xx"): 3, (api, "2xx"): 4, (api, "5xx"): 1},
        prompt_tokens={own: 30, api: 40},
        cached_tokens={api: 10},
        completion_tokens={own: 3, api: 8},
    )
    standing_by = WeightedTarget("team/llama", 0, standby=True)
    route = Route("team/chat@route", ("chat",), (WeightedTarget("provider:acme/large"), standing_by))
    reading = build_reading(counters, {"envoy": counters}, (route,), NOW)
    assert reading.route_answers == {"team/chat@route": 7}
    assert reading.route_input_tokens == {"team/chat@route": 70}
    assert reading.route_cached_tokens == {"team/chat@route": 10}
    assert reading.route_output_tokens == {"team/chat@route": 11}
    # What is under way is not the work of a deployment that only stands by: it would never count as idle.
    assert reading.active.get("team/llama", 0) == 0
