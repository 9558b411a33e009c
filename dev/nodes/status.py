"""The status that a kubelet would report, computed from what the agent knows of a pod. Pure.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Waiting:
    """A container that does not run and may yet."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A container whose process runs."""

    started_at: datetime
    container_id: str


@dataclass(frozen=True, slots=True)
class Terminated:
    """A container whose process ended."""

    exit_code: int
    reason: str
    started_at: datetime
    finished_at: datetime
    container_id: str = ""
    message: str = ""


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True)
class ContainerView:
    """What is known of one container."""

    name: str
    image: str
    state: State
    last_state: Terminated | None = None
    restart_count: int = 0
    started: bool = False
    """Whether the startup probe passed, or the process runs and there is none."""
    ready: bool = False
    done: bool = False
    """Whether it ended and will not be restarted."""


@dataclass(frozen=True, slots=True)
class PodView:
    """What is known of one pod. `finished` is set once nothing of it will ever run again."""

    start_time: datetime
    host_ip: str
    pod_ip: str | None = None
    init_containers: tuple[ContainerView, ...] = ()
    containers: tuple[ContainerView, ...] = ()
    finished: bool = False
    rejection: tuple[str, str] | None = field(default=None)
    """Reason and message of a pod that the node refused."""


def timestamp(moment: datetime) -> str:
    """Write a moment as the API's `Time`, which has whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_phase(view: PodView) -> str:
    """Return the pod's phase."""
    if view.rejection:
        return "Failed"
    if any(_failed(container) for container in view.init_containers):
        return "Failed"
    ended = [c for c in view.containers if isinstance(c.state, Terminated)]
    if view.finished or (ended and all(c.done for c in view.containers)):
        return "Failed" if len(ended) < len(view.containers) or any(map(_nonzero, ended)) else "Succeeded"
    if any(
        isinstance(c.state, Running) or c.last_state or isinstance(c.state, Terminated)
        for c in view.containers
    ):
        return "Running"
    return "Pending"


def _failed(container: ContainerView) -> bool:
    return container.done and _nonzero(container)


def _nonzero(container: ContainerView) -> bool:
    return isinstance(container.state, Terminated) and container.state.exit_code != 0


def pod_status(
    pod: Mapping[str, Any], view: PodView, previous: Sequence[Mapping[str, Any]], now: datetime
) -> dict[str, Any]:
    """Return the fields of the pod's `status` that a kubelet owns, as a strategic merge patch.

    `previous` are the conditions last reported; one that keeps its status keeps its transition time.
    """
    phase = pod_phase(view)
    generation = pod["metadata"].get("generation", 0)
    conditions = list(_conditions(pod, view, phase))
    before = {condition["type"]: condition for condition in previous}
    for condition in conditions:
        old = before.get(condition["type"], {})
        same = old.get("status") == condition["status"]
        condition["lastTransitionTime"] = old["lastTransitionTime"] if same else timestamp(now)
        condition["observedGeneration"] = generation
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "phase": phase,
        "conditions": conditions,
        "hostIP": view.host_ip,
        "hostIPs": _only_address(view.host_ip),
        "startTime": timestamp(view.start_time),
    }
    if view.pod_ip:
        status |= {"podIP": view.pod_ip, "podIPs": _only_address(view.pod_ip)}
    if view.rejection:
        status["reason"], status["message"] = view.rejection
        return status
    if view.init_containers:
        status["initContainerStatuses"] = [_container_status(c, init=True) for c in view.init_containers]
    status["containerStatuses"] = [_container_status(c) for c in view.containers]
    return status


def _only_address(address: str) -> list[dict[str, str]]:
    """Make a list of one address that replaces the one an earlier agent wrote, rather than adding to it."""
    return [{"$patch": "replace"}, {"ip": address}]


def _conditions(pod: Mapping[str, Any], view: PodView, phase: str) -> Iterable[dict[str, Any]]:
    over = phase in {"Failed", "Succeeded"}
    yield _condition("PodReadyToStartContainers", view.pod_ip is not None and not view.finished)
    waiting = [c.name for c in view.init_containers if not (c.done and not _nonzero(c))]
    if phase == "Succeeded":
        yield _condition("Initialized", True, "PodCompleted")
    else:
        yield _condition(
            "Initialized",
            not waiting and not view.rejection,
            "ContainersNotInitialized",
            f"containers with incomplete status: {_names(waiting)}",
        )
    unready = [c.name for c in view.containers if not c.ready]
    ready = not over and not unready and not waiting and view.rejection is None
    reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
    message = "" if over else f"containers with unready status: {_names(unready)}"
    yield _condition("ContainersReady", ready, reason, message)
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates", [])]
    set_true = {c["type"] for c in pod.get("status", {}).get("conditions", []) if c["status"] == "True"}
    if ready and not set(gates) <= set_true:
        closed = ", ".join(gate for gate in gates if gate not in set_true)
        yield _condition("Ready", False, "ReadinessGatesNotReady", f"readiness gates not passed: {closed}")
    else:
        yield _condition("Ready", ready, reason, message)


def _condition(kind: str, holds: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    """Make a condition. Reason and message explain a false one; nulls clear what a patch would keep."""
    explained = not holds or reason == "PodCompleted"
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": (reason or None) if explained else None,
        "message": (message or None) if explained else None,
    }


def _names(names: Iterable[str]) -> str:
    return "[" + " ".join(names) + "]"


def _container_status(view: ContainerView, *, init: bool = False) -> dict[str, Any]:
    ran = view.state if isinstance(view.state, Running | Terminated) else view.last_state
    completed_init = init and view.done and not _nonzero(view)
    return {
        "name": view.name,
        "image": view.image,
        "imageID": view.image if ran else "",
        "containerID": ran.container_id if ran else "",
        "state": _state(view.state),
        "lastState": _state(view.last_state) if view.last_state else {},
        "restartCount": view.restart_count,
        "started": view.started,
        "ready": completed_init if init else view.ready,
    }


def _state(state: State) -> dict[str, Any]:
    match state:
        case Waiting(reason, message):
            return {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        case Running(started_at, _):
            return {"running": {"startedAt": timestamp(started_at)}}
        case Terminated():
            ended = {
                "exitCode": state.exit_code,
                "reason": state.reason,
                "startedAt": timestamp(state.started_at),
                "finishedAt": timestamp(state.finished_at),
                "containerID": state.container_id,
            }
            return {"terminated": {**ended, **({"message": state.message} if state.message else {})}}


def stopped(view: ContainerView, now: datetime) -> ContainerView:
    """Return the final view of a container that will not start any more.

    One that never ran is reported as the kubelet does at a pod's end, with exit code 137.
    """
    if isinstance(view.state, Terminated):
        return replace(view, ready=False, started=False, done=True)
    if view.last_state and isinstance(view.state, Waiting):
        return replace(view, state=view.last_state, ready=False, started=False, done=True)
    never = Terminated(
        exit_code=137,
        reason="ContainerStatusUnknown",
        started_at=now,
        finished_at=now,
        message="The container could not be located when the pod was terminated",
    )
    return replace(view, state=never, ready=False, started=False, done=True)
