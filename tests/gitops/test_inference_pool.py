"""The InferencePool of a deployment with an endpoint picker: the extension's own definition, installed later."""

import asyncio
import copy
from typing import Any

from dev.cluster.crds import INFERENCE_EXTENSION
from dev.cluster.waiting import wait_until
from dev.envoy.process import free_port
from modelyard.core.reasons import Code
from modelyard.core.routing import Picker
from modelyard.kube.resources import INFERENCE_POOLS
from modelyard.runtime.pickers import Connector
from tests.apiserver.client import APPLY, CRDS_PATH, MERGE
from tests.gitops.conftest import Site

DEFINITION = "inferencepools.inference.networking.k8s.io"
NAME = "picked"


def condition(site: Site, manifest: dict[str, Any], kind: str) -> tuple[str, str] | None:
    """Return status and reason of a condition; None without it."""
    for item in site.read(manifest)["status"].get("conditions", ()):
        if item["type"] == kind:
            return item["status"], item["reason"]
    return None


def pool(site: Site) -> dict[str, Any] | None:
    reply = site.server.request("GET", INFERENCE_POOLS.path(site.models, NAME))
    return reply.body if reply.status == 200 else None


def test_the_pool_comes_with_the_extension_follows_the_spec_and_goes_with_the_field(
    site: Site, examples: list[dict[str, Any]]
) -> None:
    for item in examples:
        if item["kind"] == "AcceleratorClass":
            site.apply(item, "tests")
    manifest = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "contextLength": 8192},
            "placement": {"accelerators": [{"class": "l4", "requestsPerMinute": 60, "count": 1}]},
            "replicas": 1,
            "endpointPicker": {"service": "epp", "failureMode": "FailOpen"},
        },
    }

    def wait_pool(status: str, reason: str) -> None:
        told = (status, reason)
        wait_until(
            lambda: condition(site, manifest, "InferencePoolReady") == told, f"told {reason}", timeout_s=60
        )

    assert site.apply(manifest, "tests").status in {200, 201}
    wait_pool("False", Code.INFERENCE_API_MISSING)
    # Nobody listens there: it is told, and the model serves all the same.
    wait_until(
        lambda: condition(site, manifest, "EndpointPickerAnswers") == ("False", Code.PICKER_SILENT),
        "the picker is silent",
        timeout_s=60,
    )
    wait_until(
        lambda: condition(site, manifest, "Ready") == ("True", Code.SERVING), "it serves", timeout_s=60
    )

    definition = INFERENCE_EXTENSION.load("inference.networking.k8s.io_inferencepools.yaml")
    path = f"{CRDS_PATH}/{DEFINITION}?fieldManager=tests&force=true"
    reply = site.server.request("PATCH", path, definition, APPLY)
    assert reply.status in {200, 201}, reply.message
    wait_pool("True", Code.POOL_APPLIED)
    made = pool(site)
    assert made is not None
    assert made["spec"]["selector"] == {"matchLabels": {"modelyard.dev/deployment": NAME}}
    assert made["spec"]["targetPorts"] == [{"number": 8000}]
    picker = made["spec"]["endpointPickerRef"]
    assert (picker["name"], picker["port"], picker["failureMode"]) == ("epp", {"number": 9002}, "FailOpen")
    assert [owner["uid"] for owner in made["metadata"]["ownerReferences"]] == [
        site.read(manifest)["metadata"]["uid"]
    ]

    # The pods that it selects are those that serve.
    changed = copy.deepcopy(manifest)
    changed["spec"]["endpointPicker"] = {"service": "epp", "port": 9003}
    site.apply(changed, "tests")
    wait_until(
        lambda: (
            (found := pool(site)) is not None
            and found["spec"]["endpointPickerRef"]["port"] == {"number": 9003}
            and found["spec"]["endpointPickerRef"]["failureMode"] == "FailClose"
        ),
        "the pool follows the spec",
        timeout_s=60,
    )
    edit = {"spec": {"targetPorts": [{"number": 1234}]}}
    site.server.request("PATCH", INFERENCE_POOLS.path(site.models, NAME), edit, MERGE)
    wait_until(
        lambda: (found := pool(site)) is not None and found["spec"]["targetPorts"] == [{"number": 8000}],
        "an edit of the pool is taken back",
        timeout_s=60,
    )
    plain = copy.deepcopy(manifest)
    del plain["spec"]["endpointPicker"]
    site.apply(plain, "tests")
    wait_until(lambda: pool(site) is None, "the pool goes with the field", timeout_s=60)
    wait_until(
        lambda: condition(site, manifest, "InferencePoolReady") is None, "and its condition", timeout_s=60
    )

    # A pool of that name that somebody else made stays as it is.
    other = {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": NAME},
        "spec": {
            "selector": {"matchLabels": {"app": "other"}},
            "targetPorts": [{"number": 80}],
            "endpointPickerRef": {"name": "other", "port": {"number": 9002}},
        },
    }
    reply = site.server.request("POST", INFERENCE_POOLS.path(site.models), other)
    assert reply.status == 201, reply.message
    site.apply(manifest, "tests")
    wait_pool("False", Code.NAME_CONFLICT)
    kept = pool(site)
    assert kept is not None
    assert kept["spec"]["selector"] == {"matchLabels": {"app": "other"}}
    site.server.request("DELETE", site.place(manifest))
    site.server.request("DELETE", f"{CRDS_PATH}/{DEFINITION}")


async def test_a_picker_is_asked_by_a_connection() -> None:
    port, connects = free_port(), Connector()
    assert not await connects(Picker("127.0.0.1", port))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with server:
        assert await connects(Picker("127.0.0.1", port))
    assert not await connects(Picker("no-such-name.invalid", port))
