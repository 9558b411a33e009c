"""Which held requests can go on, of one deployment whose pods have changed.

The same as `build_routing_table` says of it, without a look at everything else: with thousands of models a whole table
takes longer than a request that waits should.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.names import Exposure, serving_endpoints
from modelyard.core.routing import RoutingTable, Upstream, adapter_key
from modelyard.core.snapshot import Pod
from modelyard.core.targets import adapter_names


def find_released(
    deployment: LLMDeployment, pods: Iterable[Pod], exposure: Exposure, table: RoutingTable
) -> dict[str, Upstream]:
    """Return the upstreams of a deployment, and of its adapters, that have pods now and none in the table.

    None where the table does not know the deployment under its present generation: then a whole table has to come
    first.
    """
    before = table.upstreams.get(deployment.key)
    if before is None or before.endpoints or exposure.asleep or exposure.generation != before.generation:
        return {}
    endpoints = serving_endpoints(pods, exposure.weights)
    if not endpoints:
        return {}
    adapters = (adapter_key(deployment.key, adapter) for adapter in adapter_names(deployment))
    found = (table.upstreams.get(name) for name in (deployment.key, *adapters))
    return {upstream.deployment: replace(upstream, endpoints=endpoints) for upstream in found if upstream}


def keep_released(built: RoutingTable, released: Mapping[str, Upstream]) -> dict[str, Upstream]:
    """Return what a table lacks of upstreams that were released after its snapshot was taken.

    Those of an older generation are over: nobody may be sent there any more.
    """
    return {
        name: replace(known, endpoints=upstream.endpoints)
        for name, upstream in released.items()
        if (known := built.upstreams.get(name)) is not None
        and known.generation == upstream.generation
        and not known.endpoints
    }


def with_upstreams(table: RoutingTable, upstreams: Mapping[str, Upstream]) -> RoutingTable:
    """Return the table with these upstreams in the place of those that it has."""
    return replace(table, upstreams={**table.upstreams, **upstreams})
