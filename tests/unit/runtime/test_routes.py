"""What follows from a decision about routes: a new table, a status, metrics; and nothing where nothing changed."""

import pytest

from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.plan import DeploymentPlan
from modelyard.core.routing import RoutingTable
from modelyard.core.snapshot import GatewayReading
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import REGISTRY
from modelyard.runtime.routes import RouteDecider
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import (
    KEY,
    NOW,
    make_accelerator,
    make_deployment,
    make_pod,
    make_provider,
    make_targets_route,
)
from tests.unit.core.test_routeplan import API, LARGE, NAME, OWN, PRICE, ROUTE


class Scene:
    """A fleet with one route, and what is asked for."""

    def __init__(self):
        deployment = make_deployment(KEY, scaling={"min": 0, "max": 4}, status={"observedGeneration": 3})
        route = make_targets_route(ROUTE, "chat", OWN, LARGE, policy="LowestCost")
        self.routes = {ROUTE: [Seen(uid="3", version="1", object=route)]}
        self.fleet = Fleet(
            indices=Indices(
                deployments={KEY: [Seen(uid="1", version="1", object=deployment)]},
                routes=self.routes,
                accelerators={"l4": [Seen(uid="2", version="1", object=make_accelerator())]},
                pods={KEY: [make_pod()]},
            ),
            providers={"acme": make_provider("acme", {"name": "large", "price": PRICE})},
        )
        self.published = 0
        self.looked_at = []
        self.decider = RouteDecider(
            self.fleet, self.publish, self.looked_at.append, OperatorSettings(route_interval=0.0)
        )
        self.publish()

    def publish(self):
        """Build the table, as the publisher does."""
        self.published += 1
        names = self.fleet.snapshot_names()
        self.fleet.table = build_routing_table(
            names, resolve_names(names), {}, RoutingTable(), self.fleet.routes_plan.routes, anonymous=True
        )

    async def decide(self, seconds, total):
        self.fleet.reading = GatewayReading(NOW + seconds, {NAME: total})
        await self.decider.decide(NOW + seconds)


@pytest.fixture
async def scene():
    scene = Scene()
    yield scene
    scene.routes.clear()
    await scene.decide(10_000, 0.0)


def share(target):
    labels = {"namespace": "team", "route": "chat", "target": target}
    return REGISTRY.get_sample_value("modelyard_route_share", labels)


async def test_a_decision_is_published_and_told_once(scene):
    await scene.decide(2, 0.0)
    assert scene.published == 2
    assert scene.looked_at == [ROUTE]
    assert [target.upstream for target in scene.fleet.table.routes[-1].targets] == [KEY, API]
    await scene.decide(4, 1.0)
    await scene.decide(6, 2.0)
    assert scene.published == 2, "the same decision needs no new table"


async def test_shares_are_metrics_that_go_with_the_route(scene):
    await scene.decide(2, 0.0)
    assert (share(KEY), share(API)) == (1.0, 0.0)
    scene.routes.clear()
    await scene.decide(4, 0.0)
    assert (share(KEY), share(API)) == (None, None)
    assert scene.looked_at[-1] == ROUTE
    assert scene.fleet.routes_plan.routes == {}


async def test_a_deployment_that_is_put_to_sleep_gets_nothing_any_more(scene):
    await scene.decide(2, 0.0)
    plan = scene.fleet.routes_plan.routes[ROUTE]
    assert plan.spilled == 0.0
    scene.fleet.plans[KEY] = DeploymentPlan(KEY, replicas=0)
    await scene.decide(4, 0.0)
    assert scene.fleet.routes_plan.routes[ROUTE].spilled == 1.0
