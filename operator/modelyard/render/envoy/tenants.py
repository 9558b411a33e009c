"""How tenants travel through Envoy: whose an API key is, and which groups of tenants that one belongs to.

A group is a set of tenants that may use the same route, see the same models, or are named by the same rule. The request
scan puts the groups of whoever calls into one header, so that a route needs one match however many tenants there are.
Group names are digests of what makes the group, so that they stay while other tenants come and go.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelyard.core.routing import RoutingTable
from modelyard.render.envoy.names import GROUPS_HEADER
from modelyard.render.envoy.typed import Json


@dataclass(frozen=True, slots=True)
class TenantGroups:
    """The groups of one routing table."""

    members: Mapping[str, str] = field(default_factory=dict)
    """What the header says of each tenant, by its name."""
    anonymous: str = ""
    """What it says of whoever calls without a key, where that is allowed."""
    users: Mapping[str, str] = field(default_factory=dict)
    """Group of those who may use a route, by `Route.name`. Absent: everybody."""
    lists: tuple[tuple[str, frozenset[str]], ...] = ()
    """Group and `Route.name` of the routes that its members may use, for tenants that may not use all."""


def tenant_groups(table: RoutingTable) -> TenantGroups:
    """Return the groups that the routes and rules of a table make."""
    rights = {tenant.routes for tenant in table.tenants.values() if tenant.routes is not None}
    named = {routes: _digest(routes) for routes in rights}
    users: dict[str, str] = {}
    groups: dict[frozenset[str] | None, set[str]] = {None: set()}
    groups |= {routes: {f"l{digest}"} for routes, digest in named.items()}
    for route in table.routes:
        allowed = [routes for routes in named if route.name in routes]
        if len(allowed) == len(named):
            continue
        users[route.name] = f"u{_digest(named[routes] for routes in allowed)}"
        for routes in (None, *allowed):
            groups[routes].add(users[route.name])
    by_rule: dict[str, set[str]] = {}
    for rule in (rule for route in table.routes for rule in route.rules):
        for name in rule.tenants:
            by_rule.setdefault(name, set()).add(rule_group(rule.tenants))
    return TenantGroups(
        members={
            name: _header_value(groups[tenant.routes] | by_rule.get(name, set()))
            for name, tenant in table.tenants.items()
        },
        anonymous=_header_value(groups[None]),
        users=users,
        lists=tuple(sorted((f"l{digest}", routes) for routes, digest in named.items())),
    )


def rule_group(tenants: frozenset[str]) -> str:
    """Return the group of the tenants that a rule names."""
    return f"r{_digest(tenants)}"


def known_keys(groups: TenantGroups, keys: Mapping[str, str], *, anonymous: bool) -> Json:
    """Return the metadata of the virtual host that the request scan finds tenants in.

    `keys` are the names of tenants by the SHA-256 digests of their API keys.
    """
    known: Json = {
        f"key:{digest}": f"{tenant} {groups.members[tenant]}"
        for digest, tenant in sorted(keys.items())
        if tenant in groups.members
    }
    if known:
        # Without any key none is hashed.
        known["keys"] = True
    if anonymous:
        known["anonymous"] = groups.anonymous
    return {"filter_metadata": {"envoy.filters.http.lua": known}}


def is_member(group: str) -> Json:
    """Return the match of requests whose tenant is in a group."""
    return {
        "name": GROUPS_HEADER,
        "string_match": {"contains": f",{group},"},
        "treat_missing_header_as_empty": True,
    }


def is_no_member(group: str) -> Json:
    """Return the match of all other requests."""
    return {**is_member(group), "invert_match": True}


def _header_value(groups: Iterable[str]) -> str:
    joined = ",".join(sorted(groups))
    return f",{joined}," if joined else ""


def _digest(names: Iterable[str]) -> str:
    # 64 bits: two of a million groups have the same with a chance of one in 37 million.
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
