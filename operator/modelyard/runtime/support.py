"""What the cluster offers of optional kinds, and what there is of them, asked without any effect."""

import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

from modelyard.api.meta import LABEL_DEPLOYMENT
from modelyard.core.external import ScalerKind, ScalerSupport
from modelyard.core.groups import GroupSupport
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.informers import OPTIONAL
from modelyard.kube.resources import (
    EXTERNAL_METRICS_PATH,
    LEADER_WORKER_SETS,
    SCALED_OBJECTS,
    SCALERS,
    Resource,
)

logger = logging.getLogger(__name__)

VERBS = ("get", "list", "create", "patch", "delete")
"""What the operator does with autoscalers and LeaderWorkerSets; server-side apply needs `create` for the first time."""

TOLERANCE_SINCE = (1, 35)
"""Kubernetes version from which an HPA's own tolerance is on by default (https://kep.k8s.io/4951)."""


async def find_optional(client: KubeClient) -> frozenset[Resource]:
    """Return the kinds that may be watched of those that the operator can do without.

    Raises ApiError where the API server does not answer.
    """
    found = set()
    for resource in OPTIONAL:
        if all([await client.may(resource, verb) for verb in ("list", "watch")]):
            found.add(resource)
        else:
            logger.warning(
                "%s may not be read: placement learns of free accelerators and priorities from Pending pods alone; "
                "grant list and watch to the operator",
                resource.plural,
            )
    return frozenset(found)


async def find_support(client: KubeClient, kind: ScalerKind, namespace: str) -> ScalerSupport:
    """Return what there is for a kind of autoscaler in a namespace.

    Raises ApiError where the API server does not answer.
    """
    if kind == "ScaledObject" and not await is_served(client, SCALED_OBJECTS):
        return ScalerSupport(served=False)
    missing = tuple([verb for verb in VERBS if not await client.may(SCALERS[kind], verb, namespace)])
    if missing:
        return ScalerSupport(missing_rights=missing)
    # KEDA configures its own HPA; older versions do not know the field.
    tolerance = kind == "HorizontalPodAutoscaler" and await _version(client) >= TOLERANCE_SINCE
    try:
        await client.request("GET", EXTERNAL_METRICS_PATH)
    except ApiError as error:
        if error.status == 404:
            return ScalerSupport(adapter="Missing", tolerance=tolerance)
        if error.status < 500:
            raise
        return ScalerSupport(adapter="Failing", adapter_message=error.message[:256], tolerance=tolerance)
    return ScalerSupport(tolerance=tolerance)


async def find_group_support(client: KubeClient, namespace: str) -> GroupSupport:
    """Return what there is for replicas that span nodes in a namespace.

    Raises ApiError where the API server does not answer.
    """
    if not await is_served(client, LEADER_WORKER_SETS):
        return GroupSupport(served=False)
    return GroupSupport(
        missing_rights=tuple(
            [verb for verb in VERBS if not await client.may(LEADER_WORKER_SETS, verb, namespace)]
        )
    )


async def list_labelled(
    client: KubeClient, resource: Resource, namespaces: Iterable[str]
) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects of a kind with the label of an LLMDeployment, in these namespaces; in all if none is named.

    Raises ApiError where the API server refuses or does not answer, after the objects of the namespaces before.
    """
    for namespace in tuple(namespaces) or ("",):
        async for body in client.list_pages(
            resource, {"labelSelector": LABEL_DEPLOYMENT}, namespace=namespace
        ):
            yield body


async def is_served(client: KubeClient, resource: Resource) -> bool:
    """Return whether the API server has a kind of an API group.

    Raises ApiError where it does not answer.
    """
    try:
        group = await client.request("GET", f"/apis/{resource.api_version}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return any(item["name"] == resource.plural for item in group.get("resources") or ())


async def _version(client: KubeClient) -> tuple[int, int]:
    """Return major and minor version; a provider may write a `+` after the minor."""
    answer = await client.request("GET", "/version")
    return int(answer["major"]), int(answer["minor"].rstrip("+"))
