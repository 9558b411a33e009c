"""What budgets refuse, prefer and limit: the strictest of those that are about a request wins.

A budget about requests as a whole closes routes; one that names deployments or providers takes these away from routes,
which are closed where nothing is left. Where it is not known what was spent, providers get no request from routes in
scope, because that money would be gone, and own accelerators serve on, because theirs is spent anyway. A provider's
model without a price is never known.

A provider whose limit per minute is used up is taken away in the same manner, for everybody and for a moment.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

from modelyard.api.llmbudget import BudgetScope, LLMBudget, LLMBudgetSpec
from modelyard.api.meta import ObjectMeta
from modelyard.core.budget.judge import Standing
from modelyard.core.budget.limits import SizeLimit
from modelyard.core.budget.scope import names_deployment, names_every_target, names_route, names_target
from modelyard.core.providerlimits import ReachedLimit
from modelyard.core.routing import EXTERNAL_PREFIX, BudgetRule, Exhausted, Route

SOON = 0.0
"""As the time of a reset: it may be known again any moment."""

_OF = {"Day": "today", "Week": "this week", "Month": "this month"}


@dataclass(frozen=True, slots=True, eq=False)
class Act:
    """What a budget does to routes. The same object as long as that stays the same, whatever is spent meanwhile."""

    budget: LLMBudget
    exhausted: bool
    unknown: bool
    refuses: bool
    prefers: bool
    end: float
    """Unix time at which it resets, where it is exhausted."""
    limit: str = ""
    """Set: it is no budget but a provider's limit per minute that is used up, of which this sentence tells."""

    @property
    def essence(self) -> tuple[object, ...]:
        """What makes two of them alike."""
        how = (self.exhausted, self.unknown, self.refuses, self.prefers, self.limit)
        return (self.budget.spec, *how, self.end)


Branches = tuple[tuple[str, ...], ...]
"""Upstreams of each of a route's rules, and those of the route itself last. Empty names: nobody takes them away."""


class Preference(NamedTuple):
    """What is tried first of a route where a budget wants the cheapest."""

    order: tuple[str, ...] = ()
    """Its upstreams, the cheapest first and those that do not answer last; empty: no budget wants that."""
    tried: tuple[str, ...] = ()
    """Those of them that a few requests go to, to find out whether they answer again."""


_Key = tuple[Branches, frozenset[str], tuple[Act, ...], Preference]


@dataclass(slots=True)
class RuleMemory:
    """What the last table needed: routes change all the time, what budgets make of them hardly ever does."""

    acts: dict[str, Act] = field(default_factory=dict)
    """By name of the budget."""
    rules: dict[_Key, tuple[BudgetRule, ...]] = field(default_factory=dict)
    """By branches, by those of their upstreams that have no price, by the budgets that act on them, and by the order
    of the cheapest."""


def apply_budgets(
    routes: Iterable[Route],
    standings: Sequence[Standing],
    prices: Mapping[str, float],
    by_cost: Collection[str] = (),
    memory: RuleMemory | None = None,
    limits: Iterable[ReachedLimit] = (),
    silent: Collection[str] = (),
    tried: Collection[str] = (),
) -> tuple[Route, ...]:
    """Return the routes with their budget rules; those on which nothing acts are returned as they are.

    `prices`: US dollars for the mean request, by upstream, if known. `by_cost`: names of routes that go where requests
    cost least anyway, for which prices alone would be a step back. `memory`: that of the last call, where it is kept.
    `limits`: those of providers that are used up. `silent`: providers' models that do not answer, which are nowhere
    the cheapest; `tried`: those of them that a few requests go to, to find out whether they answer again.
    """
    routes = tuple(routes)
    memory = RuleMemory() if memory is None else memory
    uncounted = frozenset(
        name
        for route in routes
        for name in route.upstreams
        if name.startswith(EXTERNAL_PREFIX) and name not in prices
    )
    acts = [act for act in (*map(_act, standings), *map(_limit_act, limits)) if _acts(act, uncounted)]
    memory.acts = {act.budget.name: _known(act, memory.acts) for act in acts}
    # Whether a budget acts on a route is the same for all that differ in their tenants.
    alike: dict[object, list[Act]] = {}
    for act in memory.acts.values():
        scope = act.budget.spec.scope.model_copy(update={"tenants": None})
        alike.setdefault((scope, *act.essence[1:-1]), []).append(act)
    groups = [tuple(group) for group in alike.values()]
    rules: dict[_Key, tuple[BudgetRule, ...]] = {}
    found: dict[tuple[Branches, tuple[int, ...], Preference], tuple[BudgetRule, ...]] = {}
    limited = []
    for route in routes:
        prefers = route.name not in by_cost
        places = tuple(
            number
            for number, (first, *_) in enumerate(groups)
            if _concerns(first, route, uncounted, prefers=prefers)
        )
        acting = [groups[place][0] for place in places]
        order = _prefer(route, acting, prices, silent, tried) if prefers else Preference()
        branches = _outline(route, acting, uncounted, order)
        place = (branches, places, order)
        if places and place not in found:
            about = tuple(act for number in places for act in groups[number])
            key = (branches, uncounted.intersection(chain(*branches)), about, order)
            found[place] = rules[key] = memory.rules.get(key) or tuple(
                _rules(branches, about, order, uncounted)
            )
        budgets = found[place] if places else ()
        limited.append(route if route.budgets == budgets else replace(route, budgets=budgets))
    memory.rules = rules
    return tuple(limited)


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


