"""What runs in a cluster, read once and only read."""

from collections.abc import Mapping
from typing import Any

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import LABEL_DEPLOYMENT
from modelyard.cli.inventory import Present
from modelyard.cli.kubeconfig import Access
from modelyard.core.groups import fold_groups
from modelyard.core.inventory import Node, Usage
from modelyard.core.report.running import find_running
from modelyard.core.snapshot import ChildDeployment, Pod
from modelyard.kube.client import KubeClient
from modelyard.kube.errors import ApiError
from modelyard.kube.projections import (
    project_child,
    project_groups,
    project_node,
    project_object,
    project_pod,
    project_priority,
    project_usage,
)
from modelyard.kube.resources import (
    ACCELERATOR_CLASSES,
    DEPLOYMENTS,
    LEADER_WORKER_SETS,
    LLM_DEPLOYMENTS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    Resource,
)

_OURS = {"labelSelector": LABEL_DEPLOYMENT}
_OTHERS = {
    "labelSelector": f"!{LABEL_DEPLOYMENT}",
    "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
}
_FORBIDDEN = 403
_NOT_FOUND = 404


async def read_cluster(access: Access) -> Present:
    """Return what there is in the cluster. Raises ApiError where LLMDeployments cannot be read."""
    client = await KubeClient.connect(access.files, access.context)
    try:
        return await _Reader(client).read()
    finally:
        await client.close()


class _Reader:
    """Reads each kind once. What may not be read is noted, and counts as not known."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._notes: list[str] = []

    async def read(self) -> Present:
        """Return what there is."""
        deployments = await self._deployments()
        accelerators = await self._accelerators()
        children = await self._children(deployments)
        running = {}
        for key in sorted(deployments):
            counts = {name: child.replicas for name, child in children.get(key, {}).items()}
            running[key], strange = find_running(counts, accelerators)
            if strange:
                self._notes.append(f"{key} runs on classes that do not exist any more: they are not priced")
        pods = await self._pods()
        nodes = await self._nodes()
        others = await self._list(PODS, _OTHERS, "free accelerators are an upper bound")
        held = [usage for body in others or () if (usage := project_usage(body)) is not None]
        priorities = await self._list(PRIORITY_CLASSES, {}, "priorities count as equal") or []
        return Present(
            accelerators=accelerators,
            running=running,
            nodes=nodes,
            usages=(*_own_usages(pods), *held),
            complete=others is not None,
            deployments=deployments,
            pods={key: fold_groups(found) for key, found in pods.items()},
            children=children,
            priorities={body["metadata"]["name"]: project_priority(body).value for body in priorities},
            live=True,
            notes=tuple(self._notes),
        )

    async def _deployments(self) -> dict[str, LLMDeployment]:
        found = {}
        async for body in self._client.list_pages(LLM_DEPLOYMENTS, {}):
            seen = project_object(LLMDeployment, body)
            if seen.object is None:
                name = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
                self._notes.append(f"{name} cannot be read and is left out: {seen.error}")
            elif seen.object.metadata.deletion_timestamp is None:
                found[seen.object.key] = seen.object
        return found

    async def _accelerators(self) -> dict[str, AcceleratorClass]:
        found = {}
        async for body in self._client.list_pages(ACCELERATOR_CLASSES, {}):
            seen = project_object(AcceleratorClass, body)
            if seen.object is not None:
                found[seen.object.metadata.name] = seen.object
        return found

    async def _children(
        self, deployments: Mapping[str, LLMDeployment]
    ) -> dict[str, dict[str, ChildDeployment]]:
        found: dict[str, dict[str, ChildDeployment]] = {}
        seen_all = [
            (body["metadata"], project_child(body))
            async for body in self._client.list_pages(DEPLOYMENTS, _OURS)
        ]
        if any(deployment.spec.spans_nodes for deployment in deployments.values()):
            seen_all += [(body["metadata"], project_groups(body)) for body in await self._groups()]
        for metadata, seen in seen_all:
            key = f"{metadata['namespace']}/{metadata['labels'][LABEL_DEPLOYMENT]}"
            owner = deployments.get(key)
            if owner is not None and seen.variant and seen.owner == owner.metadata.uid:
                found.setdefault(key, {})[seen.variant] = seen.child
        return found

    async def _groups(self) -> list[dict[str, Any]]:
        """Return the LeaderWorkerSets; none, with a note, where the cluster has no such kind."""
        try:
            found = await self._list(
                LEADER_WORKER_SETS, _OURS, "replicas over several nodes count as if none ran"
            )
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            self._notes.append(
                "the cluster has no LeaderWorkerSet: no replica can span nodes before it is installed"
            )
            return []
        return found or []

    async def _pods(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {}
        for body in await self._list(PODS, _OURS, "pods count as if none ran") or ():
            pod = project_pod(body)
            found.setdefault(pod.deployment, []).append(pod)
        return found

    async def _nodes(self) -> tuple[Node, ...] | None:
        bodies = await self._list(NODES, {}, "room on nodes is not checked")
        if bodies is None:
            return None
        nodes = (project_node(body).node for body in bodies)
        return tuple(node for node in nodes if node.accelerators)

    async def _list(
        self, resource: Resource, query: Mapping[str, str], consequence: str
    ) -> list[dict[str, Any]] | None:
        """Return the objects of a kind; None, with a note, where they may not be read."""
        try:
            return [body async for body in self._client.list_pages(resource, query)]
        except ApiError as error:
            if error.status != _FORBIDDEN:
                raise
            self._notes.append(f"{resource.plural} may not be read: {consequence}")
            return None


def _own_usages(pods: Mapping[str, list[Pod]]) -> list[Usage]:
    """Return what engine pods hold. One on its way out holds it until it is gone, but nobody can count on that."""
    return [
        Usage(pod.node, key if pod.live else "", pod.variant, pod.accelerators, nodes=pod.nodes)
        for key, found in sorted(pods.items())
        for pod in sorted(found, key=lambda item: item.name)
        if pod.node and pod.accelerators and pod.phase in {"Pending", "Running"}
    ]
