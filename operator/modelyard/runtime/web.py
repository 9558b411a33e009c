"""The read-only web page: a thin handler over pages that are built elsewhere, and the same as JSON."""

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from importlib.resources import files
from typing import Any, TypeVar

from aiohttp import web

from modelyard.api.meta import ApiModel, wire
from modelyard.core.demand import estimate_demand
from modelyard.core.overview.build import Installation, build_overview
from modelyard.core.overview.explanation import (
    ExplainReport,
    RouteReport,
    build_explanation,
    build_route_report,
)
from modelyard.core.overview.model import OperatorRow, Overview
from modelyard.core.overview.spending import Spending, build_spending
from modelyard.core.state import Policy
from modelyard.render.web.frame import message_page
from modelyard.render.web.pages import cost_page, deployment_page, fleet_page, route_page, routes_page
from modelyard.runtime.fleet import Fleet

KEEP_SECONDS = 1.0
"""How long something is shown again: several people look at once, and a page of a fleet of 2,000 is half a second's
work."""

NOTES = 20
"""Objects that cannot be read and are told one by one, the others are counted: what somebody reads through."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""On every answer (https://owasp.org/www-project-secure-headers/)."""

_STATIC = {"style.css": "text/css", "refresh.js": "text/javascript"}


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept:
    """Something that is made, or was a moment ago."""

    began: float
    """Monotonic time."""
    made: asyncio.Future[Any]


