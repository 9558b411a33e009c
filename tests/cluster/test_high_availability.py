"""Two operators and one Lease: what the one that stands by does (nothing), and who follows whom how fast."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from dev.cluster.mounted_secret import MountedSecret
from dev.cluster.processes import Component
from dev.cluster.relay import ServiceRelay
from dev.cluster.waiting import wait_until
from dev.demo.kube import namespace_manifest
from dev.stack import Ports, envoy_component, operator_component
from modelyard.api.meta import LABEL_ACTIVE
from modelyard.core.lease import Terms
from modelyard.render.envoy.control_plane import ControlPlaneTls
from modelyard.runtime.succession import OPERATOR_PODS
from modelyard.runtime.xdstls import CLIENT_SECRET
from tests.cluster.conftest import Bed

FAILOVER = 20.0
"""Seconds that docs/high-availability.md promises from the end of an operator until the next one serves Envoy."""

NAMES = ("operator-a", "operator-b")
XDS_NAME = "modelyard-xds"
LEASE = "modelyard"


@dataclass
class Pair:
    """Two operators of one installation, and an Envoy that finds the one that acts by its pod's label."""

    bed: Bed
    system: str
    namespace: str
    operators: dict[str, Component]
    ports: dict[str, Ports]
    envoy: Component
    url: str

    def list(self, api_version: str, kind: str, namespace: str, **query: Any) -> list[Any]:
        resource = self.bed.cluster.dynamic.resources.get(api_version=api_version, kind=kind)
        return [item.to_dict() for item in resource.get(namespace=namespace, **query).items]

    def marked(self) -> list[str]:
        """Names of the pods with the label of the operator that acts."""
        pods = self.list("v1", "Pod", self.system, label_selector=f"{LABEL_ACTIVE}=true")
        return [pod["metadata"]["name"] for pod in pods]

    def lease(self) -> dict[str, Any]:
        leases = self.list("coordination.k8s.io/v1", "Lease", self.system)
        return leases[0]["spec"] if leases else {"holderIdentity": ""}

    def holder(self) -> str:
        """Name of the operator that holds the Lease; empty: nobody."""
        return (self.lease().get("holderIdentity") or "").partition("_")[0]

    def read(self, name: str, path: str) -> str:
        """Return a page of an operator; empty while it does not answer."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.ports[name].health}{path}", timeout=30
            ) as reply:
                return reply.read().decode()
        except OSError:
            return ""

    def serves(self, name: str) -> bool:
        """Whether an operator acts and Envoy is connected to it."""
        lines = self.read(name, "/metrics").splitlines()
        return {"modelyard_leader 1.0", "modelyard_gateway_nodes 1.0"} <= set(lines)

    def roles(self) -> tuple[str, str]:
        """Start what was ended; returns the operator that serves and the one that stands by."""
        for operator in self.operators.values():
            operator.start()
        wait_until(lambda: any(map(self.serves, NAMES)), "one operator serves", timeout_s=60)
        acts = next(name for name in NAMES if self.serves(name))
        other = NAMES[1 - NAMES.index(acts)]
        wait_until(
            lambda: self.read(other, "/readyz") == "standing by\n", "the other stands by", timeout_s=60
        )
        assert (self.holder(), self.marked()) == (acts, [acts])
        return acts, other

    def writes(self, name: str) -> list[str]:
        """Return what an operator tried to write, in the API server's order."""
        found = []
        for line in self.bed.audit_log.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            # A question about rights is a POST, but nothing is stored.
            asks = "selfsubjectaccessreviews" in event["requestURI"]
            if event["user"]["username"] == self.user(name) and not asks:
                found += [f"{event['verb']} {event['requestURI']}"]
        return [item for item in found if item.split()[0] not in {"get", "list", "watch"}]

    def user(self, name: str) -> str:
        return f"{self.system}-{name}"

    @property
    def pods(self) -> Any:
        """Pods, as the API server's client has them."""
        return self.bed.cluster.dynamic.resources.get(api_version="v1", kind="Pod")

    def delete_pod(self, name: str) -> None:
        """Delete an operator's pod as an eviction does: it stays until its containers have ended."""
        self.pods.delete(name=name, namespace=self.system)
        assert self.pods.get(name=name, namespace=self.system).metadata.deletionTimestamp

    def remove_pod(self, name: str) -> None:
        """Do what the kubelet does then."""
        self.pods.delete(name=name, namespace=self.system, body={"gracePeriodSeconds": 0})

    def make_ready(self, name: str, ready: bool = True) -> None:
        """Report an operator's pod as Ready, as the kubelet does after a look at `/readyz`."""
        condition = {"type": "Ready", "status": str(ready)}
        self.pods.status.patch(
            name=name,
            namespace=self.system,
            body={"status": {"phase": "Running", "conditions": [condition]}},
            content_type="application/merge-patch+json",
        )

    def make_model(self, name: str) -> None:
        manifest = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": name},
            "spec": {
                "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
                "placement": {"accelerators": [{"class": "h100", "requestsPerMinute": 600}]},
                "rollout": {"drainTimeout": "10s"},
                "replicas": 1,
            },
        }
        self.bed.cluster.apply([manifest], self.namespace)

    def answers(self, model: str) -> bool:
        body = json.dumps(
            {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        )
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", body.encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status == 200
        except OSError:
            return False


def node(name: str) -> dict[str, Any]:
    """Return a node without a kubelet: its pods stay as the test leaves them, those that are being deleted too."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": True}}


def pod(name: str, node_name: str) -> dict[str, Any]:
    """Return a pod that nothing runs: the operators of this test are processes beside the cluster."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(label.split("=") for label in OPERATOR_PODS.split(","))},
        "spec": {
            "nodeName": node_name,
            "terminationGracePeriodSeconds": 600,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": "operator", "image": "example.com/none", "securityContext": security}],
        },
    }


