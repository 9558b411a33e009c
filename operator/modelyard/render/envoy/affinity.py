"""Requests that begin alike go to the same pod, which still has what it computed for the last one.

Consistent hashing with bounded load (Mirrokni, Thorup, Zadimoghaddam, https://arxiv.org/abs/1608.01350): a hash of
what requests have in common names a place in a table of pods (Maglev), and a pod that has more than its share of the
running requests passes them on. What they have in common is told by the request scan. It travels as state of the
request, not as a header: attempts change the headers, and a second attempt must be hashed as the first one was.
"""

from modelyard.render.envoy.names import AFFINITY_KEY, METADATA
from modelyard.render.envoy.typed import Json, extension, typed

_FILTER = "envoy.filters.http.set_filter_state"

STATE = f"{METADATA}.{AFFINITY_KEY}"
"""Name of the filter state that is hashed."""

BALANCE_FACTOR = 125
"""Percent of the mean number of running requests, by weight, that a pod may have before it passes requests on. As
KubeAI's PrefixHash; lower values move conversations, higher ones let pods queue."""

TABLE_SIZE = 16_381
"""Places in the table, a prime. Of the conversations of pods that stay, a leaving pod moves 0.2 % with 4 pods and 1 %
with 40 (a ring of 4096 places 13 % and 2 %: Envoy puts each pod at more places when there are fewer), and shares are
even to 13 % up to 40 pods. Envoy's default of 65,537 halves both and takes four times as long to fill at each change:
3 ms for 8 pods. With few places for each pod most requests may meet at one
(https://github.com/kubeai-project/kubeai/issues/447)."""


def keep_affinity() -> Json:
    """Return the filter that keeps what the request scan found for the balancer; switched off."""
    config = extension(
        _FILTER,
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        {
            "on_request_headers": [
                {
                    "object_key": STATE,
                    "factory_key": "envoy.hashable_string",
                    "format_string": {
                        "text_format_source": {
                            "inline_string": f"%DYNAMIC_METADATA({METADATA}:{AFFINITY_KEY})%"
                        },
                        "omit_empty_values": True,
                    },
                    "skip_if_empty": True,
                }
            ]
        },
    )
    return {**config, "disabled": True}


def use_affinity() -> Json:
    """Return what switches the filter on for a virtual host."""
    # An empty configuration leaves the listener's in force.
    return {_FILTER: typed("envoy.config.route.v3.FilterConfig", {"config": {}})}


def hash_policy() -> list[Json]:
    """Return what a route hashes. Balancers that do not hash never ask for it."""
    return [{"filter_state": {"key": STATE}}]


def balancer(*, affinity: bool) -> Json:
    """Return the policy by which a cluster chooses among its pods. Both respect unequal weights."""
    if not affinity:
        return _policy(
            "envoy.load_balancing_policies.least_request",
            "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
            # A few pods, long requests: looking at all of them costs nothing and two random ones miss.
            {"selection_method": "FULL_SCAN"},
        )
    return _policy(
        "envoy.load_balancing_policies.maglev",
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
        {
            "table_size": TABLE_SIZE,
            "consistent_hashing_lb_config": {"hash_balance_factor": BALANCE_FACTOR},
        },
    )


def _policy(name: str, message: str, value: Json) -> Json:
    return {"policies": [{"typed_extension_config": extension(name, message, value)}]}
