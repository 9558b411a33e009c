"""Kinds that the platform team keeps in the gateway's namespace, and the Secrets that they name: how both are read.

Nothing is watched: a watch would need its right in every namespace that the operator works in, and Secrets are read by
name in the gateway's namespace alone. What was read last stays valid while the API server cannot be reached.
"""

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from modelyard.api.meta import API_VERSION, ApiModel, ObjectMeta, Refusal, SecretKey, Status, wire
from modelyard.core.reasons import Code
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import project_object
from modelyard.kube.resources import SECRETS, Resource
from modelyard.runtime.logs import about
from modelyard.runtime.metrics import WRITES

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[\x21-\x7e]+")
"""Visible ASCII: what may stand in a header (RFC 9110, section 5.5) and in a Bearer token."""


Model = TypeVar("Model", bound=ApiModel)

SECRET_READS = 16
"""Secrets that are read at a time: as many as workers, so that a fleet's keys take no longer than its objects, and the
API server has room for others."""


class NamespaceReader:
    """Reads one kind in one namespace, what its Secrets hold, and writes its status."""

    def __init__(self, client: KubeClient, namespace: str, resource: Resource) -> None:
        self._client = client
        self._namespace = namespace
        self._resource = resource
        self._absent = False
        self._secrets: dict[str, asyncio.Task[dict[str, Any] | None]] = {}
        self._reads = asyncio.Semaphore(SECRET_READS)

    async def list_objects(self, model: type[Model], *, known: bool) -> list[Model]:
        """Return the objects that can be read; none where the kind is not there or not allowed.

        `known`: some were read before. A right that is lost then takes nothing away from what runs; a kind that is gone
        takes its objects along. Raises ApiError where the API server refuses or cannot be reached.

        A round of readings begins with this: each Secret is read once in it, however many keys it holds.
        """
        self._secrets.clear()
        bodies, _ = await self.list_bodies(known=known)
        seen = [project_object(model, body) for body in bodies]
        for body, view in zip(bodies, seen, strict=True):
            if view.object is None:
                name = body["metadata"]["name"]
                fields = about(f"{self._namespace}/{name}", self._resource.kind, Code.INVALID)
                logger.error("%s %s cannot be read: %s", self._resource.kind, name, view.error, extra=fields)
        return [view.object for view in seen if view.object is not None]

    async def list_bodies(
        self, *, known: bool, consequence: Callable[[ApiError], str] = lambda _: ""
    ) -> tuple[list[dict[str, Any]], ApiError | None]:
        """Return the objects as they come; and why there are none where the kind is not there or not allowed.

        `known` as for `list_objects`. `consequence`: what follows from such an error, for the log; it is said once.
        """
        try:
            bodies = [
                body async for body in self._client.list_pages(self._resource, {}, namespace=self._namespace)
            ]
        except ApiError as error:
            if error.status != 404 and (error.status != 403 or known):
                raise
            if not self._absent:
                plural, follows = f"{self._resource.kind}s", consequence(error)
                logger.warning("%s of %s cannot be read%s: %s", plural, self._namespace, follows, error)
            self._absent = True
            return [], error
        self._absent = False
        return bodies, None

    async def read_secret(
        self, reference: SecretKey, field: str, find: Callable[[str], str | None], wanted: str
    ) -> str | Refusal:
        """Return what `find` makes of the text in a Secret, or why there is none. No message tells any of it."""
        shown = f"{field}: Secret {self._namespace}/{reference.name}"
        try:
            secret = await self._get_secret(reference.name)
        except ApiError as error:
            if error.status != 403:
                raise
            message = f"{shown} may not be read: grant the operator get on secrets in that namespace"
            return Refusal(Code.SECRET_FORBIDDEN, message)
        if secret is None:
            return Refusal(Code.SECRET_NOT_FOUND, f"{shown} does not exist: create it")
        encoded = (secret.get("data") or {}).get(reference.key)
        if encoded is None:
            return Refusal(Code.SECRET_NOT_FOUND, f"{shown} has no key {reference.key}: add it")
        try:
            found = find(base64.b64decode(encoded, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            found = None
        if found is None:
            message = f"{shown} does not hold {wanted} under {reference.key}: correct it"
            return Refusal(Code.SECRET_INVALID, message)
        return found

    async def _get_secret(self, name: str) -> dict[str, Any] | None:
        if name not in self._secrets:
            self._secrets[name] = asyncio.create_task(self._read_now(name))
        return await self._secrets[name]

    async def _read_now(self, name: str) -> dict[str, Any] | None:
        async with self._reads:
            return await self._client.get(SECRETS, self._namespace, name)

    async def write_status(self, metadata: ObjectMeta, before: Status, status: Status) -> None:
        """Write the status if it differs from what stands."""
        if status == before:
            return
        manifest = {
            "apiVersion": API_VERSION,
            "kind": self._resource.kind,
            "metadata": {"name": metadata.name, "namespace": metadata.namespace},
            "status": wire(status),
        }
        try:
            await self._client.apply(self._resource, manifest, "status")
        except ApiError as error:
            # It may just have been deleted; the next reading knows.
            logger.warning(
                "The status of %s %s cannot be written: %s", self._resource.kind, metadata.name, error
            )
            return
        WRITES.labels(kind=f"{self._resource.kind}/status").inc()


async def poll(refresh: Callable[[], Awaitable[None]], interval: float, what: str) -> NoReturn:
    """Refresh again and again until cancelled, each time after `interval` seconds.

    What was read last stays where the API server refuses or cannot be reached; `what` begins the warning then.
    """
    while True:
        await asyncio.sleep(interval)
        try:
            await refresh()
        except ApiError as error:
            logger.warning("%s cannot be read, what is known stays: %s", what, error)


def find_key(text: str) -> str | None:
    """Return an API key without the line break that editors and `echo` leave."""
    key = text.strip()
    return key if _KEY.fullmatch(key) else None
