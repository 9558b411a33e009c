"""The LLMTenants of the gateway's namespace, and the Secrets with their API keys: read from time to time.

A key is hashed as soon as it is read, and only its digest is kept.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from modelyard.api.llmtenant import LLMTenant
from modelyard.api.meta import Refusal, SecretKey
from modelyard.core.reasons import Code
from modelyard.core.tenants import (
    MAX_KEY,
    MIN_KEY,
    KeyReading,
    TenantReading,
    assign_keys,
    build_tenant_status,
    find_missing,
    hash_key,
)
from modelyard.kube.client import KubeClient
from modelyard.kube.resources import LLM_TENANTS
from modelyard.runtime.administered import NamespaceReader, find_key, poll
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)


class TenantKeeper:
    """Keeps what the gateway needs to know of tenants, and their status."""

    def __init__(
        self, client: KubeClient, fleet: Fleet, settings: OperatorSettings, on_change: Callable[[], None]
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._on_change = on_change
        self._reader = NamespaceReader(client, settings.render.gateway.namespace, LLM_TENANTS)
        self._digests: dict[SecretKey, str] = {}
        """What each reference led to when it was last read."""

    async def start(self) -> None:
        """Read everything once: a table without tenants would refuse everybody."""
        await self._refresh()

    async def run(self) -> None:
        """Read until cancelled."""
        await poll(self._refresh, self._settings.tenant_interval, "Tenants")

    async def _refresh(self) -> None:
        """Read all tenants; publish what changed; write their status.

        Raises ApiError where the API server refuses or cannot be reached.
        """
        listed = await self._reader.list_objects(LLMTenant, known=bool(self._fleet.tenants))
        readings = await asyncio.gather(*(self._read(tenant) for tenant in listed))
        self._digests = {
            reference: key.digest
            for reading in readings
            for reference, key in zip(reading.object.spec.keys, reading.keys, strict=True)
            if key.digest is not None
        }
        tenants = {tenant.name: tenant for tenant in listed}
        keys, reports = assign_keys(readings)
        changed = (_essence(tenants), keys) != (_essence(self._fleet.tenants), self._fleet.tenant_keys)
        self._fleet.tenants, self._fleet.tenant_keys = tenants, keys
        if changed:
            self._on_change()
        now = time.time()
        existing = {*self._fleet.route_keys(), *self._fleet.deployment_keys()}
        for name, tenant in tenants.items():
            status = build_tenant_status(tenant, reports[name], now, find_missing(tenant, existing))
            await self._reader.write_status(tenant.metadata, tenant.status, status)

    async def _read(self, tenant: LLMTenant) -> TenantReading:
        """Return a tenant with the digests of its keys."""
        keys = await asyncio.gather(
            *(self._read_key(reference, f"keys[{index}]") for index, reference in enumerate(tenant.spec.keys))
        )
        return TenantReading(tenant, tuple(keys))

    async def _read_key(self, reference: SecretKey, field: str) -> KeyReading:
        found = await self._reader.read_secret(
            reference, field, _find_digest, f"a key of {MIN_KEY} to {MAX_KEY} visible ASCII characters"
        )
        if not isinstance(found, Refusal):
            return KeyReading(found)
        # The operator's own lost right revokes nobody's key; a Secret that is gone does.
        kept = self._digests.get(reference) if found.reason == Code.SECRET_FORBIDDEN else None
        return KeyReading(kept, found)


def _essence(tenants: Mapping[str, LLMTenant]) -> dict[str, object]:
    """Return what the gateway depends on: everything but the status, which is our own."""
    return {name: tenant.spec for name, tenant in tenants.items()}


def _find_digest(text: str) -> str | None:
    """Return the digest of the API key in the text of a Secret."""
    key = find_key(text)
    return hash_key(key) if key is not None and MIN_KEY <= len(key) <= MAX_KEY else None
