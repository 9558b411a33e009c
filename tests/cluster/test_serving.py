"""A manifest becomes a model that serves, sleeps and wakes, on the real API server behind the real Envoy."""

import asyncio

from dev.cluster.waiting import wait_until
from tests.cluster.conftest import CHILD_KINDS, accelerator_class

SLEEPER = {"scaling": {"min": 0, "max": 2, "idleAfter": "10s"}}


async def test_held_request_wakes_a_sleeping_model(bed, make_model):
    name = make_model(SLEEPER)
    bed.wait_condition(name, "Ready", "True", "ScaledToZero")
    # The status comes first, so that no request is sent to pods that are about to go.
    wait_until(lambda: bed.child("apps/v1", "Deployment", name), "the Deployment exists", timeout_s=60)
    assert bed.child("apps/v1", "Deployment", name)["spec"]["replicas"] == 0

    status, body = await bed.chat(name)

    assert status == 200
    assert body["usage"]["completion_tokens"] == 4
    bed.wait_condition(name, "Ready", "True", "Serving")


async def test_namespace_and_name_always_reach_the_model(bed, make_model):
    name = make_model({"replicas": 1}, model={"source": "hf://a/b", "name": "team/served"})
    bed.wait_condition(name, "Ready", "True", "Serving")
    for model in ("team/served", f"{bed.namespace}/{name}"):
        status, body = await bed.chat(model)
        assert (status, body["model"]) == (200, "team/served")


async def test_idle_model_sleeps_and_wakes_again(bed, make_model):
    name = make_model(SLEEPER)
    bed.wait_condition(name, "Ready", "True", "ScaledToZero")
    generations = []
    for _ in range(2):
        status, _ = await bed.chat(name)
        assert status == 200
        bed.wait_condition(name, "Ready", "True", "Serving")
        bed.wait_condition(name, "Ready", "True", "ScaledToZero")
        # The old pod still drains: a request must not reach it any more, but wait.
        assert bed.deployment(name).status.ready_replicas == 0
        generations.append(bed.deployment(name).status.gateway.generation)
    assert generations[1] > generations[0] > 0


async def test_a_model_deleted_and_made_again_still_wakes(bed, make_model):
    for _ in range(2):
        name = make_model(SLEEPER, name="again")
        bed.wait_condition(name, "Ready", "True", "ScaledToZero")
        assert (await bed.chat(name, timeout_s=60))[0] == 200
        manifest = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": name},
        }
        bed.cluster.delete([manifest], bed.namespace)
        wait_until(
            lambda: bed.child("apps/v1", "Deployment", "again") is None, "its child is gone", timeout_s=60
        )


async def test_a_wake_storm_starts_one_replica(bed, make_model):
    name = make_model({"scaling": {"min": 0, "max": 8, "idleAfter": "1h"}})
    bed.wait_condition(name, "Ready", "True", "ScaledToZero")
    answers = await asyncio.gather(*(bed.chat(name) for _ in range(20)))
    assert [status for status, _ in answers] == [200] * 20
    history = bed.deployment(name).status.scaling.history
    assert (history[0].from_replicas, history[0].to_replicas, history[0].reason) == (0, 1, "Woken")


async def test_children_are_owned_and_the_user_object_is_untouched(bed, make_model):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    uid = bed.deployment(name).metadata.uid
    for api_version, kind in CHILD_KINDS:
        owners = bed.child(api_version, kind, name)["metadata"]["ownerReferences"]
        assert [owner["uid"] for owner in owners] == [uid], kind
    live = bed.get("modelyard.dev/v1alpha1", "LLMDeployment", name)
    assert "finalizers" not in live["metadata"]
    assert not [key for key in live["metadata"].get("annotations", {}) if "kopf" in key]
    managers = {
        entry["manager"] for entry in live["metadata"]["managedFields"] if not entry.get("subresource")
    }
    assert managers == {"modelyard-demo"}, "only the user writes spec"
    assert live["status"]["observedGeneration"] == live["metadata"]["generation"]


async def test_endpoints_come_from_pods_not_from_slices(bed, make_model):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    slices = bed.get("discovery.k8s.io/v1", "EndpointSlice")["items"]
    mine = [item for item in slices if item["metadata"]["labels"].get("kubernetes.io/service-name") == name]
    assert not any(item.get("endpoints") for item in mine), "the API server refuses loopback endpoints"
    assert (await bed.chat(name))[0] == 200


async def test_scale_subresource_sets_the_size(bed, make_model):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    resource = bed.cluster.dynamic.resources.get(api_version="modelyard.dev/v1alpha1", kind="LLMDeployment")
    resource.subresources["scale"].patch(
        name=name,
        namespace=bed.namespace,
        body={"spec": {"replicas": 2}},
        content_type="application/merge-patch+json",
    )
    wait_until(lambda: bed.deployment(name).status.ready_replicas == 2, "two replicas serve", timeout_s=60)


async def test_suspended_model_refuses_at_once(bed, make_model):
    name = make_model({"replicas": 1}, suspend=True)
    bed.wait_condition(name, "Ready", "False", "Suspended")
    status, body = await bed.chat(name, timeout_s=10)
    assert status == 503
    assert "suspended" in body["error"]["message"]


async def test_unknown_accelerator_class_stalls_until_it_exists(bed, make_model):
    late = accelerator_class("late-class")
    name = make_model({"replicas": 1}, placement={"accelerators": [{"class": "late-class"}]})
    bed.wait_condition(name, "Stalled", "True", "AcceleratorClassNotFound")
    bed.cluster.apply([late])
    try:
        bed.wait_condition(name, "Ready", "True", "Serving")
        assert bed.condition(name, "Stalled") == ("False", "NotStalled")
    finally:
        bed.cluster.delete([late])


async def test_a_stranger_of_the_same_name_is_left_alone(bed, make_model):
    stranger = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "taken", "labels": {"team": "other"}},
    }
    bed.cluster.apply([stranger], bed.namespace)
    try:
        make_model({"replicas": 1}, name="taken", routed=False)
        bed.wait_condition("taken", "Stalled", "True", "NameConflict")
        assert bed.child("apps/v1", "Deployment", "taken") is None
        assert "ownerReferences" not in bed.get("v1", "ServiceAccount", "taken")["metadata"]
    finally:
        bed.cluster.delete([stranger], bed.namespace)