class WebPages:
    """Builds what is shown from what the process knows.

    What is shown is worked out in one thread of its own: the event loop has Envoys to answer meanwhile, and whoever
    reloads all the time keeps nobody waiting but those who look too.
    """

    def __init__(self, fleet: Fleet, policy: Policy, name: str, acting: Callable[[], bool]) -> None:
        self._fleet = fleet
        self._policy = policy
        self._name = name
        self._acting = acting
        self._thread = ThreadPoolExecutor(1, "web")
        self._kept: dict[str, _Kept] = {}

    @property
    def acting(self) -> bool:
        """Whether the process has seen the whole cluster and decides."""
        return self._acting()

    async def keep(self, name: str, prepare: Callable[[], Callable[[], T]]) -> T:
        """Return what is made under a name, not older than `KEEP_SECONDS`.

        `prepare` takes what is needed from the process, on the event loop, and returns what makes it, which a thread
        calls: it may look at nothing that changes. Who asks for the same meanwhile waits for the same.
        """
        now = time.monotonic()
        self._kept = {
            other: kept
            for other, kept in self._kept.items()
            if not kept.made.done() or now - kept.began < KEEP_SECONDS
        }
        kept = self._kept.get(name)
        if kept is None:
            made = asyncio.get_running_loop().run_in_executor(self._thread, prepare())
            # Whoever asked may have gone; nobody needs to hear of an error then.
            made.add_done_callback(lambda done: done.cancelled() or done.exception())
            kept = self._kept[name] = _Kept(now, made)
        found: T = await asyncio.shield(kept.made)
        return found

    async def overview(self) -> Overview:
        """Return the overview."""

        def prepare() -> Callable[[], Overview]:
            now = time.time()
            gathered, memory, policy = self._gather(), dict(self._fleet.memory), self._policy.demand

            def make() -> Overview:
                rates = {}
                for key, item in memory.items():
                    demand = estimate_demand(item.demand, now, policy)
                    if demand is not None:
                        rates[key] = demand.rate
                return build_overview(replace(gathered, rates=rates), now)

            return make

        return await self.keep("overview", prepare)

    async def spending(self) -> Spending | None:
        """Return what was spent lately."""

        def prepare() -> Callable[[], Spending | None]:
            spend, now = self._fleet.spend, time.time()
            return lambda: build_spending(spend, now)

        return await self.keep("spending", prepare)

    def _gather(self) -> Installation:
        """Return everything but the rates. The objects in it never change."""
        fleet = self._fleet
        accelerators = fleet.accelerators()
        inventory, _ = fleet.capacity.measure(fleet.indices, accelerators)
        return Installation(
            deployments=list(fleet.readable()),
            routes=list(fleet.readable_routes()),
            budgets=[standing.budget for standing in fleet.budgets],
            tenants=list(fleet.tenants.values()),
            providers=[provider.object for provider in fleet.providers.values()],
            accelerators=list(accelerators.values()),
            inventory=inventory,
            operators=(
                OperatorRow(name=self._name, ready=True, active=True, version=package_version("modelyard")),
            ),
            ledger_time=fleet.spend.time if fleet.spend is not None else None,
            notes=tuple(self._notes()),
        )

    def _notes(self) -> list[str]:
        fleet = self._fleet
        found = [] if fleet.reading is not None else ["no Envoy was read yet: requests are not known"]
        unread = [
            (key, seen.error)
            for key in fleet.deployment_keys()
            if (seen := fleet.deployment(key)) is not None and seen.object is None
        ]
        found += [f"LLMDeployment {key} cannot be read: {error}" for key, error in unread[:NOTES]]
        if len(unread) > NOTES:
            found.append(
                f"{len(unread) - NOTES} more LLMDeployments cannot be read: their Events and the operator's log say why"
            )
        return found

    def deployment(self, key: str) -> ExplainReport | None:
        """Return the last decision about a deployment; None if there is none of that name."""
        seen = self._fleet.deployment(key)
        if seen is None or seen.object is None:
            return None
        scaling = seen.object.status.scaling
        return build_explanation(seen.object, (scaling.numbers if scaling is not None else None) or {})

    def route(self, key: str) -> RouteReport | None:
        """Return the last decision about a route; None if there is none of that name."""
        seen = self._fleet.route(key)
        return None if seen is None or seen.object is None else build_route_report(seen.object)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve_web(pages: WebPages, host: str, port: int) -> web.AppRunner:
    """Serve the pages and their JSON. Raises OSError if the address is taken."""
    app = web.Application(middlewares=[_guard(host), _wait_for(pages)])
    app.on_response_prepare.append(_add_headers)
    view = _Views(pages)
    app.add_routes(
        [
            web.get("/", view.fleet),
            web.get("/cost", view.cost),
            web.get("/routes", view.routes),
            web.get("/deployments/{namespace}/{name}", view.deployment),
            web.get("/routes/{namespace}/{name}", view.route),
            web.get("/api/overview", view.fleet_json),
            web.get("/api/spending", view.spending_json),
            web.get("/api/deployments/{namespace}/{name}", view.deployment_json),
            web.get("/api/routes/{namespace}/{name}", view.route_json),
            web.get("/static/{file}", view.static),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


class _Views:
    """One method for each path."""

    def __init__(self, pages: WebPages) -> None:
        self._pages = pages

    async def fleet(self, request: web.Request) -> web.Response:
        overview, number = await self._pages.overview(), _page_number(request)
        return await self._show(f"/ {number}", lambda: fleet_page(overview, number))

    async def cost(self, request: web.Request) -> web.Response:
        overview, number = await self._pages.overview(), _page_number(request)
        spending = await self._pages.spending()
        return await self._show(f"/cost {number}", lambda: cost_page(overview, spending, number))

    async def routes(self, request: web.Request) -> web.Response:
        overview, number = await self._pages.overview(), _page_number(request)
        return await self._show(f"/routes {number}", lambda: routes_page(overview, number))

    async def deployment(self, request: web.Request) -> web.Response:
        report = self._pages.deployment(_key(request))
        if report is None:
            return _html(None)
        overview = await self._pages.overview()
        return await self._show(f"/deployments {_key(request)}", lambda: deployment_page(overview, report))

    async def route(self, request: web.Request) -> web.Response:
        report = self._pages.route(_key(request))
        if report is None:
            return _html(None)
        overview = await self._pages.overview()
        return await self._show(f"/routes {_key(request)}", lambda: route_page(overview, report))

    async def fleet_json(self, _: web.Request) -> web.Response:
        overview = await self._pages.overview()
        return _json(await self._pages.keep("overview as JSON", lambda: lambda: _encode(overview)))

    async def spending_json(self, _: web.Request) -> web.Response:
        spending = await self._pages.spending()
        return _json(await self._pages.keep("spending as JSON", lambda: lambda: _encode(spending)))

    async def deployment_json(self, request: web.Request) -> web.Response:
        return _json(_encode(self._pages.deployment(_key(request))))

    async def route_json(self, request: web.Request) -> web.Response:
        return _json(_encode(self._pages.route(_key(request))))

    async def _show(self, name: str, make: Callable[[], str]) -> web.Response:
        return _html(await self._pages.keep(name, lambda: make))

    async def static(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        if name not in _STATIC:
            return _html(None)
        text = files("modelyard.render.web").joinpath(name).read_text(encoding="utf-8")
        return web.Response(text=text, content_type=_STATIC[name], charset="utf-8")


def _html(text: str | None) -> web.Response:
    found = text is not None
    shown = text or message_page("Not found", "There is no such page, or the object is gone.")
    return web.Response(text=shown, status=200 if found else 404, content_type="text/html", charset="utf-8")


def _encode(model: ApiModel | None) -> str | None:
    return None if model is None else json.dumps(wire(model), ensure_ascii=False)


def _json(text: str | None) -> web.Response:
    if text is None:
        return web.json_response({"error": "there is none, or it is not known yet"}, status=404)
    return web.json_response(text=text)


def _key(request: web.Request) -> str:
    return f"{request.match_info['namespace']}/{request.match_info['name']}"


def _page_number(request: web.Request) -> int:
    text = request.query.get("page", "1")
    return int(text) if text.isdecimal() and len(text) <= 6 else 1


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _guard(host: str) -> Any:
    """Return what refuses, on a loopback address, requests that name another host.

    A page of a stranger could otherwise let its own name point to this address, and read what is shown here (DNS
    rebinding). Elsewhere the names are not known: Services and Ingresses have their own.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _is_loopback(host) and not _is_loopback(_host_of(request.headers.get("Host", ""))):
            return web.Response(status=421, text="this address is only for localhost\n")
        return await handler(request)

    return check


def _wait_for(pages: WebPages) -> Any:
    """Return what answers 503 while the process does not act: half a fleet would look like trouble."""

    @web.middleware
    async def wait(request: web.Request, handler: Handler) -> web.StreamResponse:
        if pages.acting or request.path.startswith("/static/"):
            try:
                return await handler(request)
            except web.HTTPNotFound:
                return _html(None)
        if request.path.startswith("/api/"):
            return web.json_response({"error": "the cluster is being read"}, status=503)
        text = message_page(
            "Not ready", "This process is reading the cluster, or another one is active. Reload soon."
        )
        return web.Response(text=text, status=503, content_type="text/html", charset="utf-8")

    return wait


def _host_of(header: str) -> str:
    """Return the host of a `Host` header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
