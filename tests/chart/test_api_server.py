"""What the chart renders, as an API server of Kubernetes 1.37 sees it. Nothing is stored."""

import copy

import pytest

from dev.charts.helm import NAMESPACE
from tests.apiserver.client import APPLY
from tests.chart.combinations import NAMES, objects_of, pods_of
from tests.chart.conftest import Place

OTHERS = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, which are not served here."""
PRIVILEGED = {"hostNetwork": True}


def dry_run(place: Place, item):
    """Apply an object without storing it, and return the reply."""
    resource = place.cluster.dynamic.resources.get(api_version=item["apiVersion"], kind=item["kind"])
    path = resource.path(name=item["metadata"]["name"], namespace=item["metadata"].get("namespace"))
    query = "fieldManager=tests&force=true&fieldValidation=Strict&dryRun=All"
    return place.server.request("PATCH", f"{path}?{query}", item, APPLY)


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_accepted(place, name):
    for item in objects_of(name):
        if item["kind"] not in OTHERS:
            reply = dry_run(place, item)
            assert reply.status in {200, 201}, (item["kind"], item["metadata"]["name"], reply.message)
            assert not reply.warnings, item["metadata"]["name"]


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
