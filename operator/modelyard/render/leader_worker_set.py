"""The LeaderWorkerSet of replicas that span nodes: each is a group of pods that come, fail and go together.

https://lws.sigs.k8s.io/docs/reference/leaderworkerset.v1/
"""

from typing import Any

from modelyard.api.meta import ANNOTATION_DEADLINE
from modelyard.catalog.engines import Image
from modelyard.render.engines.base import EngineAdapter
from modelyard.render.pod import build_pod_template
from modelyard.render.probes import progress_deadline_seconds
from modelyard.render.settings import RenderSettings
from modelyard.render.workload import Workload


def build_leader_worker_set(
    workload: Workload, engine: EngineAdapter, image: Image, settings: RenderSettings
) -> dict[str, Any]:
    """Return the LeaderWorkerSet of one variant.

    Without `replicas` in the workload the field is left to its other owner. The pods of a group get the leader's
    address and their own number from LeaderWorkerSet, in variables.
    """
    surge = workload.deployment.spec.rollout.strategy == "Surge"
    spec: dict[str, Any] = {
        "startupPolicy": "LeaderCreated",
        "networkConfig": {"subdomainPolicy": "Shared"},
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {
                "maxSurge": 1 if surge else 0,
                "maxUnavailable": 0 if surge else 1,
            },
        },
        "leaderWorkerTemplate": {
            "size": workload.nodes,
            # Engines that have lost one of them do not find together again.
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": build_pod_template(workload, engine, image, settings, "Leader"),
            "workerTemplate": build_pod_template(workload, engine, image, settings, "Worker"),
        },
    }
    if workload.replicas is not None:
        spec["replicas"] = workload.replicas
    metadata = workload.build_metadata()
    metadata["name"] = workload.child_name
    metadata["labels"] = {**workload.labels, **workload.variant_selector, **workload.queue_labels}
    metadata["annotations"] = {ANNOTATION_DEADLINE: str(progress_deadline_seconds(workload))}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata,
        "spec": spec,
    }
