"""`actuator: External`: which object carries out the size, and whether it can.

The size is decided as always and published; an autoscaler of the cluster writes it into the child Deployment. What is
missing for that is said in one condition, and nothing that runs is changed because of it.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.plan import DeploymentPlan
from modelyard.core.reasons import Code, Reason
from modelyard.core.state import DeploymentMemory

ScalerKind = Literal["HorizontalPodAutoscaler", "ScaledObject"]

METRIC: Final = "modelyard_desired_replicas"
"""Name of the metric that an outside autoscaler follows; its labels are `namespace` and `deployment`."""


@dataclass(frozen=True, slots=True)
class ScalerSupport:
    """What the cluster offers one kind of autoscaler in one namespace."""

    served: bool = True
    """Whether the API server has the kind."""
    missing_rights: tuple[str, ...] = ()
    """Verbs on the kind that Modelyard may not use."""
    adapter: Literal["Serving", "Missing", "Failing"] = "Serving"
    """Whether external metrics can be asked for: no adapter may be installed, or it may not answer."""
    adapter_message: str = ""
    """What a failing adapter's API answered."""
    tolerance: bool = False
    """Whether the autoscaler's tolerance can be set per object."""


@dataclass(frozen=True, slots=True)
class Scaler:
    """An autoscaler object of an LLMDeployment, as it stands."""

    uid: str
    version: str
    name: str
    owner: str
    """UID of the controlling owner; empty if it has none."""
    active: bool | None = None
    """Whether it can do its work, as it says itself; None before it said anything."""
    message: str = ""
    """Why it cannot."""


def wanted_scaler(deployment: LLMDeployment) -> ScalerKind | None:
    """Return the kind of autoscaler that is made for a deployment.

    None while it is suspended or only advised: an autoscaler would act.
    """
    scaling = deployment.spec.scaling
    if deployment.spec.suspend or scaling is None:
        return None
    if scaling.actuator != "External" or scaling.mode != "Active":
        return None
    scaler = scaling.external.scaler if scaling.external is not None else "HorizontalPodAutoscaler"
    return None if scaler == "None" else scaler


def explain_scaler(
    kind: ScalerKind, support: ScalerSupport | None, scaler: Scaler | None, *, taken: bool = False
) -> tuple[bool, Reason]:
    """Return whether the autoscaler of a deployment works, and why not.

    `support` is None where the API server could not be asked yet; `taken` says that an object of the name exists that
    Modelyard did not make.
    """
    if support is None:
        return False, Reason(Code.SCALER_PENDING, "the API server has not said yet what it offers")
    if not support.served:
        return False, Reason(
            Code.KEDA_MISSING,
            "the cluster has no ScaledObject (keda.sh/v1alpha1): install KEDA or change scaling.external.scaler; "
            "replicas stay as they are meanwhile",
        )
    if support.missing_rights:
        return False, Reason(
            Code.SCALER_FORBIDDEN,
            f"the operator may not {', '.join(support.missing_rights)} a {kind} here: grant it, or change "
            "scaling.external.scaler; replicas stay as they are meanwhile",
        )
    if taken:
        return False, Reason(
            Code.SCALER_CONFLICT,
            f"a {kind} of this name exists that Modelyard did not make: delete it, or set scaling.external.scaler "
            "to None to keep it",
        )
    if support.adapter == "Missing":
        return False, Reason(
            Code.METRICS_ADAPTER_MISSING,
            f"no metrics adapter is installed (external.metrics.k8s.io): install one that serves {METRIC}, or set "
            "actuator to Modelyard; replicas stay as they are meanwhile",
        )
    if support.adapter == "Failing":
        return False, Reason(
            Code.METRICS_ADAPTER_FAILING,
            "the metrics adapter (external.metrics.k8s.io) does not answer; replicas stay as they are meanwhile: "
            f"{support.adapter_message}",
        )
    if scaler is None or scaler.active is None:
        return False, Reason(Code.SCALER_PENDING, f"the {kind} has not said yet that it works")
    if not scaler.active:
        return False, Reason(Code.SCALER_FAILING, f"the {kind} says: {scaler.message}")
    return True, Reason(Code.SCALER_ACTIVE, f"the {kind} follows {METRIC}")


def explain_leftover(kind: ScalerKind) -> tuple[bool, Reason]:
    """Return what is wrong with an autoscaler that is not wanted any more and that may not be deleted."""
    return False, Reason(
        Code.SCALER_FORBIDDEN,
        f"a {kind} stands that is not wanted any more, and the operator may not delete it: delete it, or grant that",
    )


def take_over(
    deployment: LLMDeployment, before: DeploymentPlan | None, memory: DeploymentMemory | None, now: float
) -> DeploymentMemory | None:
    """Return the memory of a deployment whose replicas Modelyard sets again, after an outside autoscaler did.

    What stands counts as just grown, so that it stays for one window: what the autoscaler knew is not known here.
    """
    scaling = deployment.spec.scaling
    left = before is not None and before.placement is not None and before.replicas is None
    ours = scaling is not None and scaling.actuator == "Modelyard"
    if memory is None or not (left and ours):
        return memory
    return replace(memory, size=replace(memory.size, since=now))
