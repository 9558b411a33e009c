"""The rate limit service: Envoy asks before it answers a tenant that has limits, and tells at the end what was used.

Protocol: https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_filters/rate_limit_filter
"""

from collections.abc import Iterator
from typing import Protocol

import grpc
import grpc.aio

from modelyard.core.limits.account import Quota, Verdict, used_tokens
from modelyard.gateway import protos
from modelyard.render.envoy.limits import DOMAIN, STATUS, TENANT_ENTRY, USED_ENTRY
from modelyard.render.envoy.names import ASKED_HEADER

_SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
_OK, _OVER_LIMIT = 1, 2
"""`RateLimitResponse.Code`."""

_SECOND = 10**9
_MILLISECOND = 10**6
"""Nanoseconds."""

_UNITS = {"requests": "requests per minute", "tokens": "tokens per minute"}


class Limiter(Protocol):
    """Keeps the accounts of tenants."""

    def admit(self, tenant: str) -> Verdict:
        """Decide on a request."""

    def charge(self, tenant: str, tokens: int) -> None:
        """Take what an answer has used."""


def limit_service(limiter: Limiter) -> grpc.GenericRpcHandler:
    """Return the service for a gRPC server."""
    request = protos.message_class("envoy.service.ratelimit.v3.RateLimitRequest")
    response = protos.message_class("envoy.service.ratelimit.v3.RateLimitResponse")

    async def should_rate_limit(
        asked: protos.DynamicMessage, _: grpc.aio.ServicerContext
    ) -> protos.DynamicMessage:
        return _answer(limiter, asked)

    handler = grpc.unary_unary_rpc_method_handler(
        should_rate_limit,
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(_SERVICE, {"ShouldRateLimit": handler})


def _answer(limiter: Limiter, asked: protos.DynamicMessage) -> protos.DynamicMessage:
    response: protos.DynamicMessage = protos.message_class("envoy.service.ratelimit.v3.RateLimitResponse")()
    response.overall_code = _OK
    if asked.domain != DOMAIN:
        return response
    used: dict[str, dict[str, int]] = {}
    for descriptor in asked.descriptors:
        entries = {entry.key: entry.value for entry in descriptor.entries}
        tenant = entries.get(TENANT_ENTRY)
        if tenant is None:
            continue
        if USED_ENTRY in entries:
            used.setdefault(tenant, {})[entries[USED_ENTRY]] = descriptor.hits_addend.value
        else:
            _tell(response, tenant, limiter.admit(tenant))
    for tenant, values in used.items():
        limiter.charge(tenant, used_tokens(values.pop(STATUS, 0), values))
    return response


def _tell(response: protos.DynamicMessage, tenant: str, verdict: Verdict) -> None:
    """Write a verdict into a response, with the headers of OpenAI's API.

    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    response.request_headers_to_add.add(key=ASKED_HEADER, value="true")
    for quota in verdict.quotas:
        response.statuses.add(code=_OVER_LIMIT if quota.kind == verdict.refused_by else _OK)
        for name, value in _headers(quota):
            response.response_headers_to_add.add(key=name, value=value)
    if not verdict.quotas:
        response.statuses.add(code=_OK)
    if verdict.refused_by is not None:
        (quota,) = (quota for quota in verdict.quotas if quota.kind == verdict.refused_by)
        # Rounded up: a client that comes back a moment too early is refused once more.
        after = -(-verdict.wait // _SECOND)
        response.overall_code = _OVER_LIMIT
        response.response_headers_to_add.add(key="retry-after", value=str(after))
        response.raw_body = (
            f"Rate limit reached for tenant {tenant} on {_UNITS[quota.kind]}: limit {quota.limit}. "
            f"Try again in {after} s."
        ).encode()


def _headers(quota: Quota) -> Iterator[tuple[str, str]]:
    yield f"x-ratelimit-limit-{quota.kind}", str(quota.limit)
    yield f"x-ratelimit-remaining-{quota.kind}", str(quota.remaining)
    yield f"x-ratelimit-reset-{quota.kind}", format_duration(quota.reset)


def format_duration(nanoseconds: int) -> str:
    """Return a duration as OpenAI's API writes it: `120ms`, `17s`, `6m0s`; rounded up."""
    if nanoseconds < _SECOND:
        return f"{-(-nanoseconds // _MILLISECOND)}ms"
    minutes, rest = divmod(-(-nanoseconds // _SECOND), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
