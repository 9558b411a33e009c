"""The kinds that Modelyard reads and writes, and where the API server keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.api.meta import GROUP, VERSION
from modelyard.core.external import ScalerKind


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind lives."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of a collection, an object or a subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        return "/".join([*parts, *(part for part in (name, subresource) if part)])


LLM_DEPLOYMENTS = Resource(GROUP, VERSION, "llmdeployments", "LLMDeployment")
LLM_ROUTES = Resource(GROUP, VERSION, "llmroutes", "LLMRoute")
LLM_PROVIDERS = Resource(GROUP, VERSION, "llmproviders", "LLMProvider")
LLM_BUDGETS = Resource(GROUP, VERSION, "llmbudgets", "LLMBudget")
LLM_TENANTS = Resource(GROUP, VERSION, "llmtenants", "LLMTenant")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
ACCELERATOR_CLASSES = Resource(GROUP, VERSION, "acceleratorclasses", "AcceleratorClass", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
SERVICES = Resource("", "v1", "services", "Service")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS = Resource("", "v1", "events", "Event")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
HORIZONTAL_POD_AUTOSCALERS = Resource(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"
)
SCALED_OBJECTS = Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")
INFERENCE_POOLS = Resource("inference.networking.k8s.io", "v1", "inferencepools", "InferencePool")
LEADER_WORKER_SETS = Resource("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet")
HTTP_ROUTES = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")

EXTERNAL_METRICS_PATH = "/apis/external.metrics.k8s.io/v1beta1"
"""Discovery of the external metrics API, which a metrics adapter serves
(https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#support-for-metrics-apis)."""

CHILDREN = (SERVICE_ACCOUNTS, NETWORK_POLICIES, SERVICES, DISRUPTION_BUDGETS, DEPLOYMENTS)
"""Kinds of the objects made for each LLMDeployment, in the order in which they are applied: a pod must find its
account and its policy, so the Deployment comes last."""

SCALERS: Mapping[ScalerKind, Resource] = {
    "HorizontalPodAutoscaler": HORIZONTAL_POD_AUTOSCALERS,
    "ScaledObject": SCALED_OBJECTS,
}
"""Autoscalers of `actuator: External`. They are read from time to time and not watched: KEDA may come and go, and a
watch on a kind that is not there ends the process."""

WORKLOADS: Mapping[str, Resource] = {item.kind: item for item in (DEPLOYMENTS, LEADER_WORKER_SETS)}
"""Kinds that run the pods of a variant, by name. LeaderWorkerSets are not watched, for the reason of autoscalers."""

_BY_KIND = {
    (resource.api_version, resource.kind): resource
    for resource in (*CHILDREN, *SCALERS.values(), LEADER_WORKER_SETS)
}


def child_resource(manifest: dict[str, Any]) -> Resource:
    """Return where a child manifest lives."""
    return _BY_KIND[(manifest["apiVersion"], manifest["kind"])]
