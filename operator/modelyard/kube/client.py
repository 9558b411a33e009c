"""A thin asynchronous client: get, list, server-side apply, create, replace. Objects are plain JSON data."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
from kubernetes.aio import client as api

from modelyard.api.meta import FIELD_MANAGER
from modelyard.kube.credentials import load_configuration
from modelyard.kube.errors import ApiError
from modelyard.kube.resources import ACCESS_REVIEWS, Resource

__all__ = ["ApiError", "Identity", "KubeClient", "Observer", "resource_of"]

REQUEST_TIMEOUT = 30.0
"""Seconds for one request; Kubernetes ends its own at 60 s (`--request-timeout`)."""

LINE_LIMIT = 1 << 20
"""Bytes of one line of a log that are kept together: the kubelet itself splits lines at 16 KiB."""

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_IDENTITIES = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


Observer = Callable[[str, str, int, float], None]
"""Hears of a request that is over: method, resource, status (0: no answer) and seconds."""


class Identity(NamedTuple):
    """Which object it is, and how new."""

    uid: str
    version: str
    """`resourceVersion`."""


class KubeClient:
    """Requests to one API server."""

    def __init__(self, configuration: api.Configuration) -> None:
        """Prepare requests. Raises ApiError where a certificate or a key is none."""
        self.configuration = configuration
        try:
            self._client = api.ApiClient(configuration)
        except OSError as error:
            told = f"a certificate or a key for the cluster cannot be read: {error}"
            raise ApiError(0, "Kubeconfig", told) from error
        self.fence: Callable[[], bool] | None = None
        """Asked right before each write, if there is one: False stops the write. A process that was paused while it
        held the Lease must not write what it had decided before."""
        self.observer: Observer = lambda *_: None

    @classmethod
    async def connect(
        cls, kubeconfig: Path | Sequence[Path] | None = None, context: str | None = None
    ) -> Self:
        """Return a client for the given kubeconfig, or for the cluster that this process runs in.

        Raises ApiError as `load_configuration` does.
        """
        return cls(await load_configuration(kubeconfig, context))

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = REQUEST_TIMEOUT,  # noqa: ASYNC109  (the client's own, for the connection too)
        stores: bool = True,
    ) -> dict[str, Any]:
        """Send one request and return the JSON answer.

        `timeout` is in seconds. `stores` is False for a question that is asked with POST. Raises ApiError for every
        answer that is not 2xx, for every failure to get one, and for a write that the fence stops.
        """
        prepared = await self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        if method != "GET" and stores and self.fence is not None and not self.fence():
            raise ApiError(0, "NotLeader", f"{method} {path}: this process does not hold the Lease")
        status, began = 0, time.perf_counter()
        try:
            response = await self._client.call_api(*prepared, _request_timeout=timeout)
            payload = await response.read()  # type: ignore[no-untyped-call]
            status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            self.observer(method, resource_of(path), status, time.perf_counter() - began)
        if not 200 <= response.status < 300:
            raise _api_error(response, payload)
        answer: dict[str, Any] = json.loads(payload)
        return answer

    async def stream_lines(self, path: str, query: Mapping[str, str]) -> AsyncIterator[str]:
        """Yield the lines of a text answer as they come, until it ends. No line is longer than `LINE_LIMIT`.

        Raises ApiError for every answer that is not 2xx and for every failure to get one.
        """
        prepared = await self._client.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": "*/*"},
            auth_settings=["BearerToken"],
        )
        try:
            # The whole answer may take for ever: only the connection has a bound.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT)
            response = await self._client.call_api(*prepared, _request_timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"GET {path}: {error or type(error).__name__}") from error
        raw = response.response
        try:
            if not 200 <= raw.status < 300:
                raise _api_error(response, await raw.read())
            rest = b""
            async for chunk in raw.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
                if len(rest) > LINE_LIMIT:
                    yield rest.decode(errors="replace")
                    rest = b""
            if rest:
                yield rest.decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"GET {path}: {error or type(error).__name__}") from error
        finally:
            raw.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None if there is none."""
        try:
            return await self.request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def apply(
        self,
        resource: Resource,
        manifest: Mapping[str, Any],
        subresource: str = "",
        manager: str = FIELD_MANAGER,
    ) -> dict[str, Any]:
        """Apply our fields of an object (server-side apply) and return the object.

        Other managers lose a field only where both set it: names of children are ours, so `force` is right. `manager`
        is the name that the fields are kept under.
        """
        metadata = manifest["metadata"]
        return await self.request(
            "PATCH",
            resource.path(metadata.get("namespace", ""), metadata["name"], subresource),
            query={"fieldManager": manager, "force": "true", "fieldValidation": "Strict"},
            body=manifest,
            content_type=_APPLY,
        )

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object."""
        path = resource.path(manifest["metadata"].get("namespace", ""))
        return await self.request("POST", path, query={"fieldManager": FIELD_MANAGER}, body=manifest)

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Put an object in the place of the one whose `resourceVersion` it names.

        Raises ApiError 409 if the object has changed since.
        """
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace", ""), metadata["name"])
        return await self.request("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=manifest)

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]) -> bool:
        """Change some fields of an object (JSON merge patch). Returns False if it is gone."""
        query = {"fieldManager": FIELD_MANAGER}
        path = resource.path(namespace, name)
        try:
            await self.request("PATCH", path, query=query, body=patch, content_type=_MERGE)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> bool:
        """Delete an object, if it is still the one with that UID. Returns False if it is gone or another one."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self.request("DELETE", resource.path(namespace, name), body=body)
        except ApiError as error:
            if error.status in {404, 409}:
                return False
            raise
        return True

    async def may(self, resource: Resource, verb: str, namespace: str = "") -> bool:
        """Return whether this client may do something, as the API server's authorizer says it."""
        attributes = {"group": resource.group, "resource": resource.plural, "verb": verb}
        review = {
            "apiVersion": ACCESS_REVIEWS.api_version,
            "kind": ACCESS_REVIEWS.kind,
            "spec": {"resourceAttributes": {**attributes, "namespace": namespace}},
        }
        answer = await self.request("POST", ACCESS_REVIEWS.path(), body=review, stores=False)
        return bool(answer["status"].get("allowed"))

    async def list_pages(
        self, resource: Resource, query: Mapping[str, str], limit: int = 500, namespace: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield every object of a kind, in one namespace or in all, page by page."""
        asked = {**query, "limit": str(limit)}
        while True:
            page = await self.request("GET", resource.path(namespace), query=asked)
            for item in page["items"] or ():
                yield item
            token = page["metadata"].get("continue")
            if not token:
                return
            asked["continue"] = token

    async def list_identities(
        self, resource: Resource, namespace: str = "", label_selector: str = ""
    ) -> dict[str, str]:
        """Return the UIDs of all objects, by `namespace/name` (or `name` for cluster-scoped kinds)."""
        found = await self.list_versions(resource, namespace, label_selector)
        return {key: identity.uid for key, identity in found.items()}

    async def list_versions(
        self, resource: Resource, namespace: str = "", label_selector: str = ""
    ) -> dict[str, Identity]:
        """Return the UID and resourceVersion of all objects, by the same keys."""
        found: dict[str, Identity] = {}
        query = {"limit": "1000"} | ({"labelSelector": label_selector} if label_selector else {})
        while True:
            page = await self.request("GET", resource.path(namespace), query=query, accept=_IDENTITIES)
            # An empty list of metadata comes as null.
            for item in page["items"] or ():
                metadata = item["metadata"]
                prefix = f"{metadata['namespace']}/" if resource.namespaced else ""
                found[prefix + metadata["name"]] = Identity(metadata["uid"], metadata["resourceVersion"])
            token = page["metadata"].get("continue")
            if not token:
                return found
            query["continue"] = token


def resource_of(path: str) -> str:
    """Return the resource that a request is about, `llmdeployments/status` for a subresource; empty if it is none.

    Neither names nor namespaces are in it, so it has few values.
    """
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    return "/".join((*parts[:1], *parts[2:3]))


def _api_error(response: api.rest.RESTResponse, payload: bytes) -> ApiError:
    try:
        status = json.loads(payload)
        reason, message = status.get("reason", ""), status.get("message", "")
    except ValueError:
        reason, message = "", payload[:200].decode(errors="replace")
    header = response.headers.get("Retry-After", "")
    return ApiError(
        response.status,
        reason or str(response.reason),
        message,
        float(header) if header.isdecimal() else None,
    )
