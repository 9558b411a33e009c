"""Small views of watched objects: what the decision needs, and no more."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from modelyard.api.meta import LABEL_ACCELERATOR, LABEL_DEPLOYMENT, ApiModel
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


@dataclass(frozen=True, slots=True)
class SeenChild:
    """A watched Deployment that belongs, or claims to belong, to an LLMDeployment."""

    uid: str
    version: str
    owner: str
    """UID of the controlling owner; empty if it has none."""
    child: ChildDeployment


def project_object(model: type[M], body: Mapping[str, Any]) -> Seen[M]:
    """Return one of our own objects, parsed. An object that cannot be parsed is reported, never dropped."""
    metadata = body["metadata"]
    try:
        return Seen(metadata["uid"], metadata["resourceVersion"], model.model_validate(dict(body)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Seen(metadata["uid"], metadata["resourceVersion"], None, f"{where}: {first['msg']}")


def project_pod(body: Mapping[str, Any]) -> Pod:
    """Return the view of an engine pod."""
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    conditions = {item["type"]: item for item in status.get("conditions", ())}
    scheduled = conditions.get("PodScheduled", {})
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
        ready=conditions.get("Ready", {}).get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        waiting=waiting,
        message=message[:512],
        restarts=restarts,
    )


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
    progress = next((item for item in status.get("conditions", ()) if item["type"] == "Progressing"), none)
    owner = next((item for item in metadata.get("ownerReferences", ()) if item.get("controller")), none)
    return SeenChild(
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        owner=owner.get("uid", ""),
        child=ChildDeployment(
            replicas=spec.get("replicas", 1),
            owned=bool(owner),
            deadline_exceeded=progress.get("reason") == "ProgressDeadlineExceeded",
            message=progress.get("message", "") if progress.get("status") == "False" else "",
        ),
    )
