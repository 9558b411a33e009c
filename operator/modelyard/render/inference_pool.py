"""The InferencePool from which an endpoint picker learns the replicas of a deployment."""

from typing import Any

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.render.engines import ENGINES
from modelyard.render.workload import Parent


def build_inference_pool(deployment: LLMDeployment) -> dict[str, Any]:
    """Return the InferencePool. Raises ValueError for a deployment without a picker."""
    picker = deployment.spec.endpoint_picker
    if picker is None:
        raise ValueError(f"{deployment.key} has no endpointPicker")
    parent = Parent(deployment)
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": parent.build_metadata(),
        "spec": {
            "selector": {"matchLabels": parent.serving_selector},
            "targetPorts": [{"number": ENGINES[deployment.spec.engine.name].port}],
            "endpointPickerRef": {
                "name": picker.service,
                "port": {"number": picker.port},
                "failureMode": picker.failure_mode,
            },
        },
    }
