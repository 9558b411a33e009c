"""One pod on a local node: its containers, its status, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from dev.nodes.addresses import AddressRange
from dev.nodes.api import ApiError, KubeApi
from dev.nodes.container import Command, Container, RestartBackoff
from dev.nodes.environment import expand, resolve_environment
from dev.nodes.gpus import GpuShortageError, gpu_request
from dev.nodes.images import EnvironmentRule, find_image, mount_rewriter, served_name, server_command
from dev.nodes.llamacpp import CACHE_VARIABLE, cache_folder
from dev.nodes.node import LocalNode
from dev.nodes.probes import Prober
from dev.nodes.status import ContainerView, PodView, Waiting, pod_status, stopped
from dev.nodes.termination import DEFAULT_GRACE_SECONDS, Termination

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Pause before a write that failed for a passing reason is tried again."""

VANISHED_GRACE_SECONDS = 1.0
"""What a pod gets whose object is gone: the least that the kubelet grants,
https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/kubelet/pod_workers.go"""

_SOURCE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class PodTools:
    """What all pods of an agent share."""

    api: KubeApi
    addresses: AddressRange
    prober: Prober
    rules: Sequence[EnvironmentRule]
    backoff: RestartBackoff
    folder: Path
    """Where logs and volumes are put."""


class Pod:
    """Runs one pod from its binding to the removal of its object."""

    def __init__(self, manifest: Mapping[str, Any], node: LocalNode, tools: PodTools) -> None:
        self.manifest = manifest
        self.node = node
        self.containers: list[Container] = []
        self._tools = tools
        meta = manifest["metadata"]
        self.namespace, self.name, self.uid = meta["namespace"], meta["name"], meta["uid"]
        self._path = f"api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self._folder = tools.folder / "pods" / f"{self.namespace}_{self.name}_{self.uid}"
        self._init_count = len(manifest["spec"].get("initContainers", []))
        self._gpus: tuple[str, ...] = ()
        self._termination = Termination()
        self._vanished = False
        self._changed = asyncio.Event()
        self._written: dict[str, Any] = {}
        status = manifest.get("status", {})
        self._conditions: list[dict[str, Any]] = status.get("conditions", [])
        self._over = status.get("phase") in {"Succeeded", "Failed"}
        self._view = PodView(
            datetime.now(UTC),
            node.address,
            containers=self._not_started("containers"),
            init_containers=self._not_started("initContainers"),
        )

    def update(self, manifest: Mapping[str, Any]) -> None:
        """Take note of a change to the pod's object."""
        self.manifest = manifest
        meta = manifest["metadata"]
        if "deletionTimestamp" in meta:
            self._termination.request(float(meta.get("deletionGracePeriodSeconds", DEFAULT_GRACE_SECONDS)))
        self._changed.set()

    def vanish(self) -> None:
        """Take note that the object is gone: nothing may run and nothing is left to report."""
        self._vanished = True
        self._termination.request(VANISHED_GRACE_SECONDS)

    async def run(self) -> None:
        """Run the pod until its object can go. Cancelling this kills its processes at once."""
        self.update(self.manifest)
        if not self._over:
            reporter = asyncio.create_task(self._report_changes())
            try:
                await self._run_containers()
            finally:
                reporter.cancel()
                await asyncio.wait({reporter})
                await self._release()
            await self._report_until_written()
        await self._termination.requested.wait()
        await self._remove_object()

    async def _run_containers(self) -> None:
        """Admit the pod, run its init containers in turn and then its containers side by side."""
        spec = self.manifest["spec"]
        try:
            self._gpus = self.node.gpus.allot(self.uid, self._gpu_count())
        except GpuShortageError as error:
            self._view = replace(
                self._view, rejection=("UnexpectedAdmissionError", f"Allocate failed: {error}")
            )
            return
        address = self._tools.addresses.take()
        self._view = replace(self._view, pod_ip=address)
        self._changed.set()
        initial = [self._container(c, address, init=True) for c in spec.get("initContainers", [])]
        regular = [self._container(c, address) for c in spec["containers"]]
        self.containers = [*initial, *regular]
        for container in initial:
            await container.run()
            if not container.succeeded:
                break
        else:
            async with asyncio.TaskGroup() as group:
                for container in regular:
                    group.create_task(container.run())
        now = datetime.now(UTC)
        for container in self.containers:
            container.view = stopped(container.view, now)

    def _container(self, spec: Mapping[str, Any], address: str, *, init: bool = False) -> Container:
        pod_spec = self.manifest["spec"]
        policy = pod_spec.get("restartPolicy", "Always")
        return Container(
            spec,
            pod_ip=address,
            restart_policy="OnFailure" if init and policy == "Always" else policy,
            grace_seconds=float(pod_spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)),
            restarts=self._earlier_restarts(spec["name"]),
            prepare=self._prepare,
            prober=self._tools.prober,
            termination=self._termination,
            backoff=self._tools.backoff,
            changed=self._changed.set,
        )

    async def _prepare(self, spec: Mapping[str, Any]) -> Command:
        """Work out a container's process. Raises what the container reports as its waiting reason."""
        image = find_image(spec["image"])
        address = self._view.pod_ip or ""
        variables = await resolve_environment(self._tools.api, self._manifest_with_addresses(), spec)
        rewrite = mount_rewriter(spec, self._volume_folders())
        command, args = (
            [expand(word, variables) for word in spec.get(field, [])] for field in ("command", "args")
        )
        arguments = image.arguments(command, args)
        model = served_name(image, arguments)
        environment = {
            "PATH": os.defpath,
            "HOME": str(self._folder),
            "HOSTNAME": self.name,
            "PYTHONUNBUFFERED": "1",
            **{name: rewrite(value) for name, value in variables.items()},
            # The process is Python whatever the container would be, so its search path is ours to set.
            "PYTHONPATH": str(_SOURCE_ROOT),
            CACHE_VARIABLE: str(cache_folder()),
        }
        if devices := self._devices(spec):
            environment["NVIDIA_VISIBLE_DEVICES"] = ",".join(devices)
        for rule in self._tools.rules:
            if rule.applies(node_class=self.node.node_class.name, model=model, image=spec["image"]):
                environment |= rule.variables
        self._folder.mkdir(parents=True, exist_ok=True)
        logs = self._tools.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        return Command(
            argv=tuple(server_command(image, [rewrite(word) for word in arguments], address)),
            environment=environment,
            folder=self._folder,
            log=logs / f"{self.namespace}_{self.name}_{spec['name']}.log",
        )

    def _manifest_with_addresses(self) -> dict[str, Any]:
        host, pod_ip = self._view.host_ip, self._view.pod_ip
        addresses = {"hostIP": host, "hostIPs": [{"ip": host}], "podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
        return {**self.manifest, "status": {**self.manifest.get("status", {}), **addresses}}

    def _volume_folders(self) -> dict[str, str]:
        """Return a folder per volume that can be had; those of projected volumes (API tokens) are empty."""
        folders: dict[str, str] = {}
        for volume in self.manifest["spec"].get("volumes", []):
            if {"emptyDir", "projected"} & volume.keys():
                folder = self._folder / "volumes" / volume["name"]
                folder.mkdir(parents=True, exist_ok=True)
                folders[volume["name"]] = str(folder)
        return folders

    def _gpu_count(self) -> int:
        spec = self.manifest["spec"]
        most_initial = max(map(gpu_request, spec.get("initContainers", [])), default=0)
        return max(most_initial, sum(map(gpu_request, spec["containers"])))

    def _devices(self, spec: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the GPUs of one container: its share among the regular ones, the first ones for an init's."""
        first = 0
        for container in self.manifest["spec"]["containers"]:
            if container["name"] == spec["name"]:
                break
            first += gpu_request(container)
        else:
            first = 0
        return self._gpus[first : first + gpu_request(spec)]

    def _not_started(self, field: str) -> tuple[ContainerView, ...]:
        reason = "PodInitializing" if field == "containers" and self._init_count else "ContainerCreating"
        return tuple(
            ContainerView(spec["name"], spec["image"], Waiting(reason))
            for spec in self.manifest["spec"].get(field, [])
        )

    def _earlier_restarts(self, name: str) -> int:
        """Count the run of an earlier agent, whose processes ended with it, as one more restart."""
        status = self.manifest.get("status", {})
        for entry in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]:
            if entry["name"] == name:
                return int(entry["restartCount"]) + (1 if entry.get("containerID") else 0)
        return 0

    def _current_view(self) -> PodView:
        if not self.containers:
            return self._view
        views = [container.view for container in self.containers]
        return replace(
            self._view,
            init_containers=tuple(views[: self._init_count]),
            containers=tuple(views[self._init_count :]),
        )

    async def _release(self) -> None:
        """Give back what the pod held on the node."""
        finished = self._view.rejection is None
        self._view = replace(self._view, finished=finished)
        self.node.gpus.release(self.uid)
        if self._view.pod_ip:
            self._tools.addresses.release(self._view.pod_ip)
        if self._folder.exists():
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _report_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._report_until_written()

    async def _report_until_written(self) -> None:
        """Write the status if it differs from the last one written."""
        while not self._vanished:
            status = pod_status(self.manifest, self._current_view(), self._conditions, datetime.now(UTC))
            if status == self._written:
                return
            try:
                # The uid makes the server refuse (409) to write to a later pod of the same name.
                await self._tools.api.patch(
                    f"{self._path}/status", {"metadata": {"uid": self.uid}, "status": status}
                )
            except ApiError as error:
                if error.status == 404 or (error.status == 409 and await self._is_gone()):
                    self.vanish()
                    return
                logger.warning("Status of pod %s/%s refused: %s", self.namespace, self.name, error)
                await asyncio.sleep(RETRY_SECONDS)
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("Status of pod %s/%s not written: %s", self.namespace, self.name, error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._written, self._conditions = status, status["conditions"]

    async def _is_gone(self) -> bool:
        try:
            found = await self._tools.api.get(self._path)
        except ApiError as error:
            return error.status == 404
        return bool(found["metadata"]["uid"] != self.uid)

    async def _remove_object(self) -> None:
        """Let the object go, as a kubelet does once nothing of the pod runs."""
        while not self._vanished:
            try:
                await self._tools.api.delete(
                    self._path, {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
                )
            except ApiError as error:
                if error.status in {404, 409}:
                    return
                logger.warning("Removal of pod %s/%s refused: %s", self.namespace, self.name, error)
                await asyncio.sleep(RETRY_SECONDS)
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("Removal of pod %s/%s failed: %s", self.namespace, self.name, error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return
