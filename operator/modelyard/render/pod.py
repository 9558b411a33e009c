"""The engine pod: one container under the restricted Pod Security Standard.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from collections.abc import Mapping
from typing import Any, Literal

from modelyard.api.meta import COMPONENT_LABEL, COMPONENT_WORKER
from modelyard.catalog.engines import Image
from modelyard.render.engines.base import EngineAdapter
from modelyard.render.probes import (
    PORT_NAME,
    build_probes,
    grace_period_seconds,
    pre_stop_seconds,
    worker_stop_seconds,
)
from modelyard.render.resources import build_placement, build_resources, multiply_quantity
from modelyard.render.settings import RenderSettings
from modelyard.render.workload import Workload

CONTAINER_NAME = "engine"

_HOME = "/home/engine"
_SHARED_MEMORY = "2Gi"
"""Per accelerator: PyTorch and NCCL exchange tensors through /dev/shm, whose default of 64 MiB is too small. The size
is that of vLLM's guide, https://docs.vllm.ai/en/v0.32.0/deployment/k8s/. Only what is used takes memory."""

_SCRATCH_MOUNTS: Mapping[str, str] = {"cache": "/cache", "home": _HOME, "tmp": "/tmp"}  # noqa: S108
"""Writable folders of the pod: the root file system is read-only."""


Role = Literal["Replica", "Leader", "Worker"]
"""What a pod is: a replica by itself, or the one of a group that answers requests, or another one of it."""


def build_pod_template(
    workload: Workload, engine: EngineAdapter, image: Image, settings: RenderSettings, role: Role = "Replica"
) -> dict[str, Any]:
    """Return the pod template of the Deployment, or one of the two of the LeaderWorkerSet."""
    spec: dict[str, Any] = {
        "serviceAccountName": workload.name,
        # No API token, and no variables for every Service of the namespace: one called `vllm` would set VLLM_PORT.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_period_seconds(workload),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "fsGroup": settings.user,
            # Changing the owner of every file of a large model at each start would take minutes.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_build_container(workload, engine, image, settings, role)],
        "volumes": _build_volumes(workload),
        **build_placement(workload),
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    labels = workload.pod_labels
    if role == "Worker":
        labels[COMPONENT_LABEL] = COMPONENT_WORKER
    return {"metadata": {"labels": labels}, "spec": spec}


def _build_container(
    workload: Workload, engine: EngineAdapter, image: Image, settings: RenderSettings, role: Role
) -> dict[str, Any]:
    arguments = [escape_argument(argument) for argument in engine.build_arguments(workload)]
    if role != "Replica":
        # Nothing of a user's is in these, and the kubelet is to replace their variables.
        arguments += engine.build_group_arguments(workload, leads=role == "Leader")
    # A worker answers nobody: it is ready when it runs, its end is the group's, and the leader's probes tell the rest.
    serving: dict[str, Any] = {}
    stop = worker_stop_seconds(workload)
    if role != "Worker":
        serving = {
            "ports": [{"name": PORT_NAME, "containerPort": engine.port, "protocol": "TCP"}],
            **build_probes(engine, workload),
        }
        stop = pre_stop_seconds(engine, workload)
    return {
        "name": CONTAINER_NAME,
        "image": image.reference,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "env": _build_environment(workload, engine, settings, role),
        "resources": build_resources(workload),
        **serving,
        "lifecycle": {"preStop": {"sleep": {"seconds": stop}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": _build_mounts(workload),
    }


def escape_argument(argument: str) -> str:
    """Keep the kubelet from replacing `$(NAME)` by a variable: `$(HF_TOKEN)` would put the token on a command line.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Container: `$$` stands for `$`.
    """
    return argument.replace("$", "$$")


def _build_environment(
    workload: Workload, engine: EngineAdapter, settings: RenderSettings, role: Role
) -> list[dict[str, Any]]:
    values = {
        "DO_NOT_TRACK": "1",
        "HF_HOME": "/cache/huggingface",
        "HF_HUB_CACHE": "/cache/huggingface/hub",
        "HOME": _HOME,
        # Python asks for the user's name; with these it need not be in the image's /etc/passwd.
        "LOGNAME": CONTAINER_NAME,
        "TMPDIR": _SCRATCH_MOUNTS["tmp"],
        "USER": CONTAINER_NAME,
        "XDG_CACHE_HOME": "/cache",
        "XDG_CONFIG_HOME": f"{_HOME}/.config",
        **engine.build_environment(),
    }
    if not workload.is_remote:
        values["HF_HUB_OFFLINE"] = "1"
    elif settings.hub_endpoint is not None:
        values["HF_ENDPOINT"] = settings.hub_endpoint
    environment: list[dict[str, Any]] = [{"name": name, "value": values[name]} for name in sorted(values)]
    token = workload.deployment.spec.model.token_secret
    if token is not None:
        reference = {"name": token.name, "key": token.key}
        environment.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    if role != "Replica" and engine.address_variable is not None:
        address = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}
        environment.append({"name": engine.address_variable, "valueFrom": address})
    return environment


def _build_mounts(workload: Workload) -> list[dict[str, Any]]:
    return [
        *({"name": name, "mountPath": path} for name, path in _SCRATCH_MOUNTS.items()),
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        *(
            {"name": _claim_volume(index), "mountPath": path, "readOnly": True}
            for index, path in enumerate(workload.claim_mounts.values())
        ),
    ]


def _build_volumes(workload: Workload) -> list[dict[str, Any]]:
    shared_memory = {"medium": "Memory", "sizeLimit": multiply_quantity(_SHARED_MEMORY, workload.per_node)}
    return [
        *({"name": name, "emptyDir": {}} for name in _SCRATCH_MOUNTS),
        {"name": "shm", "emptyDir": shared_memory},
        *(
            {
                "name": _claim_volume(index),
                "persistentVolumeClaim": {"claimName": claim, "readOnly": True},
            }
            for index, claim in enumerate(workload.claim_mounts)
        ),
    ]


def _claim_volume(index: int) -> str:
    """Name by position: a claim's name may be longer than a volume's."""
    return f"claim-{index}"
