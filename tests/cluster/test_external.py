"""`actuator: External` on the real API server: an HPA takes the size over and gives it back, without a jump."""

import asyncio
import json
import time
import urllib.error
import urllib.request

import pytest

from dev.cluster.waiting import wait_until
from modelyard.core.names import unix_time
from tests.cluster.adapter import adapter_manifests, serve_adapter

HPA = ("autoscaling/v2", "HorizontalPodAutoscaler")
OURS = {"scaling": {"min": 2, "max": 4}}
DOWN_WINDOW = 5
"""Seconds that the operator of this tier keeps a size before it falls (`--scale-down-window`)."""
EXTERNAL = {"scaling": {"min": 2, "max": 4, "actuator": "External"}}


def change(bed, name, **spec) -> None:
    """Change fields of an LLMDeployment's spec, as a user would."""
    resource = bed.cluster.dynamic.resources.get(api_version="modelyard.dev/v1alpha1", kind="LLMDeployment")
    resource.patch(
        name=name,
        namespace=bed.namespace,
        body={"spec": spec},
        content_type="application/merge-patch+json",
    )


def replicas(bed, name) -> int:
    return bed.child("apps/v1", "Deployment", name)["spec"]["replicas"]


def desired(bed, name) -> dict:
    """Return the operator's answer to KEDA."""
    url = bed.stack.ports.metrics_url.replace("/metrics", f"/v1/desired-replicas/{bed.namespace}/{name}")
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)


def published(bed, name) -> bool:
    with urllib.request.urlopen(bed.stack.ports.metrics_url, timeout=30) as reply:
        series = f'modelyard_desired_replicas{{deployment="{name}",namespace="{bed.namespace}"}}'
        return any(line.startswith(series) for line in reply.read().decode().splitlines())


async def test_an_hpa_takes_the_size_over_and_gives_it_back(bed, make_model):
    name = make_model({"scaling": {"min": 3, "max": 4}})
    bed.wait_condition(name, "Ready", "True", "Serving")
    wait_until(lambda: bed.deployment(name).status.ready_replicas == 3, "three replicas", timeout_s=60)
    pods = {pod["metadata"]["uid"] for pod in mine(bed, name)}

    change(bed, name, **EXTERNAL)
    wait_until(lambda: bed.get(*HPA, name), "an HPA exists", timeout_s=60)
    hpa = bed.get(*HPA, name)
    bounds = hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]
    assert bounds == (2, 4)
    target = hpa["spec"]["scaleTargetRef"]
    assert target["name"] == bed.child("apps/v1", "Deployment", name)["metadata"]["name"]
    assert [owner["uid"] for owner in hpa["metadata"]["ownerReferences"]] == [
        bed.deployment(name).metadata.uid
    ]
    bed.wait_condition(name, "ExternalScalerReady", "False", "MetricsAdapterMissing")
    # The real HPA controller has looked, found no metric, and left the size alone.
    wait_until(lambda: scaling_active(bed, name) == "False", "the HPA says it cannot scale", timeout_s=60)
    managers = bed.child("apps/v1", "Deployment", name)["metadata"]["managedFields"]
    ours = [item["fieldsV1"]["f:spec"] for item in managers if item["manager"] == "modelyard"]
    assert ours
    assert all("f:replicas" not in fields for fields in ours)
    assert replicas(bed, name) == 3
    assert {pod["metadata"]["uid"] for pod in mine(bed, name)} == pods, "no pod was lost or added"
    assert published(bed, name)
    assert desired(bed, name)["desiredReplicas"] >= 2

    # Somebody else sets the size now.
    scale = bed.cluster.dynamic.resources.get(api_version="apps/v1", kind="Deployment").subresources["scale"]
    scale.patch(
        name=target["name"],
        namespace=bed.namespace,
        body={"spec": {"replicas": 4}},
        content_type="application/merge-patch+json",
    )
    wait_until(lambda: bed.deployment(name).status.ready_replicas == 4, "four replicas", timeout_s=60)

    switched = time.time()
    change(bed, name, scaling={"actuator": "Modelyard"})
    wait_until(lambda: bed.get(*HPA, name) is None, "the HPA is gone", timeout_s=60)
    wait_until(
        lambda: bed.condition(name, "ExternalScalerReady") == ("", ""), "the condition goes", timeout_s=60
    )
    # There is no load: four replicas are too many, but they stay for the window that every size stays for.
    wait_until(lambda: replicas(bed, name) == 2, "Modelyard sets the size again", timeout_s=60)
    wait_until(lambda: bed.deployment(name).status.scaling.desired_replicas == 2, "and says so", timeout_s=60)
    fall = bed.deployment(name).status.scaling.history[-1]
    assert (fall.from_replicas, fall.to_replicas) == (4, 2)
    assert unix_time(fall.time) - switched >= DOWN_WINDOW - 1, "times in status are whole seconds"


