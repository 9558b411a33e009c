"""Which targets of an LLMRoute may get requests, and why the others may not.

A sovereign route is refused a provider here once more, whatever the API server let in: this is where the table is
made from which the gateway is configured.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from urllib.parse import urlsplit

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import ProviderModel
from modelyard.api.llmroute import LLMRoute
from modelyard.api.routetargets import RouteTarget
from modelyard.core.reasons import Code, Reason
from modelyard.core.routing import ExternalUpstream, WeightedTarget, adapter_key
from modelyard.core.snapshot import Provider, Snapshot

HTTPS_PORT = 443
"""Port of `https` URLs that name none (RFC 9110, section 4.2.2)."""


@dataclass(frozen=True, slots=True)
class JudgedTarget:
    """A target of a route, and what becomes of it."""

    target: WeightedTarget | None = None
    """None: it gets no requests."""
    external: ExternalUpstream | None = None
    """Set for a provider's model that gets requests."""
    closed: Reason | None = None
    """Why it gets no requests; None also for a weight of 0."""


@dataclass(frozen=True, slots=True)
class JudgedRoute:
    """All targets of a route, and what becomes of them."""

    targets: tuple[JudgedTarget, ...]
    rules: tuple[tuple[JudgedTarget, ...], ...] = ()
    """Those of each rule."""

    @property
    def every(self) -> Iterator[JudgedTarget]:
        """The route's own, and those of its rules."""
        return chain(self.targets, *self.rules)


def judge_route(route: LLMRoute, snapshot: Snapshot, *, sovereign: bool) -> JudgedRoute:
    """Return the route's targets and those of its rules, in their order.

    `sovereign`: the route's name is one of `sovereign_names`. Quality and policy hold in rules as everywhere.
    """
    if (error := snapshot.invalid.get(route.key)) is not None:
        return JudgedRoute((_closed(Code.INVALID, explain_invalid(route.key, error)),))

    def judge(targets: Iterable[RouteTarget]) -> tuple[JudgedTarget, ...]:
        return tuple(
            _judge_provider(target, target.provider, route, snapshot, sovereign=sovereign)
            if target.provider is not None
            else _judge_deployment(target, route, snapshot)
            for target in targets
        )

    return JudgedRoute(
        judge(route.spec.targets), tuple(judge(rule.targets) for rule in route.spec.rules or ())
    )


def explain_invalid(key: str, error: str) -> str:
    """Return what is wrong with a route that cannot be read."""
    return f"LLMRoute {key} cannot be read: {error}; correct it"


def adapter_names(deployment: LLMDeployment) -> tuple[str, ...]:
    """Return the names of a deployment's adapters, sorted; one that is called as the model itself has none."""
    names = {adapter.name for adapter in deployment.spec.model.adapters}
    return tuple(sorted(names - {deployment.served_name, deployment.key}))


def explain_closed(deployment: LLMDeployment) -> Reason | None:
    """Return why no request can ever wake the deployment, or None if one can."""
    if deployment.spec.suspend:
        return Reason(Code.SUSPENDED, f"model {deployment.served_name} is suspended")
    if deployment.spec.replicas == 0:
        return Reason(Code.SCALED_TO_ZERO, f"model {deployment.served_name} is switched off (replicas: 0)")
    return None


def _judge_deployment(target: RouteTarget, route: LLMRoute, snapshot: Snapshot) -> JudgedTarget:
    key = f"{route.metadata.namespace}/{target.deployment}"
    deployment = snapshot.deployments.get(key)
    if deployment is None:
        return _closed(Code.TARGET_NOT_FOUND, f"LLMDeployment {key} does not exist")
    shown, upstream = f"LLMDeployment {key}", key
    if target.adapter is not None:
        if target.adapter not in adapter_names(deployment):
            return _closed(
                Code.TARGET_NOT_FOUND,
                f"{shown} has no adapter {target.adapter}: add it to its model.adapters, or correct the target",
            )
        shown, upstream = f"adapter {target.adapter} of {shown}", adapter_key(key, target.adapter)
    if target.weight == 0:
        return JudgedTarget()
    low = _explain_quality(shown, target.quality, route.spec.min_quality)
    if (reason := low or explain_closed(deployment)) is not None:
        return JudgedTarget(closed=reason)
    return JudgedTarget(WeightedTarget(upstream, target.weight))


def _judge_provider(
    target: RouteTarget, name: str, route: LLMRoute, snapshot: Snapshot, *, sovereign: bool
) -> JudgedTarget:
    if sovereign:
        return _closed(
            Code.DATA_POLICY_VIOLATED,
            f"dataPolicy Sovereign of model {route.spec.model} in namespace {route.metadata.namespace}: provider "
            f"{name} gets no request; remove it from targets",
        )
    provider = snapshot.providers.get(name)
    if provider is None:
        return _closed(
            Code.TARGET_NOT_FOUND, f"LLMProvider {name} does not exist in the namespace of the gateway"
        )
    model = find_model(provider, target.model or "")
    if model is None:
        return _closed(Code.TARGET_NOT_FOUND, f"LLMProvider {name} has no model {target.model}")
    if target.weight == 0:
        return JudgedTarget()
    shown = f"model {model.name} of LLMProvider {name}"
    low = _explain_quality(shown, target.quality or model.quality, route.spec.min_quality)
    if low is not None:
        return JudgedTarget(closed=low)
    if route.spec.policy == "LowestCost" and model.price is None:
        message = (
            f"{shown} has no price, so that its cost is not known: state it in the provider's models[].price"
        )
        return _closed(Code.PRICE_UNKNOWN, message)
    if provider.refusal is not None:
        return _closed(
            Code.PROVIDER_NOT_READY, f"LLMProvider {name} cannot be used: {provider.refusal.message}"
        )
    upstream = _external_upstream(provider, model.name)
    return JudgedTarget(WeightedTarget(upstream.cluster, target.weight), external=upstream)


def _explain_quality(shown: str, quality: str | None, least: str | None) -> Reason | None:
    if least is None or (quality is not None and Decimal(quality) >= Decimal(least)):
        return None
    found = "has no quality" if quality is None else f"has quality {quality}"
    return Reason(Code.QUALITY_TOO_LOW, f"{shown} {found}, and minQuality is {least}")


def _closed(code: str, message: str) -> JudgedTarget:
    return JudgedTarget(closed=Reason(code, message))


def find_model(provider: Provider, name: str) -> ProviderModel | None:
    """Return the provider's model of that name."""
    return next((model for model in provider.object.spec.models if model.name == name), None)


def _external_upstream(provider: Provider, model: str) -> ExternalUpstream:
    """Return where requests for one of the provider's models go."""
    spec = provider.object.spec
    url = urlsplit(spec.base_url)
    return ExternalUpstream(
        provider=provider.object.name,
        model=model,
        host=url.hostname or "",
        port=url.port or HTTPS_PORT,
        path=url.path.rstrip("/"),
        keyed=spec.secret_ref is not None,
        asks_usage=spec.stream_usage == "OnRequest",
        trust=provider.trust,
    )
