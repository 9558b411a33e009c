"""What the chart renders, as an API server of Kubernetes 1.37 sees it. Nothing is stored."""

import copy
from collections.abc import Iterator

import pytest

from dev.charts.helm import NAMESPACE
from dev.cluster.crds import PROMETHEUS_OPERATOR
from tests.apiserver.client import APPLY, CRDS_PATH
from tests.chart.combinations import NAMES, objects_of, pods_of
from tests.chart.conftest import Place

MONITORS = ("PodMonitor", "ServiceMonitor", "PrometheusRule")
"""Kinds of the Prometheus operator."""
PRIVILEGED = {"hostNetwork": True}


def dry_run(place: Place, item):
    """Apply an object without storing it, and return the reply."""
    resource = place.cluster.dynamic.resources.get(api_version=item["apiVersion"], kind=item["kind"])
    path = resource.path(name=item["metadata"]["name"], namespace=item["metadata"].get("namespace"))
    query = "fieldManager=tests&force=true&fieldValidation=Strict&dryRun=All"
    return place.server.request("PATCH", f"{path}?{query}", item, APPLY)


@pytest.fixture(scope="module")
def monitored(place: Place) -> Iterator[Place]:
    """The cluster with the Prometheus operator's own definitions of its kinds, for as long as this file's tests run."""
    definitions = [
        PROMETHEUS_OPERATOR.load(f"monitoring.coreos.com_{kind.lower()}s.yaml") for kind in MONITORS
    ]
    place.cluster.apply_crds(definitions)
    yield place
    for item in definitions:
        place.server.request("DELETE", f"{CRDS_PATH}/{item['metadata']['name']}")
    place.cluster.dynamic.resources.invalidate_cache()


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_accepted(monitored, name):
    for item in objects_of(name):
        reply = dry_run(monitored, item)
        assert reply.status in {200, 201}, (item["kind"], item["metadata"]["name"], reply.message)
        assert not reply.warnings, item["metadata"]["name"]


@pytest.mark.parametrize(
    ("kind", "path", "value", "named"),
    [
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "intervall"), "30s", "intervall"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "interval"), "often", "interval"),
        ("ServiceMonitor", ("spec", "endpoints", 0, "honorLabels"), "yes", "honorLabels"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "soon", "for"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expression"), "up", "expression"),
    ],
)
def test_a_wrong_monitor_is_refused(monitored, kind, path, value, named):
    """The definitions that the monitors are tried against do look at them."""
    (item,) = (item for item in objects_of("monitoring") if item["kind"] == kind)
    node = item
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    reply = dry_run(monitored, item)
    assert reply.status in {400, 422, 500}, reply.message
    assert named in reply.message


def pod_of(template):
    """A pod of that template. Its account is the namespace's own: the chart's is not there."""
    spec = {**template["spec"], "serviceAccountName": "default"}
    metadata = {"name": "tried", "namespace": NAMESPACE, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("name", NAMES)
def test_pods_are_admitted_where_restricted_pod_security_is_enforced(place, name):
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All&fieldValidation=Strict"
    for template in pods_of(objects_of(name)).values():
        pod = pod_of(template)
        reply = place.server.request("POST", path, pod)
        assert reply.status == 201, reply.message
        worse = copy.deepcopy(pod)
        worse["spec"] |= PRIVILEGED
        assert place.server.request("POST", path, worse).status == 403, "it is enforced"
