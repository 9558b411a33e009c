"""The gateway's counters as the ledger takes them in."""

from collections.abc import Mapping

from modelyard.core.ledger.usage import NodeCounts, Use, lost_use, spend_key, unknown_answers
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.core.spend import OTHER_TENANTS, SpendKey
from modelyard.gateway.counters import TIMED_OUT, Answered, GatewayCounters, sum_attempts

_USED = frozenset({"2xx", "0xx", TIMED_OUT})
"""Ends of requests that use something: answered well, left by the client, or given up after they were sent."""


def count_use(counters: GatewayCounters, time: float) -> NodeCounts:
    """Return what one Envoy counted, by who used what. Requests that reached no target are left out.

    What a provider may bill although nothing came back is charged by estimate: requests whose time ended to their
    tenants, attempts that were lost before another target answered to nobody's name.
    """
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
    uses = {key: Use(*values) for key, values in sums.items()}
    for (answered, code), value in counters.requests.items():
        if code == TIMED_OUT and answered.route and answered.deployment.startswith(EXTERNAL_PREFIX):
            key = spend_key(answered.tenant, answered.route, answered.deployment)
            uses[key] += unknown_answers(value)
    for target, attempts in sum_attempts(counters).items():
        if attempts.lost:
            uses[SpendKey(OTHER_TENANTS, target=target)] = lost_use(attempts.lost)
    return NodeCounts(time, counters.uptime, uses)


def _answered(requests: Mapping[tuple[Answered, str], int]) -> dict[Answered, int]:
    found: dict[Answered, int] = {}
    for (answered, code), value in requests.items():
        if code in _USED:
            found[answered] = found.get(answered, 0) + value
    return found