async def test_keda_is_missing_and_nothing_else_is_wrong(bed, make_model):
    name = make_model({"scaling": {"max": 2, "actuator": "External", "external": {"scaler": "ScaledObject"}}})
    bed.wait_condition(name, "Ready", "True", "Serving")
    bed.wait_condition(name, "ExternalScalerReady", "False", "KedaMissing")
    assert bed.condition(name, "Stalled") == ("False", "NotStalled")

    change(bed, name, scaling={"external": {"scaler": "HorizontalPodAutoscaler"}})
    bed.wait_condition(name, "ExternalScalerReady", "False", "MetricsAdapterMissing")
    change(bed, name, scaling={"external": {"scaler": "None"}})
    wait_until(lambda: bed.get(*HPA, name) is None, "the HPA is gone", timeout_s=60)
    wait_until(
        lambda: bed.condition(name, "ExternalScalerReady") == ("", ""), "the condition goes", timeout_s=60
    )


async def test_an_hpa_of_somebody_else_is_left_alone(bed, make_model):
    theirs = {
        "apiVersion": HPA[0],
        "kind": HPA[1],
        "metadata": {"name": "taken-scaler"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"},
            "maxReplicas": 2,
        },
    }
    bed.cluster.apply([theirs], bed.namespace)
    try:
        name = make_model(EXTERNAL, name="taken-scaler")
        bed.wait_condition(name, "ExternalScalerReady", "False", "ScalerConflict")
        change(bed, name, scaling={"actuator": "Modelyard"})
        wait_until(
            lambda: bed.condition(name, "ExternalScalerReady") == ("", ""), "the condition goes", timeout_s=60
        )
        assert bed.get(*HPA, name)["spec"]["scaleTargetRef"]["name"] == "other"
    finally:
        bed.cluster.delete([theirs], bed.namespace)


async def test_advice_is_published_and_not_acted_on(bed, make_model):
    name = make_model({"scaling": {"min": 1, "max": 4, "mode": "Advise"}})
    bed.wait_condition(name, "Ready", "True", "Serving")
    change(bed, name, scaling={"min": 3})
    wait_until(
        lambda: bed.deployment(name).status.scaling.desired_replicas == 3, "the advice is 3", timeout_s=60
    )
    last = bed.deployment(name).status.scaling.history[-1]
    assert (last.from_replicas, last.to_replicas) == (1, 3)
    assert desired(bed, name)["desiredReplicas"] == 3
    assert replicas(bed, name) == 1


async def test_the_figures_go_with_the_deployment(bed, make_model):
    name = make_model(OURS)
    wait_until(lambda: published(bed, name), "its size is published", timeout_s=60)
    manifest = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
    }
    bed.cluster.delete([manifest], bed.namespace)
    wait_until(lambda: not published(bed, name), "its size is gone", timeout_s=60)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        desired(bed, name)


def mine(bed, name) -> list[dict]:
    pods = bed.get("v1", "Pod")["items"]
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get("modelyard.dev/deployment") == name]


def scaled_by(bed, child) -> set[str]:
    """Return who wrote the scale of a child Deployment, from the API server's audit log."""
    events = [json.loads(line) for line in bed.audit_log.read_text(encoding="utf-8").splitlines()]
    return {
        event["user"]["username"]
        for event in events
        if event["requestURI"].partition("?")[0].endswith(f"/deployments/{child}/scale")
        and event["verb"] in {"update", "patch"}
    }


def scaling_active(bed, name) -> str:
    conditions = bed.get(*HPA, name).get("status", {}).get("conditions") or []
    return next((item["status"] for item in conditions if item["type"] == "ScalingActive"), "")


@pytest.fixture
def adapter(bed, control_plane):
    """A metrics adapter that serves what the operator publishes."""
    with serve_adapter(bed.stack.ports.metrics_url, control_plane.server_certificate) as port:
        manifests = adapter_manifests(bed.namespace, port)
        bed.cluster.apply(manifests)
        yield
        bed.cluster.delete(manifests)


@pytest.mark.usefixtures("adapter")
async def test_the_hpa_follows_the_published_size(bed, make_model):
    """The whole way: load, decision, metric, adapter, the real HPA, pods."""
    name = make_model(
        {"scaling": {"min": 1, "max": 3, "actuator": "External"}},
        placement={"accelerators": [{"class": "h100", "requestsPerMinute": 60}]},
    )
    bed.wait_condition(name, "Ready", "True", "Serving")
    bed.wait_condition(name, "ExternalScalerReady", "True", "ScalerActive", timeout_s=90)
    assert replicas(bed, name) == 1
    deadline = time.monotonic() + 90
    while await asyncio.to_thread(replicas, bed, name) < 3:
        assert time.monotonic() < deadline, f"the HPA has not followed: {bed.get(*HPA, name)['status']}"
        answers = await asyncio.gather(*(bed.chat(name) for _ in range(8)))
        assert {status for status, _ in answers} == {200}
    child = bed.child("apps/v1", "Deployment", name)["metadata"]["name"]
    assert scaled_by(bed, child) == {"system:serviceaccount:kube-system:horizontal-pod-autoscaler"}