def _act(standing: Standing) -> Act:
    spec = standing.budget.spec
    return Act(
        standing.budget,
        exhausted=standing.exhausted,
        unknown=standing.unknown is not None,
        refuses=spec.hard.action == "Refuse",
        prefers=spec.soft is not None and spec.soft.action == "PreferCheaper" and standing.soft_reached,
        end=standing.period.end if standing.exhausted and standing.period is not None else SOON,
    )


def _limit_act(limit: ReachedLimit) -> Act:
    """Return what a provider's used up limit does: the same as a spent budget about this provider alone."""
    # No object can have this name.
    metadata = ObjectMeta(name=f"(limits of {limit.provider})", namespace="")
    scope = BudgetScope(providers=(limit.provider,))
    budget = LLMBudget(metadata=metadata, spec=LLMBudgetSpec(amount="1", period="Day", scope=scope))
    return Act(
        budget,
        exhausted=True,
        unknown=False,
        refuses=True,
        prefers=False,
        end=float(limit.until),
        limit=limit.sentence,
    )


def _known(act: Act, known: Mapping[str, Act]) -> Act:
    before = known.get(act.budget.name)
    return before if before is not None and before.essence == act.essence else act


def _acts(act: Act, uncounted: Collection[str]) -> bool:
    """Say whether a budget may do something to any route at all."""
    if act.prefers or (act.refuses and (act.exhausted or act.unknown)):
        return True
    return act.refuses and any(names_target(act.budget.spec.scope, name) for name in uncounted)


def _concerns(act: Act, route: Route, uncounted: Collection[str], *, prefers: bool) -> bool:
    """Say whether a budget does something to a route, for anybody."""
    scope = act.budget.spec.scope
    if not names_route(scope, route.name):
        return False
    if _closes(act) or (prefers and _orders(act, route.upstreams)):
        return True
    return any(_takes(act, name, uncounted) for name in route.upstreams)


def _outline(
    route: Route, about: Sequence[Act], uncounted: Collection[str], preference: Preference
) -> Branches:
    """Return all of a route that its rules depend on, so that routes that are alike share them."""
    upstreams = route.upstreams
    kept = {
        name for name in upstreams if preference.order or any(_takes(act, name, uncounted) for act in about)
    }
    parts = (*(rule.targets for rule in route.rules), route.targets)
    names = ((target.upstream for target in targets) for targets in parts)
    return tuple(tuple(name if name in kept else "" for name in part) for part in names)


def _prefer(
    route: Route,
    about: Sequence[Act],
    prices: Mapping[str, float],
    silent: Collection[str],
    tried: Collection[str],
) -> Preference:
    """Return which of a route's upstreams come first, where a budget wants the cheapest."""
    upstreams = route.upstreams
    if not any(_orders(act, upstreams) for act in about):
        return Preference()
    order = sorted(upstreams, key=lambda name: (name in silent, name not in prices, prices.get(name, 0.0)))
    return Preference(tuple(order), tuple(name for name in order if name in tried))


