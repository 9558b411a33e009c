"""The agent: a kubelet for processes, for several nodes at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from dev.cluster.node_classes import parse_node_counts
from dev.nodes.addresses import AddressRange
from dev.nodes.api import ApiError, KubeApi, WatchExpired
from dev.nodes.container import Container, RestartBackoff
from dev.nodes.images import EnvironmentRule
from dev.nodes.logs import LogServer
from dev.nodes.node import LocalNode, NodeRegistry, make_nodes
from dev.nodes.pod import Pod, PodTools
from dev.nodes.probes import Prober

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.5
"""Pause before the watch is started again after a failure."""

BOUND_PODS = "spec.nodeName!="
"""Selects the pods that have a node. A field selector cannot name several nodes, so the agent drops
those of others itself."""


class LocalNodes:
    """Several nodes whose pods are processes on this machine.

    Use as an asynchronous context manager, from the thread that will outlive its processes: inside
    the block the nodes are registered and run the pods bound to them. At its end all processes are
    killed, and the nodes and their pods are deleted.

    `nodes` is written as `h100:1=2,l4=4,cpu=1`: class, GPUs per node where it differs, and number of
    nodes. `name_prefix` keeps the names of several agents in one cluster apart. `rules` give
    processes extra variables and may be changed while the agent runs; they apply to processes
    started later. `folder` receives `logs/NAMESPACE_POD_CONTAINER.log`, which the API server can read.
    """

    def __init__(
        self,
        kubeconfig: Path,
        nodes: str,
        folder: Path,
        *,
        name_prefix: str = "local",
        rules: Sequence[EnvironmentRule] = (),
        backoff: RestartBackoff | None = None,
    ) -> None:
        self.rules: list[EnvironmentRule] = list(rules)
        self.folder = folder
        self.nodes: Mapping[str, LocalNode] = {}
        self._kubeconfig = kubeconfig
        self._counts = parse_node_counts(nodes)
        self._name_prefix = name_prefix
        self._backoff = backoff or RestartBackoff()
        self._pods: dict[str, tuple[Pod, asyncio.Task[None]]] = {}
        self._stack = AsyncExitStack()

    @property
    def names(self) -> list[str]:
        """The nodes' names."""
        return list(self.nodes)

    def pod(self, namespace: str, name: str) -> Pod:
        """Return a pod that is here. Raises KeyError."""
        for pod, _ in self._pods.values():
            if (pod.namespace, pod.name) == (namespace, name):
                return pod
        raise KeyError(f"{namespace}/{name}")

    def _find_container(self, namespace: str, pod: str, name: str) -> Container | None:
        """Return a container that is here."""
        try:
            containers = self.pod(namespace, pod).containers
        except KeyError:
            return None
        return next((container for container in containers if container.view.name == name), None)

    def pids(self) -> dict[str, int]:
        """Return the ids of running processes by `namespace/pod/container`."""
        return {
            f"{pod.namespace}/{pod.name}/{container.view.name}": container.process.pid
            for pod, _ in self._pods.values()
            for container in pod.containers
            if container.process is not None and container.process.running
        }

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(KubeApi(self._kubeconfig))
            addresses = AddressRange()
            stack.callback(addresses.close)
            prober = Prober()
            stack.push_async_callback(prober.close)
            self._tools = PodTools(api, addresses, prober, self.rules, self._backoff, self.folder)
            count = sum(count for _, count in self._counts)
            hosts = [addresses.take() for _ in range(count)]
            logs = LogServer(self._find_container, self.folder / "certificates")
            stack.push_async_callback(logs.stop)
            ports = await logs.start(hosts)
            self.nodes = {
                node.name: replace(node, log_port=ports[node.address])
                for node in make_nodes(self._counts, self._name_prefix, hosts)
            }
            registry = NodeRegistry(api, list(self.nodes.values()))
            stack.push_async_callback(self._remove_pods)
            stack.push_async_callback(registry.remove)
            await registry.register()
            stack.push_async_callback(self._kill_pods)
            resource_version = await self._list_pods()
            for work in (registry.keep_alive(), self._follow_pods(resource_version)):
                stack.push_async_callback(_cancel, asyncio.create_task(_logged(work)))
            logger.info("Registered %s; pods get addresses of %s", ", ".join(self.nodes), addresses)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _list_pods(self) -> str:
        """Bring the pods in line with the server's list; return the list's resource version."""
        found = await self._tools.api.get("api/v1/pods", fieldSelector=BOUND_PODS)
        present = {manifest["metadata"]["uid"] for manifest in found["items"]}
        for uid in self._pods.keys() - present:
            self._vanished(uid)
        for manifest in found["items"]:
            self._changed(manifest)
        return str(found["metadata"]["resourceVersion"])

    async def _follow_pods(self, resource_version: str | None) -> None:
        while True:
            try:
                if resource_version is None:
                    resource_version = await self._list_pods()
                async for event in self._tools.api.watch(
                    "api/v1/pods", resource_version, fieldSelector=BOUND_PODS
                ):
                    resource_version = event.resource_version
                    if event.type == "DELETED":
                        self._vanished(event.object["metadata"]["uid"])
                    elif event.type in {"ADDED", "MODIFIED"}:
                        self._changed(event.object)
            except WatchExpired:
                resource_version = None
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("Watch of pods ended: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)

    def _changed(self, manifest: Mapping[str, Any]) -> None:
        node = self.nodes.get(manifest["spec"]["nodeName"])
        if node is None:
            return
        uid = manifest["metadata"]["uid"]
        if uid in self._pods:
            self._pods[uid][0].update(manifest)
        else:
            pod = Pod(manifest, node, self._tools)
            self._pods[uid] = (pod, asyncio.create_task(_logged(pod.run())))

    def _vanished(self, uid: str) -> None:
        if uid not in self._pods:
            return
        pod, task = self._pods[uid]
        pod.vanish()
        task.add_done_callback(lambda _: self._pods.pop(uid, None))

    async def _kill_pods(self) -> None:
        await asyncio.gather(*(_cancel(task) for _, task in list(self._pods.values())))

    async def _remove_pods(self) -> None:
        """Delete what is left of the pods, whose nodes are gone."""
        options = {"gracePeriodSeconds": 0}
        for pod, _ in list(self._pods.values()):
            try:
                await self._tools.api.delete(
                    f"api/v1/namespaces/{pod.namespace}/pods/{pod.name}",
                    {**options, "preconditions": {"uid": pod.uid}},
                )
            except ApiError as error:
                if error.status not in {404, 409}:
                    raise
        self._pods.clear()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _logged(work: Awaitable[None]) -> None:
    """Run `work`; an error that nothing below it handles is a fault of the agent and is logged as one."""
    try:
        await work
    except Exception:
        logger.exception("Local nodes failed")
        raise
