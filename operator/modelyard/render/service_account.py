"""The identity of engine pods: one of their own, without any right and without a token."""

from typing import Any

from modelyard.render.workload import Workload


def build_service_account(workload: Workload) -> dict[str, Any]:
    """Return the ServiceAccount."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": workload.build_metadata(),
        "automountServiceAccountToken": False,
    }
