"""Whatever load, prices and states of replicas there are: what is decided of routes keeps what their specs promise."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api.llmroute import LLMRoute
from modelyard.api.routetargets import RouteTarget
from modelyard.core.choice import VariantPolicy, expected_shape, recall_variants
from modelyard.core.demand import find_shares
from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.replicas import SizeMemory
from modelyard.core.routeplan.decide import decide_routes
from modelyard.core.routeplan.model import RoutesMemory, RoutesPlan
from modelyard.core.routing import RoutingTable, route_name
from modelyard.core.snapshot import GatewayReading, Snapshot
from modelyard.core.state import DeploymentMemory, Policy
from modelyard.gateway.resources import build_resources
from tests.property.strategies import shuffle_snapshot
from tests.property.test_sovereignty import SETTINGS, check_sovereign, fleets, unhurried
from tests.unit.core.build import NOW, make_accelerator

POLICY = Policy()


def remember(fleet: Snapshot) -> dict[str, DeploymentMemory]:
    """Return what is known of each deployment once it has been decided on."""
    memories = {}
    for key, deployment in fleet.deployments.items():
        shape = expected_shape(deployment)
        choice = recall_variants(deployment, fleet, shape, VariantPolicy(), {}, None)
        memories[key] = DeploymentMemory(size=SizeMemory(since=NOW), choice=choice)
    return memories


def play(fleet: Snapshot, rates: list[float], steps: int) -> tuple[RoutesPlan, RoutingTable]:
    """Decide at so many readings, and return the last plan with the table that follows from it."""
    fleet = replace(fleet, accelerators={"l4": make_accelerator()})
    owners = resolve_names(fleet)
    table = build_routing_table(fleet, owners, {}, RoutingTable(), anonymous=not fleet.tenants)
    memory, plan = RoutesMemory(), RoutesPlan()
    memories = remember(fleet)
    for step in range(1, steps + 1):
        arrivals = {
            route.name: 8.0 * step * rates[number % len(rates)] for number, route in enumerate(table.routes)
        }
        snapshot = replace(fleet, reading=GatewayReading(NOW + 8 * step, arrivals=arrivals))
        plan, memory = decide_routes(snapshot, table.routes, memory, memories, NOW + 8 * step, POLICY)
        table = build_routing_table(fleet, owners, {}, table, plan.routes, anonymous=not fleet.tenants)
    return plan, table


rates = st.lists(st.sampled_from((0.0, 0.05, 0.8, 6.0, 40.0)), min_size=1, max_size=4)
steps = st.integers(1, 12)


def qualities(fleet: Snapshot, route: LLMRoute, targets: Iterable[RouteTarget]) -> dict[str, list[str]]:
    """Return the stated qualities of these targets by their keys: several of a target that is named twice."""
    found: dict[str, list[str]] = {}
    for target in targets:
        if target.deployment is not None:
            key, stated = f"{route.metadata.namespace}/{target.deployment}", target.quality
        else:
            provider = fleet.providers.get(target.provider or "")
            models = provider.object.spec.models if provider is not None else ()
            key = f"provider:{target.provider}/{target.model}"
            told = next((model.quality for model in models if model.name == target.model), None)
            stated = target.quality or told
        found.setdefault(key, []).extend([stated] if stated is not None else [])
    return found


@settings(unhurried, max_examples=40)
@given(fleets(), rates, steps, st.randoms(use_true_random=False))
def test_order_never_matters(fleet, rates, steps, random):
    plan, table = play(fleet, rates, steps)
    again, shuffled = play(shuffle_snapshot(fleet, random), rates, steps)
    assert again == plan
    assert shuffled == table
    # To the byte: Envoy is sent what differs.
    assert build_resources(shuffled, SETTINGS).version == build_resources(table, SETTINGS).version


@settings(unhurried, max_examples=150)
@given(fleets(), rates, steps)
def test_no_decision_opens_a_sovereign_route(fleet, rates, steps):
    _, table = play(fleet, rates, steps)
    check_sovereign(fleet, table, build_resources(table, SETTINGS))


@settings(unhurried, max_examples=150)
@given(fleets(), rates, steps)
def test_a_decision_from_before_opens_no_route_that_has_become_sovereign(fleet, rates, steps):
    open_routes = {
        key: route.model_copy(update={"spec": route.spec.model_copy(update={"data_policy": "Any"})})
        for key, route in fleet.routes.items()
    }
    plan, table = play(replace(fleet, routes=open_routes), rates, steps)
    stale = build_routing_table(
        fleet, resolve_names(fleet), {}, table, plan.routes, anonymous=not fleet.tenants
    )
    check_sovereign(fleet, stale, build_resources(stale, SETTINGS))


@settings(unhurried, max_examples=150)
@given(fleets(), rates, steps)
def test_no_decision_uses_a_target_below_the_quality_or_without_a_price(fleet, rates, steps):
    plan, table = play(fleet, rates, steps)
    routes = {route.name: route for route in table.routes}
    for key, route in fleet.routes.items():
        found = routes.get(route_name(key))
        if found is None:
            continue
        parts = [(route.spec.targets, found.targets)]
        parts += [
            (spec.targets, rule.targets)
            for spec, rule in zip(route.spec.rules or (), found.rules, strict=True)
        ]
        listed = [
            (target, qualities(fleet, route, stated))
            for stated, part in parts
            for target in part
            if target.used
        ]
        for target, quality in listed:
            least = route.spec.min_quality
            if least is not None:
                assert any(Decimal(stated) >= Decimal(least) for stated in quality[target.upstream])
            if route.spec.policy == "LowestCost" and target.upstream.startswith("provider:"):
                provider, _, model = target.upstream.removeprefix("provider:").partition("/")
                models = {item.name: item for item in fleet.providers[provider].object.spec.models}
                assert models[model].price is not None
        if route.spec.spill is False and key in plan.routes:
            assert plan.routes[key].spilled == 0


@settings(unhurried, max_examples=150)
@given(fleets(), rates, steps)
def test_all_requests_of_a_route_go_somewhere_and_its_deployments_are_sized_for_what_should_come(
    fleet, rates, steps
):
    plan, table = play(fleet, rates, steps)
    for key, decided in plan.routes.items():
        route = next(item for item in table.routes if item.name == route_name(key))
        if not decided.targets:
            continue
        assert tuple(target for target in route.targets if target.used) == decided.targets
        assert route.priority or sum(target.weight for target in route.targets) > 0
        assert 0 <= decided.spilled <= 1
        assert (decided.spill is not None) == (decided.spilled > 0)
        alone = replace(route, rules=())
        own = [share for found in find_shares((alone,), fleet.deployments).values() for share in found]
        assert sum(share.part for share in own) <= 1 + 1e-9
        if decided.choice is not None and decided.choice.target is not None and decided.choice.target.own:
            assert [share.part for share in own] == [1.0]
