"""What budgets refuse, prefer and limit: the strictest of those that are about a request wins.

A budget about requests as a whole closes routes; one that names deployments or providers takes these away from routes,
which are closed where nothing is left. Where it is not known what was spent, providers get no request from routes in
scope, because that money would be gone, and own accelerators serve on, because theirs is spent anyway. A provider's
model without a price is never known.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from modelyard.core.budget.judge import Standing
from modelyard.core.budget.limits import SizeLimit
from modelyard.core.budget.scope import names_deployment, names_every_target, names_route, names_target
from modelyard.core.routing import EXTERNAL_PREFIX, BudgetRule, Exhausted, Route

SOON = 0.0
"""As the time of a reset: it may be known again any moment."""

_OF = {"Day": "today", "Week": "this week", "Month": "this month"}


def apply_budgets(
    routes: Iterable[Route],
    standings: Sequence[Standing],
    prices: Mapping[str, float],
    by_cost: Collection[str] = (),
) -> tuple[Route, ...]:
    """Return the routes with their budget rules.

    `prices`: US dollars for the mean request, by upstream, if known. `by_cost`: names of routes that go where requests
    cost least anyway, for which prices alone would be a step back.
    """
    acting = [standing for standing in standings if _refuses(standing) or _prefers(standing)]
    return tuple(
        replace(route, budgets=tuple(_rules(route, acting, prices, prefers=route.name not in by_cost)))
        for route in routes
    )


def limit_sizes(keys: Iterable[str], standings: Sequence[Standing]) -> dict[str, SizeLimit]:
    """Return what soft limits ask of deployments, of those that they are about."""
    acting = [
        standing
        for standing in standings
        if standing.soft_reached
        and standing.budget.spec.soft is not None
        and standing.budget.spec.soft.action != "PreferCheaper"
    ]
    found = {}
    for key in keys:
        about = [item for item in acting if names_deployment(item.budget.spec.scope, key)]
        if about:
            found[key] = _limit(about)
    return found


def _refuses(standing: Standing) -> bool:
    return standing.budget.spec.hard.action == "Refuse"


def _prefers(standing: Standing) -> bool:
    soft = standing.budget.spec.soft
    return soft is not None and soft.action == "PreferCheaper" and standing.soft_reached


def _rules(
    route: Route, acting: Sequence[Standing], prices: Mapping[str, float], *, prefers: bool
) -> Iterator[BudgetRule]:
    """Yield the rules of one route: those of tenants whom a budget names, then that of everybody else."""
    about = [item for item in acting if names_route(item.budget.spec.scope, route.name)]
    named = sorted({tenant for item in about for tenant in item.budget.spec.scope.tenants or ()})
    rest = _combine(
        route, [item for item in about if item.budget.spec.scope.tenants is None], prices, prefers=prefers
    )
    for tenant in named:
        own = [
            item
            for item in about
            if item.budget.spec.scope.tenants is None or tenant in item.budget.spec.scope.tenants
        ]
        rule = _combine(route, own, prices, prefers=prefers)
        if rule != rest:
            yield replace(rule, tenant=tenant)
    if rest != BudgetRule():
        yield rest


def _combine(
    route: Route, about: Sequence[Standing], prices: Mapping[str, float], *, prefers: bool
) -> BudgetRule:
    """Return what all these budgets together make of a route."""
    upstreams = route.upstreams
    refusing = [item for item in about if _refuses(item)]
    closing = [item for item in refusing if item.exhausted and names_every_target(item.budget.spec.scope)]
    taken = {
        name: [item for item in refusing if _takes(item, name, priced=name in prices)] for name in upstreams
    }
    without = tuple(sorted(name for name, by in taken.items() if by))
    order: tuple[str, ...] = ()
    preferring = prefers and any(
        _prefers(item) and any(names_target(item.budget.spec.scope, name) for name in upstreams)
        for item in about
    )
    if preferring and len(upstreams) > 1:
        order = tuple(sorted(upstreams, key=lambda name: (name not in prices, prices.get(name, 0.0))))
    if not closing and not without:
        return BudgetRule(order=order)
    involved = [item for item in refusing if item in closing or any(item in by for by in taken.values())]
    return BudgetRule(
        closed=bool(closing),
        without=without,
        unknown=tuple(
            name for name in without if name in prices and not any(item.exhausted for item in taken[name])
        ),
        order=order,
        refusal=_explain(involved, closing, taken.values()),
    )


def _takes(standing: Standing, upstream: str, *, priced: bool) -> bool:
    """Say whether a budget with `Refuse` lets this upstream have no request, beside closing the route as a whole."""
    scope = standing.budget.spec.scope
    if standing.exhausted:
        return not names_every_target(scope) and names_target(scope, upstream)
    uncounted = standing.unknown is not None or not priced
    return uncounted and upstream.startswith(EXTERNAL_PREFIX) and names_target(scope, upstream)


def _explain(
    involved: Sequence[Standing], closing: Sequence[Standing], taken: Iterable[Sequence[Standing]]
) -> Exhausted:
    """Return what a refused client is told.

    A route opens when all have reset that close it as a whole and, of one of its upstreams, all that take it away.
    """
    whole = max((_reset(item) for item in closing), default=SOON)
    part = min((max((_reset(item) for item in by), default=SOON) for by in taken), default=SOON)
    until = max(whole, part)
    message = " ".join(_sentence(item) for item in sorted(involved, key=lambda item: item.budget.name))
    return Exhausted(message, None if until == SOON else int(until))


def _reset(standing: Standing) -> float:
    return standing.period.end if standing.exhausted and standing.period is not None else SOON


def _sentence(standing: Standing) -> str:
    spec, name = standing.budget.spec, standing.budget.name
    if not standing.exhausted and standing.unknown is None:
        return f"Budget {name} counts dollars, so a provider whose price nobody states is not used."
    if not standing.exhausted or standing.period is None:
        return f"What was spent of budget {name} is not known, so no provider is used for now."
    end = datetime.fromtimestamp(standing.period.end, ZoneInfo(spec.time_zone))
    return f"Budget {name} is spent for {_OF[spec.period]}; it resets at {end.isoformat()}."


def _limit(about: Sequence[Standing]) -> SizeLimit:
    capping, sleeping, shares, grows = [], [], [], True
    for item in about:
        soft = item.budget.spec.soft
        if soft is None:
            continue
        if soft.action == "Sleep":
            sleeping.append(item.budget.name)
            continue
        capping.append(item.budget.name)
        if soft.max_share is None:
            grows = False
        else:
            shares.append(Decimal(soft.max_share))
    return SizeLimit(
        capped_by=", ".join(sorted(capping)),
        max_share=min(shares, default=None),
        grows=grows,
        slept_by=", ".join(sorted(sleeping)),
    )
