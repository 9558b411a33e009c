"""Which rights were used and what was refused, from the API server's audit log."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.charts.helm import Manifest
from dev.charts.permissions import rights

Event = dict[str, Any]
"""A line of the audit log (https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/#audit-k8s-io-v1-Event)."""

_DECISION = "authorization.k8s.io/decision"
"""Annotation with what the authorizers said."""

_CREATED, _FORBIDDEN = 201, 403


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource, as docs/permissions.md has it."""

    resource: str
    """Plural, group and subresource."""
    verb: str
    only: str = ""
    """Name of the only object; empty: all."""


@dataclass(frozen=True, slots=True)
class Use:
    """A request that was allowed."""

    resource: str
    verb: str
    namespace: str
    """Empty: of all namespaces, or a kind that has none."""
    name: str


def read_events(log: Path, user: str, offset: int = 0) -> list[Event]:
    """Return the requests of one user, or of all whose names begin with `user` if it ends with a colon.

    `offset`: bytes of the log that are left out.
    """
    with log.open("rb") as file:
        file.seek(offset)
        # A line that is being written is read the next time.
        whole, _, _ = file.read().rpartition(b"\n")
    events: list[Event] = [json.loads(line) for line in whole.splitlines()]
    # A request whose token is not known, or not any more, has no user.
    return [event for event in events if _is_of(event["user"].get("username", ""), user)]


def find_uses(events: Iterable[Event]) -> set[Use]:
    """Return the rights that requests for resources made use of.

    A server-side apply that made the object was asked for `create`, too, of which the log tells by the status alone.
    """
    found = set()
    for event in events:
        what = event.get("objectRef")
        if what is None or _was_refused(event):
            continue
        resource = _full_name(what["resource"], what.get("apiGroup", ""), what.get("subresource", ""))
        place = what.get("namespace", ""), what.get("name", "")
        found.add(Use(resource, event["verb"], *place))
        if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == _CREATED:
            found.add(Use(resource, "create", *place))
    return found


def find_refused(events: Iterable[Event]) -> list[Event]:
    """Return the requests that were not allowed, by authorizers or by admission."""
    return [event for event in events if _was_refused(event)]


def describe(event: Event) -> str:
    """Return a request in words."""
    return f"{event['requestReceivedTimestamp']} {event['verb']} {event['requestURI']}"


def find_rights(role: Manifest) -> set[Right]:
    """Return what a role allows, one by one."""
    return {Right(resource, verb, only) for (resource, only), verbs in rights(role).items() for verb in verbs}


def find_unused(role: Manifest, uses: Iterable[Use]) -> set[Right]:
    """Return the rights of a role that nobody made use of; those of a Role count in its namespace alone."""
    namespace = role["metadata"].get("namespace")
    seen = [use for use in uses if namespace is None or use.namespace == namespace]
    used = {Right(use.resource, use.verb, only) for use in seen for only in ("", use.name)}
    return find_rights(role) - used


def _is_of(name: str, user: str) -> bool:
    return name.startswith(user) if user.endswith(":") else name == user


def _was_refused(event: Event) -> bool:
    allowed = event.get("annotations", {}).get(_DECISION) == "allow"
    return not allowed or event.get("responseStatus", {}).get("code") == _FORBIDDEN


def _full_name(plural: str, group: str, subresource: str) -> str:
    name = f"{plural}.{group}" if group else plural
    return f"{name}/{subresource}" if subresource else name
