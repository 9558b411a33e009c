"""Providers and their Secrets as the operator reads them from a real API server."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.certificates import CertificateAuthority
from dev.cluster.control_plane import ControlPlane
from modelyard.core.reasons import Code
from modelyard.kube.client import ApiError, KubeClient
from modelyard.render.settings import PodPeer
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.providers import ProviderKeeper
from modelyard.runtime.settings import OperatorSettings
from tests.apiserver.client import MERGE, ApiServer, resource_path

KEY = "sk-0123456789abcdef"
OPAQUE = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"}


class Setting:
    """A namespace that stands for the gateway's, and a keeper that reads it."""

    def __init__(self, server: ApiServer, client: KubeClient, namespace: str) -> None:
        self.server = server
        self.namespace = namespace
        self.fleet = Fleet()
        self.changes = 0
        settings = OperatorSettings()
        settings = replace(settings, render=replace(settings.render, gateway=PodPeer(namespace, {})))
        self.keeper = ProviderKeeper(client, self.fleet, settings, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def create_secret(self, name: str, **data: bytes) -> None:
        encoded = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
        body = {**OPAQUE, "metadata": {"name": name}, "data": encoded}
        reply = self.server.request("POST", f"/api/v1/namespaces/{self.namespace}/secrets", body)
        assert reply.status == 201, reply.message

    def change_secret(self, name: str, key: str, value: bytes) -> None:
        body = {"data": {key: base64.b64encode(value).decode()}}
        path = f"/api/v1/namespaces/{self.namespace}/secrets/{name}"
        assert self.server.request("PATCH", path, body, MERGE).status == 200

    def create_provider(self, name: str, **spec: Any) -> None:
        fields = {"baseURL": "https://api.example.com/v1", "models": [{"name": "large"}], **spec}
        body = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMProvider",
            "metadata": {"name": name},
            "spec": fields,
        }
        reply = self.server.request("POST", resource_path("LLMProvider", self.namespace), body)
        assert reply.status == 201, reply.message

    def ready(self, name: str) -> tuple[str, str, str]:
        body = self.server.request("GET", resource_path("LLMProvider", self.namespace, name)).body
        (condition,) = body["status"]["conditions"]
        return condition["status"], condition["reason"], condition["message"]

    def version(self, name: str) -> str:
        body = self.server.request("GET", resource_path("LLMProvider", self.namespace, name)).body
        return str(body["metadata"]["resourceVersion"])


@pytest.fixture
async def setting(kinds: ApiServer, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Setting]:
    client = await KubeClient.connect(control_plane.kubeconfig)
    yield Setting(kinds, client, namespace)
    await client.close()


async def test_a_key_is_read_and_stays_out_of_everything_that_is_shown(setting: Setting) -> None:
    setting.create_secret("keys", acme=f"{KEY}\n".encode())
    setting.create_provider("acme", secretRef={"name": "keys", "key": "acme"})
    setting.create_provider("open")
    await setting.keeper.start()
    assert setting.fleet.provider_keys == {"acme": KEY}
    assert setting.fleet.providers.keys() == {"acme", "open"}
    assert {item.refusal for item in setting.fleet.providers.values()} == {None}
    assert setting.ready("acme") == ("True", Code.CONFIGURED, "routes may use large")
    shown = repr(setting.fleet) + str(
        setting.server.request("GET", resource_path("LLMProvider", setting.namespace)).body
    )
    assert "acme" in shown
    assert KEY not in shown


async def test_what_a_secret_lacks_is_named_with_its_remedy_and_without_its_content(setting: Setting) -> None:
    setting.create_secret(
        "keys", empty=b" \n", binary=b"\xff\xfe", lines=b"sk-secret\r\nx: y", pem=b"sk-secret"
    )
    reference = {"name": "keys", "key": "x"}
    setting.create_provider("gone", secretRef={"name": "nowhere", "key": "x"})
    setting.create_provider("other-key", secretRef=reference)
    for key in ("empty", "binary", "lines"):
        setting.create_provider(key, secretRef={"name": "keys", "key": key})
    setting.create_provider("no-certificate", caSecretRef={"name": "keys", "key": "pem"})
    await setting.keeper.start()
    assert setting.fleet.provider_keys == {}
    shown = f"Secret {setting.namespace}"
    assert setting.ready("gone") == (
        "False",
        Code.SECRET_NOT_FOUND,
        f"secretRef: {shown}/nowhere does not exist: create it",
    )
    assert setting.ready("other-key")[1:] == (
        Code.SECRET_NOT_FOUND,
        f"secretRef: {shown}/keys has no key x: add it",
    )
    for key in ("empty", "binary", "lines"):
        assert setting.ready(key)[1:] == (
            Code.SECRET_INVALID,
            f"secretRef: {shown}/keys does not hold an API key under {key}: correct it",
        )
    state, reason, message = setting.ready("no-certificate")
    assert (state, reason) == ("False", Code.SECRET_INVALID)
    assert message.startswith("caSecretRef: ")
    assert "sk-secret" not in message


async def test_certificates_are_taken_as_they_are(setting: Setting, tmp_path: Path) -> None:
    pem = CertificateAuthority(tmp_path).certificate.read_text()
    setting.create_secret("ca", ca_crt=pem.encode())
    setting.create_provider("inside", caSecretRef={"name": "ca", "key": "ca.crt"})
    await setting.keeper.start()
    assert setting.fleet.providers["inside"].trust == pem


async def test_changes_are_told_once_and_nothing_is_written_where_nothing_differs(setting: Setting) -> None:
    setting.create_secret("keys", acme=KEY.encode())
    setting.create_provider("acme", secretRef={"name": "keys", "key": "acme"})
    await setting.keeper.start()
    version = setting.version("acme")
    await setting.keeper._refresh()
    await setting.keeper._refresh()
    assert (setting.changes, setting.version("acme")) == (1, version)
    setting.change_secret("keys", "acme", b"sk-renewed")
    await setting.keeper._refresh()
    assert (setting.changes, setting.fleet.provider_keys) == (2, {"acme": "sk-renewed"})
    assert setting.version("acme") == version
    setting.server.request("DELETE", resource_path("LLMProvider", setting.namespace, "acme"))
    await setting.keeper._refresh()
    assert (setting.changes, setting.fleet.providers, setting.fleet.provider_keys) == (3, {}, {})


async def test_what_was_read_stays_while_the_server_does_not_answer(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.create_provider("open")
    await setting.keeper.start()
    known = dict(setting.fleet.providers)

    async def unreachable(*_: Any, **__: Any) -> Any:
        raise ApiError(0, "Unreachable", "no answer")

    monkeypatch.setattr(KubeClient, "request", unreachable)
    with pytest.raises(ApiError):
        await setting.keeper._refresh()
    assert (setting.fleet.providers, setting.changes) == (known, 1)
