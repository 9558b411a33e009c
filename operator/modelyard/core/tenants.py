"""Who may use which route, whose an API key is, and the status of an LLMTenant.

Keys are known here by their SHA-256 digests only.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelyard.api.llmtenant import AllowedRoutes, LLMTenant, LLMTenantStatus
from modelyard.api.meta import Refusal, split_key
from modelyard.core.limits.account import Limits
from modelyard.core.reasons import Code, Reason
from modelyard.core.routing import Route, Tenant
from modelyard.core.status import READY, Verdict, stamp

MIN_KEY, MAX_KEY = 20, 256
"""Characters of an API key. Digests can be guessed where keys can: 20 random letters and digits are 119 bits. Envoy
hashes no longer ones (`render/envoy/lua/tenants.lua`)."""


def hash_key(key: str) -> str:
    """Return the digest by which a key is known everywhere but in its Secret."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KeyReading:
    """What was found for one key of a tenant."""

    digest: str | None = None
    """The digest of the key that counts, in lower-case hexadecimal. None: there is none."""
    refusal: Refusal | None = None
    """What somebody must mend. The key as it was read before may count all the same."""


@dataclass(frozen=True, slots=True)
class TenantReading:
    """An LLMTenant, and what was found for each of its keys in the order of `spec.keys`."""

    object: LLMTenant
    keys: tuple[KeyReading, ...]


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What became of a tenant's keys."""

    accepted: int = 0
    """Keys that the gateway takes."""
    refusals: tuple[Refusal, ...] = ()
    """What is wrong with the others, in their order."""


def build_tenants(tenants: Mapping[str, LLMTenant], routes: Iterable[Route]) -> dict[str, Tenant]:
    """Return what each tenant may use, by its name."""
    names: dict[str, list[tuple[str, str]]] = {}
    for route in routes:
        namespace, name = split_key(_object_key(route.name))
        names.setdefault(namespace, []).append((name, route.name))
    # Many tenants have equal rights.
    found: dict[tuple[AllowedRoutes, ...], frozenset[str]] = {}
    result = {}
    for name, tenant in sorted(tenants.items()):
        allow = tenant.spec.allow
        if allow is not None and allow not in found:
            found[allow] = frozenset(_allowed(allow, names))
        result[name] = Tenant(None if allow is None else found[allow], _limits(tenant))
    return result


def _limits(tenant: LLMTenant) -> Limits | None:
    limits = tenant.spec.limits
    return None if limits is None else Limits(limits.requests_per_minute, limits.tokens_per_minute)


def _allowed(allow: Iterable[AllowedRoutes], names: Mapping[str, Iterable[tuple[str, str]]]) -> Iterable[str]:
    for item in allow:
        for name, route in names.get(item.namespace, ()):
            if item.names is None or name in item.names:
                yield route


def _object_key(route: str) -> str:
    """Return `namespace/name` of the LLMRoute or LLMDeployment that a route comes from."""
    return route.removesuffix("@route").partition(":")[0]


def assign_keys(readings: Iterable[TenantReading]) -> tuple[dict[str, str], dict[str, KeyReport]]:
    """Return whose each key is, by its digest, and what became of each tenant's keys, by the tenant's name.

    Of two tenants with the same key the older one has it: nobody takes over another's requests, or bill, by naming its
    Secret.
    """
    owners: dict[str, str] = {}
    reports: dict[str, KeyReport] = {}
    for reading in sorted(readings, key=_age):
        name = reading.object.name
        accepted, refusals = 0, []
        for index, key in enumerate(reading.keys):
            if key.refusal is not None:
                refusals.append(key.refusal)
            if key.digest is None:
                continue
            owner = owners.setdefault(key.digest, name)
            if owner == name:
                accepted += 1
            else:
                message = (
                    f"keys[{index}]: the same key belongs to LLMTenant {owner}, which had it first: give this one a "
                    "key of its own"
                )
                refusals.append(Refusal(Code.KEY_CONFLICT, message))
        reports[name] = KeyReport(accepted, tuple(refusals))
    return owners, reports


def _age(reading: TenantReading) -> tuple[str, str]:
    """Order tenants by age; RFC 3339 times sort as text."""
    return reading.object.metadata.creation_timestamp, reading.object.name


def find_missing(tenant: LLMTenant, existing: Collection[str]) -> tuple[str, ...]:
    """Return what `allow` names and is not among the LLMRoutes and LLMDeployments, by `namespace/name`.

    A namespace that is allowed as a whole may be empty: its routes are still to come.
    """
    return tuple(
        key
        for item in tenant.spec.allow or ()
        for name in item.names or ()
        if (key := f"{item.namespace}/{name}") not in existing
    )


def build_tenant_status(
    tenant: LLMTenant, report: KeyReport, now: float, missing: Sequence[str] = ()
) -> LLMTenantStatus:
    """Return the status that the tenant should have. `missing` is what `find_missing` returns.

    Ready says whether all of its keys are as they should be: one that is not needs somebody to act, while the others go
    on working.
    """
    shown = f"accepted keys: {report.accepted} of {len(tenant.spec.keys)}"
    if missing:
        shown += f"; allow names what does not exist (yet): {', '.join(missing)}"
    if report.refusals:
        sentences = "; ".join(refusal.message for refusal in report.refusals)
        verdict = Verdict(READY, False, Reason(report.refusals[0].reason, f"{shown}; {sentences}"))
    else:
        verdict = Verdict(READY, True, Reason(Code.CONFIGURED, shown))
    generation = tenant.metadata.generation
    conditions = stamp([verdict], tenant.status.conditions, generation, now)
    return LLMTenantStatus(observed_generation=generation, conditions=conditions)
