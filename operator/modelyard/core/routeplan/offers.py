"""From routes and deployments to what the break-even is decided from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.breakeven.inputs import (
    BreakEvenInput,
    DeploymentInput,
    OwnTarget,
    ProviderTarget,
    RouteInput,
    RouteLoad,
)
from modelyard.core.breakeven.load import mean_request
from modelyard.core.breakeven.need import Work, work_of
from modelyard.core.choice import expected_shape
from modelyard.core.load import LoadShape
from modelyard.core.routeplan.model import RouteWatch
from modelyard.core.routeplan.views import DeploymentView, RouteView
from modelyard.core.scaling.work import WorkMemory, weigh_request


@dataclass(frozen=True, slots=True)
class Offer:
    """One route with its load, and what its deployments can do for it."""

    view: RouteView
    load: RouteLoad | None
    mix: LoadShape
    own: Mapping[str, OwnTarget]
    """By `namespace/name`."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A route that should send to a deployment whatever anything costs."""

    offer: Offer
    part: float
    """Of the route's requests; above 0, to 1."""


Senders = Mapping[str, Sequence[Sender]]
"""By `namespace/name` of the deployment; one that no such route sends to is not in it."""


def find_senders(offers: Iterable[Offer]) -> dict[str, list[Sender]]:
    """Return the routes that send to each deployment; of those that cost decides on, none.

    Found once for all deployments: a look through all routes for each would take as many steps as there are pairs.
    """
    senders: dict[str, list[Sender]] = {}
    for offer in offers:
        wanted = offer.view.wanted
        total = sum(wanted.values())
        parts: dict[str, float] = {}
        for item in offer.view.candidates:
            # An adapter is answered by its deployment.
            key = item.deployment or item.key
            if key in offer.own and wanted.get(item.key):
                parts[key] = parts.get(key, 0.0) + wanted[item.key] / total
        for key, part in parts.items():
            senders.setdefault(key, []).append(Sender(offer, part))
    return senders


def make_offer(
    view: RouteView,
    watch: RouteWatch,
    load: RouteLoad | None,
    deployments: Mapping[str, DeploymentView],
    objects: Mapping[str, LLMDeployment],
) -> tuple[Offer, RouteWatch]:
    """Return what a route's deployments can do for it, and the memory with what its request is worth at each."""
    keys = view.deployments
    expected = expected_shape(objects[keys[0]]) if keys else LoadShape()
    mix = mean_request(watch.shape, expected)
    # Cost alone asks for it, and cost does not choose among adapters.
    quality = {item.deployment: item.quality for item in view.candidates}
    own: dict[str, OwnTarget] = {}
    weighed: dict[str, WorkMemory] = {}
    for key in keys:
        found, worth = deployments[key], 1.0
        if found.variant is not None:
            known = watch.weighed.get(key, WorkMemory())
            worth, weighed[key] = weigh_request(known, found.variant, found.shape, mix)
        own[key] = OwnTarget(key, found.capacity / worth, quality[key])
    if load is not None and view.refused:
        # It is counted, and nothing has to answer it.
        load = RouteLoad(0.0, 0.0, 0.0)
    return Offer(view, load, mix, own), replace(watch, weighed=weighed)


def make_input(
    offers: Iterable[Offer],
    senders: Senders,
    deployments: Mapping[str, DeploymentView],
    others: Mapping[str, RouteLoad],
) -> BreakEvenInput:
    """Return what the routes of lowest cost are decided from.

    `others`: the load of each deployment that comes through no watched route.
    """
    asking = [offer for offer in offers if offer.view.lowest_cost]
    keys = sorted({key for offer in asking for key in offer.own})
    return BreakEvenInput(
        routes=tuple(_route_input(offer, deployments) for offer in asking),
        deployments=tuple(_deployment_input(deployments[key], senders, others) for key in keys),
    )


def _route_input(offer: Offer, deployments: Mapping[str, DeploymentView]) -> RouteInput:
    view = offer.view
    least = view.route.spec.min_quality
    providers = tuple(
        ProviderTarget(item.key, item.price, item.quality) for item in view.candidates if not item.target.own
    )
    fast = {key for key in offer.own if _is_fast(deployments[key])}
    own = tuple(
        # Money decides among targets that are fast enough; where none is, all of them stay.
        target if key in fast or not (fast or providers) else replace(target, capacity=0.0)
        for key, target in offer.own.items()
    )
    return RouteInput(
        name=view.key,
        mix=offer.mix,
        load=offer.load,
        own=own,
        providers=providers,
        minimum_quality=None if least is None else float(least),
        sovereign=view.sovereign,
        spill=view.route.spec.spill is not False,
    )


def _is_fast(view: DeploymentView) -> bool:
    return view.variant is None or view.variant.meets_objective


def _deployment_input(
    view: DeploymentView, senders: Senders, others: Mapping[str, RouteLoad]
) -> DeploymentInput:
    work = other_work(view, senders, others, ahead=True)
    variant = view.variant
    return DeploymentInput(
        name=view.key,
        price=float(variant.price) if variant is not None and variant.price is not None else None,
        stand_in=view.stand_in,
        minimum=view.minimum,
        maximum=view.maximum,
        billing=variant.accelerator.spec.billing if variant is not None else "PerHour",
        contested=view.contested,
        serving=view.serving,
        present=view.present,
        used=work.mean,
        used_deviation=work.variance**0.5,
        start_time=view.start_time,
        missed=view.missed,
    )


def other_work(
    view: DeploymentView, senders: Senders, others: Mapping[str, RouteLoad], *, ahead: bool
) -> Work:
    """Return the work of a deployment that cost does not decide: names of its own, and routes of other policies.

    `ahead`: one start time from now.
    """
    total = Work()
    load = others.get(view.key)
    if load is not None:
        rate = load.ahead if ahead else load.now
        total += work_of(load, rate, OwnTarget(view.key, view.capacity))
    for sender in senders.get(view.key, ()):
        load = sender.offer.load
        if load is not None:
            rate = sender.part * (load.ahead if ahead else load.now)
            total += work_of(load, rate, sender.offer.own[view.key])
    return total
