"""A route under its budgets: one route for everybody, and one for each tenant that budgets treat otherwise."""

from dataclasses import replace

from modelyard.core.routing import BudgetRule, Route, RouteRule, WeightedTarget


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
    if rule.closed:
        return replace(route, targets=(), rules=(), exhausted=rule.refusal)
    targets = _obey_targets(route.targets, rule)
    return replace(
        route,
        targets=targets,
        rules=tuple(_obey_part(part, rule) for part in route.rules),
        priority=route.priority or bool(rule.order),
        exhausted=rule.refusal if route.targets and not targets else None,
    )


def _obey_part(part: RouteRule, rule: BudgetRule) -> RouteRule:
    targets = _obey_targets(part.targets, rule)
    return replace(part, targets=targets, exhausted=rule.refusal if part.targets and not targets else None)


def _obey_targets(targets: tuple[WeightedTarget, ...], rule: BudgetRule) -> tuple[WeightedTarget, ...]:
    """Return the targets that are left, in the order that budgets want."""
    left = tuple(target for target in targets if target.upstream not in rule.without)
    rank = {upstream: place for place, upstream in enumerate(rule.order)}
    left = tuple(sorted(left, key=lambda target: rank.get(target.upstream, len(rank)))) if rank else left
    after = next((target for target in left if target.standby), None)
    if after is None or any(target.weight for target in left):
        return left
    # Those are gone that get requests first: the next that stands by takes their place.
    promoted = replace(after, weight=1, standby=False, wanted=None)
    return tuple(promoted if target is after else target for target in left)
