"""A checker of the restricted Pod Security Standard, control by control.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any

_VOLUME_TYPES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP_TYPES = {"RuntimeDefault", "Localhost"}
_HANDLERS = ("startupProbe", "readinessProbe", "livenessProbe")


def violations(pod: dict[str, Any]) -> list[str]:
    """Return what a pod spec does that `restricted` forbids."""
    containers = [
        item
        for field in ("initContainers", "containers", "ephemeralContainers")
        for item in pod.get(field, [])
    ]
    return [
        *_pod_violations(pod),
        *(text for item in containers for text in _container_violations(pod, item)),
    ]


def _pod_violations(pod: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    context = pod.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if context.get("runAsUser") == 0:
        yield "runAsUser of the pod"
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= _VOLUME_TYPES:
            yield f"volume {volume['name']}"


def _container_violations(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    effective = {**pod.get("securityContext", {}), **context}
    capabilities = context.get("capabilities", {})
    checks = {
        "privileged": context.get("privileged", False) is False,
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities.drop": "ALL" in capabilities.get("drop", []),
        "capabilities.add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "runAsNonRoot": effective.get("runAsNonRoot") is True,
        "runAsUser": context.get("runAsUser") != 0,
        "seccompProfile": effective.get("seccompProfile", {}).get("type") in _SECCOMP_TYPES,
        "procMount": context.get("procMount", "Default") == "Default",
        "hostPort": all(not port.get("hostPort") for port in container.get("ports", [])),
        "probe host": all(
            not container.get(field, {}).get(action, {}).get("host")
            for field in _HANDLERS
            for action in ("httpGet", "tcpSocket")
        ),
    }
    yield from (f"{name} of {container['name']}" for name, holds in checks.items() if not holds)
