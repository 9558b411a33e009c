"""Who may use a model, and which of its requests go where: what the routes of one model name are made from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from modelyard.core.budget.rules import divide
from modelyard.core.routing import Exhausted, Route, RouteRule, RoutingTable, WeightedTarget, rule_name
from modelyard.render.envoy.errors import direct_error
from modelyard.render.envoy.forwarding import Targets, route_targets
from modelyard.render.envoy.tenants import is_member, is_no_member, rule_group
from modelyard.render.envoy.typed import Json

NOT_ALLOWED = "model_not_allowed"
"""Code of the error of a tenant that may not use the model. OpenAI's API answers 404 there; but a name that exists and
may not be used is mended by other people than a name that is wrong."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Some of a route's requests: those that a rule takes, or those that none takes."""

    counted_as: str
    """Name that their arrivals are counted under."""
    targets: Targets
    rule: RouteRule | None = None
    """What takes them. None: whatever is left."""
    refusal: str | None = None
    """Set: they are refused with 503 and this sentence."""
    exhausted: Exhausted | None = None
    """Set: budgets refuse them with 429."""
    affinity: bool = False
    """Whether a target puts requests that begin alike together."""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """All that the routes of one model name are made from, beside its name."""

    route: Route
    branches: tuple[Branch, ...]
    """The first that a request matches takes it; the last takes all."""
    limited: tuple[tuple[str, tuple[Branch, ...]], ...] = ()
    """Names of tenants whom budgets treat otherwise than everybody else, with branches of their own."""
    users: str | None = None
    """Group of the tenants that may use it. None: everybody."""


def plan_route(route: Route, table: RoutingTable, users: str | None = None) -> RoutePlan:
    """Return what the routes of a model name are made from."""
    rest, named = divide(route)
    limited = tuple((tenant, tuple(_branches(part, table))) for tenant, part in named)
    return RoutePlan(route, tuple(_branches(rest, table)), limited, users)


def _branches(route: Route, table: RoutingTable) -> Iterator[Branch]:
    for number, rule in enumerate(route.rules):
        targets = route_targets(replace(route, targets=rule.targets), table)
        affinity = _affinity(rule.targets, table)
        yield Branch(rule_name(route.name, number), targets, rule, rule.refusal, rule.exhausted, affinity)
    affinity = _affinity(route.targets, table)
    yield Branch(route.name, route_targets(route, table), None, route.refusal, route.exhausted, affinity)


def _affinity(targets: Iterable[WeightedTarget], table: RoutingTable) -> bool:
    upstreams = (table.upstreams.get(target.upstream) for target in targets)
    return any(upstream is not None and upstream.affinity for upstream in upstreams)


def refuse_others(model: str, users: str | None) -> Iterator[Json]:
    """Yield the route that refuses tenants outside a group; none where everybody may use the model."""
    if users is not None:
        message = (
            f"This API key may not use the model `{model}`. Ask those who run the gateway for access to it."
        )
        error = direct_error(403, message, "invalid_request_error", NOT_ALLOWED)
        yield {"match": {"prefix": "/", "headers": [is_no_member(users)]}, **error}


def branch_headers(branch: Branch) -> list[Json]:
    """Return the matches of the requests that a branch takes."""
    rule = branch.rule
    if rule is None:
        return []
    tenants = [is_member(rule_group(rule.tenants))] if rule.tenants else []
    return tenants + [{"name": name, "string_match": {"exact": value}} for name, value in rule.headers]
