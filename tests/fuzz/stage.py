"""The operator's own loop of one process, with an API server that takes every write and remembers it."""

import asyncio
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmtenant import LLMTenant
from modelyard.core.snapshot import Provider
from modelyard.kube.informers import Indices
from modelyard.kube.projections import project_object, project_pod, project_route
from modelyard.kube.resources import SCALED_OBJECTS, Resource
from modelyard.render.settings import PodPeer
from modelyard.runtime.operator import Operator
from modelyard.runtime.settings import OperatorSettings
from tests.fuzz.schemas import NAMESPACE, stored

SYSTEM = "modelyard-system"
PROJECTIONS = {
    "LLMDeployment": partial(project_object, LLMDeployment),
    "LLMRoute": project_route,
    "AcceleratorClass": partial(project_object, AcceleratorClass),
}


@dataclass
class RecordingClient:
    """Takes every write, as the API server would if nothing were wrong with it."""

    applied: list[dict[str, Any]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)

    async def get(self, resource: Resource, namespace: str, name: str) -> None:
        return None

    async def apply(
        self, resource: Resource, manifest: Mapping[str, Any], subresource: str = "", **_: Any
    ) -> dict[str, Any]:
        body = copy.deepcopy(dict(manifest))
        self.applied.append(body)
        metadata = {**body["metadata"], "uid": f"uid-{body['metadata']['name']}", "resourceVersion": "8"}
        if subresource:
            # The status of an object that is shown by the stage.
            metadata["generation"] = 1
            return {**self.shown[body["metadata"]["name"]], **body, "metadata": metadata}
        return {**body, "metadata": metadata}

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self.created.append(dict(manifest))
        metadata = manifest["metadata"]
        named = {**metadata, "name": metadata.get("name") or f"{metadata['generateName']}{len(self.created)}"}
        return {**manifest, "metadata": named}

    async def merge(self, *_: Any) -> bool:
        return True

    async def delete(self, *_: Any) -> bool:
        return True

    async def may(self, *_: Any) -> bool:
        return True

    async def request(self, _: str, path: str) -> dict[str, Any]:
        """Answer what is asked before an outside autoscaler is made, where there is every kind of them."""
        if path == "/version":
            return {"major": "1", "minor": "37"}
        return {"resources": [{"name": SCALED_OBJECTS.plural}]}

    shown: dict[str, dict[str, Any]] = field(default_factory=dict)


class Stage:
    """An operator that sees these objects and nothing else, and is asked to bring all of them in line."""

    def __init__(self, *bodies: Mapping[str, Any], pods: tuple[Mapping[str, Any], ...] = ()) -> None:
        self.client = RecordingClient()
        settings = OperatorSettings()
        settings = replace(settings, render=replace(settings.render, gateway=PodPeer(SYSTEM, {})))
        self.operator = Operator(self.client, settings)  # type: ignore[arg-type]
        self.fleet = self.operator.fleet
        self.bodies = [stored(body, f"{body['kind'].lower()}-{n}") for n, body in enumerate(bodies)]
        self.client.shown = {body["metadata"]["name"]: body for body in self.bodies}
        self._show(pods)

    def _show(self, pods: tuple[Mapping[str, Any], ...]) -> None:
        found: dict[str, dict[str, list[Any]]] = {kind: {} for kind in PROJECTIONS}
        for body in self.bodies:
            name = body["metadata"]["name"]
            if body["kind"] in PROJECTIONS:
                key = name if body["kind"] == "AcceleratorClass" else f"{NAMESPACE}/{name}"
                found[body["kind"]][key] = [PROJECTIONS[body["kind"]](body)]
            elif body["kind"] == "LLMProvider":
                seen = project_object(LLMProvider, body)
                if seen.object is not None:
                    self.fleet.providers = {**self.fleet.providers, name: Provider(seen.object)}
            elif body["kind"] == "LLMTenant":
                tenant = project_object(LLMTenant, body)
                if tenant.object is not None:
                    self.fleet.tenants = {**self.fleet.tenants, name: tenant.object}
        views: dict[str, list[Any]] = {}
        for pod in pods:
            view = project_pod(pod)
            views.setdefault(view.deployment, []).append(view)
        self.fleet.indices = Indices(
            deployments=found["LLMDeployment"],
            routes=found["LLMRoute"],
            accelerators=found["AcceleratorClass"],
            pods=views,
            children={},
            started=True,
        )

    async def settle(self) -> None:
        """Bring every deployment and route in line, twice, and publish. Raises whatever a handler raises."""
        publishing = asyncio.create_task(self.operator._publisher.run())
        try:
            async with asyncio.timeout(60):
                for _ in range(2):
                    for key in self.fleet.deployment_keys():
                        await self._alive(publishing, self.operator._reconciler.reconcile(key))
                    for key in self.fleet.route_keys():
                        await self._alive(publishing, self.operator._reconciler.reconcile_route(key))
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)

    @staticmethod
    async def _alive(publishing: asyncio.Task[None], work: Any) -> None:
        """Wait for a handler, or for the end of the publisher that it waits for."""
        handler = asyncio.ensure_future(work)
        await asyncio.wait({handler, publishing}, return_when=asyncio.FIRST_COMPLETED)
        if publishing.done():
            handler.cancel()
            publishing.result()
        await handler

    @property
    def resources(self) -> Any:
        """What Envoy would get."""
        return self.operator._server._resources


def settle(*bodies: Mapping[str, Any], pods: tuple[Mapping[str, Any], ...] = ()) -> Stage:
    """Return a stage after all of its objects were handled."""
    stage = Stage(*bodies, pods=pods)
    asyncio.run(stage.settle())
    return stage
