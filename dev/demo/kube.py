"""The demo's view of the Kubernetes API: apply manifests, read deployments, clean up."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import yaml
from kubernetes import client
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError

from dev.cluster.api import api_client
from dev.demo.settings import FIELD_MANAGER
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import API_VERSION

POLL_INTERVAL_S = 0.25
"""Seconds between looks at an object that is waited for."""

Manifest = dict[str, Any]


class NotReadyError(RuntimeError):
    """Something waited for did not come; the message says what is there instead."""


def load_manifests(paths: Iterable[Path]) -> list[Manifest]:
    """Return all objects of the YAML files in the folders, file by file in name order."""
    files = sorted(file for path in paths for file in (path.rglob("*.yaml") if path.is_dir() else [path]))
    return [
        document
        for file in files
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        if document
    ]


class Cluster:
    """A Kubernetes cluster, through server-side apply.

    Blocking: call it from a thread, or before an event loop runs.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._client = api_client(kubeconfig)
        self.dynamic = DynamicClient(self._client)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()  # type: ignore[no-untyped-call]

    def apply(self, manifests: Sequence[Manifest], namespace: str | None = None) -> None:
        """Create or update the objects; namespaced ones without a namespace go to `namespace`."""
        for manifest in manifests:
            resource = self._resource(manifest)
            self.dynamic.server_side_apply(  # type: ignore[no-untyped-call]
                resource,
                body=manifest,
                name=manifest["metadata"]["name"],
                namespace=self._place(resource, manifest, namespace),
                field_manager=FIELD_MANAGER,
                force_conflicts=True,
            )

    def apply_crds(self, manifests: Sequence[Manifest], timeout_s: float = 30.0) -> None:
        """Apply CustomResourceDefinitions and wait until the API server serves them."""
        self.apply(manifests)
        api = client.ApiextensionsV1Api(self._client)
        for manifest in manifests:
            name = manifest["metadata"]["name"]

            def established(name: str = name) -> bool:
                status = api.read_custom_resource_definition(name).status
                conditions = (status.conditions if status else None) or []
                return any(item.type == "Established" and item.status == "True" for item in conditions)

            wait_until(established, timeout_s, f"the API server does not serve {name}")

    def exists(self, manifest: Manifest, namespace: str | None = None) -> bool:
        """Tell whether the object exists; a namespaced one is looked for in `namespace` by default."""
        try:
            resource = self._resource(manifest)
            resource.get(
                name=manifest["metadata"]["name"], namespace=self._place(resource, manifest, namespace)
            )
        except (NotFoundError, ResourceNotFoundError):
            return False
        return True

    def delete(self, manifests: Sequence[Manifest], namespace: str | None = None) -> None:
        """Delete the objects, last first; what is gone already is fine."""
        for manifest in reversed(manifests):
            resource = self._resource(manifest)
            with suppress(NotFoundError):
                resource.delete(
                    name=manifest["metadata"]["name"],
                    namespace=self._place(resource, manifest, namespace),
                    propagation_policy="Background",
                )

    def ready_nodes(self) -> int:
        """Return how many nodes are Ready."""
        nodes = client.CoreV1Api(self._client).list_node().items
        return sum(
            any(item.type == "Ready" and item.status == "True" for item in node.status.conditions or [])
            for node in nodes
            if node.status
        )

    def llm_deployments(self, namespace: str) -> list[LLMDeployment]:
        """Return the LLMDeployments of the namespace, by name."""
        resource = self.dynamic.resources.get(api_version=API_VERSION, kind="LLMDeployment")
        items = resource.get(namespace=namespace).to_dict()["items"]
        return sorted(
            (LLMDeployment.model_validate(item) for item in items), key=lambda item: item.metadata.name
        )

    @staticmethod
    def _place(resource: Any, manifest: Manifest, namespace: str | None) -> str | None:
        return manifest["metadata"].get("namespace", namespace) if resource.namespaced else None

    def _resource(self, manifest: Manifest) -> Any:
        return self.dynamic.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])


def namespace_manifest(name: str, labels: dict[str, str] | None = None) -> Manifest:
    """Return a Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}


def wait_until(holds: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    """Wait until the condition holds. Raises NotReadyError with the sentence of `otherwise`."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise NotReadyError(f"{otherwise} after {timeout_s:.0f} s")
        time.sleep(POLL_INTERVAL_S)
