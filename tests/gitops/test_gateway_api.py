"""The HTTPRoute to our gateway: Gateway API's own definition, found when it is installed later, and what is told."""

import urllib.request
from typing import Any

import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from dev.cluster.crds import GATEWAY_API
from dev.cluster.waiting import wait_until
from modelyard.cli.gatewayroute import read_gateway_route
from modelyard.core.gatewayroute import GatewayParent, ParentReport, explain_attachment
from modelyard.core.reasons import Code
from modelyard.kube.resources import HTTP_ROUTES, SERVICES
from modelyard.render.gateway_api import ROUTE_NAME, GatewayRouteSettings
from tests.apiserver.client import APPLY, CRDS_PATH, MERGE
from tests.gitops.conftest import Site

DEFINITION = "httproutes.gateway.networking.k8s.io"
PARENT = {"namespace": "infra", "name": "public", "sectionName": "https"}


def told(site: Site) -> tuple[str, float] | None:
    """Return the reason that the operator shows, and whether requests come."""
    with urllib.request.urlopen(site.ports.metrics_url, timeout=5) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    found = [
        (sample.labels["reason"], sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "modelyard_gateway_route_attached"
    ]
    assert len(found) <= 1, "one reason at a time"
    return found[0] if found else None


def wait_told(site: Site, reason: str, value: float) -> None:
    wait_until(lambda: told(site) == (reason, value), f"the operator says {reason}", timeout_s=60)


def report(site: Site, generation: int, **conditions: bool) -> None:
    """Write what the Gateway's controller would."""
    said = [
        {
            "type": kind,
            "status": str(holds),
            "reason": "Accepted" if holds else "NotAllowedByListeners",
            "message": "" if holds else "the listener takes no route of that namespace",
            "observedGeneration": generation,
            "lastTransitionTime": "2026-11-30T00:00:00Z",
        }
        for kind, holds in conditions.items()
    ]
    parents = [{"parentRef": PARENT, "controllerName": "example.com/gateway", "conditions": said}]
    path = HTTP_ROUTES.path(site.system, ROUTE_NAME, "status")
    reply = site.server.request("PATCH", path, {"status": {"parents": parents}}, MERGE)
    assert reply.status == 200, reply.message


def test_the_route_comes_with_gateway_api_and_tells_how_it_stands(site: Site) -> None:
    wait_told(site, Code.GATEWAY_API_MISSING, 0)
    definition = GATEWAY_API.load("gateway.networking.k8s.io_httproutes.yaml")
    reply = site.server.request(
        "PATCH", f"{CRDS_PATH}/{DEFINITION}?fieldManager=tests&force=true", definition, APPLY
    )
    assert reply.status in {200, 201}, reply.message
    wait_told(site, Code.GATEWAY_SERVICE_MISSING, 0)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "modelyard-gateway"},
        "spec": {"ports": [{"name": "http", "port": 80}], "selector": {"app": "envoy"}},
    }
    reply = site.server.request("POST", SERVICES.path(site.system), service)
    assert reply.status == 201, reply.message
    uid = reply.body["metadata"]["uid"]
    wait_told(site, Code.GATEWAY_ROUTE_PENDING, 0)
    route = site.server.request("GET", HTTP_ROUTES.path(site.system, ROUTE_NAME)).body
    assert route["spec"]["hostnames"] == ["llm.example.com"]
    (parent,) = route["spec"]["parentRefs"]
    assert parent.items() >= PARENT.items()
    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s"}
    assert [(item["name"], item["port"]) for item in rule["backendRefs"]] == [("modelyard-gateway", 80)]
    assert [owner["uid"] for owner in route["metadata"]["ownerReferences"]] == [uid], (
        "it goes with the Service"
    )

    generation = route["metadata"]["generation"]
    report(site, generation, Accepted=True, ResolvedRefs=True)
    wait_told(site, Code.GATEWAY_ROUTE_ATTACHED, 1)
    report(site, generation, Accepted=False, ResolvedRefs=True)
    wait_told(site, Code.GATEWAY_ROUTE_REFUSED, 0)

    # What the API server filled in, and what controllers said, is no difference: one write in all.
    assert _writes(site) == 1
    changed = {"spec": {"hostnames": ["other.example.com"]}}
    site.server.request("PATCH", HTTP_ROUTES.path(site.system, ROUTE_NAME), changed, MERGE)
    wait_until(lambda: _hostnames(site) == ["llm.example.com"], "a change is taken back", timeout_s=60)
    site.server.request("DELETE", f"{CRDS_PATH}/{DEFINITION}")
    wait_told(site, Code.GATEWAY_API_MISSING, 0)


def _hostnames(site: Site) -> Any:
    return site.server.request("GET", HTTP_ROUTES.path(site.system, ROUTE_NAME)).body["spec"]["hostnames"]


def _writes(site: Site) -> float:
    with urllib.request.urlopen(site.ports.metrics_url, timeout=5) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "modelyard_writes_total" and sample.labels["kind"] == "HTTPRoute"
        )


HTTPS, ANY = GatewayParent("infra", "public", "https"), GatewayParent("infra", "public")


@pytest.mark.parametrize(
    ("reports", "attached", "code"),
    [
        ((), False, Code.GATEWAY_ROUTE_PENDING),
        ((ParentReport(HTTPS, "Accepted", True),), False, Code.GATEWAY_ROUTE_PENDING),
        (
            (ParentReport(HTTPS, "Accepted", True), ParentReport(HTTPS, "ResolvedRefs", True)),
            True,
            Code.GATEWAY_ROUTE_ATTACHED,
        ),
        (
            (ParentReport(HTTPS, "Accepted", True), ParentReport(HTTPS, "ResolvedRefs", False, "no Service")),
            False,
            Code.GATEWAY_ROUTE_REFUSED,
        ),
        # Of another listener, or of an earlier form of the route.
        (
            (ParentReport(ANY, "Accepted", True), ParentReport(ANY, "ResolvedRefs", True)),
            False,
            Code.GATEWAY_ROUTE_PENDING,
        ),
        ((ParentReport(HTTPS, "Accepted", False, current=False),), False, Code.GATEWAY_ROUTE_PENDING),
    ],
)
def test_what_controllers_say_is_told(reports: tuple[ParentReport, ...], attached: bool, code: str) -> None:
    said, reason = explain_attachment((HTTPS,), reports)
    assert (said, reason.code) == (attached, code)
    assert str(HTTPS) in reason.message


def test_the_options_name_gateways_and_the_service() -> None:
    assert read_gateway_route((), (), "modelyard-gateway:80") is None
    read = read_gateway_route(("infra/public/https", "infra/public"), ("llm.example.com",), "edge:443")
    assert read == GatewayRouteSettings((HTTPS, ANY), ("llm.example.com",), "edge", 443)
    assert read_gateway_route(("infra/public",), (), "edge") == GatewayRouteSettings((ANY,), (), "edge", 80)


@pytest.mark.parametrize(
    ("parent", "service", "option"),
    [
        ("public", "edge", "--gateway-parent"),
        ("infra/public/https/x", "edge", "--gateway-parent"),
        ("infra/Public", "edge", "--gateway-parent"),
        ("infra/public", "edge:99999", "--gateway-service"),
        ("infra/public", "edge:x", "--gateway-service"),
    ],
)
def test_options_in_another_form_are_refused_by_name(parent: str, service: str, option: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        read_gateway_route((parent,), (), service)
    assert refused.value.param_hint == option
