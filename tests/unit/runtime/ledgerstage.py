"""A ledger's keeper in front of an API server that may refuse, or fail to say what it did."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.core.ledger.archive import OPEN_NAME
from modelyard.core.ledger.book import open_lines
from modelyard.core.ledger.codec import decode_archive, decode_ledger
from modelyard.core.ledger.settle import Line
from modelyard.core.ledger.usage import NodeCounts, Use, keep_reading, spend_key
from modelyard.kube.client import ApiError
from modelyard.kube.informers import Indices
from modelyard.render.ledger import read_ledger
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.ledger import LedgerKeeper
from modelyard.runtime.settings import OperatorSettings

KEYS = tuple(
    spend_key(tenant, "team/chat@route", target)
    for tenant in ("", "blue")
    for target in ("team/a", "provider:acme/m")
)
FLUSH = 5
"""Seconds between two updates of the age that Envoy tells."""


@dataclass
class Server:
    """ConfigMaps, each with its version, as the API server keeps them."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: int = 0
    writes: int = 0
    fault: str = ""
    """What happens to the next write: `refused`, or `unanswered`: it is done and the answer is lost."""
    bodies: list[str] = field(default_factory=list)
    """Names of the objects whose content was read, in order."""

    async def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any] | None:
        self.bodies.append(name)
        return self.objects.get(name)

    async def list_pages(
        self, resource: Any, query: Mapping[str, str], limit: int = 500, namespace: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        for name, body in sorted(self.objects.items()):
            if name != OPEN_NAME:
                self.bodies.append(name)
                yield body

    async def list_identities(
        self, resource: Any, namespace: str = "", label_selector: str = ""
    ) -> dict[str, str]:
        return {
            f"{namespace}/{name}": body["metadata"]["uid"]
            for name, body in self.objects.items()
            if name != OPEN_NAME
        }

    async def create(self, resource: Any, manifest: dict[str, Any]) -> dict[str, Any]:
        if manifest["metadata"]["name"] in self.objects:
            raise ApiError(409, "AlreadyExists", "it exists")
        return self._put(manifest)

    async def replace(self, resource: Any, manifest: dict[str, Any]) -> dict[str, Any]:
        stands = self.objects.get(manifest["metadata"]["name"])
        if stands is None:
            raise ApiError(404, "NotFound", "it is gone")
        if stands["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "it has changed")
        return self._put(manifest)

    async def delete(self, resource: Any, namespace: str, name: str, uid: str) -> bool:
        self.writes += 1
        return self.objects.pop(name, None) is not None

    def _put(self, manifest: dict[str, Any]) -> dict[str, Any]:
        fault, self.fault = self.fault, ""
        if fault == "refused":
            raise ApiError(500, "InternalError", "refused")
        self.versions += 1
        self.writes += 1
        metadata = {**manifest["metadata"], "resourceVersion": str(self.versions), "uid": str(self.versions)}
        body = {**manifest, "metadata": metadata}
        self.objects[metadata["name"]] = body
        if fault == "unanswered":
            raise ApiError(0, "Unreachable", "timeout")
        return body

    def lines(self) -> list[tuple[int, Line]]:
        """Return everything that is written, each thing once, as `modelyard cost` reads it."""
        open_part = self.objects.get(OPEN_NAME)
        ledger = decode_ledger(read_ledger(open_part)) if open_part else None
        found = list(open_lines(ledger)) if ledger else []
        settled = {item.start for item in ledger.settled} if ledger else set()
        archives = [
            decode_archive(read_ledger(body)) for name, body in self.objects.items() if name != OPEN_NAME
        ]
        days = {item.start for item in archives if item.seconds > 3600}
        for item in archives:
            if item.seconds > 3600 or (
                item.start not in settled and item.start - item.start % 86400 not in days
            ):
                found += [(item.start, line) for line in item.lines]
        return found

    def total(self) -> Use:
        """Return the sum of everything that is written."""
        return sum((line.use for _, line in self.lines()), Use())


@dataclass
class Envoy:
    """A process that counts from zero."""

    start: float
    counts: dict[Any, Use] = field(default_factory=dict)
    known: Use = field(default_factory=Use)
    """What a living operator, or the ledger, knows of it."""
    written: Use = field(default_factory=Use)

    def serve(self, key: Any, use: Use) -> None:
        """Count something."""
        self.counts[key] = self.counts.get(key, Use()) + use

    @property
    def total(self) -> Use:
        """All that it counted."""
        return sum(self.counts.values(), Use())

    def page(self, now: float) -> NodeCounts:
        """Return what it says."""
        return NodeCounts(now, (now - self.start) // FLUSH * FLUSH, dict(self.counts))


def make_keeper(server: Server, started: float) -> tuple[LedgerKeeper, Fleet]:
    """Return a keeper as a new process has it."""
    fleet = Fleet(indices=Indices(deployments={}, pods={}, accelerators={}))
    keeper = LedgerKeeper(server, fleet, replace(OperatorSettings()))
    keeper._started = started
    return keeper, fleet


def read(fleet: Fleet, node: str, page: NodeCounts) -> None:
    """Take a page in as the reader does."""
    fleet.counts[node] = keep_reading(fleet.counts.get(node, ()), page)
