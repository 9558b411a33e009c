"""Where the requests of every LLMRoute go until the next reading, and what that asks of deployments.

    counters -> load and mean request of each route -> lowest cost (`core.breakeven`) -> spill -> what is asked

Routes whose specs alone say where requests go are left to `build_routing_table`. Pure, as every decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modelyard.api.quantities import parse_duration
from modelyard.core.breakeven.decide import decide_targets
from modelyard.core.breakeven.inputs import RouteLoad
from modelyard.core.breakeven.load import LoadRules, expect_load
from modelyard.core.breakeven.memory import (
    BreakEvenChoice,
    BreakEvenMemory,
    RouteChoice,
    RouteMemory,
    TargetCost,
)
from modelyard.core.breakeven.need import work_of
from modelyard.core.breakeven.spill import PARTS
from modelyard.core.names import unix_time
from modelyard.core.reasons import Reason
from modelyard.core.routeplan.model import OthersWatch, RoutePlan, RoutesMemory, RoutesPlan
from modelyard.core.routeplan.observe import observe_routes, route_lead
from modelyard.core.routeplan.offers import Offer, Senders, find_senders, make_input, make_offer, other_work
from modelyard.core.routeplan.spill import Rooms, Spilled, spill
from modelyard.core.routeplan.views import (
    DeploymentView,
    RouteView,
    find_waiting,
    view_deployment,
    view_routes,
)
from modelyard.core.routing import Route, WeightedTarget
from modelyard.core.snapshot import Asked, Snapshot
from modelyard.core.state import DeploymentMemory, Policy
from modelyard.core.variants import DEFAULT_START_TIME

Chosen = Mapping[str, Sequence[Offer]]
"""Routes that cost sends to a deployment, by its `namespace/name`; one without any is not in it."""


def decide_routes(
    snapshot: Snapshot,
    table: tuple[Route, ...],
    memory: RoutesMemory,
    deployments: Mapping[str, DeploymentMemory],
    now: float,
    policy: Policy,
) -> tuple[RoutesPlan, RoutesMemory]:
    """Return where requests go, what is asked of deployments, and the memory for the next call.

    `table`: the routes that the gateway has; `deployments`: what is remembered of them; `now`: Unix time. Pods of the
    snapshot are those that get requests: a deployment that is being put to sleep has none.
    """
    views = view_routes(snapshot, table)
    if not views:
        return RoutesPlan(), RoutesMemory()
    rules = LoadRules(policy.size.load.forecast, policy.size.load.headroom)
    waiting = find_waiting(snapshot.pods, deployments)
    known = {
        key: view_deployment(key, snapshot, deployments, waiting, expected, now)
        for key, expected in _expected_loads(views, memory, now, rules).items()
    }
    memory = observe_routes(views, known, table, snapshot.reading, memory, rules)
    offers: dict[str, Offer] = {}
    watches = dict(memory.routes)
    for view in views:
        watch = watches[view.key]
        ready = all(known[key].decided for key in view.deployments)
        load = expect_load(watch.load, now, route_lead(view, known), rules) if ready else None
        offers[view.key], watches[view.key] = make_offer(view, watch, load, known, snapshot.deployments)
    memory = replace(memory, routes=watches)
    others = _other_loads(snapshot, known, memory, now, rules)
    senders = find_senders(offers.values())
    data = make_input(offers.values(), senders, known, others)
    recalled = _recall(views, memory.breakeven, now)
    choice, breakeven = decide_targets(data, recalled, now, policy.breakeven)
    memory = replace(memory, breakeven=breakeven)
    chosen = _find_chosen(offers, choice)
    rooms = _measure_rooms(senders, chosen, known, others, policy)
    routes = {key: _plan(offer, choice.routes.get(key), memory, rooms) for key, offer in offers.items()}
    return RoutesPlan(routes, _ask(offers, senders, chosen, choice, memory, others, routes, rooms)), memory


def _expected_loads(
    views: tuple[RouteView, ...], memory: RoutesMemory, now: float, rules: LoadRules
) -> dict[str, float]:
    """Return the requests per second that may come to each deployment at most, as far as is known."""
    expected: dict[str, float] = {}
    for view in views:
        watch = memory.routes.get(view.key)
        load = expect_load(watch.load, now, DEFAULT_START_TIME, rules) if watch is not None else None
        for key in view.deployments:
            expected[key] = expected.get(key, 0.0) + (load.ahead if load is not None else 0.0)
    return expected


def _other_loads(
    snapshot: Snapshot,
    deployments: Mapping[str, DeploymentView],
    memory: RoutesMemory,
    now: float,
    rules: LoadRules,
) -> dict[str, RouteLoad]:
    """Return the load of each deployment that comes through no watched route, where there is any.

    One that has come to rest for `idleAfter` counts as none: a forecast only ever comes near to zero.
    """
    loads: dict[str, RouteLoad] = {}
    for key, view in deployments.items():
        watch, scaling = memory.others[key], snapshot.deployments[key].spec.scaling
        kept = parse_duration(scaling.idle_after) if scaling is not None else 0.0
        load = expect_load(watch.load, now, view.start_time, rules)
        if load is not None and _is_used(watch, now, kept):
            loads[key] = load
    return loads


def _is_used(watch: OthersWatch, now: float, kept: float) -> bool:
    return watch.last_arrival is not None and now - watch.last_arrival < kept


def _recall(views: tuple[RouteView, ...], memory: BreakEvenMemory, now: float) -> BreakEvenMemory:
    """Return the memory; a choice that was made before a restart goes on, as the status tells it."""
    routes = dict(memory.routes)
    for view in views:
        told = view.route.status.choice
        if not view.lowest_cost or view.key in routes or told is None:
            continue
        target = next((item.target for item in view.candidates if item.key == told.target), None)
        if target is not None:
            # One change that is not forgotten: how many there were before is not written down.
            routes[view.key] = RouteMemory(target, since=unix_time(told.since), time=now, unrest=1.0)
    return BreakEvenMemory(routes)


def _find_chosen(offers: Mapping[str, Offer], choice: BreakEvenChoice) -> Chosen:
    """Return the routes whose requests should go to each deployment: it costs least, or may be used for now."""
    chosen: dict[str, list[Offer]] = {}
    for name, found in choice.routes.items():
        key = _stand_in(found, offers[name].view)
        if key in offers[name].own:
            chosen.setdefault(key, []).append(offers[name])
    return chosen


def _stand_in(choice: RouteChoice, view: RouteView) -> str:
    """Return where requests should go now: to the chosen target, or to the next while budgets withhold that."""
    if choice.target is None:
        return ""
    return next((key for key in _order(choice) if key not in view.withheld), choice.target.name)


def _measure_rooms(
    senders: Senders,
    chosen: Chosen,
    deployments: Mapping[str, DeploymentView],
    others: Mapping[str, RouteLoad],
    policy: Policy,
) -> Rooms:
    """Return the present work of each deployment, if all went where it should."""
    rooms = Rooms(deployments, policy.breakeven)
    for key, view in deployments.items():
        work = other_work(view, senders, others, ahead=False)
        for offer in chosen.get(key, ()):
            if offer.load is not None:
                work += work_of(offer.load, offer.load.now, offer.own[key])
        rooms.work[key] = work
    return rooms


def _plan(offer: Offer, choice: RouteChoice | None, memory: RoutesMemory, rooms: Rooms) -> RoutePlan:
    view, known = offer.view, offer.load is not None
    if choice is None:
        wanted, order = view.wanted, tuple(item.key for item in view.candidates)
        spilled = spill(wanted, order, offer.own, offer.load, rooms, view.withheld)
        if not spilled.part:
            # As the spec says, and as it would be without this decision.
            priority = view.route.spec.policy == "Priority"
            targets = tuple(WeightedTarget(item.key, item.weight) for item in view.candidates)
            return RoutePlan(targets, priority, may_spill=True, known=known)
        targets = _weigh(order, spilled.weights, wanted)
        return RoutePlan(targets, False, spilled.part, spilled.reason, may_spill=True, known=known)
    since = memory.breakeven.routes[view.key].since if choice.target is not None else 0.0
    plan = RoutePlan((), may_spill=view.spills, known=known, choice=_tell_closed(choice, view), since=since)
    if choice.target is None:
        # Nothing may be chosen for its cost. What could run goes on as under Priority.
        targets = tuple(WeightedTarget(item.key) for item in view.candidates)
        return replace(plan, targets=targets, priority=True)
    now, order = _stand_in(choice, view), _order(choice)
    wanted, able = {now: 1}, tuple(key for key in order if key not in view.withheld)
    withheld = now != choice.target.name or any(share.target.name in view.withheld for share in choice.shares)
    if now != choice.target.name and plan.choice is not None:
        why = view.withheld[choice.target.name]
        told = f"goes to {now} for now: {why.message}"
        plan = replace(plan, choice=replace(plan.choice, reason=Reason(why.code, told)))
    if withheld and now in offer.own and view.spills:
        spilled = spill(wanted, able, offer.own, offer.load, rooms)
    elif withheld:
        spilled = Spilled({now: PARTS}, 0.0, None)
    elif len(choice.shares) > 1 or choice.shares[0].target != choice.target:
        shares = {share.target.name: round(share.part * PARTS) for share in choice.shares}
        part = 1.0 - sum(share.part for share in choice.shares if share.target == choice.target)
        spilled = Spilled(shares, part, rooms.explain(choice.target.name))
    elif choice.target.own and view.spills:
        # No provider may help; another deployment may.
        spilled = spill(wanted, able, offer.own, offer.load, rooms)
    else:
        spilled = Spilled({choice.target.name: PARTS}, 0.0, None)
    weights = _try_again(spilled.weights, now, choice.target.name, view, rooms)
    targets = _weigh(order, weights, wanted)
    return replace(plan, targets=targets, spilled=spilled.part, spill=spilled.reason)


def _try_again(
    weights: Mapping[str, int], now: str, chosen: str, view: RouteView, rooms: Rooms
) -> Mapping[str, int]:
    """Return the weights with a small part for the chosen target, where it is to be found out whether it answers.

    Only while what answers meanwhile can take those that fail.
    """
    deployment = rooms.deployments.get(now)
    ready = deployment is None or deployment.serving > 0
    if chosen not in view.tried or now == chosen or not ready or weights.get(now, 0) < 2:
        return weights
    return {**weights, now: weights[now] - 1, chosen: weights.get(chosen, 0) + 1}


def _order(choice: RouteChoice) -> tuple[str, ...]:
    """Return the targets of a choice as they are tried: the chosen one, then the others, the cheapest first."""
    able = sorted(
        (cost for cost in choice.costs if cost.hourly is not None and cost.target != choice.target),
        key=lambda cost: (cost.hourly, cost.target),
    )
    first = (choice.target.name,) if choice.target is not None else ()
    return (*first, *(cost.target.name for cost in able))


def _weigh(
    order: tuple[str, ...], weights: Mapping[str, int], wanted: Mapping[str, int]
) -> tuple[WeightedTarget, ...]:
    """Return targets in the order in which they are tried; those without a share stand by."""
    return tuple(
        WeightedTarget(key, weights.get(key, 0), standby=not weights.get(key, 0), wanted=wanted.get(key, 0))
        for key in order
    )


def _tell_closed(choice: RouteChoice, view: RouteView) -> RouteChoice:
    """Return the choice with the targets that could not even be considered."""
    closed = tuple(TargetCost(target, None, refusal=reason) for target, reason in view.closed)
    return replace(choice, costs=(*choice.costs, *closed))


def _ask(
    offers: Mapping[str, Offer],
    senders: Senders,
    chosen: Chosen,
    choice: BreakEvenChoice,
    memory: RoutesMemory,
    others: Mapping[str, RouteLoad],
    plans: Mapping[str, RoutePlan],
    rooms: Rooms,
) -> dict[str, Asked]:
    """Return what is asked of deployments: size by the routes of lowest cost, and whether what they lack waits."""
    users: dict[str, list[str]] = {}
    for name, offer in offers.items():
        for key in offer.own if offer.view.lowest_cost else ():
            users.setdefault(key, []).append(name)
    asked: dict[str, Asked] = {}
    for key in rooms.deployments:
        coming = [*(sender.offer for sender in senders.get(key, ())), *chosen.get(key, ())]
        relieved = key not in others and _is_relieved(key, coming, plans, rooms)
        asked[key] = Asked(relieved=relieved)
        if key not in users:
            continue
        # A route that has no other target adds nothing: that is the size rule's question.
        sized = any(len(_order(choice.routes[offer.view.key])) > 1 for offer in chosen.get(key, ()))
        count = choice.deployments[key].replicas if sized else 0
        released = None if coming else _released_at(key, users[key], choice, memory, others)
        asked[key] = Asked(count, released, relieved)
    return asked


def _is_relieved(key: str, coming: Sequence[Offer], plans: Mapping[str, RoutePlan], rooms: Rooms) -> bool:
    """Say whether what a deployment has no room for goes elsewhere, of every route that should come to it."""
    return rooms.tenths(key) == PARTS or all(plans[offer.view.key].spilled for offer in coming)


def _released_at(
    key: str,
    users: Sequence[str],
    choice: BreakEvenChoice,
    memory: RoutesMemory,
    others: Mapping[str, RouteLoad],
) -> float | None:
    """Return since when nothing is expected at a deployment that no route should send to; None: something is."""
    names = {share.route.partition(":")[0] for share in memory.others[key].shares}
    if not choice.deployments[key].may_sleep or key in others or names - {key}:
        return None
    if any(choice.routes[name].target is None for name in users):
        return None
    return max(memory.breakeven.routes[name].since for name in users)
