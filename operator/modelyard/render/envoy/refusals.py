"""What budgets change in Envoy: routes of single tenants, and requests that are answered 429.

A refused request is answered by its route, before it is counted as an arrival or may wake a model. The time from which
on it is worth asking again is sent as a date (RFC 9110, section 10.2.3): a number of seconds would be wrong as soon as
it stands in a configuration.
"""

from email.utils import formatdate

from modelyard.core.routing import Exhausted
from modelyard.render.envoy.errors import EXHAUSTED_STATUS, direct_error
from modelyard.render.envoy.names import TENANT_HEADER
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json

EXHAUSTED_CODE = "insufficient_quota"
"""Code and type of OpenAI's own error where a budget is spent; clients know by it that trying again is no use."""


LIMITED_TYPE, LIMITED_CODE = "rate_limit_error", "rate_limit_exceeded"
"""The same where limits are used up, as the gateway answers tenants beyond theirs."""


def for_tenant(tenant: str, routes: tuple[Json, ...]) -> tuple[Json, ...]:
    """Return the routes for requests of one tenant only."""
    match = {"name": TENANT_HEADER, "string_match": {"exact": tenant}}
    return tuple(
        {**route, "match": {**route["match"], "headers": [*route["match"].get("headers", ()), match]}}
        for route in routes
    )


def refuse_exhausted(exhausted: Exhausted, settings: GatewaySettings) -> Json:
    """Return the route that answers every request with why budgets refuse it."""
    headers = (
        {"retry-after": str(settings.retry_after)}
        if exhausted.until is None
        # OpenAI's clients obey the second header: they would ask twice more for nothing.
        else {
            "retry-after": formatdate(exhausted.until, usegmt=True),
            **({} if exhausted.limited else {"x-should-retry": "false"}),
        }
    )
    kind, code = (LIMITED_TYPE, LIMITED_CODE) if exhausted.limited else (EXHAUSTED_CODE, EXHAUSTED_CODE)
    error = direct_error(EXHAUSTED_STATUS, exhausted.message, kind, code, headers)
    return {"match": {"prefix": "/"}, **error}
