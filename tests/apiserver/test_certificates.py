"""The gateway's certificate as the operator reads it from a real API server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dev.cluster.certificates import CertificateAuthority
from dev.cluster.control_plane import ControlPlane
from modelyard.core.reasons import Code
from modelyard.kube.client import ApiError, KubeClient
from modelyard.runtime.certificates import CertificateKeeper
from modelyard.runtime.metrics import REGISTRY
from modelyard.runtime.settings import OperatorSettings
from tests.apiserver.client import ApiServer
from tests.apiserver.gatewayspace import GatewayNamespace

NAME = "gateway-tls"


class Setting(GatewayNamespace):
    """The gateway's namespace, and a keeper that reads the certificate in it."""

    def __init__(self, server: ApiServer, client: KubeClient, namespace: str, folder: Path) -> None:
        super().__init__(server, namespace, OperatorSettings(tls_secret=NAME))
        self.client = client
        self.authority = CertificateAuthority(folder)
        self.keeper = CertificateKeeper(client, self.fleet, self.settings, self.changed)

    def issue(self, name: str) -> dict[str, bytes]:
        pair = self.authority.server(name, (), ("gateway.example.com",))
        return {"tls.crt": pair.certificate.read_bytes(), "tls.key": pair.key.read_bytes()}

    def create_certificate(self, data: dict[str, bytes]) -> None:
        self.create_secret(NAME, data, "kubernetes.io/tls")

    def change(self, data: dict[str, bytes]) -> None:
        self.change_secret(NAME, data)

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

    setting.create_certificate(setting.issue("first"))
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
    setting.change({"tls.crt": b"garbage"})
    await setting.keeper.start()
    secret = f"/api/v1/namespaces/{setting.namespace}/secrets/{NAME}"
    assert setting.server.request("DELETE", secret).status == 200
    await setting.keeper.start()
    assert (setting.fleet.certificate, setting.problems()) == (first, {Code.SECRET_NOT_FOUND})
    assert setting.changes == 1

    setting.create_certificate(second)
    await setting.keeper.start()
    renewed = setting.fleet.certificate
    assert renewed is not None
    assert renewed.serial != first.serial
    assert (setting.changes, setting.problems(), setting.not_after()) == (2, set(), renewed.not_after)
    key = second["tls.key"].decode().splitlines()[1]
    assert key not in caplog.text + repr(setting.fleet)


async def test_a_right_that_is_lost_takes_nothing_away(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.create_certificate(setting.issue("first"))
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
