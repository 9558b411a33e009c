"""The decided sizes, as metrics and as an answer to KEDA."""

from typing import Any

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import split_key
from modelyard.core.plan import DeploymentPlan, Size
from modelyard.render.autoscaler import DESIRED_FIELD
from modelyard.runtime.metrics import DECISIONS, DESIRED_REPLICAS


class SizeBoard:
    """The newest decided size of each deployment with `scaling`. Its series go when the deployment does."""

    def __init__(self) -> None:
        self._sizes: dict[str, Size] = {}
        self._reasons: dict[str, set[str]] = {}

    def publish(self, deployment: LLMDeployment, plan: DeploymentPlan) -> None:
        """Take in a new plan. A deployment whose size nobody decides has no figure, which is not 0."""
        namespace, name = split_key(deployment.key)
        spec = deployment.spec
        if spec.scaling is None or spec.suspend or plan.size is None:
            self._withdraw(deployment.key)
            return
        self._sizes[deployment.key] = plan.size
        DESIRED_REPLICAS.labels(namespace=namespace, deployment=name).set(plan.size.replicas)

    def count(self, key: str, reason: str) -> None:
        """Count a change of size."""
        namespace, name = split_key(key)
        self._reasons.setdefault(key, set()).add(reason)
        DECISIONS.labels(namespace=namespace, deployment=name, reason=reason).inc()

    def find(self, key: str) -> dict[str, Any] | None:
        """Return the decided size as JSON data, None if there is none."""
        size = self._sizes.get(key)
        if size is None:
            return None
        return {
            DESIRED_FIELD: size.replicas,
            "reason": size.reason.code,
            "message": size.reason.message,
            "demandKnown": size.known,
        }

    def forget(self, key: str) -> None:
        """Remove every figure of a deployment that is gone."""
        self._withdraw(key)
        for reason in self._reasons.pop(key, set()):
            DECISIONS.remove(*split_key(key), reason)

    def _withdraw(self, key: str) -> None:
        if self._sizes.pop(key, None) is not None:
            DESIRED_REPLICAS.remove(*split_key(key))
