"""What pods that do not serve yet wait for."""

from modelyard.core.plan import DeploymentPlan
from modelyard.core.reasons import Code, Reason
from modelyard.core.snapshot import Pod

_PULL_FAILURES = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_START_FAILURES = frozenset(
    {"CrashLoopBackOff", "CreateContainerError", "CreateContainerConfigError", "RunContainerError"}
)


def explain_wait(plan: DeploymentPlan, pods: tuple[Pod, ...]) -> Reason:
    """Return what the pods wait for: the most telling of their states."""
    starting = [pod for pod in pods if not pod.terminating and not pod.ready]
    for pod in starting:
        if pod.waiting in _PULL_FAILURES:
            return Reason(Code.IMAGE_PULL_FAILED, f"pod {pod.name}: {pod.waiting}: {pod.message}")
        if pod.waiting in _START_FAILURES:
            return Reason(
                Code.ENGINE_FAILED,
                f"pod {pod.name}: {pod.waiting} after {pod.restarts} restarts: {pod.message}",
            )
    if (gated := next((pod for pod in starting if pod.gated), None)) is not None:
        return Reason(Code.QUEUED, f"pod {gated.name} waits for its queue to admit it: {gated.message}")
    for pod in starting:
        if not pod.scheduled and pod.waiting == "Unschedulable":
            accelerated = plan.placement is not None and plan.placement.main.pool.resource
            code = Code.WAITING_FOR_GPU if accelerated else Code.UNSCHEDULABLE
            return Reason(code, f"pod {pod.name}: {pod.message}")
    if any(pod.phase == "Running" for pod in starting):
        return Reason(Code.LOADING, "the engine downloads and loads the model")
    return Reason(Code.STARTING, "pods are being created")
