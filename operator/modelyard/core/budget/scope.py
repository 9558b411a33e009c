"""What a budget is about: which spend counts, and which requests, targets and deployments it acts on."""

from modelyard.api.llmbudget import BudgetScope
from modelyard.api.meta import split_key
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.core.spend import SpendKey

ROUTE_SUFFIX = "@route"
"""Ends `Route.name` of an LLMRoute; other names are those of deployments and their adapters."""


def counts(scope: BudgetScope, key: SpendKey) -> bool:
    """Say whether what this key spent counts."""
    return (
        (scope.tenants is None or key.tenant in scope.tenants)
        and (scope.namespaces is None or key.namespace in scope.namespaces)
        and _names(scope, key.route)
        and names_target(scope, key.target)
    )


def names_route(scope: BudgetScope, route: str) -> bool:
    """Say whether requests to a route, by `Route.name`, are in scope, whoever sends them."""
    namespace, _ = split_key(route)
    return (scope.namespaces is None or namespace in scope.namespaces) and _names(scope, route)


def names_target(scope: BudgetScope, target: str) -> bool:
    """Say whether a target is in scope: a deployment's key, an adapter's, or `external_key`; empty: not known."""
    if scope.deployments is None and scope.providers is None:
        return True
    if target.startswith(EXTERNAL_PREFIX):
        provider, _ = split_key(target.removeprefix(EXTERNAL_PREFIX))
        return provider in (scope.providers or ())
    return target.partition(":")[0] in (scope.deployments or ())


def names_every_target(scope: BudgetScope) -> bool:
    """Say whether the budget is about requests as a whole, wherever they go."""
    return scope.deployments is None and scope.providers is None


def names_deployment(scope: BudgetScope, key: str) -> bool:
    """Say whether a deployment's size is in scope."""
    namespace, _ = split_key(key)
    return (scope.namespaces is None or namespace in scope.namespaces) and names_target(scope, key)


def _names(scope: BudgetScope, route: str) -> bool:
    """Say whether `routes` leaves a route in: it names LLMRoutes only."""
    if scope.routes is None:
        return True
    return route.endswith(ROUTE_SUFFIX) and route.removesuffix(ROUTE_SUFFIX) in scope.routes
