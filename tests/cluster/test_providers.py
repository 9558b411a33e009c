"""An LLMProvider, its Secret and routes to it, from the API server through operator and Envoy to a TLS server."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dev.demo.kube import namespace_manifest
from modelyard.runtime.settings import SYSTEM_NAMESPACE
from tests.cluster.test_routes import wait_route
from tests.gateway.tls import TlsProvider, tls_provider

API_VERSION = "modelyard.dev/v1alpha1"
KEY = "sk-cluster-0123456789"
NAME = "stand-in"
READ_AGAIN = 60.0
"""Seconds: providers are read every 10 s."""


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[TlsProvider]:
    async with tls_provider(tmp_path / "ca") as started:
        yield started


@pytest.fixture
def secret(bed, server) -> Iterator[dict[str, Any]]:
    """The provider's Secret. The provider itself stands beside it until the test is over."""
    provider = {
        "apiVersion": API_VERSION,
        "kind": "LLMProvider",
        "metadata": {"name": NAME},
        "spec": {
            "baseURL": f"{server.url}/v1beta/openai",
            "secretRef": {"name": NAME, "key": "key"},
            "caSecretRef": {"name": NAME, "key": "ca.crt"},
            "models": [{"name": "large"}],
        },
    }
    data = {"key": KEY, "ca.crt": server.certificate}
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME},
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }
    bed.cluster.apply([namespace_manifest(SYSTEM_NAMESPACE, {})])
    bed.cluster.apply([provider], SYSTEM_NAMESPACE)
    yield manifest
    bed.cluster.delete([provider, manifest], SYSTEM_NAMESPACE)


@pytest.fixture
def make_route(bed) -> Iterator[Any]:
    """Applies an LLMRoute; it is deleted after the test."""
    made = []

    def make(name: str, *targets: dict[str, Any], **spec: Any) -> None:
        fields = {"model": name, "targets": list(targets), **spec}
        manifest = {"apiVersion": API_VERSION, "kind": "LLMRoute", "metadata": {"name": name}, "spec": fields}
        bed.cluster.apply([manifest], bed.namespace)
        made.append(manifest)

    yield make
    bed.cluster.delete(made, bed.namespace)


async def test_a_provider_answers_once_its_secret_is_there_and_the_key_is_nowhere_else(
    bed, server, secret, make_route
):
    target = {"provider": NAME, "model": "large"}
    make_route("outside", target)
    wait_route(bed, "outside", "False", "ProviderNotReady")
    status, body = await bed.chat("outside")
    assert status == 503
    assert "does not exist: create it" in body["error"]["message"]
    assert server.handshakes == 0

    bed.cluster.apply([secret], SYSTEM_NAMESPACE)
    wait_route(bed, "outside", "True", "Routed")
    status, body = await bed.chat("outside")
    assert (status, body["model"]) == (200, "large")
    (request,) = server.received
    assert request.line == "POST /v1beta/openai/chat/completions HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(request.body)["model"] == "large"

    logs = [path.read_text(errors="replace") for path in bed.stack.folder.rglob("*.log")]
    assert logs, "the operator and Envoy have logs"
    assert [text for text in logs if KEY in text] == []


async def test_a_route_turned_sovereign_sends_nothing_outside_any_more(
    bed, server, secret, make_model, make_route
):
    bed.cluster.apply([secret], SYSTEM_NAMESPACE)
    own = make_model({"replicas": 1})
    bed.wait_condition(own, "Ready", "True", "Serving")
    make_route("inside", {"provider": NAME, "model": "large"}, {"deployment": own}, policy="Priority")
    wait_route(bed, "inside", "True", "Routed")
    # The deployment alone makes the route ready; the provider is read a few seconds later, and then comes first.
    async with asyncio.timeout(READ_AGAIN):
        while (await bed.chat("inside"))[1].get("model") != "large":
            await asyncio.sleep(0.2)
    server.handshakes = 0
    server.drop_connections()

    make_route("inside-too", {"deployment": own}, model="inside", dataPolicy="Sovereign")
    wait_route(bed, "inside", "False", "DataPolicyViolated")
    for _ in range(5):
        status, body = await bed.chat("inside")
        assert (status, body["model"]) == (200, own)
    assert server.handshakes == 0
    # The pod that answers has nowhere to send what it was asked, and no other is started that could not get its model.
    bed.wait_condition(own, "Stalled", "True", "SourceOutside")
    policy = bed.get("networking.k8s.io/v1", "NetworkPolicy", own)
    assert "Egress" in policy["spec"]["policyTypes"]
    assert "egress" not in policy["spec"]
    assert bed.condition(own, "Ready") == ("True", "Serving")
