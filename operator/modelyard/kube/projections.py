"""Small views of watched objects: what the decision needs, and no more."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from modelyard.api.llmroute import LLMRoute
from modelyard.api.meta import (
    ANNOTATION_DEADLINE,
    LABEL_ACCELERATOR,
    LABEL_DEPLOYMENT,
    LABEL_VARIANT,
    ApiModel,
    Condition,
)
from modelyard.api.quantities import parse_quantity
from modelyard.api.routetargets import RouteTarget
from modelyard.core.external import Scaler, ScalerKind
from modelyard.core.inventory import Node, Taint, Usage
from modelyard.core.names import unix_time
from modelyard.core.snapshot import ChildDeployment, Pod

M = TypeVar("M", bound=ApiModel)

ENGINE_CONTAINER = "engine"
ENGINE_PORT = "http"


@dataclass(frozen=True, slots=True)
class Seen(Generic[M]):
    """A watched object of one of our kinds. `object` is None if it cannot be read; `error` then says why."""

    uid: str
    version: str
    object: M | None
    error: str = ""
    fallback: M | None = None
    """What must hold all the same of one that cannot be read."""
    conditions: tuple[Condition, ...] = ()
    """How the status of one that cannot be read stands."""
    generation: int = 0
    """Of one that cannot be read."""


@dataclass(frozen=True, slots=True)
class SeenChild:
    """A Deployment or LeaderWorkerSet that belongs, or claims to belong, to an LLMDeployment."""

    uid: str
    version: str
    name: str
    variant: str
    """`Variant.name` that it runs; empty if it does not say."""
    owner: str
    """UID of the controlling owner; empty if it has none."""
    child: ChildDeployment
    kind: str = "Deployment"


@dataclass(frozen=True, slots=True)
class SeenNode:
    """A watched node."""

    uid: str
    node: Node


@dataclass(frozen=True, slots=True)
class SeenPriority:
    """A watched PriorityClass."""

    uid: str
    value: int


def project_object(model: type[M], body: Mapping[str, Any]) -> Seen[M]:
    """Return one of our own objects, parsed. An object that cannot be parsed is reported, never dropped."""
    metadata = body["metadata"]
    try:
        return Seen(metadata["uid"], metadata["resourceVersion"], model.model_validate(dict(body)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Seen(metadata["uid"], metadata["resourceVersion"], None, f"{where}: {first['msg']}")


def project_route(body: Mapping[str, Any]) -> Seen[LLMRoute]:
    """Return an LLMRoute, or of one that cannot be parsed what keeps its name inside if it may be sovereign."""
    seen = project_object(LLMRoute, body)
    if seen.object is not None:
        return seen
    conditions: tuple[Condition, ...] = ()
    with contextlib.suppress(ValidationError, TypeError, AttributeError):
        conditions = tuple(
            Condition.model_validate(item) for item in body.get("status", {}).get("conditions", ())
        )
    generation = body["metadata"].get("generation", 0)
    return replace(seen, fallback=_salvage(body), conditions=conditions, generation=generation)


def _salvage(body: Mapping[str, Any]) -> LLMRoute | None:
    """Return a sovereign route with the name and the deployments of one that cannot be parsed, if it may be sovereign.

    A policy that is not known may be a stricter one.
    """
    spec = body.get("spec")
    if not isinstance(spec, Mapping) or spec.get("dataPolicy", "Any") == "Any":
        return None
    rules = spec.get("rules")
    names = dict.fromkeys(_deployments([spec, *(rules if isinstance(rules, list) else ())]))
    targets = []
    for name in names:
        # What is no name of a deployment names none.
        with contextlib.suppress(ValidationError):
            targets.append(RouteTarget.model_validate({"deployment": name}))
    fields = {"model": spec.get("model"), "dataPolicy": "Sovereign", "targets": [{"deployment": "none"}]}
    try:
        route = LLMRoute.model_validate({"metadata": body["metadata"], "spec": fields})
    except ValidationError:
        return None
    # Afterwards, since there may be more of them than a list of targets may have.
    return route.model_copy(
        update={"spec": route.spec.model_copy(update={"targets": tuple(targets), "spill": False})}
    )


def _deployments(places: Iterable[Any]) -> Iterator[str]:
    for place in places:
        targets = place.get("targets") if isinstance(place, Mapping) else None
        for target in targets if isinstance(targets, list) else ():
            if isinstance(target, Mapping) and isinstance(target.get("deployment"), str):
                yield target["deployment"]


def project_pod(body: Mapping[str, Any]) -> Pod:
    """Return the view of an engine pod."""
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    conditions = {item["type"]: item for item in status.get("conditions", ())}
    scheduled = conditions.get("PodScheduled", {})
    ready = conditions.get("Ready", {})
    labels = metadata["labels"]
    group, member, nodes = _group(labels, metadata.get("annotations") or {})
    waiting, message, restarts = _container_state(status)
    if not waiting and scheduled.get("status") == "False":
        waiting, message = scheduled.get("reason", ""), scheduled.get("message", "")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        deployment=f"{metadata['namespace']}/{metadata['labels'][LABEL_DEPLOYMENT]}",
        address=status.get("podIP", ""),
        port=_engine_port(spec),
        accelerator=metadata["labels"].get(LABEL_ACCELERATOR, ""),
        phase=status.get("phase", "Pending"),
        scheduled=bool(spec.get("nodeName")),
        ready=ready.get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        waiting=waiting,
        message=message[:512],
        restarts=restarts,
        variant=metadata["labels"].get(LABEL_VARIANT, ""),
        node=spec.get("nodeName", ""),
        accelerators=accelerator_requests(spec),
        created=unix_time(metadata.get("creationTimestamp", "")),
        ready_since=unix_time(ready.get("lastTransitionTime", "")) if ready.get("status") == "True" else None,
        group=group,
        member=member,
        nodes=nodes,
    )


def _group(labels: Mapping[str, str], annotations: Mapping[str, str]) -> tuple[str, int, int]:
    """Return group, number in it, and its size, of a pod of a LeaderWorkerSet; empty, 0 and 1 of another.

    https://lws.sigs.k8s.io/docs/reference/labels-annotations-and-environment-variables/
    """
    name, index = labels.get(f"{_LWS}/name", ""), labels.get(f"{_LWS}/group-index", "")
    if not name:
        return "", 0, 1
    member, size = labels.get(f"{_LWS}/worker-index", ""), annotations.get(f"{_LWS}/size", "")
    # One that cannot be told from a leader must not get requests.
    number = int(member) if member.isascii() and member.isdecimal() else -1
    return f"{name}/{index}", number, int(size) if size.isascii() and size.isdecimal() and int(size) else 1


_LWS = "leaderworkerset.sigs.k8s.io"


def accelerator_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """Return the extended resources that a pod asks for: names with a domain, which CPU and memory have not.

    Init containers run before the others, so the larger of the two counts
    (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers).
    """
    running: dict[str, int] = {}
    for container in spec.get("containers", ()):
        for resource, count in _extended(container).items():
            running[resource] = running.get(resource, 0) + count
    for container in spec.get("initContainers", ()):
        for resource, count in _extended(container).items():
            running[resource] = max(running.get(resource, 0), count)
    return running


def _extended(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources", {})
    # A limit alone is a request too (https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/).
    requests = {**resources.get("limits", {}), **resources.get("requests", {})}
    return {
        name: int(parse_quantity(str(value)))
        for name, value in requests.items()
        if "/" in name and not name.startswith("hugepages-")
    }


def project_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the accelerators that a pod of somebody else holds; None if it holds none."""
    spec = body.get("spec", {})
    accelerators = accelerator_requests(spec)
    node = spec.get("nodeName", "")
    finished = body.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    if not accelerators or not node or finished:
        return None
    return Usage(node=node, deployment="", variant="", accelerators=accelerators)


