"""The environment of a container: literal values, references and `$(VAR)` expansion.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from dev.nodes.api import ApiError, KubeApi

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


class ContainerConfigError(Exception):
    """The container cannot be made as its pod describes it; the kubelet's CreateContainerConfigError."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable's value; `$$` is a dollar sign, unknown names stay as written."""

    def substitute(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        return variables.get(name, match.group(0))

    return _REFERENCE.sub(substitute, text)


async def resolve_environment(
    api: KubeApi, pod: Mapping[str, Any], container: Mapping[str, Any]
) -> dict[str, str]:
    """Return the container's variables by name.

    `pod` is the pod as its container will see it, with `status.podIP` and `status.hostIP`.
    Raises ContainerConfigError if a required reference cannot be followed.
    """
    namespace = pod["metadata"]["namespace"]
    resolver = _Resolver(api, namespace)
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        prefix = source.get("prefix", "")
        for field, kind in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if reference := source.get(field):
                values = await resolver.read(
                    kind, reference["name"], optional=reference.get("optional", False)
                )
                variables |= {prefix + key: value for key, value in values.items()}
    for entry in container.get("env", []):
        source = entry.get("valueFrom")
        if source is None:
            variables[entry["name"]] = expand(entry.get("value", ""), variables)
        elif (value := await _follow(resolver, source, pod, container)) is not None:
            variables[entry["name"]] = value
    return variables


async def _follow(
    resolver: _Resolver, source: Mapping[str, Any], pod: Mapping[str, Any], container: Mapping[str, Any]
) -> str | None:
    """Return the value of one `valueFrom`, or None if it is optional and absent."""
    if reference := source.get("fieldRef"):
        return pod_field(pod, reference["fieldPath"])
    if reference := source.get("resourceFieldRef"):
        return _resource(container, reference)
    for field, kind in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if reference := source.get(field):
            optional = reference.get("optional", False)
            values = await resolver.read(kind, reference["name"], optional=optional)
            if reference["key"] not in values and not optional:
                raise ContainerConfigError(
                    f"couldn't find key {reference['key']} in {kind} {resolver.namespace}/{reference['name']}"
                )
            return values.get(reference["key"])
    raise ContainerConfigError(f"local nodes do not support valueFrom {', '.join(source)}")


class _Resolver:
    """Reads the Secrets and ConfigMaps of one namespace, each once."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.namespace = namespace
        self._api = api
        self._read: dict[tuple[str, str], dict[str, str]] = {}

    async def read(self, kind: str, name: str, *, optional: bool) -> dict[str, str]:
        """Return the data of an object as text; empty if it is absent and optional."""
        if (kind, name) not in self._read:
            try:
                found = await self._api.get(f"api/v1/namespaces/{self.namespace}/{kind}/{name}")
            except ApiError as error:
                if error.status == 404 and optional:
                    return {}
                raise ContainerConfigError(str(error)) from error
            data: dict[str, str] = found.get("data") or {}
            self._read[kind, name] = _decode(data) if kind == "secrets" else data
        return self._read[kind, name]


def _decode(data: Mapping[str, str]) -> dict[str, str]:
    try:
        return {key: base64.b64decode(value).decode() for key, value in data.items()}
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ContainerConfigError("a secret holds a value that no variable can carry") from error


_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


def pod_field(pod: Mapping[str, Any], path: str) -> str:
    """Return a field of the pod by the paths that the downward API allows for variables.

    https://kubernetes.io/docs/concepts/workloads/pods/downward-api/#available-fields
    """
    if match := _SUBSCRIPT.fullmatch(path):
        return str(pod["metadata"].get(match[1], {}).get(match[2], ""))
    if path in {"status.podIPs", "status.hostIPs"}:
        return ",".join(entry["ip"] for entry in pod["status"].get(path.removeprefix("status."), []))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    if not isinstance(value, str):
        raise ContainerConfigError(f"unsupported fieldPath {path}")
    return value


def _resource(container: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Return a limit or request in units of the divisor, rounded up as the kubelet does."""
    group, _, name = reference["resource"].partition(".")
    resources = container.get("resources", {})
    quantity = resources.get(group, {}).get(name) or resources.get("requests", {}).get(name, "0")
    amount = _quantity(quantity) / (_quantity(reference.get("divisor", "0")) or 1)
    return str(amount.to_integral_value(ROUND_CEILING))


def _quantity(text: str) -> Decimal:
    return Decimal(parse_quantity(text))  # type: ignore[no-untyped-call]
