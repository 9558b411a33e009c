"""The gateway's counters as the ledger takes them in."""

from collections.abc import Mapping

from modelyard.core.ledger.usage import NodeCounts, Use, spend_key
from modelyard.core.spend import SpendKey
from modelyard.gateway.counters import Answered, GatewayCounters

_USED = frozenset({"2xx", "0xx"})
"""Ends of requests that use something: answered well, or left by the client."""


def count_use(counters: GatewayCounters, time: float) -> NodeCounts:
    """Return what one Envoy counted, by who used what. Requests that reached no target are left out."""
    columns: list[Mapping[Answered, int]] = [
        _answered(counters.requests),
        counters.prompt_tokens,
        counters.cached_tokens,
        counters.completion_tokens,
        counters.estimated_requests,
        counters.estimated_prompt_tokens,
        counters.estimated_completion_tokens,
    ]
    sums: dict[SpendKey, list[int]] = {}
    for number, column in enumerate(columns):
        for answered, value in column.items():
            if answered.deployment and answered.route:
                key = spend_key(answered.tenant, answered.route, answered.deployment)
                sums.setdefault(key, [0] * len(columns))[number] += value
    return NodeCounts(time, counters.uptime, {key: Use(*values) for key, values in sums.items()})


def _answered(requests: Mapping[tuple[Answered, str], int]) -> dict[Answered, int]:
    found: dict[Answered, int] = {}
    for (answered, code), value in requests.items():
        if code in _USED:
            found[answered] = found.get(answered, 0) + value
    return found
