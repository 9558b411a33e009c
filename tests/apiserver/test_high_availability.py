"""Lease, label and Secrets of an operator that is not alone: a real API server, and no more rights than needed."""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from dev.cluster.control_plane import ControlPlane
from modelyard.api.meta import LABEL_ACTIVE
from modelyard.core.lease import Terms
from modelyard.gateway.authority import LIFETIME, CertificatesUnusableError
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.lease import LeaseStore
from modelyard.kube.resources import CONFIG_MAPS
from modelyard.render.settings import PodPeer
from modelyard.runtime import xdstls
from modelyard.runtime.leader import ActiveMark, Leader, LeaseLostError
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.xdstls import CLIENT_SECRET, SERVER_SECRET, XdsCertificates
from tests.apiserver.client import MERGE, ApiServer

LEASE = "modelyard"
TERMS = Terms(duration=3.0, deadline=2.0, retry=0.2, look=0.1, request=1.0)
USER = "modelyard-ha"

RULES = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [LEASE],
        "verbs": ["get", "update"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [SERVER_SECRET, CLIENT_SECRET],
        "verbs": ["get", "update"],
    },
]
"""What docs/high-availability.md asks for."""


class Setting:
    """A namespace, and clients that may do there what an operator needs for this and nothing else."""

    def __init__(self, server: ApiServer, namespace: str, control_plane: ControlPlane) -> None:
        self.server, self.namespace = server, namespace
        self._kubeconfig = control_plane.user_kubeconfig(USER, [])
        self._clients: list[KubeClient] = []
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        self.write("POST", f"{rbac}/roles", {"metadata": {"name": "ha"}, "rules": RULES})
        binding = {
            "metadata": {"name": "ha"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ha"},
            "subjects": [{"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}],
        }
        self.write("POST", f"{rbac}/rolebindings", binding)

    def write(self, method: str, path: str, body: dict, content_type: str = "application/json") -> dict:
        reply = self.server.request(method, path, body, content_type)
        assert reply.status in {200, 201}, reply.message
        return reply.body

    async def connect(self) -> KubeClient:
        client = await KubeClient.connect(self._kubeconfig)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def leader(self, identity: str) -> Leader:
        store = LeaseStore(await self.connect(), self.namespace, LEASE, TERMS.request)
        return Leader(store, identity, TERMS)

    @property
    def lease_path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{LEASE}"

    def lease(self) -> dict:
        return self.server.request("GET", self.lease_path).body["spec"]

    def create_pod(self, name: str, labels: dict[str, str]) -> None:
        container = {"name": "c", "image": "example.com/none", "securityContext": SECURITY}
        spec = {"containers": [container], "securityContext": POD_SECURITY, "schedulerName": "nobody"}
        body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
        self.write("POST", f"/api/v1/namespaces/{self.namespace}/pods", body)

    def marked(self) -> set[str]:
        """Names of pods with the label."""
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={LABEL_ACTIVE}%3Dtrue"
        return {pod["metadata"]["name"] for pod in self.server.request("GET", path).body["items"]}

    def secret_path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets/{name}"

    def secrets(self) -> dict[str, dict]:
        return {
            name: self.server.request("GET", self.secret_path(name)).body
            for name in (SERVER_SECRET, CLIENT_SECRET)
        }

    def versions(self) -> dict[str, str]:
        return {name: body["metadata"]["resourceVersion"] for name, body in self.secrets().items()}

    async def certificates(self) -> XdsCertificates:
        settings = OperatorSettings(xds_tls_name="xds.example")
        settings = replace(settings, render=replace(settings.render, gateway=PodPeer(self.namespace, {})))
        return XdsCertificates(await self.connect(), settings)


SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_SECURITY = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.fixture
async def setting(
    api_server: ApiServer, control_plane: ControlPlane, namespace: str
) -> AsyncIterator[Setting]:
    made = Setting(api_server, namespace, control_plane)
    yield made
    await made.close()


@pytest.fixture
async def run() -> AsyncIterator[Callable[[Awaitable], asyncio.Task]]:
    """Runs something until the test is over."""
    tasks: list[asyncio.Task] = []

    def start(work: Awaitable) -> asyncio.Task:
        tasks.append(asyncio.ensure_future(work))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def within(seconds: float, work: Awaitable) -> None:
    async with asyncio.timeout(seconds):
        await work


async def test_one_holds_the_lease_and_the_next_has_it_at_once_when_it_is_given_back(setting, run):
    first, second = await setting.leader("first"), await setting.leader("second")
    running = run(first.run())
    await within(20, first.acquired.wait())
    run(second.run())
    before = setting.lease()
    assert (before["holderIdentity"], before["leaseDurationSeconds"], before["leaseTransitions"]) == (
        "first",
        3,
        0,
    )
    renewed = before["renewTime"]
    async with asyncio.timeout(20):
        while setting.lease()["renewTime"] == renewed:
            await asyncio.sleep(0.05)
    assert setting.lease()["acquireTime"] == before["acquireTime"]
    assert not second.acquired.is_set()
    assert not second.holds()

    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await first.release()
    assert not first.holds()
    await within(20, second.acquired.wait())
    assert setting.lease()["holderIdentity"] == "second"
    assert setting.lease()["leaseTransitions"] == 1


async def test_a_holder_that_was_replaced_ends(setting, run):
    leader = await setting.leader("first")
    running = run(leader.run())
    await within(20, leader.acquired.wait())
    setting.write("PATCH", setting.lease_path, {"spec": {"holderIdentity": "somebody"}}, MERGE)
    with pytest.raises(LeaseLostError, match="is held by somebody"):
        await within(20, running)
    assert not leader.holds()
    await leader.release()
    assert setting.lease()["holderIdentity"] == "somebody", "what is another's is not given back"


async def test_nothing_is_written_without_the_lease(setting):
    client = await setting.connect()
    leader = await setting.leader("first")
    client.fence = leader.holds
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": setting.namespace},
    }
    with pytest.raises(ApiError) as stopped:
        await client.create(CONFIG_MAPS, manifest)
    assert (stopped.value.status, stopped.value.reason) == (0, "NotLeader")
    # Questions are asked all the same.
    assert await client.may(CONFIG_MAPS, "create", setting.namespace) is False


async def test_one_pod_has_the_label(setting):
    label = {LABEL_ACTIVE: "true"}
    setting.create_pod("old", {**label, "app": "operator"})
    setting.create_pod("new", {"app": "operator"})
    setting.create_pod("other", {"app": "operator"})
    mark = ActiveMark(await setting.connect(), setting.namespace, "new")
    await mark.set()
    assert setting.marked() == {"new"}
    pod = setting.server.request("GET", f"/api/v1/namespaces/{setting.namespace}/pods/new").body
    version = pod["metadata"]["resourceVersion"]
    assert pod["metadata"]["labels"] == {**label, "app": "operator"}
    await mark.set()
    pod = setting.server.request("GET", f"/api/v1/namespaces/{setting.namespace}/pods/new").body
    assert pod["metadata"]["resourceVersion"] == version, "a second look writes nothing"
    with pytest.raises(ApiError, match="POD_NAME"):
        await ActiveMark(await setting.connect(), setting.namespace, "nobody").set()


async def test_two_operators_make_one_pair_of_secrets_and_a_restart_makes_none(setting):
    both = [await setting.certificates(), await setting.certificates()]
    await asyncio.gather(*(item.start() for item in both))
    made, versions = setting.secrets(), setting.versions()
    assert {body["type"] for body in made.values()} == {"kubernetes.io/tls"}
    assert set(made[SERVER_SECRET]["data"]) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    assert set(made[CLIENT_SECRET]["data"]) == {"ca.crt", "tls.crt", "tls.key"}
    assert made[SERVER_SECRET]["data"]["ca.crt"] == made[CLIENT_SECRET]["data"]["ca.crt"]
    assert both[0]._files == both[1]._files

    again = await setting.certificates()
    await again.start()
    assert setting.versions() == versions
    assert again._files == both[0]._files


async def test_certificates_are_renewed_in_place_and_a_deleted_secret_comes_back(setting, monkeypatch):
    keeper = await setting.certificates()
    await keeper.start()
    before, serial = setting.secrets(), keeper._files.serial
    later = time.time() + (LIFETIME * 0.7).total_seconds()
    monkeypatch.setattr(xdstls.time, "time", lambda: later)
    await keeper._try_refresh()
    after = setting.secrets()
    for name in (SERVER_SECRET, CLIENT_SECRET):
        assert after[name]["metadata"]["uid"] == before[name]["metadata"]["uid"]
        assert after[name]["data"]["tls.crt"] != before[name]["data"]["tls.crt"]
        assert after[name]["data"]["ca.crt"] == before[name]["data"]["ca.crt"]
    assert keeper._files.serial != serial

    setting.server.request("DELETE", setting.secret_path(CLIENT_SECRET))
    await keeper._try_refresh()
    again = setting.secrets()
    assert again[CLIENT_SECRET]["metadata"]["uid"] != after[CLIENT_SECRET]["metadata"]["uid"]
    assert again[SERVER_SECRET] == after[SERVER_SECRET]


async def test_a_secret_that_holds_something_else_is_refused_and_left_alone(setting, caplog):
    keeper = await setting.certificates()
    await keeper.start()
    files = keeper._files
    garbage = {"data": {"tls.key": base64.b64encode(b"garbage").decode()}}
    setting.write("PATCH", setting.secret_path(SERVER_SECRET), garbage, MERGE)
    versions = setting.versions()
    await keeper._try_refresh()
    await keeper._try_refresh()
    assert keeper._files == files, "what is in use stays"
    told = [record.message for record in caplog.records if "stay as they were" in record.message]
    assert len(told) == 1
    assert f"delete Secret {setting.namespace}/{SERVER_SECRET}" in told[0]
    with pytest.raises(CertificatesUnusableError):
        await (await setting.certificates()).start()
    assert setting.versions() == versions
