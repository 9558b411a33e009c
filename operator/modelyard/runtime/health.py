"""Health and metrics of the process, over HTTP."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from modelyard.render.autoscaler import DESIRED_PATH
from modelyard.runtime.metrics import EVENT_LOOP_LAG

LAG_LIMIT = 10.0
"""Seconds that the event loop may be late before the process is called unhealthy: far above all that it does at a time
(`runtime/slices.py`), far below the liveness probe's patience."""


class Health:
    """Whether the process is alive, and whether it has seen the whole cluster."""

    def __init__(self) -> None:
        self.synced = False
        self.acting = False
        """Whether it decides: one that stands by for another operator has seen everything too."""
        self.informed: Callable[[], bool] = lambda: True
        """Whether one that stands by knows whom it follows."""
        self._beat = time.monotonic()

    @property
    def ready(self) -> tuple[bool, str]:
        """Whether the process does what it is there for, and what that is."""
        if not self.synced:
            return False, "reading the cluster"
        if self.acting:
            return True, "ready"
        return (True, "standing by") if self.informed() else (False, "the Lease cannot be read or written")

    async def beat(self) -> None:
        """Note once a second that the event loop turns, until cancelled."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(1)
            EVENT_LOOP_LAG.set(max(self.late - 1, 0.0))

    @property
    def late(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._beat


async def serve_health(
    health: Health,
    host: str,
    port: int,
    write_metrics: Callable[[], Awaitable[bytes]],
    find_size: Callable[[str], Mapping[str, Any] | None],
) -> web.AppRunner:
    """Serve `/healthz`, `/readyz`, `/metrics` and `/v1/desired-replicas/NAMESPACE/NAME`.

    `write_metrics` returns the page of metrics; `find_size` returns the decided size of `namespace/name`, None if there
    is none. Raises OSError if the address is taken.
    """

    async def healthz(_: web.Request) -> web.Response:
        late = health.late
        return web.Response(status=200 if late < LAG_LIMIT else 503, text=f"event loop {late:.1f} s late\n")

    async def readyz(_: web.Request) -> web.Response:
        good, text = health.ready
        return web.Response(status=200 if good else 503, text=f"{text}\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=await write_metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def desired_replicas(request: web.Request) -> web.Response:
        found = find_size(f"{request.match_info['namespace']}/{request.match_info['name']}")
        if found is not None:
            return web.json_response(found)
        # An operator that has just started, or stands by, does not know sizes; "there is none" would be a lie.
        status = 404 if health.acting else 503
        return web.json_response({"error": "no size is decided for this LLMDeployment"}, status=status)

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get(f"{DESIRED_PATH}/{{namespace}}/{{name}}", desired_replicas),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
