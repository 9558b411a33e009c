"""The LLMProviders of the gateway's namespace, and the Secrets that they name: read from time to time."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from modelyard.api.llmprovider import LLMProvider
from modelyard.api.meta import Refusal, SecretKey
from modelyard.core.providers import build_provider_status
from modelyard.core.snapshot import Provider
from modelyard.kube.client import KubeClient
from modelyard.kube.resources import LLM_PROVIDERS
from modelyard.runtime.administered import NamespaceReader, find_key, poll
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A provider as it was read."""

    provider: Provider
    key: str | None = field(default=None, repr=False)


class ProviderKeeper:
    """Keeps what the gateway needs to know of providers, and their status."""

    def __init__(
        self,
        client: KubeClient,
        fleet: Fleet,
        settings: OperatorSettings,
        on_change: Callable[[], None],
        is_plain: Callable[[], bool | None] = lambda: None,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._on_change = on_change
        self._is_plain = is_plain
        self._reader = NamespaceReader(client, settings.render.gateway.namespace, LLM_PROVIDERS)

    async def start(self) -> None:
        """Read everything once: a table without providers would take them from an Envoy that has them."""
        await self._refresh()

    async def run(self) -> None:
        """Read until cancelled."""
        await poll(self._refresh, self._settings.provider_interval, "Providers")

    async def _refresh(self) -> None:
        """Read all providers; publish what changed; write their status.

        Raises ApiError where the API server refuses or cannot be reached.
        """
        listed = await self._reader.list_objects(LLMProvider, known=bool(self._fleet.providers))
        readings = await asyncio.gather(*(self._read(provider) for provider in listed))
        providers = {reading.provider.object.name: reading.provider for reading in readings}
        keys = {item.provider.object.name: item.key for item in readings if item.key is not None}
        changed = (_essence(providers), keys) != (_essence(self._fleet.providers), self._fleet.provider_keys)
        self._fleet.providers, self._fleet.provider_keys = providers, keys
        if changed:
            self._on_change()
        fleet, now, plain = self._fleet, time.time(), self._is_plain()
        for name, provider in providers.items():
            status = build_provider_status(
                provider.object,
                provider.refusal,
                now,
                fleet.answers,
                fleet.provider_limits.get(name),
                plain=plain,
            )
            await self._reader.write_status(provider.object.metadata, provider.object.status, status)

    async def _read(self, provider: LLMProvider) -> _Reading:
        """Return a provider with what its Secrets hold."""
        key = await self._read_secret(provider.spec.secret_ref, "secretRef", find_key, "an API key")
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
        if reference is None:
            return None
        return await self._reader.read_secret(reference, field_name, find, wanted)


def _essence(providers: Mapping[str, Provider]) -> dict[str, object]:
    """Return what routes depend on: everything but the status, which is our own."""
    return {name: (item.object.spec, item.trust, item.refusal) for name, item in providers.items()}


def _find_certificates(text: str) -> str | None:
    """Return the text if Envoy will take it: certificates that it refuses would cost the provider its cluster."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return None
    return text if context.cert_store_stats()["x509"] else None