def _rules(
    branches: Branches, about: Sequence[Act], preference: Preference, uncounted: Collection[str]
) -> Iterator[BudgetRule]:
    """Yield the rules of one route: those of tenants whom a budget names, then that of everybody else."""
    everybody = tuple(act for act in about if act.budget.spec.scope.tenants is None)
    own: dict[str, tuple[Act, ...]] = {}
    for act in about:
        for tenant in dict.fromkeys(act.budget.spec.scope.tenants or ()):
            own[tenant] = (*own.get(tenant, ()), act)
    rest = _combine(branches, everybody, preference, uncounted)
    # Tenants under the same budgets are treated alike.
    combined = {
        acts: _combine(branches, (*everybody, *acts), preference, uncounted) for acts in set(own.values())
    }
    for tenant, acts in sorted(own.items(), key=itemgetter(0)):
        if combined[acts] != rest:
            yield replace(combined[acts], tenant=tenant)
    if rest != BudgetRule():
        yield rest


def _combine(
    branches: Branches, about: Sequence[Act], preference: Preference, uncounted: Collection[str]
) -> BudgetRule:
    """Return what all these budgets together make of a route."""
    upstreams = sorted({name for branch in branches for name in branch if name})
    closing = [act for act in about if _closes(act)]
    taken = {name: [act for act in about if _takes(act, name, uncounted)] for name in upstreams}
    if not any(_orders(act, upstreams) for act in about):
        preference = Preference()
    *parts, refusal = (
        _explain(closing, [taken.get(name, []) for name in dict.fromkeys(branch)]) for branch in branches
    )
    return BudgetRule(
        closed=bool(closing),
        without=tuple(name for name, by in taken.items() if by),
        unknown=tuple(
            name
            for name, by in taken.items()
            if by
            and not any(act.exhausted and not act.limit for act in by)
            and not any(name in uncounted and not act.limit for act in by)
        ),
        order=preference.order,
        tried=preference.tried,
        refusal=refusal,
        rule_refusals=() if all(part == refusal for part in parts) else tuple(parts),
    )


def _closes(act: Act) -> bool:
    return act.refuses and act.exhausted and names_every_target(act.budget.spec.scope)


def _orders(act: Act, upstreams: Collection[str]) -> bool:
    return (
        act.prefers
        and len(upstreams) > 1
        and any(names_target(act.budget.spec.scope, name) for name in upstreams)
    )


def _takes(act: Act, upstream: str, uncounted: Collection[str]) -> bool:
    """Say whether a budget with `Refuse` lets this upstream have no request, beside closing the route as a whole."""
    scope = act.budget.spec.scope
    if not act.refuses:
        return False
    if act.exhausted:
        return not names_every_target(scope) and names_target(scope, upstream)
    lost = upstream in uncounted or (act.unknown and upstream.startswith(EXTERNAL_PREFIX))
    return lost and names_target(scope, upstream)


def _explain(closing: Sequence[Act], taken: Sequence[Sequence[Act]]) -> Exhausted | None:
    """Return what a client is told whose requests nothing answers; None: nothing is taken away.

    It may ask again when all have reset that close the route as a whole and, of one of the upstreams that its requests
    may go to, all that take it away.
    """
    involved = {act.budget.name: act for act in (*closing, *(act for by in taken for act in by))}
    if not involved:
        return None
    whole = max((act.end for act in closing), default=SOON)
    part = min((max((act.end for act in by), default=SOON) for by in taken), default=SOON)
    until = max(whole, part)
    message = " ".join(_sentence(act) for _, act in sorted(involved.items()))
    limited = all(act.limit for act in involved.values())
    return Exhausted(message, None if until == SOON else int(until), limited)


def _sentence(act: Act) -> str:
    spec, name = act.budget.spec, act.budget.name
    if act.limit:
        return act.limit
    if not act.exhausted and not act.unknown:
        return f"Budget {name} counts dollars, so a provider whose price nobody states is not used."
    if not act.exhausted:
        return f"What was spent of budget {name} is not known, so no provider is used for now."
    end = datetime.fromtimestamp(act.end, ZoneInfo(spec.time_zone))
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
