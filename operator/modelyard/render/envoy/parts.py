"""The routes of a model name in parts: each follows from a few values, and is built once while these stay the same.

What a budget refuses one tenant is the same part for every model, and a model's other parts do not change with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from modelyard.core.routing import Route, RouteRule
from modelyard.render.envoy.errors import direct_error, direct_json
from modelyard.render.envoy.forwarding import forward, split
from modelyard.render.envoy.limits import unlimited
from modelyard.render.envoy.metering import ARRIVED_KEY
from modelyard.render.envoy.models import model_info_body
from modelyard.render.envoy.names import (
    AFFINITY_KEY,
    METADATA,
    SCANNED_HEADER,
    STREAM_HEADER,
    encode_model,
    encode_stat,
    model_info_key,
    model_key,
)
from modelyard.render.envoy.pickers import ask_picker
from modelyard.render.envoy.refusals import for_tenant, refuse_exhausted
from modelyard.render.envoy.rules import Branch, RoutePlan, branch_headers, refuse_others
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json, on_demand, seconds, typed

ARRIVALS = "modelyard_arrivals"
"""First element of the stat names of the arrival counters."""

_NOBODY = Route("", ())


@dataclass(frozen=True, slots=True)
class BranchPart:
    """The routes of a branch: for one tenant, or for everybody."""

    model: str
    route: Route
    """Without what its branches say."""
    branch: Branch
    tenant: str | None = None

    def render(self, settings: GatewaySettings) -> tuple[Json, ...]:
        """Return the routes."""
        routes = tuple(_branch_routes(self.model, self.route, self.branch, settings))
        return routes if self.tenant is None else for_tenant(self.tenant, routes)


@dataclass(frozen=True, slots=True)
class OthersPart:
    """What refuses those who may not use the model."""

    model: str
    users: str

    def render(self, _settings: GatewaySettings) -> tuple[Json, ...]:
        """Return the routes."""
        return tuple(refuse_others(self.model, self.users))


@dataclass(frozen=True, slots=True)
class InfoPart:
    """The entry in the model list."""

    model: str
    route: Route
    """No more of it than the entry shows."""

    def render(self, _settings: GatewaySettings) -> tuple[Json, ...]:
        """Return the routes."""
        return (reply(200, model_info_body(self.model, self.route)),)


Part = BranchPart | OthersPart | InfoPart


def model_parts(model: str, plan: RoutePlan) -> dict[str, tuple[Part, ...]]:
    """Return the parts of one model name, by the keys of its routes. The first route that matches is taken."""
    route = plan.route
    others = () if plan.users is None else (OthersPart(model, plan.users),)
    bare = replace(
        _NOBODY,
        name=route.name,
        hold_seconds=route.hold_seconds,
        first_token_seconds=route.first_token_seconds,
        request_seconds=route.request_seconds,
    )
    shown = replace(_NOBODY, created=route.created, owner=route.owner)
    return {
        model_key(model): (
            *others,
            *(
                _branch_part(model, bare, branch, tenant)
                for tenant, branches in plan.limited
                for branch in branches
            ),
            *(_branch_part(model, bare, branch) for branch in plan.branches),
        ),
        model_info_key(model): (*others, InfoPart(model, shown)),
    }


def _branch_part(model: str, route: Route, branch: Branch, tenant: str | None = None) -> BranchPart:
    if not _refuses(branch):
        return BranchPart(model, route, branch, tenant)
    # The answer is the same whatever is asked for: of the branch nothing counts but whose requests it takes.
    rule = branch.rule
    kept = None if rule is None else RouteRule((), rule.tenants, rule.headers)
    return BranchPart("", _NOBODY, Branch("", (), kept, exhausted=branch.exhausted), tenant)


def _refuses(branch: Branch) -> bool:
    """Say whether budgets refuse all requests of a branch."""
    return branch.exhausted is not None and branch.refusal is None


def reply(status: int, body: str, headers: Sequence[Json] = ()) -> Json:
    """Return a route that answers every request, or those with these headers."""
    match: Json = {"prefix": "/", "headers": list(headers)} if headers else {"prefix": "/"}
    return {"match": match, **direct_json(status, body)}


def _branch_routes(model: str, route: Route, branch: Branch, settings: GatewaySettings) -> Iterator[Json]:
    """Yield the routes of the requests of a branch: to its targets, or the answer that there are none."""
    headers = branch_headers(branch)
    everything = {"match": {"prefix": "/", "headers": headers}}
    if branch.exhausted is not None and _refuses(branch):
        yield {**refuse_exhausted(branch.exhausted, settings), **everything}
        return
    passing: Json = {
        "metadata": {
            "filter_metadata": {
                METADATA: {
                    "route": encode_stat(route.name),
                    "model": encode_stat(encode_model(model)),
                    ARRIVED_KEY: encode_stat(branch.counted_as),
                },
                # What the request scan reads.
                "envoy.filters.http.lua": {
                    "route": route.name,
                    **({AFFINITY_KEY: True} if branch.affinity else {}),
                },
            }
        },
        "request_body_buffer_limit": settings.max_body_bytes,
        "typed_per_filter_config": {
            "envoy.filters.http.local_ratelimit": _arrival_counter(branch.counted_as),
            "envoy.filters.http.on_demand": typed(
                "envoy.extensions.filters.http.on_demand.v3.PerRouteConfig",
                {"odcds": {"source": on_demand(), "timeout": seconds(route.hold_seconds)}},
            ),
        },
    }
    if branch.refusal is not None or not branch.targets:
        refusal = branch.refusal or "The model has no target."
        error = direct_error(
            503, refusal, "server_error", "model_unavailable", {"retry-after": str(settings.retry_after)}
        )
        filters = {**passing["typed_per_filter_config"], **unlimited()}
        yield {**everything, **passing, **error, "typed_per_filter_config": filters}
        return
    held = passing
    for choice, match in zip(branch.targets, split(branch.targets), strict=True):
        asked = {} if choice.picker is None else ask_picker(choice.picker)
        passing = {**held, "typed_per_filter_config": {**held["typed_per_filter_config"], **asked}}
        if asked:
            # A picker may write the body anew, so what the scan has found need not stand where it was.
            passing["request_headers_to_remove"] = [SCANNED_HEADER]
        if route.first_token_seconds is not None:
            streamed = {"name": STREAM_HEADER, "string_match": {"exact": "true"}}
            action = forward(route, choice, settings, route.first_token_seconds)
            yield {"match": {**match, "headers": [*headers, streamed]}, **passing, **action}
        yield {"match": {**match, "headers": headers}, **passing, **forward(route, choice, settings)}


def _arrival_counter(name: str) -> Json:
    """Return the counter of requests that passed the scan.

    A rate limiter that never limits (nothing is enforced) counts every request it sees, before any hold.
    """
    return typed(
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        {
            "stat_prefix": f"{ARRIVALS}.{encode_stat(name)}",
            "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
            "filter_enabled": {
                "default_value": {"numerator": 100, "denominator": "HUNDRED"},
                "runtime_key": "modelyard.arrivals.enabled",
            },
            "filter_enforced": {
                "default_value": {"numerator": 0, "denominator": "HUNDRED"},
                "runtime_key": "modelyard.arrivals.enforced",
            },
        },
    )
