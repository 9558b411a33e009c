"""The admission policies on a real API server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.cluster.waiting import wait_until
from tests.apiserver.client import APPLY, ApiServer, resource_path
from tests.apiserver.conftest import api_server, applied, kinds
from tests.apiserver.manifests import manifest

__all__ = ["api_server", "applied", "kinds"]

POLICIES = Path(__file__).parents[2] / "policies"
GROUP = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
LIMIT = "limits.modelyard.dev/"
PRICES = {"policy-l4": "0.3", "policy-h100": "2.5", "policy-unpriced": None}
"""US dollars per accelerator and hour, by class."""

PATIENCE_S = 120
"""Longest wait for policies to come and go: a bound on a machine that is busy with other things, not a measure."""

MakeNamespace = Callable[..., str]


def read_policies() -> list[dict[str, Any]]:
    """The objects of the bundle, in the order of its kustomization."""
    listed = yaml.safe_load((POLICIES / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    return [
        item for name in listed for item in yaml.safe_load_all((POLICIES / name).read_text(encoding="utf-8"))
    ]


def policy_path(item: dict[str, Any]) -> str:
    return f"{GROUP}/{PLURALS[item['kind']]}/{item['metadata']['name']}"


@pytest.fixture(scope="module")
def limited_server(request: pytest.FixtureRequest) -> Iterator[ApiServer]:
    """The API server with the bundle in force, and with classes that have prices; both are gone afterwards."""
    server: ApiServer = request.getfixturevalue("api_server")
    request.getfixturevalue("applied")
    probe = _Probe(server)
    policies = read_policies()
    try:
        for name, price in PRICES.items():
            spec = {"resourceName": "nvidia.com/gpu", **({"price": {"onDemand": price}} if price else {})}
            made = server.request(
                "POST", resource_path("AcceleratorClass", ""), manifest("AcceleratorClass", name, **spec)
            )
            assert made.status == 201, made.message
        for item in policies:
            path = f"{policy_path(item)}?fieldManager=tests&force=true&fieldValidation=Strict"
            reply = server.request("PATCH", path, item, APPLY)
            assert reply.status == 201, reply.message
            assert reply.warnings == ()
        # The API server takes a policy and a parameter up within a second or two.
        wait_until(probe.all_refuse, "every policy is in force", timeout_s=PATIENCE_S)
        yield server
    finally:
        for item in reversed(policies):
            server.request("DELETE", policy_path(item))
        for name in PRICES:
            server.request("DELETE", resource_path("AcceleratorClass", "", name))
        # Other tests of this control plane must not meet them.
        wait_until(probe.none_refuses, "no policy is in force any more", timeout_s=PATIENCE_S)
        probe.close()


class _Probe:
    """A namespace with limits, and for each policy a request that it alone refuses."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.namespace = create_namespace(
            server,
            {"max-replicas": "1", "max-price-per-hour": "1", "allowed-providers": "none"},
        )
        placement = {"accelerators": [{"class": "policy-l4", "count": 1}]}
        model = {"source": "hf://org/model"}
        deployment = manifest("LLMDeployment", "probe", model=model, replicas=0)
        made = server.request("POST", resource_path("LLMDeployment", self.namespace), deployment)
        assert made.status == 201, made.message
        self._requests = (
            ("deployment-limits", "LLMDeployment", {"model": model, "replicas": 2, "placement": placement}),
            *((f"AcceleratorClass {name}", "LLMDeployment", self._priced(name)) for name in PRICES),
            (
                "route-limits",
                "LLMRoute",
                {"model": "m", "targets": [{"provider": "p", "model": "m"}]},
            ),
        )

    @staticmethod
    def _priced(name: str) -> dict[str, Any]:
        accelerators = [{"class": name, "count": 16}]
        return {
            "model": {"source": "hf://org/model"},
            "replicas": 1,
            "placement": {"accelerators": accelerators},
        }

    def _refused(self) -> list[bool]:
        found = []
        for expected, kind, spec in self._requests:
            path = f"{resource_path(kind, self.namespace)}?dryRun=All"
            reply = self._server.request("POST", path, manifest(kind, "other", **spec))
            found.append(reply.status == 403 and expected in reply.message)
        path = f"{resource_path('LLMDeployment', self.namespace, 'probe', 'scale')}?dryRun=All"
        reply = self._server.request("PATCH", path, {"spec": {"replicas": 2}}, "application/merge-patch+json")
        return [*found, reply.status == 403]

    def all_refuse(self) -> bool:
        return all(self._refused())

    def none_refuses(self) -> bool:
        return not any(self._refused())

    def close(self) -> None:
        self._server.request("DELETE", f"/api/v1/namespaces/{self.namespace}")


def create_namespace(server: ApiServer, limits: dict[str, str], labels: dict[str, str] | None = None) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "generateName": "policy-",
            "annotations": {f"{LIMIT}{name}": value for name, value in limits.items()},
            "labels": {"pod-security.kubernetes.io/enforce": "restricted", **(labels or {})},
        },
    }
    reply = server.request("POST", "/api/v1/namespaces", body)
    assert reply.status == 201, reply.message
    return str(reply.body["metadata"]["name"])


@pytest.fixture
def make_limited(limited_server: ApiServer) -> Iterator[MakeNamespace]:
    """Makes namespaces with these limits, by their names without the prefix; they are deleted after the test."""
    made: list[str] = []

    def make(labels: dict[str, str] | None = None, /, **limits: str) -> str:
        stated = {name.replace("_", "-"): value for name, value in limits.items()}
        made.append(create_namespace(limited_server, stated, labels))
        return made[-1]

    yield make
    for name in made:
        limited_server.request("DELETE", f"/api/v1/namespaces/{name}")
