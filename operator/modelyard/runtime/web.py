"""The read-only web page: a thin handler over pages that are built elsewhere, and the same as JSON."""

import contextlib
import ipaddress
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version as package_version
from importlib.resources import files
from typing import Any

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
"""How long an overview is shown again: several people look at once, and a fleet of 2,000 takes tens of milliseconds."""

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


class WebPages:
    """Builds what is shown from what the process knows."""

    def __init__(self, fleet: Fleet, policy: Policy, name: str, acting: Callable[[], bool]) -> None:
        self._fleet = fleet
        self._policy = policy
        self._name = name
        self._acting = acting
        self._kept: tuple[float, Overview] | None = None

    @property
    def acting(self) -> bool:
        """Whether the process has seen the whole cluster and decides."""
        return self._acting()

    def overview(self, now: float | None = None) -> Overview:
        """Return the overview, not older than `KEEP_SECONDS`."""
        now = time.time() if now is None else now
        if self._kept is None or not 0 <= now - self._kept[0] < KEEP_SECONDS:
            self._kept = (now, build_overview(self._gather(now), now))
        return self._kept[1]

    def spending(self) -> Spending | None:
        """Return what was spent lately."""
        return build_spending(self._fleet.spend, time.time())

    def _gather(self, now: float) -> Installation:
        fleet = self._fleet
        accelerators = fleet.accelerators()
        inventory, _ = fleet.capacity.measure(fleet.indices, accelerators)
        rates = {}
        for key, memory in list(fleet.memory.items()):
            demand = estimate_demand(memory.demand, now, self._policy.demand)
            if demand is not None:
                rates[key] = demand.rate
        return Installation(
            deployments=list(fleet.readable()),
            routes=list(fleet.readable_routes()),
            budgets=[standing.budget for standing in fleet.budgets],
            tenants=list(fleet.tenants.values()),
            providers=[provider.object for provider in fleet.providers.values()],
            accelerators=list(accelerators.values()),
            inventory=inventory,
            rates=rates,
            operators=(
                OperatorRow(name=self._name, ready=True, active=True, version=package_version("modelyard")),
            ),
            ledger_time=fleet.spend.time if fleet.spend is not None else None,
            notes=tuple(self._notes()),
        )

    def _notes(self) -> list[str]:
        fleet = self._fleet
        found = [] if fleet.reading is not None else ["no Envoy was read yet: requests are not known"]
        for key in fleet.deployment_keys():
            seen = fleet.deployment(key)
            if seen is not None and seen.object is None:
                found.append(f"LLMDeployment {key} cannot be read: {seen.error}")
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
        return _html(fleet_page(self._pages.overview(), _page_number(request)))

    async def cost(self, request: web.Request) -> web.Response:
        return _html(cost_page(self._pages.overview(), self._pages.spending(), _page_number(request)))

    async def routes(self, request: web.Request) -> web.Response:
        return _html(routes_page(self._pages.overview(), _page_number(request)))

    async def deployment(self, request: web.Request) -> web.Response:
        report = self._pages.deployment(_key(request))
        return _html(None if report is None else deployment_page(self._pages.overview(), report))

    async def route(self, request: web.Request) -> web.Response:
        report = self._pages.route(_key(request))
        return _html(None if report is None else route_page(self._pages.overview(), report))

    async def fleet_json(self, _: web.Request) -> web.Response:
        return _json(self._pages.overview())

    async def spending_json(self, _: web.Request) -> web.Response:
        return _json(self._pages.spending())

    async def deployment_json(self, request: web.Request) -> web.Response:
        return _json(self._pages.deployment(_key(request)))

    async def route_json(self, request: web.Request) -> web.Response:
        return _json(self._pages.route(_key(request)))

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


def _json(model: ApiModel | None) -> web.Response:
    if model is None:
        return web.json_response({"error": "there is none, or it is not known yet"}, status=404)
    return web.json_response(wire(model))


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
