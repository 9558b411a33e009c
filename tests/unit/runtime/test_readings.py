"""What the loop over the gateway's readings leaves in the memory, and what it asks for."""

import pytest

from modelyard.core.decide import decide_deployment
from modelyard.core.replicas import SizeMemory
from modelyard.core.routing import Route, RoutingTable, WeightedTarget
from modelyard.core.snapshot import GatewayReading
from modelyard.core.state import DeploymentMemory
from modelyard.gateway.ads import AdsServer
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.readings import Reader
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


def test_every_reading_counts_towards_the_forecast(fleet):
    """Also while no decision changes anything, and so nothing is reconciled."""
    reader = Reader(fleet, AdsServer(lambda _node, _names: None), Queue(), OperatorSettings())
    for number in range(40):
        now = NOW + number * INTERVAL
        fleet.reading = GatewayReading(now, {KEY: number * INTERVAL * RATE})
        reader.decide(now)
    forecast = fleet.memory[KEY].size.load.forecast
    assert forecast is not None
    assert NOW + 39 * INTERVAL - forecast.time < 30
    assert forecast.fast == pytest.approx(RATE)


def test_only_the_size_is_remembered_of_a_decision_that_is_not_carried_out(fleet):
    before = fleet.memory[KEY]
    reader = Reader(fleet, AdsServer(lambda _node, _names: None), Queue(), OperatorSettings())
    fleet.reading = GatewayReading(NOW, {KEY: 0.0})
    reader.decide(NOW)
    after = fleet.memory[KEY]
    assert (after.generation, after.serving, after.allocation) == (
        before.generation,
        before.serving,
        before.allocation,
    )
