"""Helpers of the tests of the local nodes: manifests and waits that end when a condition holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from dev.nodes.api import KubeApi, WatchExpired

WAIT_SECONDS = 60.0
"""Bound of every wait; far above what any takes, since only a hang should reach it."""

Condition = Callable[[Mapping[str, Any]], bool]

ENGINE_IMAGE = "registry.example/vllm/vllm-openai:v0.32.0"
LLAMA_IMAGE = "ghcr.io/ggml-org/llama.cpp:server-b7000"
MODEL = "tiny"


def probe(path: str = "/health", **settings: int) -> dict[str, Any]:
    """Make an httpGet probe of the named port, every second."""
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": 1, **settings}


def engine(**fields: Any) -> dict[str, Any]:
    """Make the container of a vLLM pod, acceptable to restricted Pod Security."""
    return {
        "name": "engine",
        "image": ENGINE_IMAGE,
        "args": [
            "--model",
            "example/tiny",
            "--served-model-name",
            MODEL,
            "--host",
            "0.0.0.0",
            "--port",
            "8000",
        ],
        "ports": [{"name": "http", "containerPort": 8000}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **fields,
    }


def pod(name: str, node: str, container: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """Make a pod for one node; it takes its place through the scheduler."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "automountServiceAccountToken": False,
            "containers": [dict(container)],
            **spec,
        },
    }


def engine_status(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status of the pod's only container; empty if it has none yet."""
    statuses: list[dict[str, Any]] = manifest.get("status", {}).get("containerStatuses", [])
    return statuses[0] if statuses else {}


def condition(manifest: Mapping[str, Any], kind: str) -> str | None:
    """Return the status of one of the pod's conditions."""
    conditions = manifest.get("status", {}).get("conditions", [])
    return next((entry["status"] for entry in conditions if entry["type"] == kind), None)


def is_ready(manifest: Mapping[str, Any]) -> bool:
    return condition(manifest, "Ready") == "True"


def waits_for(reason: str) -> Condition:
    """Make the condition that the container waits for this reason."""

    def holds(manifest: Mapping[str, Any]) -> bool:
        return bool(engine_status(manifest).get("state", {}).get("waiting", {}).get("reason") == reason)

    return holds


class Cluster:
    """One namespace of the cluster, as a test sees it."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    def path(self, plural: str, name: str = "") -> str:
        group = "apis/apps/v1" if plural == "deployments" else "api/v1"
        return f"{group}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    async def create(self, plural: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return await self.api.create(self.path(plural), manifest)

    async def delete_pod(self, name: str, **options: Any) -> None:
        await self.api.delete(self.path("pods", name), options)

    async def pod_reaches(self, name: str, holds: Condition) -> dict[str, Any]:
        """Wait for a state of the pod; return the pod in it."""
        return (await self.pod_history(name, holds))[-1]

    async def pod_history(self, name: str, holds: Condition) -> list[dict[str, Any]]:
        """Wait for a state of the pod; return every state seen on the way, that one last."""
        return await self._follow(f"metadata.name={name}", holds)

    async def any_pod_reaches(self, holds: Condition) -> dict[str, Any]:
        """Wait until some pod of the namespace is in a state; return it."""
        return (await self._follow("", holds))[-1]

    async def delete_and_follow(self, name: str, **options: Any) -> dict[str, Any]:
        """Delete the pod and wait until its object is gone; return its last state."""
        since = await self.version()
        await self.delete_pod(name, **options)
        return await self.pod_goes(name, since)

    async def version(self) -> str:
        """Return the resource version of the pods as they are now."""
        found = await self.api.get(self.path("pods"))
        return str(found["metadata"]["resourceVersion"])

    async def pod_goes(self, name: str, since: str) -> dict[str, Any]:
        """Wait until the pod's object is gone, which may be past; `since` is a version before that."""
        async with asyncio.timeout(WAIT_SECONDS):
            selector = f"metadata.name={name}"
            async for event in self.api.watch(self.path("pods"), since, fieldSelector=selector):
                if event.type == "DELETED":
                    return event.object
        raise WatchExpired(410, f"the watch of pod {name} ended")

    async def event(self, reason: str) -> dict[str, Any]:
        """Wait for an Event with this reason."""
        return (await self._follow(f"reason={reason}", lambda _: True, "events"))[-1]

    async def _follow(self, selector: str, holds: Condition, plural: str = "pods") -> list[dict[str, Any]]:
        """Collect the states of the selected objects until one `holds`."""
        seen: list[dict[str, Any]] = []
        async with asyncio.timeout(WAIT_SECONDS):
            found = await self.api.get(self.path(plural), fieldSelector=selector)
            for manifest in found["items"]:
                seen.append(manifest)
                if holds(manifest):
                    return seen
            version = found["metadata"]["resourceVersion"]
            async for event in self.api.watch(self.path(plural), version, fieldSelector=selector):
                if event.type != "BOOKMARK":
                    seen.append(event.object)
                if event.type in {"ADDED", "MODIFIED"} and holds(event.object):
                    return seen
        raise WatchExpired(410, f"the watch of {selector} ended")


async def fetch(manifest: Mapping[str, Any], path: str, body: object = None, port: int = 8000) -> Any:
    """Send a request to the pod's address; return its JSON, or its text if it is not JSON."""
    url = f"http://{manifest['status']['podIP']}:{port}{path}"
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.request("GET" if body is None else "POST", url, json=body) as response,
    ):
        text = await response.text()
    try:
        return json.loads(text)
    except ValueError:
        return text


def pid_of(manifest: Mapping[str, Any]) -> int:
    """Return the process id of the pod's only container."""
    return int(engine_status(manifest)["containerID"].removeprefix("process://"))


def environment_of(pid: int) -> dict[str, str]:
    """Return the variables that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