@pytest.fixture(scope="module")
def pair(bed, control_plane, tmp_path_factory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    suffix = uuid.uuid4().hex[:6]
    system, namespace = f"system-{suffix}", f"models-{suffix}"
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    bed.cluster.apply([namespace_manifest(name, restricted) for name in (system, namespace)])
    place = node(f"node-{suffix}")
    bed.cluster.apply([place])
    bed.cluster.apply([pod(name, f"node-{suffix}") for name in NAMES], system)
    ports = {name: Ports.choose() for name in NAMES}
    gateway = ports[NAMES[0]].gateway
    operators = {
        name: operator_component(
            control_plane.user_kubeconfig(f"{system}-{name}", ["system:masters"]),
            (namespace,),
            replace(ports[name], gateway=gateway),
            folder / f"{name}.log",
            *("--namespace", system, "--lease", LEASE, "--pod-name", name, "--pod-uid", f"uid-of-{name}"),
            *("--xds-tls", "--xds-tls-name", XDS_NAME),
            *("--read-interval", "0.5", "--placement-interval", "1", "--no-read-hub"),
        )
        for name in NAMES
    }
    mounted = MountedSecret(folder / "mounted")
    made: list[Pair] = []

    def find_port() -> int | None:
        marked = made[0].marked()
        return ports[marked[0]].xds if marked else None

    with ServiceRelay(find_port) as service:
        own = replace(ports[NAMES[0]], xds=service.port)
        tls = ControlPlaneTls(str(mounted.folder), XDS_NAME, str(folder))
        envoy = envoy_component(folder / "envoy.json", own, folder / "envoy.log", f"{system}-envoy", tls)
        result = Pair(bed, system, namespace, operators, ports, envoy, own.url)
        made.append(result)
        try:
            for operator in operators.values():
                operator.start()
            wait_until(lambda: result.marked(), "one operator has the label", timeout_s=60)
            # Kubernetes starts Envoy's pod when the Secret is there.
            secret = next(
                item
                for item in result.list("v1", "Secret", system)
                if item["metadata"]["name"] == CLIENT_SECRET
            )
            mounted.write({key: base64.b64decode(value) for key, value in secret["data"].items()})
            envoy.start()
            envoy.wait_ready()
            yield result
        finally:
            envoy.stop()
            for operator in operators.values():
                operator.stop()
            for name in NAMES:
                result.remove_pod(name)
            bed.cluster.delete([*(namespace_manifest(name) for name in (namespace, system)), place])


async def test_the_other_operator_follows_a_killed_one_and_has_written_nothing_before(pair):
    acts, other = await asyncio.to_thread(pair.roles)
    await asyncio.to_thread(pair.make_model, "first")
    await asyncio.to_thread(wait_until, lambda: pair.answers("first"), "the model answers", timeout_s=60)
    before = pair.list("apps/v1", "Deployment", pair.namespace)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", pair.ports[other].xds), timeout=5)
    async with aiohttp.ClientSession() as session:
        path = f"/v1/desired-replicas/{pair.namespace}/first"
        async with session.get(f"http://127.0.0.1:{pair.ports[other].health}{path}") as reply:
            assert reply.status == 503, "one that stands by knows no sizes"
    written = len(pair.writes(other))
    assert written == 0 or f"update {lease_uri(pair)}" in pair.writes(other)[0]
    transitions = pair.lease()["leaseTransitions"]

    statuses, over = [], asyncio.Event()

    async def client() -> None:
        body = {"model": "first", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        async with aiohttp.ClientSession() as session:
            while not over.is_set():
                async with session.post(f"{pair.url}/v1/chat/completions", json=body) as reply:
                    statuses.append(reply.status)
                await asyncio.sleep(0.02)

    requests = asyncio.create_task(client())
    pair.operators[acts].kill()
    await asyncio.to_thread(wait_until, lambda: pair.serves(other), "the other serves", timeout_s=FAILOVER)
    over.set()
    await requests
    assert set(statuses) == {200}, "Envoy serves on with what it has"
    assert (pair.holder(), pair.marked()) == (other, [other])
    assert pair.lease()["leaseTransitions"] == transitions + 1
    news = pair.writes(other)[written:]
    assert news[0].startswith(f"update {lease_uri(pair)}"), "nothing comes before the Lease"

    # It decides too, and what is there already stays the one that it is.
    await asyncio.to_thread(pair.make_model, "second")
    await asyncio.to_thread(wait_until, lambda: pair.answers("second"), "the model answers", timeout_s=60)
    after = {item["metadata"]["name"]: item for item in pair.list("apps/v1", "Deployment", pair.namespace)}
    for item in before:
        same = after[item["metadata"]["name"]]["metadata"]
        assert (same["uid"], same["generation"]) == (item["metadata"]["uid"], item["metadata"]["generation"])


def test_an_operator_that_is_told_to_end_hands_over_at_once(pair):
    acts, other = pair.roles()
    pair.operators[acts].stop()
    # Not expired: given back, or taken already.
    assert pair.holder() in {"", other}
    wait_until(lambda: pair.serves(other), "the other serves", timeout_s=Terms().duration)
    assert pair.marked() == [other]
    ended = pair.operators[acts]
    assert "The Lease is given back" in ended.tail(60)
    assert ended._process is not None
    assert (ended._process.returncode, "Traceback" in ended.tail(60)) == (0, False)


def test_an_operator_whose_pod_is_deleted_acts_until_another_stands_by(pair):
    acts, other = pair.roles()
    # The next one starts, which takes its time.
    pair.operators[other].stop()
    pair.make_ready(other, False)
    place = pair.pods.get(name=acts, namespace=pair.system).spec.nodeName
    pair.delete_pod(acts)
    try:
        pair.operators[acts].terminate()
        pair.make_model("meanwhile")
        wait_until(lambda: pair.answers("meanwhile"), "the model answers", timeout_s=60)
        assert pair.serves(acts)
        pair.operators[other].start()
        wait_until(
            lambda: pair.read(other, "/readyz") == "standing by\n", "the other stands by", timeout_s=60
        )
        assert (pair.serves(acts), pair.holder()) == (True, acts), "what counts is what Kubernetes knows"
        pair.make_ready(other)
        wait_until(lambda: pair.serves(other), "the other serves", timeout_s=Terms().duration)
        assert pair.operators[acts].wait(timeout_s=60) == 0
        assert "Another operator stands by" in pair.operators[acts].tail(60)
    finally:
        pair.remove_pod(acts)
        pair.bed.cluster.apply([pod(acts, place)], pair.system)


def test_a_container_that_begins_anew_goes_on_where_the_one_before_it_ended(pair):
    acts, other = pair.roles()
    pair.operators[other].stop()
    before = pair.lease()
    operator = pair.operators[acts]
    operator.kill()
    logged = operator.log.stat().st_size
    operator.start()
    wait_until(lambda: pair.serves(acts), "it serves again", timeout_s=60)
    after = pair.lease()
    assert (before["holderIdentity"] == after["holderIdentity"], pair.holder()) == (False, acts)
    assert after["leaseTransitions"] == before["leaseTransitions"] + 1
    # Who waits for a Lease to end says so.
    assert "Standing by" not in operator.log.read_bytes()[logged:].decode()


def test_an_operator_that_was_paused_ends_without_a_write(pair):
    acts, other = pair.roles()
    pair.make_model("third")
    wait_until(lambda: pair.answers("third"), "the model answers", timeout_s=60)
    process = pair.operators[acts]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: pair.holder() == other, "the other has the Lease", timeout_s=FAILOVER)
        # What the paused one would react to when it goes on.
        pair.make_model("fourth")
        written = len(pair.writes(acts))
    finally:
        os.kill(process.pid, signal.SIGCONT)
    wait_until(lambda: not process.running, "it ends by itself", timeout_s=60)
    assert "to begin anew as one that stands by" in process.tail(60)
    assert [item for item in pair.writes(acts)[written:] if "/leases/" not in item] == []
    wait_until(lambda: pair.answers("fourth"), "the model answers", timeout_s=60)


def lease_uri(pair: Pair) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{pair.system}/leases/{LEASE}"
