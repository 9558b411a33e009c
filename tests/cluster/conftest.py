"""Fixtures: operator, Envoy and local nodes on the shared control plane, for the whole tier."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.cluster.control_plane import ControlPlane
from dev.cluster.processes import free_ports
from dev.cluster.waiting import wait_until
from dev.demo.kube import Cluster, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.stack import Stack
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import child_name
from modelyard.core.variants import variant_name
from modelyard.kube.resources import CHILDREN

CHILD_KINDS = tuple((resource.api_version, resource.kind) for resource in CHILDREN)
"""apiVersion and kind of every object made for an LLMDeployment."""

H100 = variant_name("h100", 1, spot=False)
"""The variant of `make_model`'s deployments."""

OPERATOR_USER = "modelyard-operator"


@dataclass
class Bed:
    """What the tests of this tier work on."""

    cluster: Cluster
    stack: Stack
    namespace: str
    audit_log: Path
    web_url: str
    """Where the operator serves its web page."""

    def deployment(self, name: str) -> LLMDeployment:
        """Return an LLMDeployment as it stands."""
        return next(
            item for item in self.cluster.llm_deployments(self.namespace) if item.metadata.name == name
        )

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        """Return status and reason of a condition; empty strings before it is set."""
        for condition in self.deployment(name).status.conditions:
            if condition.type == kind:
                return condition.status, condition.reason
        return "", ""

    def wait_condition(self, name: str, kind: str, status: str, reason: str, timeout_s: float = 60) -> None:
        """Wait until a condition has a status and a reason."""
        wait_until(
            lambda: self.condition(name, kind) == (status, reason),
            f"{name}: {kind} is {status} for {reason}",
            timeout_s=timeout_s,
        )

    def wait_routed(self, name: str) -> None:
        """Wait until Envoy knows a model, if Envoy and the operator run."""
        url = f"{self.stack.url}/v1/models/{self.namespace}/{name}"

        def known() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=30) as reply:
                    return reply.status == 200
            except OSError:
                # Not known yet, or not there yet.
                return False

        wait_until(known, f"Envoy knows {name}", timeout_s=60)

    def get(self, api_version: str, kind: str, name: str | None = None) -> Any:
        """Return an object, or all of a kind in the namespace, as plain data; None if it does not exist."""
        resource = self.cluster.dynamic.resources.get(api_version=api_version, kind=kind)
        try:
            return resource.get(name=name, namespace=self.namespace).to_dict()
        except Exception as error:
            if getattr(error, "status", None) == 404:
                return None
            raise

    def child(self, api_version: str, kind: str, name: str, variant: str = H100) -> Any:
        """Return a child of an LLMDeployment: one of a kind, but for the Deployment, of which each variant has one."""
        return self.get(api_version, kind, child_name(name, variant) if kind == "Deployment" else name)

    def operator_writes(self) -> list[str]:
        """Return what the operator wrote so far, from the API server's audit log, without its ledger."""
        writes = []
        for line in self.audit_log.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            own = event["user"]["username"] == OPERATOR_USER
            # A question about rights is a POST, but nothing is stored.
            asks = "selfsubjectaccessreviews" in event["requestURI"]
            counts = "/configmaps" in event["requestURI"]
            if own and not asks and not counts and event["verb"] not in {"get", "list", "watch"}:
                writes.append(f"{event['verb']} {event['requestURI']}")
        return writes

    def operator_metric(self, name: str, **labels: str) -> float:
        """Return a metric of the operator, summed over all series with these labels; 0 before it was set."""
        with urllib.request.urlopen(self.stack.ports.metrics_url, timeout=30) as reply:
            families = text_string_to_metric_families(reply.read().decode())
            return sum(
                sample.value
                for family in families
                for sample in family.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )

    async def chat(self, model: str, timeout_s: float = 60) -> tuple[int, dict[str, Any]]:
        """Send one chat request and return status and body."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        url = f"{self.stack.url}/v1/chat/completions"
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=body) as reply,
        ):
            return reply.status, await reply.json(content_type=None)


@pytest.fixture(scope="session")
def bed(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A serving stack of its own namespace."""
    namespace = f"models-{uuid.uuid4().hex[:6]}"
    with Cluster(control_plane.kubeconfig) as cluster:
        cluster.apply_crds(load_manifests([CRDS]))
        cluster.apply([namespace_manifest(namespace, {"pod-security.kubernetes.io/enforce": "restricted"})])
        cluster.apply([accelerator_class()])
        web = f"127.0.0.1:{free_ports(1)[0]}"
        stack = Stack(
            folder=tmp_path_factory.mktemp("stack"),
            kubeconfig=control_plane.kubeconfig,
            operator_kubeconfig=control_plane.user_kubeconfig(OPERATOR_USER, ["system:masters"]),
            namespaces=(namespace,),
            nodes="h100:8=1,l4=2,cpu=1",
            node_prefix=f"c{uuid.uuid4().hex[:5]}",
            standin_rules=("class=h100:STANDIN_PROFILE=zero", "class=l4:STANDIN_PROFILE=zero"),
            operator_options=(
                *("--read-interval", "0.5", "--scale-down-window", "5", "--pending-patience", "2"),
                *("--placement-interval", "1", "--scaler-interval", "1", "--no-read-hub"),
                *("--ledger-interval", "2", "--web-address", web),
            ),
        )
        assert control_plane.audit_log is not None
        with stack:
            yield Bed(cluster, stack, namespace, control_plane.audit_log, f"http://{web}")
            cluster.delete([namespace_manifest(namespace)])


def accelerator_class(name: str = "h100") -> dict[str, Any]:
    """Return a class that matches the local H100 node."""
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": name},
        "spec": {
            "resourceName": "nvidia.com/gpu",
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "price": {"onDemand": "6.88"},
        },
    }


@pytest.fixture
def make_model(bed: Bed) -> Iterator[Callable[..., str]]:
    """Applies an LLMDeployment with a stand-in engine; it is deleted after the test."""
    made: list[dict[str, Any]] = []

    def make(size: dict[str, Any], *, name: str | None = None, routed: bool = True, **spec: Any) -> str:
        name = name or f"m{uuid.uuid4().hex[:6]}"
        manifest = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": name},
            "spec": {
                "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
                "placement": {"accelerators": [{"class": "h100", "requestsPerMinute": 600}]},
                "rollout": {"drainTimeout": "10s"},
                **size,
                **spec,
            },
        }
        bed.cluster.apply([manifest], bed.namespace)
        made.append(manifest)
        if routed:
            bed.wait_routed(name)
        return name

    yield make
    bed.cluster.delete(made, bed.namespace)
