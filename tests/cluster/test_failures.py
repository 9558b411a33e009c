"""What happens when a part is missing: nothing is lost, nothing is scaled, nothing is written without need."""

import asyncio
import urllib.request

from dev.cluster.waiting import wait_until
from modelyard.gateway.counters import parse_counters
from tests.cluster.conftest import CHILD_KINDS

SLEEPER = {"scaling": {"min": 0, "max": 2, "idleAfter": "1h"}}


async def test_request_survives_an_operator_killed_during_its_hold(bed, make_model):
    name = make_model(SLEEPER)
    bed.wait_condition(name, "Ready", "True", "ScaledToZero")
    listed = await bed.chat(name)
    assert listed[0] == 200
    other = make_model(SLEEPER)
    bed.wait_condition(other, "Ready", "True", "ScaledToZero")

    bed.stack.operator.kill()
    held = asyncio.create_task(bed.chat(other, timeout_s=90))
    await asyncio.to_thread(wait_until, lambda: arrivals(bed, other) == 1, "it has arrived", timeout_s=60)
    await asyncio.to_thread(bed.stack.operator.start)
    await asyncio.to_thread(bed.stack.operator.wait_ready)

    assert (await held)[0] == 200


def arrivals(bed, name) -> int:
    """Return how many requests for a model have arrived at Envoy, counted before any hold."""
    with urllib.request.urlopen(f"{bed.stack.stats_url}/stats/prometheus", timeout=30) as page:
        return parse_counters(page.read().decode()).arrivals.get(f"{bed.namespace}/{name}", 0)


async def test_restart_with_nothing_to_do_writes_nothing(bed, make_model):
    serving, sleeping = make_model({"replicas": 1}), make_model(SLEEPER)
    bed.wait_condition(serving, "Ready", "True", "Serving")
    bed.wait_condition(serving, "Progressing", "False", "Complete")
    bed.wait_condition(sleeping, "Ready", "True", "ScaledToZero")
    bed.stack.operator.stop()
    before = bed.operator_writes()
    assert before, "the audit log shows the writes of this operator"

    bed.stack.operator.start()
    bed.stack.operator.wait_ready()
    every = len(bed.cluster.llm_deployments(bed.namespace))
    wait_until(
        lambda: (
            bed.operator_metric("modelyard_reconciles_total") >= every
            and bed.operator_metric("modelyard_queue_length") == 0
            and bed.operator_metric("modelyard_gateway_readings_total", outcome="complete") >= 1
        ),
        "the new process has looked at every object and at the gateway",
        timeout_s=60,
    )
    assert (await bed.chat(serving))[0] == 200

    assert bed.operator_writes()[len(before) :] == [], "not even an Event"


async def test_deletion_while_the_operator_is_down_leaves_nothing(bed, make_model):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    bed.stack.operator.stop()
    try:
        manifest = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": name},
        }
        bed.cluster.delete([manifest], bed.namespace)
        wait_until(
            lambda: bed.get("modelyard.dev/v1alpha1", "LLMDeployment", name) is None,
            "it is gone",
            timeout_s=60,
        )
        for api_version, kind in CHILD_KINDS:
            wait_until(
                lambda version=api_version, kind=kind: bed.get(version, kind, name) is None,
                f"garbage collection removes the {kind}",
                timeout_s=60,
            )
    finally:
        bed.stack.operator.start()
        bed.stack.operator.wait_ready()

    async def refused() -> bool:
        try:
            return (await bed.chat(name, timeout_s=10))[0] == 404
        except TimeoutError:
            # It was held for a pod that will not come.
            return False

    async with asyncio.timeout(120):
        # Envoy reconnects within a second and then forgets the model.
        while not await refused():
            await asyncio.sleep(0.1)


async def test_lost_metrics_hold_the_size(bed, make_model):
    name = make_model({"scaling": {"min": 1, "max": 4}})
    bed.wait_condition(name, "Ready", "True", "Serving")
    bed.wait_condition(name, "MetricsAvailable", "True", "DemandRead")
    bed.stack.envoy.kill()
    try:
        bed.wait_condition(name, "MetricsAvailable", "False", "NoData")
        assert bed.child("apps/v1", "Deployment", name)["spec"]["replicas"] == 1
    finally:
        bed.stack.envoy.start()
        bed.stack.envoy.wait_ready()
    bed.wait_condition(name, "MetricsAvailable", "True", "DemandRead")


async def test_a_deleted_child_comes_back(bed, make_model):
    name = make_model({"replicas": 1})
    bed.wait_condition(name, "Ready", "True", "Serving")
    uid = bed.get("v1", "Service", name)["metadata"]["uid"]
    bed.cluster.delete([{"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}], bed.namespace)
    wait_until(
        lambda: (bed.get("v1", "Service", name) or {"metadata": {"uid": uid}})["metadata"]["uid"] != uid,
        "the Service is made again",
        timeout_s=60,
    )
