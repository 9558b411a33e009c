"""Applies children, but only those that differ from what stands: a restart with nothing to do writes nothing."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.api.meta import FIELD_MANAGER, split_key
from modelyard.kube.client import KubeClient
from modelyard.kube.compare import is_applied, owns
from modelyard.kube.informers import Change, spec_version
from modelyard.kube.resources import WORKLOADS, Resource, child_resource
from modelyard.runtime.logs import about

logger = logging.getLogger(__name__)

HANDOVER_MANAGER = f"{FIELD_MANAGER}-handover"
"""Keeps `spec.replicas` of a child Deployment or LeaderWorkerSet between us and an outside autoscaler."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """An object that stands where a child should be and that another owner made."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class _Verified:
    digest: str
    """Hash of the manifest that was found or made to stand."""
    version: str
    """`spec_version` of the object then."""


class ChildApplier:
    """Brings children in line with their manifests, and remembers which of them are."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._verified: dict[str, dict[tuple[str, str], _Verified]] = {}
        """By `namespace/name` of the LLMDeployment, then by kind and name of the child."""

    async def apply(
        self, key: str, manifest: Mapping[str, Any], least: int = 1
    ) -> dict[str, Any] | Stranger | None:
        """Make one child stand as its manifest says.

        `least` are the replicas that a Deployment or LeaderWorkerSet has at least when its `replicas` are left to
        somebody else. Returns the object if it was written, a Stranger if the name is taken, and None if nothing had to
        be done.
        """
        resource = child_resource(dict(manifest))
        metadata = manifest["metadata"]
        child = (resource.kind, str(metadata["name"]))
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        verified = self._verified.get(key, {}).get(child)
        if verified is not None and verified.digest == digest:
            return None
        live = await self._client.get(resource, metadata["namespace"], metadata["name"])
        if live is not None:
            owners = {owner["uid"] for owner in live["metadata"].get("ownerReferences", ())}
            if metadata["ownerReferences"][0]["uid"] not in owners:
                return Stranger(resource.kind, f"{metadata['namespace']}/{metadata['name']}")
            if is_applied(manifest, live):
                self._remember(key, child, digest, live)
                return None
            if resource in WORKLOADS.values() and "replicas" not in manifest["spec"]:
                await self._hand_over(resource, live, least)
        written = await self._client.apply(resource, manifest)
        name = f"{metadata['namespace']}/{metadata['name']}"
        logger.info("Applied %s %s", resource.kind, name, extra=about(name, resource.kind))
        self._remember(key, child, digest, written)
        return written

    async def _hand_over(self, resource: Resource, live: Mapping[str, Any], least: int) -> None:
        """Keep the replicas of a Deployment or LeaderWorkerSet for whoever sets them next, if they are ours.

        A field that its only owner stops applying is removed, and `replicas` then becomes 1
        (https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership). An HPA does nothing
        while they are 0 (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#implicit-maintenance-mode-deactivation).
        """
        if not owns(live, "spec", "replicas"):
            return
        metadata, replicas = live["metadata"], max(live["spec"]["replicas"], least)
        kept = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "spec": {"replicas": replicas},
        }
        await self._client.apply(resource, kept, manager=HANDOVER_MANAGER)
        logger.info("Left the %d replicas of %s/%s", replicas, metadata["namespace"], metadata["name"])

    async def remove(self, key: str, resource: Resource, name: str, uid: str) -> bool:
        """Delete a child that is not wanted any more. Returns whether it was there."""
        namespace, _ = split_key(key)
        self._verified.get(key, {}).pop((resource.kind, name), None)
        gone = await self._client.delete(resource, namespace, name, uid)
        if gone:
            child = f"{namespace}/{name}"
            logger.info("Deleted %s %s", resource.kind, child, extra=about(child, resource.kind))
        return gone

    def _remember(self, key: str, child: tuple[str, str], digest: str, live: Mapping[str, Any]) -> None:
        self._verified.setdefault(key, {})[child] = _Verified(digest, spec_version(live["metadata"]))

    def notice(self, resource: Resource, key: str, change: Change) -> None:
        """Take in a watch event: a child that changed otherwise than by us must be compared again."""
        verified = self._verified.get(key, {})
        known = verified.get((resource.kind, change.name))
        if known is not None and (change.gone or known.version != change.version):
            del verified[resource.kind, change.name]

    def forget(self, key: str) -> None:
        """Compare all children of a deployment again at the next apply."""
        self._verified.pop(key, None)
