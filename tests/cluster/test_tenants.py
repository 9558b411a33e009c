"""LLMTenants and their Secrets, from the API server through operator and Envoy, with a gateway that asks for keys."""

import asyncio
import base64
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dev.cluster.waiting import wait_until
from dev.demo.kube import Cluster, namespace_manifest
from dev.stack import Stack
from tests.cluster.conftest import Bed

API_VERSION = "modelyard.dev/v1alpha1"
FIRST, SECOND = "sk-first-0123456789abcdef", "sk-second-0123456789abcdef"


@dataclass
class Gateway:
    """Operator and Envoy of a gateway that asks for keys, with a namespace of models and one of its own."""

    cluster: Cluster
    stack: Stack
    models: str
    system: str

    def apply_secret(self, **keys: str) -> None:
        """Make the Secret `keys` hold these and no others."""
        data = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": data}
        self.cluster.apply([manifest], self.system)

    def apply_tenant(self, *keys: str, **spec: Any) -> None:
        """Make the tenant `search` have these keys of the Secret."""
        fields = {"keys": [{"name": "keys", "key": key} for key in keys], **spec}
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "LLMTenant",
            "metadata": {"name": "search"},
            "spec": fields,
        }
        self.cluster.apply([manifest], self.system)

    def ready(self) -> tuple[str, str]:
        """Return status and reason of the tenant's Ready condition; empty strings before it is set."""
        resource = self.cluster.dynamic.resources.get(api_version=API_VERSION, kind="LLMTenant")
        status = resource.get(name="search", namespace=self.system).to_dict().get("status") or {}
        found = [item for item in status.get("conditions", ()) if item["type"] == "Ready"]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")

    async def ask(self, model: str, key: str | None = None) -> tuple[int, str]:
        """Send one chat request and return status and the model or the code of the error."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.post(f"{self.stack.url}/v1/chat/completions", json=asked, headers=headers) as reply,
        ):
            body = await reply.json(content_type=None)
            return reply.status, body["model"] if reply.status == 200 else body["error"]["code"]

    async def wait_answer(self, model: str, key: str, status: int) -> None:
        """Wait until requests are answered with a status: what was written is read soon, not at once."""
        async with asyncio.timeout(60):
            while (await self.ask(model, key))[0] != status:
                await asyncio.sleep(0.1)


@pytest.fixture
def gateway(bed: Bed, tmp_path: Path) -> Iterator[Gateway]:
    """Pods run on the nodes of the tier."""
    suffix = uuid.uuid4().hex[:6]
    models, system = f"models-{suffix}", f"system-{suffix}"
    namespaces = [namespace_manifest(name, {}) for name in (models, system)]
    bed.cluster.apply(namespaces)
    stack = Stack(
        folder=tmp_path,
        kubeconfig=bed.stack.kubeconfig,
        operator_kubeconfig=bed.stack.operator_kubeconfig,
        namespaces=(models,),
        nodes="cpu=1",
        node_prefix=f"t{suffix}",
        operator_options=("--namespace", system, "--tenant-interval", "0.2", "--no-read-hub"),
        anonymous=False,
    )
    with stack:
        yield Gateway(bed.cluster, stack, models, system)
        bed.cluster.delete(namespaces)


def model(name: str) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
            "placement": {"accelerators": [{"class": "h100", "requestsPerMinute": 600}]},
            "replicas": 1,
        },
    }


async def test_a_tenant_from_its_first_key_to_the_next(gateway: Gateway) -> None:
    gateway.cluster.apply([model("one"), model("two")], gateway.models)
    assert await gateway.ask("one", FIRST) == (401, "invalid_api_key"), "there is no tenant yet"

    gateway.apply_tenant("first", allow=[{"namespace": gateway.models, "names": ["one"]}])
    wait_until(lambda: gateway.ready() == ("False", "SecretNotFound"), "the tenant lacks its Secret")
    gateway.apply_secret(first=FIRST)
    wait_until(lambda: gateway.ready() == ("True", "Configured"), "the tenant has its key")
    await gateway.wait_answer("one", FIRST, 200)
    assert await gateway.ask("two", FIRST) == (403, "model_not_allowed")
    assert await gateway.ask("one") == (401, "invalid_api_key")

    gateway.apply_secret(first=FIRST, second=SECOND)
    gateway.apply_tenant("first", "second")
    await gateway.wait_answer("two", SECOND, 200)
    assert (await gateway.ask("one", FIRST))[0] == 200, "both keys work"
    gateway.apply_tenant("second")
    await gateway.wait_answer("one", FIRST, 401)
    assert (await gateway.ask("one", SECOND))[0] == 200

    gateway.stack.operator.kill()
    assert (await gateway.ask("one", SECOND))[0] == 200, "the gateway needs no operator"
    assert (await gateway.ask("one", FIRST))[0] == 401
    gateway.stack.operator.start()
    gateway.stack.operator.wait_ready()
    assert (await gateway.ask("one", SECOND))[0] == 200
    assert (await gateway.ask("one", FIRST))[0] == 401

    texts = [path.read_text(errors="replace") for path in gateway.stack.folder.rglob("*.log")]
    assert len(texts) >= 2, "operator and Envoy have logs"
    assert [text for text in texts if FIRST in text or SECOND in text] == []


async def test_limits_hold_until_the_operator_is_away(gateway: Gateway) -> None:
    gateway.cluster.apply([model("one")], gateway.models)
    gateway.apply_secret(first=FIRST)
    gateway.apply_tenant("first")
    await gateway.wait_answer("one", FIRST, 200)
    gateway.apply_tenant("first", limits={"requestsPerMinute": 1})
    await gateway.wait_answer("one", FIRST, 429)
    assert await gateway.ask("one", FIRST) == (429, "rate_limit_exceeded")
    gateway.stack.operator.kill()
    assert [(await gateway.ask("one", FIRST))[0] for _ in range(3)] == [200] * 3, "nobody counts"
    gateway.stack.operator.start()
    gateway.stack.operator.wait_ready()
    await gateway.wait_answer("one", FIRST, 429)
