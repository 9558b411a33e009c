"""Tenants and their keys as the operator reads them from a real API server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.cluster.control_plane import ControlPlane
from modelyard.core.reasons import Code
from modelyard.core.tenants import hash_key
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import SECRETS
from modelyard.runtime.tenants import TenantKeeper
from tests.apiserver.client import ApiServer, resource_path
from tests.apiserver.gatewayspace import GatewayNamespace

KEY, RENEWED = "sk-0123456789abcdef0123", "sk-renewed-0123456789abcdef"


class Setting(GatewayNamespace):
    """The gateway's namespace, and a keeper of its tenants."""

    def __init__(self, server: ApiServer, client: KubeClient, namespace: str) -> None:
        super().__init__(server, namespace)
        self.keeper = TenantKeeper(client, self.fleet, self.settings, self.changed)

    def create_keys(self, name: str, **data: bytes) -> None:
        self.create_secret(name, data)

    def create_tenant(self, name: str, *keys: str, **spec: Any) -> None:
        """Create one whose keys stand in the Secret `keys` under these names."""
        self.create("LLMTenant", name, {"keys": [{"name": "keys", "key": key} for key in keys], **spec})

    def read_tenant(self, name: str) -> dict[str, Any]:
        return self.read("LLMTenant", name)

    def tenant_ready(self, name: str) -> tuple[str, str, str]:
        return self.ready("LLMTenant", name)


@pytest.fixture
async def setting(kinds: ApiServer, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Setting]:
    client = await KubeClient.connect(control_plane.kubeconfig)
    yield Setting(kinds, client, namespace)
    await client.close()


async def test_only_the_digest_of_a_key_is_kept(setting: Setting) -> None:
    setting.create_keys("keys", one=f"{KEY}\n".encode())
    setting.create_tenant("acme", "one", allow=[{"namespace": "team", "names": ["chat"]}])
    await setting.keeper.start()
    assert setting.fleet.tenant_keys == {hash_key(KEY): "acme"}
    missing = "accepted keys: 1 of 1; allow names what does not exist (yet): team/chat"
    assert setting.tenant_ready("acme") == ("True", Code.CONFIGURED, missing)
    assert setting.changes == 1
    shown = repr(setting.fleet) + str(vars(setting.keeper)) + str(setting.read_tenant("acme"))
    assert "acme" in shown
    assert KEY not in shown


async def test_what_a_secret_lacks_is_named_and_the_other_keys_work(setting: Setting) -> None:
    setting.create_keys("keys", good=KEY.encode(), short=b"sk-too-short", two=b"sk-of-two words-0123456789")
    setting.create_tenant("acme", "good", "short", "two", "missing")
    setting.create_tenant("lost", "nothing")
    await setting.keeper.start()
    assert setting.fleet.tenant_keys == {hash_key(KEY): "acme"}
    shown = f"Secret {setting.namespace}/keys"
    wanted = "does not hold a key of 20 to 256 visible ASCII characters under"
    state, reason, message = setting.tenant_ready("acme")
    assert (state, reason) == ("False", Code.SECRET_INVALID)
    assert message.split("; ") == [
        "accepted keys: 1 of 4",
        f"keys[1]: {shown} {wanted} short: correct it",
        f"keys[2]: {shown} {wanted} two: correct it",
        f"keys[3]: {shown} has no key missing: add it",
    ]
    assert setting.tenant_ready("lost")[:2] == ("False", Code.SECRET_NOT_FOUND)


