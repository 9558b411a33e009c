"""The outside autoscaler of a child Deployment (`actuator: External`): an HPA, or KEDA's ScaledObject.

Both get the decided number of replicas as a metric, with a target of 1 for each replica, so that they ask for just that
number: ceil(metric / 1) (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details).
Neither changes anything while the metric cannot be read: an HPA then leaves the size as it is, and KEDA without a
`fallback` hands it no metric (https://keda.sh/docs/latest/reference/scaledobject-spec/#fallback). So there is no
fallback: a fixed one may be below what runs, and older KEDA refuses `fallback.behavior`, which would avoid that.
"""

from typing import Any, Final

from modelyard.api.scaling import Scaling
from modelyard.core.external import METRIC, ScalerKind
from modelyard.render.settings import RenderSettings
from modelyard.render.workload import Workload

DESIRED_PATH: Final = "/v1/desired-replicas"
"""Where the operator answers with the decided size of `NAMESPACE/NAME`."""
DESIRED_FIELD: Final = "desiredReplicas"
"""The field of that answer."""

POLICY_PERIOD: Final = 15
"""Seconds over which a policy counts changes: the HPA's own sync period, so that every look may change everything."""


def build_autoscaler(
    kind: ScalerKind, workload: Workload, settings: RenderSettings, *, tolerance: bool = False
) -> dict[str, Any]:
    """Return the autoscaler of a deployment; the workload is the one variant that it acts on.

    `tolerance` says that the HPA's tolerance can be set per object (Kubernetes 1.35,
    https://kep.k8s.io/4951): otherwise the cluster's 10 % apply, and a size that differs by less stays.

    Raises ValueError for a deployment without `scaling`.
    """
    scaling = workload.deployment.spec.scaling
    if scaling is None:
        raise ValueError(f"{workload.deployment.key} has no scaling")
    if kind == "ScaledObject":
        return _build_scaled_object(workload, scaling, settings)
    return _build_horizontal(workload, scaling, tolerance=tolerance)


def _build_horizontal(workload: Workload, scaling: Scaling, *, tolerance: bool) -> dict[str, Any]:
    metadata = workload.build_metadata()
    series = {"namespace": metadata["namespace"], "deployment": workload.name}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": _target(workload),
            "minReplicas": max(scaling.lowest_min, 1),
            "maxReplicas": scaling.highest_max,
            "metrics": [
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": METRIC, "selector": {"matchLabels": series}},
                        "target": {"type": "AverageValue", "averageValue": "1"},
                    },
                }
            ],
            "behavior": _follow_at_once(scaling, tolerance=tolerance),
        },
    }


def _build_scaled_object(workload: Workload, scaling: Scaling, settings: RenderSettings) -> dict[str, Any]:
    metadata = workload.build_metadata()
    url = f"{settings.operator_url.rstrip('/')}{DESIRED_PATH}/{metadata['namespace']}/{workload.name}"
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": _target(workload),
            # 1 or more: a sleeping model is woken by the gateway, which KEDA knows nothing of.
            "minReplicaCount": max(scaling.lowest_min, 1),
            "maxReplicaCount": scaling.highest_max,
            "advanced": {
                # What runs stays when the object goes.
                "restoreToOriginalReplicaCount": False,
                "horizontalPodAutoscalerConfig": {"behavior": _follow_at_once(scaling)},
            },
            "triggers": [
                {
                    "type": "metrics-api",
                    "metricType": "AverageValue",
                    "metadata": {"url": url, "valueLocation": DESIRED_FIELD, "targetValue": "1"},
                }
            ],
        },
    }


def _target(workload: Workload) -> dict[str, str]:
    # Both have the scale subresource.
    if workload.nodes > 1:
        return {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "name": workload.child_name,
        }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.child_name}


def _follow_at_once(scaling: Scaling, *, tolerance: bool = False) -> dict[str, Any]:
    """Return a behaviour without windows and rates: the decision has its own, and a second one behind it only delays.

    How much is measured in https://github.com/llm-d/llm-d-autoscaling/issues/777; its follow-up, issue 1352, draws the
    same conclusion.
    """
    rules: dict[str, Any] = {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": scaling.highest_max, "periodSeconds": POLICY_PERIOD}],
    }
    if tolerance:
        rules["tolerance"] = "0"
    return {"scaleUp": rules, "scaleDown": {**rules, "policies": [dict(item) for item in rules["policies"]]}}
