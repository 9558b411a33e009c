"""Keeps the HTTPRoute to our gateway, where Gateways of the cluster are named; says what is wrong with it.

Gateway API may be installed later, or taken away: nothing is watched, it is asked for from time to time.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.api.meta import LABEL_MANAGED_BY, MANAGED_BY
from modelyard.core.gatewayroute import REPORTED, GatewayParent, ParentReport, explain_attachment
from modelyard.core.reasons import Code, Reason
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.compare import is_applied
from modelyard.kube.resources import HTTP_ROUTES, SERVICES
from modelyard.render.gateway_api import ROUTE_NAME, GatewayRouteSettings, build_http_route
from modelyard.runtime.metrics import GATEWAY_ROUTE, WRITES
from modelyard.runtime.support import is_served

logger = logging.getLogger(__name__)

VERBS = ("get", "create", "patch")
"""What the operator does with HTTPRoutes; server-side apply needs `create` for the first time."""


class GatewayRouteKeeper:
    """Keeps one HTTPRoute in the gateway's namespace."""

    def __init__(
        self, client: KubeClient, namespace: str, settings: GatewayRouteSettings, interval: float
    ) -> None:
        """`interval`: seconds between two looks."""
        self._client = client
        self._namespace = namespace
        self._settings = settings
        self._interval = interval
        self._told: Reason | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                attached, reason = await self.look()
            except ApiError as error:
                logger.warning("The HTTPRoute to the gateway is not known: %s", error)
            else:
                self._tell(reason, attached=attached)
            await asyncio.sleep(self._interval)

    async def look(self) -> tuple[bool, Reason]:
        """Make the route stand as it should, and return whether requests come through it, and why not.

        Raises ApiError where the API server does not answer.
        """
        if not await is_served(self._client, HTTP_ROUTES):
            return False, Reason(
                Code.GATEWAY_API_MISSING,
                f"the cluster has no HTTPRoute ({HTTP_ROUTES.api_version}): install Gateway API, or start the operator "
                "without --gateway-parent",
            )
        missing = [verb for verb in VERBS if not await self._client.may(HTTP_ROUTES, verb, self._namespace)]
        if missing:
            return False, Reason(
                Code.GATEWAY_ROUTE_FORBIDDEN,
                f"the operator may not {', '.join(missing)} HTTPRoutes in namespace {self._namespace}: grant it",
            )
        service = await self._client.get(SERVICES, self._namespace, self._settings.service)
        if service is None:
            return False, Reason(
                Code.GATEWAY_SERVICE_MISSING,
                f"Service {self._namespace}/{self._settings.service} does not exist: name the gateway's Service with "
                "--gateway-service",
            )
        manifest = build_http_route(self._settings, self._namespace, service["metadata"]["uid"])
        live = await self._client.get(HTTP_ROUTES, self._namespace, ROUTE_NAME)
        if live is not None and live["metadata"].get("labels", {}).get(LABEL_MANAGED_BY) != MANAGED_BY:
            return False, Reason(
                Code.NAME_CONFLICT,
                f"HTTPRoute {self._namespace}/{ROUTE_NAME} exists and Modelyard did not make it: delete or rename it",
            )
        if live is None or not is_applied(manifest, live):
            live = await self._client.apply(HTTP_ROUTES, manifest)
            WRITES.labels(kind=HTTP_ROUTES.kind).inc()
            logger.info("Applied HTTPRoute %s/%s", self._namespace, ROUTE_NAME)
        return explain_attachment(self._settings.parents, read_reports(live))

    def _tell(self, reason: Reason, *, attached: bool) -> None:
        """Say how it stands, once for each change."""
        if reason == self._told:
            return
        if self._told is not None:
            GATEWAY_ROUTE.remove(self._told.code)
        GATEWAY_ROUTE.labels(reason.code).set(float(attached))
        logger.log(
            logging.INFO if attached else logging.WARNING, "HTTPRoute: %s: %s", reason.code, reason.message
        )
        self._told = reason


def read_reports(route: Mapping[str, Any]) -> Iterator[ParentReport]:
    """Yield what controllers say in the status of an HTTPRoute."""
    namespace, generation = route["metadata"]["namespace"], route["metadata"]["generation"]
    for item in route.get("status", {}).get("parents") or ():
        reference = item["parentRef"]
        parent = GatewayParent(
            reference.get("namespace", namespace), reference["name"], reference.get("sectionName")
        )
        for condition in item.get("conditions") or ():
            if condition["type"] in REPORTED:
                yield ParentReport(
                    parent,
                    condition["type"],
                    condition["status"] == "True",
                    condition.get("message", "")[:256],
                    condition.get("observedGeneration", generation) == generation,
                )
