"""Endpoint pickers: where a deployment's is, who goes round it, and what is told of it and of its InferencePool."""

from collections.abc import Collection
from typing import Literal

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.reasons import Code, Reason
from modelyard.core.routing import Picker

PICKER_ANSWERS = "EndpointPickerAnswers"
POOL_READY = "InferencePoolReady"

PoolState = Literal["Unknown", "Missing", "Forbidden", "Refused", "Taken", "Applied"]
"""What is known of a deployment's InferencePool."""


def find_picker(deployment: LLMDeployment, domain: str = "") -> Picker | None:
    """Return the picker that a deployment names.

    `domain` is the cluster's DNS domain. A name that ends with it and a dot is looked up as it is: without them the
    search list of a pod comes first, where `picker.team.svc` may be the pod `picker` of Service `team` in a namespace
    that is called `svc`. Empty: it is not known, as outside a cluster.
    """
    spec = deployment.spec.endpoint_picker
    if spec is None:
        return None
    # Nothing but a name of its own namespace. What that leads to is up to who may write Services there.
    name = f"{spec.service}.{deployment.metadata.namespace}.svc"
    return Picker(f"{name}.{domain}." if domain else name, spec.port)


def asks_picker(deployment: LLMDeployment, silent: Collection[str]) -> bool:
    """Return whether requests wait for the picker, if there is one. `silent`: those whose picker does not answer."""
    spec = deployment.spec.endpoint_picker
    return spec is None or spec.failure_mode == "FailClose" or deployment.key not in silent


def explain_picker(
    deployment: LLMDeployment, silent: Collection[str], *, sovereign: bool = False
) -> tuple[bool, Reason]:
    """Return whether the picker of a deployment can be reached, and what happens where not.

    `sovereign`: whether a sovereign name sends requests to the deployment. Raises ValueError for one without a picker.
    """
    spec = deployment.spec.endpoint_picker
    if spec is None:
        raise ValueError(f"{deployment.key} has no endpointPicker")
    where = f"Service {spec.service} port {spec.port}"
    if sovereign:
        return False, Reason(
            Code.PICKER_NOT_ASKED,
            f"a route with dataPolicy Sovereign sends requests here, and {where} may lead out of the cluster: it sees "
            "none of them, and they go where loadBalancing sends them; take endpointPicker out, or the deployment out "
            "of the route",
        )
    if deployment.key not in silent:
        return True, Reason(Code.PICKER_ASKED, f"{where} chooses the replica of each request")
    effect = (
        "requests are answered 503"
        if spec.failure_mode == "FailClose"
        else "requests go where loadBalancing sends them"
    )
    return False, Reason(
        Code.PICKER_SILENT,
        f"{where} takes no connection; {effect} meanwhile: see whether its pods are ready and listen there",
    )


def explain_pool(deployment: LLMDeployment, state: PoolState) -> tuple[bool, Reason]:
    """Return whether the InferencePool stands that a picker reads its replicas from, and why not."""
    name = f"InferencePool {deployment.key}"
    match state:
        case "Applied":
            return True, Reason(Code.POOL_APPLIED, f"{name} holds the replicas")
        case "Missing":
            return False, Reason(
                Code.INFERENCE_API_MISSING,
                "the cluster has no InferencePool (inference.networking.k8s.io/v1): a picker that reads its replicas "
                "from one needs the Gateway API inference extension",
            )
        case "Forbidden":
            return False, Reason(
                Code.POOL_FORBIDDEN,
                f"the operator may not list, create, patch and delete InferencePools in namespace "
                f"{deployment.metadata.namespace}: grant it",
            )
        case "Taken":
            return False, Reason(
                Code.NAME_CONFLICT, f"{name} exists and Modelyard did not make it: delete or rename it"
            )
        case "Refused":
            return False, Reason(
                Code.POOL_PENDING,
                f"the API server refuses {name}, which an admission policy may do: the operator's log says why",
            )
        case "Unknown":
            return False, Reason(Code.POOL_PENDING, f"{name} has not been looked at yet")
