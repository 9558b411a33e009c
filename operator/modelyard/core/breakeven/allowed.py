"""Which targets a route may use at all, and why the others not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelyard.core.breakeven.inputs import DeploymentInput, OwnTarget, ProviderTarget, RouteInput, Target
from modelyard.core.reasons import Code, Reason


@dataclass(frozen=True, slots=True)
class Allowed:
    """The targets of one route."""

    own: tuple[OwnTarget, ...]
    """In the route's order."""
    provider: ProviderTarget | None
    """The cheapest at the route's mix, or the present one while it is not clearly dearer."""
    per_request: float
    """US dollars for the mean request there; 0 without a provider."""
    priced: tuple[tuple[str, float], ...]
    """Every provider that may be used, with US dollars for the mean request, cheapest first."""
    refused: tuple[tuple[Target, Reason], ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is chosen from. Of the providers only the cheapest: what one costs does not depend on other routes."""
        provider = (Target("Provider", self.provider.name),) if self.provider is not None else ()
        return (*(Target("Deployment", item.deployment) for item in self.own), *provider)

    def find(self, target: Target) -> OwnTarget | None:
        """Return a deployment among them."""
        return next((item for item in self.own if target.own and item.deployment == target.name), None)


def sort_targets(
    route: RouteInput,
    deployments: Mapping[str, DeploymentInput],
    present: Target | None = None,
    band: float = 0.0,
    *,
    held: bool = False,
) -> Allowed:
    """Return what a route may use, and why not the rest.

    `present`: where it goes now; a provider stays until another is cheaper by more than this share, or, if
    it is held, whatever another asks.
    """
    refused = dict(_refuse(route, deployments))
    own = tuple(item for item in route.own if Target("Deployment", item.deployment) not in refused)
    priced = sorted(
        (item.price.per_request(route.mix), item.name)
        for item in route.providers
        if item.price is not None and Target("Provider", item.name) not in refused
    )
    stays = [
        (each, name)
        for each, name in priced
        if Target("Provider", name) == present and (held or each <= priced[0][0] * (1 + band))
    ]
    chosen = (stays or priced)[:1]
    return Allowed(
        own=own,
        provider=next((item for each, name in chosen for item in route.providers if item.name == name), None),
        per_request=chosen[0][0] if chosen else 0.0,
        priced=tuple((name, each) for each, name in priced),
        refused=tuple(refused.items()),
    )


def _refuse(route: RouteInput, deployments: Mapping[str, DeploymentInput]) -> Iterator[tuple[Target, Reason]]:
    for own in route.own:
        target = Target("Deployment", own.deployment)
        reason = _refuse_quality(route, own.quality, own.deployment)
        if reason is None and deployments[own.deployment].maximum < 1:
            reason = Reason(
                Code.NOT_RUNNABLE, f"{own.deployment} may not run: end its suspension, or raise max"
            )
        if reason is None and own.capacity <= 0:
            reason = Reason(
                Code.OBJECTIVE_MISSED,
                f"{own.deployment} does not answer the mean request of {route.name} within its objective: relax "
                "scaling.slo, or use faster accelerators",
            )
        if reason is not None:
            yield target, reason
    for provider in route.providers:
        reason = _refuse_quality(route, provider.quality, provider.name)
        if route.sovereign:
            reason = Reason(
                Code.SOVEREIGN,
                f"{route.name} is Sovereign: its requests never go to {provider.name}",
            )
        elif reason is None and provider.price is None:
            reason = Reason(
                Code.PRICE_UNKNOWN,
                f"the price of {provider.name} is not known: state it in the provider's models[].price",
            )
        if reason is not None:
            yield Target("Provider", provider.name), reason


def _refuse_quality(route: RouteInput, quality: float | None, name: str) -> Reason | None:
    least = route.minimum_quality
    if least is None or (quality is not None and quality >= least):
        return None
    has = "is not stated: state it" if quality is None else f"is {quality:g}: use a better model"
    return Reason(
        Code.QUALITY_TOO_LOW,
        f"{route.name} asks for quality {least:g}, and that of {name} {has}, or lower minQuality",
    )
