"""Providers and their Secrets as the operator reads them from a real API server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.certificates import CertificateAuthority
from dev.cluster.control_plane import ControlPlane
from modelyard.core.reasons import Code
from modelyard.kube.client import ApiError, KubeClient
from modelyard.runtime.providers import ProviderKeeper
from tests.apiserver.client import ApiServer, resource_path
from tests.apiserver.gatewayspace import GatewayNamespace

KEY = "sk-0123456789abcdef"


class Setting(GatewayNamespace):
    """The gateway's namespace, and a keeper of its providers."""

    def __init__(self, server: ApiServer, client: KubeClient, namespace: str) -> None:
        super().__init__(server, namespace)
        self.keeper = ProviderKeeper(client, self.fleet, self.settings, self.changed)

    def create_keys(self, name: str, **data: bytes) -> None:
        self.create_secret(name, {key.replace("_", "."): value for key, value in data.items()})

    def create_provider(self, name: str, **spec: Any) -> None:
        fields = {"baseURL": "https://api.example.com/v1", "models": [{"name": "large"}], **spec}
        self.create("LLMProvider", name, fields)

    def provider_ready(self, name: str) -> tuple[str, str, str]:
        return self.ready("LLMProvider", name)

    def version(self, name: str) -> str:
        return str(self.read("LLMProvider", name)["metadata"]["resourceVersion"])


@pytest.fixture
async def setting(kinds: ApiServer, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Setting]:
    client = await KubeClient.connect(control_plane.kubeconfig)
    yield Setting(kinds, client, namespace)
    await client.close()


async def test_a_key_is_read_and_stays_out_of_everything_that_is_shown(setting: Setting) -> None:
    setting.create_keys("keys", acme=f"{KEY}\n".encode())
    setting.create_provider("acme", secretRef={"name": "keys", "key": "acme"})
    setting.create_provider("open")
    await setting.keeper.start()
    assert setting.fleet.provider_keys == {"acme": KEY}
    assert setting.fleet.providers.keys() == {"acme", "open"}
    assert {item.refusal for item in setting.fleet.providers.values()} == {None}
    assert setting.provider_ready("acme") == ("True", Code.CONFIGURED, "routes may use large")
    shown = repr(setting.fleet) + str(
        setting.server.request("GET", resource_path("LLMProvider", setting.namespace)).body
    )
    assert "acme" in shown
    assert KEY not in shown


async def test_what_a_secret_lacks_is_named_with_its_remedy_and_without_its_content(setting: Setting) -> None:
    setting.create_keys(
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
    assert setting.provider_ready("gone") == (
        "False",
        Code.SECRET_NOT_FOUND,
        f"secretRef: {shown}/nowhere does not exist: create it",
    )
    assert setting.provider_ready("other-key")[1:] == (
        Code.SECRET_NOT_FOUND,
        f"secretRef: {shown}/keys has no key x: add it",
    )
    for key in ("empty", "binary", "lines"):
        assert setting.provider_ready(key)[1:] == (
            Code.SECRET_INVALID,
            f"secretRef: {shown}/keys does not hold an API key under {key}: correct it",
        )
    state, reason, message = setting.provider_ready("no-certificate")
    assert (state, reason) == ("False", Code.SECRET_INVALID)
    assert message.startswith("caSecretRef: ")
    assert "sk-secret" not in message


async def test_certificates_are_taken_as_they_are(setting: Setting, tmp_path: Path) -> None:
    pem = CertificateAuthority(tmp_path).certificate.read_text()
    setting.create_keys("ca", ca_crt=pem.encode())
    setting.create_provider("inside", caSecretRef={"name": "ca", "key": "ca.crt"})
    await setting.keeper.start()
    assert setting.fleet.providers["inside"].trust == pem


async def test_changes_are_told_once_and_nothing_is_written_where_nothing_differs(setting: Setting) -> None:
    setting.create_keys("keys", acme=KEY.encode())
    setting.create_provider("acme", secretRef={"name": "keys", "key": "acme"})
    await setting.keeper.start()
    version = setting.version("acme")
    await setting.keeper._refresh()
    await setting.keeper._refresh()
    assert (setting.changes, setting.version("acme")) == (1, version)
    setting.change_secret("keys", {"acme": b"sk-renewed"})
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
