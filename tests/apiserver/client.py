"""A thin client that shows what a test needs to see of the API server's reply: status, warnings and body."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import urllib3

from modelyard.api.crd import KINDS
from modelyard.api.meta import GROUP, VERSION

CRDS_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

WATCH_TIMEOUT_S = 30
"""Longest wait for a condition: the API server establishes a definition within a second."""


@dataclass(frozen=True)
class Reply:
    """A reply of the API server."""

    status: int
    body: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> list[dict[str, str]]:
        """What a refused object did wrong: `field` and `message` of each."""
        causes: list[dict[str, str]] = self.body.get("details", {}).get("causes", [])
        return causes


class ApiServer:
    """The API server, as its administrator sees it."""

    def __init__(self, url: str, ca: Path, certificate: Path, key: Path) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(ca_certs=str(ca), cert_file=str(certificate), key_file=str(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Reply:
        headers = {"Content-Type": content_type, "Accept": accept}
        data = None if body is None else json.dumps(body)
        response = self._pool.request(method, self._url + path, body=data, headers=headers, retries=False)
        warnings = tuple(response.headers.getlist("Warning"))
        return Reply(response.status, response.json(), warnings)

    def wait_for_condition(self, path: str, name: str, condition: str) -> dict[str, Any]:
        """Return the object once the condition is True; raise TimeoutError if it never is."""
        for item in self._watch(f"{path}?watch=true&fieldSelector=metadata.name={name}"):
            for found in item.get("status", {}).get("conditions") or ():
                if found["type"] == condition and found["status"] == "True":
                    return item
        raise TimeoutError(f"{name} is not {condition} after {WATCH_TIMEOUT_S} s")

    def _watch(self, path: str) -> Iterator[dict[str, Any]]:
        url = f"{self._url}{path}&timeoutSeconds={WATCH_TIMEOUT_S}"
        response = self._pool.request("GET", url, preload_content=False, retries=False)
        try:
            for line in response:
                yield json.loads(line)["object"]
        finally:
            response.close()


def resource_path(kind: str, namespace: str, name: str = "", subresource: str = "") -> str:
    """Return the path of a kind, an object or one of its subresources."""
    scope = f"namespaces/{namespace}/" if KINDS[kind].namespaced else ""
    path = f"/apis/{GROUP}/{VERSION}/{scope}{KINDS[kind].plural}"
    return "/".join(part for part in (path, name, subresource) if part)
