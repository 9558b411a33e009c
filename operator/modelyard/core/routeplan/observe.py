"""What the gateway's counters say of routes: arrivals, the mean request, and what else deployments have to do."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from modelyard.core.breakeven.load import LoadRules, count_arrivals
from modelyard.core.demand import Share, find_shares
from modelyard.core.routeplan.model import OthersWatch, RoutesMemory, RouteWatch
from modelyard.core.routeplan.views import DeploymentView, RouteView
from modelyard.core.routing import Route, route_name
from modelyard.core.shape import ShapeSample, add_sample
from modelyard.core.snapshot import GatewayReading
from modelyard.core.variants import DEFAULT_START_TIME


def observe_routes(
    views: Iterable[RouteView],
    deployments: Mapping[str, DeploymentView],
    table: tuple[Route, ...],
    reading: GatewayReading | None,
    memory: RoutesMemory,
    rules: LoadRules,
) -> RoutesMemory:
    """Return the memory with a reading taken in, of these routes and deployments and no others."""
    watched = {view.key: view for view in views}
    names = {route_name(key) for key in watched}
    # What a rule of a watched route takes is counted by itself, and belongs to the others.
    unwatched = tuple(replace(route, targets=()) if route.name in names else route for route in table)
    shares = find_shares(unwatched, deployments)
    routes = {key: memory.routes.get(key, RouteWatch()) for key in watched}
    others = {key: memory.others.get(key, OthersWatch()) for key in deployments}
    if reading is not None:
        routes = {
            key: _observe_route(found, watched[key], deployments, reading, rules)
            for key, found in routes.items()
        }
        others = {
            key: _observe_others(found, shares[key], deployments[key].start_time, reading, rules)
            for key, found in others.items()
        }
    return replace(memory, routes=routes, others=others)


def _observe_route(
    watch: RouteWatch,
    view: RouteView,
    deployments: Mapping[str, DeploymentView],
    reading: GatewayReading,
    rules: LoadRules,
) -> RouteWatch:
    name = route_name(view.key)
    lead = route_lead(view, deployments)
    load = count_arrivals(watch.load, reading.time, reading.arrivals.get(name, 0.0), lead, rules)
    sample = ShapeSample(
        reading.time,
        reading.route_answers.get(name, 0.0),
        reading.route_input_tokens.get(name, 0.0),
        reading.route_output_tokens.get(name, 0.0),
        reading.route_cached_tokens.get(name, 0.0),
    )
    return replace(watch, load=load, shape=add_sample(watch.shape, sample))


def _observe_others(
    watch: OthersWatch, shares: tuple[Share, ...], lead: float, reading: GatewayReading, rules: LoadRules
) -> OthersWatch:
    if shares != watch.shares:
        # Other routes than before: the sum moves by requests that nobody sent.
        watch = replace(watch, shares=shares, load=replace(watch.load, last=None, counted=None))
    total = sum(reading.arrivals.get(share.route, 0.0) * share.part for share in shares)
    before = watch.load.last
    come = before is not None and reading.time > before.time and total > before.total
    return replace(
        watch,
        load=count_arrivals(watch.load, reading.time, total, lead, rules),
        last_arrival=reading.time if come else watch.last_arrival,
    )


def route_lead(view: RouteView, deployments: Mapping[str, DeploymentView]) -> float:
    """Return the seconds ahead for which a route's load is forecast: the longest start of its deployments."""
    return max(
        (deployments[key].start_time for key in view.deployments if key in deployments),
        default=DEFAULT_START_TIME,
    )
