"""A route under its budgets: one route for everybody, and one for each tenant that budgets treat otherwise."""

from dataclasses import replace

from modelyard.core.routing import BudgetRule, Route


def divide(route: Route) -> tuple[Route, tuple[tuple[str, Route], ...]]:
    """Return the route for everybody else, and the routes of the tenants that have one of their own."""
    bare = replace(route, budgets=())
    rest, named = bare, []
    for rule in route.budgets:
        if rule.tenant is None:
            rest = _obey(bare, rule)
        else:
            named.append((rule.tenant, _obey(bare, rule)))
    return rest, tuple(named)


def _obey(route: Route, rule: BudgetRule) -> Route:
    targets = tuple(target for target in route.targets if target.upstream not in rule.without)
    if rule.closed or (route.targets and not targets):
        return replace(route, targets=(), exhausted=rule.refusal)
    if rule.order:
        rank = {upstream: place for place, upstream in enumerate(rule.order)}
        targets = tuple(sorted(targets, key=lambda target: rank.get(target.upstream, len(rank))))
        return replace(route, targets=targets, priority=True)
    return replace(route, targets=targets)