async def test_nobody_takes_over_a_key(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.create_keys("keys", one=KEY.encode(), same=KEY.encode())
    setting.create_tenant("z-first", "one")
    await setting.keeper.start()
    # The server's creation times are whole seconds: the second one is made younger here.
    listed = setting.keeper._reader.list_objects

    async def aged(model: Any, **options: Any) -> list[Any]:
        found = await listed(model, **options)
        return [
            item
            if item.name == "z-first"
            else item.model_copy(
                update={
                    "metadata": item.metadata.model_copy(
                        update={"creation_timestamp": "2099-01-01T00:00:00Z"}
                    )
                }
            )
            for item in found
        ]

    monkeypatch.setattr(setting.keeper._reader, "list_objects", aged)
    setting.create_tenant("a-second", "same")
    await setting.keeper._refresh()
    assert setting.fleet.tenant_keys == {hash_key(KEY): "z-first"}
    assert setting.tenant_ready("z-first")[0] == "True"
    state, reason, message = setting.tenant_ready("a-second")
    assert (state, reason) == ("False", Code.KEY_CONFLICT)
    assert "belongs to LLMTenant z-first" in message
    setting.server.request("DELETE", resource_path("LLMTenant", setting.namespace, "z-first"))
    await setting.keeper._refresh()
    assert setting.fleet.tenant_keys == {hash_key(KEY): "a-second"}
    assert setting.tenant_ready("a-second")[0] == "True"


async def test_a_rotation_is_told_once_per_step_and_writes_nothing(setting: Setting) -> None:
    setting.create_keys("keys", old=KEY.encode(), new=RENEWED.encode())
    setting.create_tenant("acme", "old", "new")
    await setting.keeper.start()
    version = setting.read_tenant("acme")["metadata"]["resourceVersion"]
    await setting.keeper._refresh()
    assert (setting.changes, setting.read_tenant("acme")["metadata"]["resourceVersion"]) == (1, version)
    assert setting.fleet.tenant_keys == {hash_key(KEY): "acme", hash_key(RENEWED): "acme"}
    setting.change_secret("keys", {"old": b"sk-replaced-0123456789abcdef"})
    await setting.keeper._refresh()
    assert setting.fleet.tenant_keys.keys() == {
        hash_key("sk-replaced-0123456789abcdef"),
        hash_key(RENEWED),
    }
    assert (setting.changes, setting.read_tenant("acme")["metadata"]["resourceVersion"]) == (2, version)


async def test_a_key_whose_secret_is_gone_is_nobodys(setting: Setting) -> None:
    setting.create_keys("keys", one=KEY.encode())
    setting.create_tenant("acme", "one")
    await setting.keeper.start()
    setting.server.request("DELETE", f"/api/v1/namespaces/{setting.namespace}/secrets/keys")
    await setting.keeper._refresh()
    assert setting.fleet.tenant_keys == {}
    assert setting.tenant_ready("acme")[1] == Code.SECRET_NOT_FOUND


async def test_a_right_that_the_operator_loses_revokes_no_key(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.create_keys("keys", one=KEY.encode())
    setting.create_tenant("acme", "one")
    await setting.keeper.start()
    get = KubeClient.get

    async def forbidden(client: KubeClient, resource: Any, *args: Any) -> Any:
        if resource == SECRETS:
            raise ApiError(403, "Forbidden", "no")
        return await get(client, resource, *args)

    monkeypatch.setattr(KubeClient, "get", forbidden)
    await setting.keeper._refresh()
    assert setting.fleet.tenant_keys == {hash_key(KEY): "acme"}
    state, reason, message = setting.tenant_ready("acme")
    assert (state, reason) == ("False", Code.SECRET_FORBIDDEN)
    assert message.startswith("accepted keys: 1 of 1; keys[0]: ")


async def test_what_was_read_stays_while_the_server_does_not_answer(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.create_keys("keys", one=KEY.encode())
    setting.create_tenant("acme", "one")
    await setting.keeper.start()

    async def unreachable(*_: Any, **__: Any) -> Any:
        raise ApiError(0, "Unreachable", "no answer")

    monkeypatch.setattr(KubeClient, "request", unreachable)
    with pytest.raises(ApiError):
        await setting.keeper._refresh()
    assert (setting.fleet.tenant_keys, setting.changes) == ({hash_key(KEY): "acme"}, 1)
