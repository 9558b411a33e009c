"""The Deployment of the engine pods."""

from typing import Any

from modelyard.catalog.engines import Image
from modelyard.render.engines.base import EngineAdapter
from modelyard.render.pod import build_pod_template
from modelyard.render.probes import progress_deadline_seconds
from modelyard.render.settings import RenderSettings
from modelyard.render.workload import Workload

_REVISION_HISTORY = 3
"""Old ReplicaSets kept, for a look at what changed; Modelyard itself needs none."""


def build_deployment(
    workload: Workload, engine: EngineAdapter, image: Image, settings: RenderSettings
) -> dict[str, Any]:
    """Return the Deployment of one variant. Without `replicas` in the workload the field is left to its other owner."""
    surge = workload.deployment.spec.rollout.strategy == "Surge"
    spec: dict[str, Any] = {
        "selector": {"matchLabels": workload.variant_selector},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}
            if surge
            else {"maxSurge": 0, "maxUnavailable": 1},
        },
        "progressDeadlineSeconds": progress_deadline_seconds(workload),
        "revisionHistoryLimit": _REVISION_HISTORY,
        "template": build_pod_template(workload, engine, image, settings),
    }
    if workload.replicas is not None:
        spec["replicas"] = workload.replicas
    metadata = workload.build_metadata()
    metadata["name"] = workload.child_name
    metadata["labels"] = {**workload.labels, **workload.variant_selector, **workload.queue_labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
