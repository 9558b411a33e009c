"""A route of the gateway's table, under what was decided about its targets."""

from collections.abc import Mapping
from dataclasses import replace

from modelyard.api.llmroute import LLMRoute
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.routing import Route, Upstream, WeightedTarget


def follow_plan(
    made: Route, route: LLMRoute, plan: RoutePlan | None, upstreams: Mapping[str, Upstream]
) -> Route:
    """Return a route as its spec makes it, with the targets that were decided.

    What was decided for other targets than may be used now does not count.
    """
    lowest = route.spec.policy == "LowestCost"
    planned = (
        {target.upstream: place for place, target in enumerate(plan.targets)} if plan is not None else {}
    )
    if plan is None or not planned.keys() <= {target.upstream for target in made.targets}:
        return (
            replace(made, targets=_before_choice(route, made.targets, upstreams), priority=True)
            if lowest
            else made
        )
    # Those that were not chosen stay in the list, for budgets to see, and get nothing.
    rest = (target for target in made.targets if target.upstream not in planned)
    targets = (*plan.targets, *(WeightedTarget(target.upstream, 0) for target in rest))
    rules = made.rules
    if lowest:
        # What a rule takes goes where it costs the route least, of the rule's own targets.
        rules = tuple(
            replace(
                rule,
                targets=_first_only(
                    tuple(sorted(rule.targets, key=lambda item: planned.get(item.upstream, len(planned))))
                ),
            )
            for rule in rules
        )
    elif made.priority and not plan.priority:
        rules = tuple(replace(rule, targets=_first_only(rule.targets)) for rule in rules)
    return replace(made, targets=targets, rules=rules, priority=plan.priority)


def _first_only(targets: tuple[WeightedTarget, ...]) -> tuple[WeightedTarget, ...]:
    """Return targets of which the first gets all requests, and the others those that fail."""
    return tuple(
        WeightedTarget(target.upstream, 1)
        if number == 0
        else WeightedTarget(target.upstream, 0, standby=True)
        for number, target in enumerate(targets)
    )


def _before_choice(
    route: LLMRoute, targets: tuple[WeightedTarget, ...], upstreams: Mapping[str, Upstream]
) -> tuple[WeightedTarget, ...]:
    """Return the targets of a route of lowest cost in the order in which they are tried before it has been decided on.

    What answers at once goes first: of that, where requests went before a restart, and then what is there in any case.
    """
    told = route.status.choice.target if route.status.choice is not None else ""

    def rank(target: WeightedTarget) -> tuple[bool, bool, bool]:
        upstream = upstreams.get(target.upstream)
        waits = upstream is not None and not upstream.endpoints
        return waits, target.upstream != told, upstream is None

    return tuple(sorted(targets, key=rank))