def project_node(body: Mapping[str, Any]) -> SeenNode:
    """Return the view of a node. One without accelerators has none in it."""
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", ()))
    allocatable = status.get("allocatable", {})
    node = Node(
        name=metadata["name"],
        labels=dict(metadata.get("labels", {})),
        taints=tuple(
            Taint(item["key"], item.get("value", ""), item["effect"])
            for item in spec.get("taints", ())
            if item["effect"] in {"NoSchedule", "NoExecute"} and item["key"] != _UNSCHEDULABLE_TAINT
        ),
        schedulable=ready and not spec.get("unschedulable", False),
        accelerators={
            name: int(parse_quantity(str(value)))
            for name, value in allocatable.items()
            if "/" in name and not name.startswith("hugepages-") and "attachable-volumes" not in name
        },
    )
    return SeenNode(metadata["uid"], node)


_UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
"""Set on a cordoned node, which `spec.unschedulable` says already."""


def project_priority(body: Mapping[str, Any]) -> SeenPriority:
    """Return the value of a PriorityClass."""
    return SeenPriority(body["metadata"]["uid"], int(body.get("value", 0)))


def _container_state(status: Mapping[str, Any]) -> tuple[str, str, int]:
    for container in status.get("containerStatuses", ()):
        if container["name"] == ENGINE_CONTAINER:
            waiting = container.get("state", {}).get("waiting", {})
            return waiting.get("reason", ""), waiting.get("message", ""), container.get("restartCount", 0)
    return "", "", 0


