"""The bare asyncio proxy: `python -m benchmarks.gateway.proxy PORT UPSTREAM_PORT MODELS`.

What one writes first in Python: aiohttp on both sides, the body parsed for its model, the model looked up, the answer
passed on as it comes. No retries, holds, counters, usage or rewriting of the name: all of that would come on top.
"""

import json
import sys

import aiohttp
from aiohttp import web

from benchmarks.gateway.bodies import LOOPBACK, PATH, client_name

MAX_BODY = 32 * 1024 * 1024
"""Bytes; the gateway's own limit."""
_DROPPED = frozenset({"connection", "content-length", "host", "transfer-encoding"})
"""Headers that belong to one connection."""


def application(upstream_port: int, models: int) -> web.Application:
    """Return the proxy for so many models, all of them served by one engine."""
    routes = {client_name(index): f"http://{LOOPBACK}:{upstream_port}" for index in range(models)}
    session: aiohttp.ClientSession

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        target = routes.get(json.loads(body)["model"])
        if target is None:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        async with session.post(target + request.path, data=body, headers=headers) as reply:
            if reply.content_length is not None:
                return web.Response(
                    status=reply.status, body=await reply.read(), content_type=reply.content_type
                )
            answer = web.StreamResponse(status=reply.status, headers={"Content-Type": reply.content_type})
            await answer.prepare(request)
            async for chunk in reply.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response({})

    async def open_session(_: web.Application) -> None:
        nonlocal session
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close_session(_: web.Application) -> None:
        await session.close()

    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_post(PATH, forward)
    app.router.add_get("/", healthy)
    app.on_startup.append(open_session)
    app.on_cleanup.append(close_session)
    return app


if __name__ == "__main__":
    web.run_app(
        application(int(sys.argv[2]), int(sys.argv[3])),
        host=LOOPBACK,
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
    )
