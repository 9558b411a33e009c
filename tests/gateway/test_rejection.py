"""An Envoy that rejects the routes keeps the old ones, and the routes that changed say so."""

from dataclasses import replace

from modelyard.core.reasons import Code
from modelyard.core.routing import Route, RoutingTable, Upstream, WeightedTarget
from modelyard.gateway import protos
from modelyard.gateway.ads import Node
from modelyard.gateway.resources import ResourceBuilder, Resources
from modelyard.render.envoy.routes import ROUTE_CONFIGURATION
from modelyard.runtime.rollout import PATIENCE, Rollout
from tests.gateway.conftest import until

BEFORE = Route("t/a@route", ("a",), (WeightedTarget("t/a"),))
AFTER = replace(BEFORE, targets=(), refusal="closed")
OTHER = Route("t/b@route", ("b",), (WeightedTarget("t/a"),))


def break_routes(resources: Resources) -> Resources:
    """Return the resources with routes that Envoy refuses: a virtual host without a domain."""
    configuration = protos.message_class("envoy.config.route.v3.RouteConfiguration")()
    configuration.name = ROUTE_CONFIGURATION
    configuration.virtual_hosts.add().name = "nowhere"
    routes = resources.by_type[protos.ROUTES][ROUTE_CONFIGURATION]
    broken = replace(routes, encoded=configuration.SerializeToString(), version="broken")
    by_type = {**resources.by_type, protos.ROUTES: {ROUTE_CONFIGURATION: broken}}
    return replace(resources, by_type=by_type, version="broken")


async def test_a_route_that_an_envoy_rejects_says_so_until_it_is_taken(gateway, make_backend):
    backend = await make_backend()
    upstreams = {"t/a": Upstream("t/a", 0, "a", (backend.endpoint,))}
    rollout, builder = Rollout(), ResourceBuilder(gateway.settings)

    def offer(route: Route, *, spoil: bool) -> str:
        resources = builder.build(RoutingTable((route, OTHER), upstreams, anonymous=True))
        resources = break_routes(resources) if spoil else resources
        rollout.offer((route, OTHER), resources.routes_version)
        gateway.server.set_resources(resources)
        return resources.routes_version

    def node() -> Node:
        return gateway.server.nodes[gateway.envoy.node_id]

    async def ask() -> int:
        return (await gateway.post({"model": "a", "messages": []}))[0]

    good = offer(BEFORE, spoil=False)
    await until(lambda: node().routes == good)
    assert rollout.observe([node()], 0.0) == frozenset()
    assert await ask() == 200

    offer(AFTER, spoil=True)
    await until(lambda: node().routes_rejected)
    assert node().routes == good
    assert rollout.observe([node()], 10.0) == frozenset()
    assert rollout.observe([node()], 10.0 + PATIENCE) == {AFTER.name}
    assert rollout.late[AFTER.name].code == Code.ROUTES_REJECTED
    assert gateway.envoy.node_id in rollout.late[AFTER.name].message
    # And so it is: it sends requests where they went before.
    assert await ask() == 200

    taken = offer(AFTER, spoil=False)
    await until(lambda: node().routes == taken)
    assert not node().routes_rejected
    assert rollout.observe([node()], 100.0) == {AFTER.name}
    assert rollout.late == {}
    assert await ask() == 503
