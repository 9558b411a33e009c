"""A lean asynchronous client of the Kubernetes API that speaks plain JSON.

The kubeconfig is read by the `kubernetes` package; requests carry dictionaries rather than its
typed models, since the agent reads whole pods many times a second and uses few of their fields.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

REQUEST_TIMEOUT_SECONDS = 30.0
"""Limit for one request that is not a watch; above the API server's own patience with a busy etcd."""

WATCH_SECONDS = 300
"""Length of one watch request; the next one resumes where it ended. The shortest of client-go's reflector,
https://github.com/kubernetes/client-go/blob/v0.37.2/tools/cache/reflector.go (5 to 10 minutes)."""

EVENT_LIMIT_BYTES = 4 << 20
"""Longest line of a watch. etcd refuses objects above 1.5 MiB,
https://etcd.io/docs/v3.6/dev-guide/limit/; JSON is larger than what is stored."""

STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """The API server's refusal: `status` is the HTTP code, the message is the server's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class WatchExpired(ApiError):  # noqa: N818 - an outcome of every watch, not a fault
    """The resource version of a watch is no longer held by the server: list again."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a watch: `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: dict[str, Any]

    @property
    def resource_version(self) -> str:
        """Where a later watch can resume."""
        return str(self.object["metadata"]["resourceVersion"])


class KubeApi:
    """A connection to one API server. Use as an asynchronous context manager.

    Connection failures leave as `aiohttp.ClientError`, refusals as `ApiError`.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        configuration = Configuration()
        await load_kube_config(  # type: ignore[no-untyped-call]
            str(self._kubeconfig), client_configuration=configuration, persist_config=False
        )
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        token = await configuration.get_api_key_with_prefix("BearerToken")
        self._session = aiohttp.ClientSession(
            base_url=configuration.host.rstrip("/") + "/",
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            headers={"Authorization": token} if token else {},
            read_bufsize=EVENT_LIMIT_BYTES,
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **parameters: str) -> dict[str, Any]:
        """Read an object or a list, for example `api/v1/namespaces/default/pods/a`."""
        return await self._request("GET", path, parameters=parameters)

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in the collection at `path`."""
        return await self._request("POST", path, body=body)

    async def update(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the object at `path`."""
        return await self._request("PUT", path, body=body)

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Apply a strategic merge patch to the object (or subresource) at `path`."""
        return await self._request("PATCH", path, body=body, content_type=STRATEGIC_MERGE_PATCH)

    async def delete(self, path: str, options: Mapping[str, Any] | None = None) -> None:
        """Delete the object at `path`; `options` are the fields of `DeleteOptions`."""
        await self._request(
            "DELETE", path, body={"kind": "DeleteOptions", "apiVersion": "v1", **(options or {})}
        )

    async def watch(self, path: str, resource_version: str, **parameters: str) -> AsyncIterator[WatchEvent]:
        """Yield the changes after `resource_version` until the server ends this watch.

        Raises WatchExpired if that version is too old.
        """
        query = {
            **parameters,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        # A server that vanished without closing the connection shows as silence past its own limit.
        limit = aiohttp.ClientTimeout(total=None, sock_read=WATCH_SECONDS + REQUEST_TIMEOUT_SECONDS)
        async with self._open_session.get(path, params=query, timeout=limit) as response:
            if response.status >= 400:
                raise _refusal(response.status, await response.read())
            while (line := await response.content.readline()).endswith(b"\n"):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refusal(
                        int(event["object"].get("code", 500)), json.dumps(event["object"]).encode()
                    )
                yield WatchEvent(event["type"], event["object"])

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("KubeApi is used outside its 'async with' block")
        return self._session

    async def _request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body)
        async with self._open_session.request(
            method, path, params=parameters or {}, data=data, headers={"Content-Type": content_type}
        ) as response:
            content = await response.read()
            if response.status >= 400:
                raise _refusal(response.status, content)
            answer: dict[str, Any] = json.loads(content)
            return answer


def _refusal(status: int, content: bytes) -> ApiError:
    """Make the error of an answer, whose body is a `Status` object unless a proxy wrote it."""
    try:
        message = str(json.loads(content).get("message", ""))
    except ValueError:
        message = content.decode(errors="replace")
    kind = WatchExpired if status == 410 else ApiError
    return kind(status, message)