def _engine_port(spec: Mapping[str, Any]) -> int:
    for container in spec.get("containers", ()):
        for port in container.get("ports", ()):
            if port.get("name") == ENGINE_PORT:
                return int(port["containerPort"])
    return 0


def project_child(body: Mapping[str, Any]) -> SeenChild:
    """Return the view of a Deployment."""
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    none: dict[str, Any] = {}
    conditions = {item["type"]: item for item in status.get("conditions", ())}
    progress = conditions.get("Progressing", none)
    refused = conditions.get("ReplicaFailure", none).get("status") == "True"
    return _see_child(
        metadata,
        ChildDeployment(
            replicas=spec.get("replicas", 1),
            started=refused or status.get("replicas", 0) > 0,
            ready=status.get("readyReplicas", 0),
            deadline_exceeded=progress.get("reason") == "ProgressDeadlineExceeded",
            message=progress.get("message", "") if progress.get("status") == "False" else "",
        ),
    )


def project_groups(body: Mapping[str, Any]) -> SeenChild:
    """Return the view of a LeaderWorkerSet.

    Its `Available` and `Progressing` exclude each other, and the time of the latter is when the last change of its spec
    or of its groups began. One of which its controller says nothing yet progresses since it was made.
    """
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    none: dict[str, Any] = {}
    conditions = {item["type"]: item for item in status.get("conditions", ())}
    progress = conditions.get("Progressing", none)
    since: float | None = None
    if progress.get("status") == "True":
        since = unix_time(progress.get("lastTransitionTime", ""))
    elif not conditions:
        since = unix_time(metadata.get("creationTimestamp", ""))
    deadline = (metadata.get("annotations") or {}).get(ANNOTATION_DEADLINE, "")
    patience = float(deadline) if deadline.isascii() and deadline.isdecimal() else None
    return _see_child(
        metadata,
        ChildDeployment(
            replicas=spec.get("replicas", 1),
            message=f"LeaderWorkerSet {metadata['name']}: not all groups were ready within {deadline} s",
            progressing_since=since,
            patience=patience,
        ),
        kind="LeaderWorkerSet",
    )


def _see_child(metadata: Mapping[str, Any], child: ChildDeployment, kind: str = "Deployment") -> SeenChild:
    """Return the view of a child of this kind, with whose it is."""
    owner: Mapping[str, Any] = next(
        (item for item in metadata.get("ownerReferences", ()) if item.get("controller")), {}
    )
    return SeenChild(
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        name=metadata["name"],
        variant=metadata.get("labels", {}).get(LABEL_VARIANT, ""),
        owner=owner.get("uid", ""),
        child=child,
        kind=kind,
    )


def project_scaler(kind: ScalerKind, body: Mapping[str, Any]) -> Scaler:
    """Return the view of an autoscaler object, with what its own conditions say.

    An HPA says `AbleToScale` and `ScalingActive`
    (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale-walkthrough/#appendix-horizontal-pod-autoscaler-status-conditions),
    a ScaledObject `Ready` (https://keda.sh/docs/latest/reference/scaledobject-spec/).
    """
    metadata = body["metadata"]
    none: dict[str, Any] = {}
    owner = next((item for item in metadata.get("ownerReferences", ()) if item.get("controller")), none)
    conditions = {item["type"]: item for item in body.get("status", {}).get("conditions") or ()}
    deciding = ("AbleToScale", "ScalingActive") if kind == "HorizontalPodAutoscaler" else ("Ready",)
    said = [conditions.get(name, none) for name in deciding]
    failed = next((item for item in said if item.get("status") == "False"), None)
    active = all(item.get("status") == "True" for item in said)
    return Scaler(
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        name=metadata["name"],
        owner=owner.get("uid", ""),
        active=False if failed is not None else True if active else None,
        message="" if failed is None else failed.get("message") or failed.get("reason", ""),
    )
