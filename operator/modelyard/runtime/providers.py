"""The LLMProviders of the gateway's namespace, and the Secrets that they name: read from time to time.

Nothing is watched: a watch would need its right in every namespace that the operator works in, and Secrets are read by
name in the gateway's namespace alone. What was read last stays valid while the API server cannot be reached.
"""

import asyncio
import base64
import binascii
import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.api.llmprovider import LLMProvider, LLMProviderStatus, SecretKey
from modelyard.api.meta import API_VERSION, Refusal, wire
from modelyard.core.providers import build_provider_status
from modelyard.core.reasons import Code
from modelyard.core.snapshot import Provider
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import project_object
from modelyard.kube.resources import LLM_PROVIDERS, SECRETS
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import WRITES
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[\x21-\x7e]+")
"""Visible ASCII: what may stand in a header (RFC 9110, section 5.5) and in a Bearer token."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A provider as it was read."""

    provider: Provider
    key: str | None = field(default=None, repr=False)


class ProviderKeeper:
    """Keeps what the gateway needs to know of providers, and their status."""

    def __init__(
        self, client: KubeClient, fleet: Fleet, settings: OperatorSettings, on_change: Callable[[], None]
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._settings = settings
        self._on_change = on_change
        self._namespace = settings.render.gateway.namespace
        self._absent = False

    async def start(self) -> None:
        """Read everything once: a table without providers would take them from an Envoy that has them."""
        await self._refresh()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await asyncio.sleep(self._settings.provider_interval)
            try:
                await self._refresh()
            except ApiError as error:
                logger.warning("Providers cannot be read, what is known stays: %s", error)

    async def _refresh(self) -> None:
        """Read all providers; publish what changed; write their status.

        Raises ApiError where the API server refuses or cannot be reached.
        """
        readings = [await self._read(provider) for provider in await self._list()]
        providers = {reading.provider.object.name: reading.provider for reading in readings}
        keys = {item.provider.object.name: item.key for item in readings if item.key is not None}
        changed = (_essence(providers), keys) != (_essence(self._fleet.providers), self._fleet.provider_keys)
        self._fleet.providers, self._fleet.provider_keys = providers, keys
        if changed:
            self._on_change()
        for provider in providers.values():
            await self._write_status(provider)

    async def _list(self) -> list[LLMProvider]:
        """Return the providers that can be read; none where the kind is not there or not allowed."""
        try:
            bodies = [
                body async for body in self._client.list_pages(LLM_PROVIDERS, {}, namespace=self._namespace)
            ]
        except ApiError as error:
            # A right that is lost takes nothing away from what runs; a kind that is gone takes its objects along.
            if error.status != 404 and (error.status != 403 or self._fleet.providers):
                raise
            if not self._absent:
                logger.warning("LLMProviders of namespace %s cannot be read: %s", self._namespace, error)
            self._absent = True
            return []
        self._absent = False
        seen = [project_object(LLMProvider, body) for body in bodies]
        for body, view in zip(bodies, seen, strict=True):
            if view.object is None:
                logger.error("LLMProvider %s cannot be read: %s", body["metadata"]["name"], view.error)
        return [view.object for view in seen if view.object is not None]

    async def _read(self, provider: LLMProvider) -> _Reading:
        """Return a provider with what its Secrets hold."""
        key = await self._read_secret(provider.spec.secret_ref, "secretRef", _find_key, "an API key")
        if isinstance(key, Refusal):
            return _Reading(Provider(provider, refusal=key))
        trust = await self._read_secret(
            provider.spec.ca_secret_ref, "caSecretRef", _find_certificates, "certificates in PEM form"
        )
        if isinstance(trust, Refusal):
            return _Reading(Provider(provider, refusal=trust))
        return _Reading(Provider(provider, trust), key)

    async def _read_secret(
        self, reference: SecretKey | None, field_name: str, find: Callable[[str], str | None], wanted: str
    ) -> str | Refusal | None:
        """Return what `find` makes of the text in a Secret, or why there is none. No message tells any of it."""
        if reference is None:
            return None
        shown = f"{field_name}: Secret {self._namespace}/{reference.name}"
        try:
            secret = await self._client.get(SECRETS, self._namespace, reference.name)
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

    async def _write_status(self, provider: Provider) -> None:
        """Write the status if it differs from what stands."""
        status = build_provider_status(provider.object, provider.refusal, time.time())
        if status == provider.object.status:
            return
        try:
            await self._client.apply(LLM_PROVIDERS, self._status_manifest(provider.object, status), "status")
        except ApiError as error:
            # It may just have been deleted; the next reading knows.
            logger.warning("The status of LLMProvider %s cannot be written: %s", provider.object.name, error)
            return
        WRITES.labels(kind="LLMProvider/status").inc()

    @staticmethod
    def _status_manifest(provider: LLMProvider, status: LLMProviderStatus) -> Mapping[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": LLM_PROVIDERS.kind,
            "metadata": {"name": provider.metadata.name, "namespace": provider.metadata.namespace},
            "status": wire(status),
        }


def _essence(providers: Mapping[str, Provider]) -> dict[str, object]:
    """Return what routes depend on: everything but the status, which is our own."""
    return {name: (item.object.spec, item.trust, item.refusal) for name, item in providers.items()}


def _find_key(text: str) -> str | None:
    """Return an API key without the line break that editors and `echo` leave."""
    key = text.strip()
    return key if _KEY.fullmatch(key) else None


def _find_certificates(text: str) -> str | None:
    """Return the text if Envoy will take it: certificates that it refuses would cost the provider its cluster."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return None
    return text if context.cert_store_stats()["x509"] else None
