"""How many engine pods a node drain may take at once."""

from typing import Any

from modelyard.render.workload import Workload


def build_disruption_budget(workload: Workload) -> dict[str, Any]:
    """Return the PodDisruptionBudget: one pod at a time, whatever the size.

    A share or a minimum would let a model with one replica block the drain of its node for ever; here the gateway
    holds its requests until the replacement is Ready. Pods that are not Ready (loading, crashing) serve nobody and
    may always go.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": workload.build_metadata(),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": workload.selector},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
