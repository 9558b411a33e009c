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
    """Return the targets that are left, in the order that budgets want.

    Those without a weight may be used as well, but were not chosen.
    """
    left = tuple(target for target in targets if target.upstream not in rule.without)
    if not any(target.weight for target in targets):
        return left
    if rule.order:
        rank = {upstream: place for place, upstream in enumerate(rule.order)}
        ordered = sorted(left, key=lambda target: rank.get(target.upstream, len(rank)))
        return tuple(_use(target) for target in ordered)
    if any(target.weight for target in left):
        return left
    # Those are gone that get requests first: what stands by takes their place, or else what was not chosen.
    after = next((target for target in left if target.standby), next(iter(left), None))
    return tuple(_use(target) if target is after else target for target in left)


def _use(target: WeightedTarget) -> WeightedTarget:
    return replace(target, weight=max(target.weight, 1), standby=False, wanted=None)
