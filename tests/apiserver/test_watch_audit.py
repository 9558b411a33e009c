"""The age of a view, against what a real API server lists."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.cluster.control_plane import ControlPlane
from modelyard.api.llmroute import LLMRoute
from modelyard.kube.client import KubeClient
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen, project_object
from modelyard.kube.resources import ACCELERATOR_CLASSES, LLM_DEPLOYMENTS, LLM_ROUTES
from modelyard.runtime.watchaudit import WatchAudit
from tests.apiserver.client import MERGE, ApiServer, resource_path

INTERVAL = 0.1
"""Seconds between two lists."""


class View:
    """What a watch has shown, which a test controls, and how old it is."""

    def __init__(self, server: ApiServer, client: KubeClient, namespace: str) -> None:
        self.server, self.namespace = server, namespace
        self.routes: dict[str, list[Seen[Any]]] = {}
        self.now = 1000.0
        indices = Indices(routes=self.routes)
        self.audit = WatchAudit(client, lambda: indices, (namespace,), INTERVAL, lambda: self.now)
        self.audit.begin()

    def create(self, name: str) -> dict[str, Any]:
        spec = {"model": name, "targets": [{"deployment": "own"}]}
        body = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMRoute",
            "metadata": {"name": name},
            "spec": spec,
        }
        reply = self.server.request("POST", resource_path("LLMRoute", self.namespace), body)
        assert reply.status == 201, reply.message
        return reply.body

    def show(self, body: dict[str, Any]) -> None:
        self.routes[f"{self.namespace}/{body['metadata']['name']}"] = [project_object(LLMRoute, body)]

    def path(self, name: str) -> str:
        return resource_path("LLMRoute", self.namespace, name)

    async def look(self) -> float:
        """Return the age of the view of routes after a look at it, ten seconds after the last."""
        self.now += 10.0
        await self.audit.look()
        return self.audit.ages()[LLM_ROUTES]


@pytest.fixture
async def view(kinds: ApiServer, control_plane: ControlPlane, namespace: str) -> AsyncIterator[View]:
    client = await KubeClient.connect(control_plane.kubeconfig)
    yield View(kinds, client, namespace)
    await client.close()


async def test_a_view_that_shows_everything_is_new(view: View) -> None:
    assert await view.look() == 0
    view.show(view.create("a"))
    assert await view.look() == 0
    assert view.audit.ages().keys() == {LLM_DEPLOYMENTS, LLM_ROUTES, ACCELERATOR_CLASSES}


async def test_an_object_that_is_not_shown_makes_it_old(view: View) -> None:
    body = view.create("a")
    assert [await view.look() for _ in range(3)] == [10, 20, 30]
    assert view.audit.ages()[LLM_DEPLOYMENTS] == 0, "other kinds are not concerned"
    view.show(body)
    assert await view.look() == 0


async def test_a_change_that_is_not_shown_makes_it_old(view: View) -> None:
    view.show(view.create("a"))
    changed = view.server.request("PATCH", view.path("a"), {"spec": {"model": "b"}}, MERGE)
    assert await view.look() == 10
    view.show(changed.body)
    assert await view.look() == 0


async def test_a_deletion_that_is_not_shown_makes_it_old(view: View) -> None:
    view.show(view.create("a"))
    assert view.server.request("DELETE", view.path("a")).status == 200
    assert await view.look() == 10
    view.routes.clear()
    assert await view.look() == 0


async def test_what_comes_and_goes_between_two_lists_does_not_matter(view: View) -> None:
    """The view is compared a moment after the list, and may be newer."""
    view.create("goes")
    looking = asyncio.create_task(view.look())
    # Before the view is compared: it never showed the object, and rightly so by now.
    while not view.audit.listed:
        await asyncio.sleep(0.005)
    assert view.server.request("DELETE", view.path("goes")).status == 200
    view.show(view.create("comes"))
    assert await looking == 0


async def test_a_list_that_fails_makes_every_view_old(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view.audit._client.configuration, "host", "https://127.0.0.1:1")
    await view.look()
    assert set(view.audit.ages().values()) == {10.0}
