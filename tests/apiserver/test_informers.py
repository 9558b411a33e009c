"""What watches of a real API server hand over, and where."""

import asyncio
import contextlib
import threading
from typing import Any

from dev.cluster.control_plane import ControlPlane
from modelyard.kube.client import KubeClient
from modelyard.kube.informers import Change, Indices, build_registry, build_settings, first, run_informers
from modelyard.kube.resources import LLM_ROUTES, Resource
from tests.apiserver.client import ApiServer, resource_path


async def test_events_are_handed_over_in_the_event_loop_once_the_view_shows_them(
    kinds: ApiServer, control_plane: ControlPlane, namespace: str
) -> None:
    """Whoever hears of one asks for work and wakes tasks, which only the loop's own thread may do."""
    client = await KubeClient.connect(control_plane.kubeconfig)
    indices, heard = Indices(), asyncio.Queue[tuple[int, str, Change, Any]]()

    def hear(resource: Resource, key: str, change: Change) -> None:
        if resource == LLM_ROUTES:
            seen = first(indices.routes, key)
            heard.put_nowait((threading.get_ident(), key, change, seen))

    registry = build_registry(client.configuration, indices, hear)
    running = asyncio.create_task(run_informers(registry, build_settings(), (namespace,)))
    body = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMRoute",
        "metadata": {"name": "a"},
        "spec": {"model": "a", "targets": [{"deployment": "own"}]},
    }
    path = resource_path("LLMRoute", namespace)
    try:
        for method, where in (("POST", path), ("DELETE", resource_path("LLMRoute", namespace, "a"))):
            reply = await asyncio.to_thread(kinds.request, method, where, body if method == "POST" else None)
            assert reply.status in {200, 201}, reply.message
            async with asyncio.timeout(60):
                thread, key, change, seen = await heard.get()
            assert thread == threading.get_ident()
            assert (key, change.name, change.gone) == (f"{namespace}/a", "a", method == "DELETE")
            assert (seen is None) == change.gone
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await client.close()
