"""A route under its budgets: one route for everybody, and one for each tenant that budgets treat otherwise."""

from collections.abc import Iterator
from dataclasses import replace

from modelyard.core.routing import BudgetRule, Exhausted, Route, RouteRule, WeightedTarget

TRIAL_PARTS = 10
"""One request in so many goes to a target that is tried, as where it is planned (`core.breakeven.spill.PARTS`)."""


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
        # Where rules open at another time than the rest, they stay apart.
        closed = zip(route.rules, rule.rule_refusals, strict=False)
        rules = tuple(replace(part, targets=(), refusal=None, exhausted=refusal) for part, refusal in closed)
        return replace(route, targets=(), rules=rules, exhausted=rule.refusal)
    refusals = rule.rule_refusals or (rule.refusal,) * len(route.rules)
    targets = _obey_targets(route.targets, rule)
    return replace(
        route,
        targets=targets,
        rules=tuple(
            _obey_part(part, rule, refusal) for part, refusal in zip(route.rules, refusals, strict=True)
        ),
        exhausted=rule.refusal if route.targets and not targets else None,
    )


def _obey_part(part: RouteRule, rule: BudgetRule, refusal: Exhausted | None) -> RouteRule:
    targets = _obey_targets(part.targets, rule)
    return replace(part, targets=targets, exhausted=refusal if part.targets and not targets else None)


def _obey_targets(targets: tuple[WeightedTarget, ...], rule: BudgetRule) -> tuple[WeightedTarget, ...]:
    """Return the targets that are left, in the order that budgets want.

    Those without a weight may be used as well, but were not chosen.
    """
    left = tuple(target for target in targets if target.upstream not in rule.without)
    if not any(target.weight for target in targets):
        return left
    if rule.order:
        left = _prefer(left, rule.order, rule.tried)
    if any(target.weight for target in left):
        return left
    # Those are gone that get requests first: what stands by takes their place, or else what was not chosen.
    after = next((target for target in left if target.standby), next(iter(left), None))
    return tuple(_use(target) if target is after else target for target in left)


def _prefer(
    targets: tuple[WeightedTarget, ...], order: tuple[str, ...], tried: tuple[str, ...]
) -> tuple[WeightedTarget, ...]:
    """Return targets of which the cheapest gets what all of them got, and the others stand by in the order of cost.

    Only those that were chosen take part: what sleeps, or was left out for another reason, is not asked for its price.
    A target that gets less than it should have, because its replicas are missing, gets no more than that; what it
    should have stays, so that its size goes on to follow. Those that are tried get one request in ten at most, and no
    more than before.
    """
    rank = {upstream: place for place, upstream in enumerate(order)}
    chosen = sorted(
        (target for target in targets if target.weight),
        key=lambda target: rank.get(target.upstream, len(rank)),
    )
    short = {target.upstream for target in _short(targets)}
    total = sum(target.weight for target in chosen)
    trials = {
        target.upstream: min(target.weight, max(total // TRIAL_PARTS, 1))
        for target in chosen
        if target.upstream in tried and target is not chosen[0]
    }
    left = total - sum(trials.values())
    preferred = []
    for target in chosen:
        weight = trials.get(target.upstream)
        if weight is None:
            weight = min(target.weight, left) if target.upstream in short else left
            left -= weight
        preferred.append(replace(target, weight=weight, standby=not weight))
    if left:
        # Nobody else has room for it. Not all targets get less than they should.
        place = next(
            number
            for number, target in enumerate(preferred)
            if target.upstream in trials and target.upstream not in short
        )
        preferred[place] = replace(preferred[place], weight=preferred[place].weight + left)
    return (*preferred, *(target for target in targets if not target.weight))


def _short(targets: tuple[WeightedTarget, ...]) -> Iterator[WeightedTarget]:
    """Yield the targets whose share is below what they should have."""
    weights = sum(target.weight for target in targets)
    wanted = sum(target.wanted or 0 for target in targets)
    for target in targets:
        if target.wanted and target.weight * wanted < target.wanted * weights:
            yield target


def _use(target: WeightedTarget) -> WeightedTarget:
    return replace(target, weight=max(target.weight, 1), standby=False, wanted=None)
