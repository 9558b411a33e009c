"""The gateway's certificate as the operator reads it from a real API server."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from dev.cluster.certificates import CertificateAuthority
from dev.cluster.control_plane import ControlPlane
from modelyard.core.reasons import Code
from modelyard.kube.client import ApiError, KubeClient
from modelyard.render.settings import PodPeer
from modelyard.runtime.certificates import CertificateKeeper
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import REGISTRY
from modelyard.runtime.settings import OperatorSettings
from tests.apiserver.client import MERGE, ApiServer

NAME = "gateway-tls"


class Setting:
    """A namespace that stands for the gateway's, and a keeper that reads its Secret."""

    def __init__(self, server: ApiServer, client: KubeClient, namespace: str, folder: Path) -> None:
        self.server = server
        self.client = client
        self.namespace = namespace
        self.authority = CertificateAuthority(folder)
        self.fleet = Fleet()
        self.changes = 0
        settings = OperatorSettings(tls_secret=NAME)
        settings = replace(settings, render=replace(settings.render, gateway=PodPeer(namespace, {})))
        self.keeper = CertificateKeeper(client, self.fleet, settings, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets"

    def issue(self, name: str) -> dict[str, str]:
        pair = self.authority.server(name, (), ("gateway.example.com",))
        data = {"tls.crt": pair.certificate.read_bytes(), "tls.key": pair.key.read_bytes()}
        return {key: base64.b64encode(value).decode() for key, value in data.items()}

    def create(self, data: dict[str, str]) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": NAME},
            "data": data,
        }
        reply = self.server.request("POST", self.path, body)
        assert reply.status == 201, reply.message

    def change(self, data: dict[str, str]) -> None:
        assert self.server.request("PATCH", f"{self.path}/{NAME}", {"data": data}, MERGE).status == 200

    def problems(self) -> set[str]:
        """Reasons that the metric gives."""
        return {
            sample.labels["reason"]
            for metric in REGISTRY.collect()
            if metric.name == "modelyard_gateway_certificate_problem"
            for sample in metric.samples
            if sample.labels["namespace"] == self.namespace and sample.value == 1
        }

    def not_after(self) -> float | None:
        labels = {"namespace": self.namespace, "name": NAME}
        return REGISTRY.get_sample_value("modelyard_gateway_certificate_not_after_timestamp_seconds", labels)


@pytest.fixture
async def setting(
    kinds: ApiServer, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> AsyncIterator[Setting]:
    client = await KubeClient.connect(control_plane.kubeconfig)
    yield Setting(kinds, client, namespace, tmp_path / "ca")
    await client.close()


async def test_a_certificate_is_read_renewed_and_kept(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    await setting.keeper.start()
    assert (setting.fleet.certificate, setting.problems()) == (None, {Code.SECRET_NOT_FOUND})
    assert "no client gets in meanwhile" in caplog.text

    setting.create(setting.issue("first"))
    await setting.keeper.start()
    first = setting.fleet.certificate
    assert first is not None
    assert (setting.changes, setting.problems(), setting.not_after()) == (1, set(), first.not_after)
    await setting.keeper.start()
    assert setting.changes == 1, "the same certificate changes nothing"

    # One half of a renewal, then garbage, then nothing: the last good one stays.
    second = setting.issue("second")
    setting.change({"tls.key": second["tls.key"]})
    await setting.keeper.start()
    assert (setting.fleet.certificate, setting.problems()) == (first, {Code.SECRET_INVALID})
    assert "the last good certificate stays" in caplog.text
    setting.change({"tls.crt": base64.b64encode(b"garbage").decode()})
    await setting.keeper.start()
    assert setting.server.request("DELETE", f"{setting.path}/{NAME}").status == 200
    await setting.keeper.start()
    assert (setting.fleet.certificate, setting.problems()) == (first, {Code.SECRET_NOT_FOUND})
    assert setting.changes == 1

    setting.create(second)
    await setting.keeper.start()
    renewed = setting.fleet.certificate
    assert renewed is not None
    assert renewed.serial != first.serial
    assert (setting.changes, setting.problems(), setting.not_after()) == (2, set(), renewed.not_after)
    key = base64.b64decode(second["tls.key"]).decode().splitlines()[1]
    assert key not in caplog.text + repr(setting.fleet)


async def test_a_right_that_is_lost_takes_nothing_away(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.create(setting.issue("first"))
    await setting.keeper.start()
    first = setting.fleet.certificate

    async def answer(status: int) -> None:
        async def get(*_: object) -> None:
            raise ApiError(status, "Refused", "refused")

        monkeypatch.setattr(setting.client, "get", get)

    await answer(403)
    await setting.keeper.start()
    assert (setting.fleet.certificate, setting.problems()) == (first, {Code.SECRET_FORBIDDEN})
    await answer(503)
    with pytest.raises(ApiError):
        await setting.keeper.start()
    assert setting.fleet.certificate == first
