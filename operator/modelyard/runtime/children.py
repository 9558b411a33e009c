"""Applies children, but only those that differ from what stands: a restart with nothing to do writes nothing."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.kube.client import KubeClient
from modelyard.kube.compare import is_applied
from modelyard.kube.informers import spec_version
from modelyard.kube.resources import Resource, child_resource

logger = logging.getLogger(__name__)


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
        self._verified: dict[tuple[str, str], _Verified] = {}

    async def apply(self, key: str, manifest: Mapping[str, Any]) -> dict[str, Any] | Stranger | None:
        """Make one child stand as its manifest says.

        Returns the object if it was written, a Stranger if the name is taken, and None if nothing had to be done.
        """
        resource = child_resource(dict(manifest))
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        verified = self._verified.get((resource.kind, key))
        if verified is not None and verified.digest == digest:
            return None
        metadata = manifest["metadata"]
        live = await self._client.get(resource, metadata["namespace"], metadata["name"])
        if live is not None:
            owners = {owner["uid"] for owner in live["metadata"].get("ownerReferences", ())}
            if metadata["ownerReferences"][0]["uid"] not in owners:
                return Stranger(resource.kind, key)
            if is_applied(manifest, live):
                self._remember(resource, key, digest, live)
                return None
        written = await self._client.apply(resource, manifest)
        logger.info("Applied %s %s", resource.kind, key)
        self._remember(resource, key, digest, written)
        return written

    def _remember(self, resource: Resource, key: str, digest: str, live: Mapping[str, Any]) -> None:
        self._verified[resource.kind, key] = _Verified(digest, spec_version(live["metadata"]))

    def notice(self, resource: Resource, key: str, version: str, *, gone: bool) -> None:
        """Take in a watch event: a child that changed otherwise than by us must be compared again."""
        verified = self._verified.get((resource.kind, key))
        if verified is not None and (gone or verified.version != version):
            del self._verified[resource.kind, key]

    def forget(self, key: str) -> None:
        """Compare all children of a deployment again at the next apply."""
        for entry in [entry for entry in self._verified if entry[1] == key]:
            del self._verified[entry]
