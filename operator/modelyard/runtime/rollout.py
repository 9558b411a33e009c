"""Which routes an Envoy still serves in an older form: it refuses the newest ones, or does not answer.

All routes are one resource, which Envoy takes as a whole or not at all. Until it has taken one in which a route is as
it should be, it serves that route as before, whatever the status of the LLMRoute says.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from modelyard.core.reasons import Code, Reason
from modelyard.core.routing import Route
from modelyard.core.status import format_time

PATIENCE = 30.0
"""Seconds that an Envoy may be behind before a route says so. It answers a push within a second, so this is neither a
slow answer nor a moment between two pushes, and no push is ever followed by a write of status."""

VERSIONS = 1024
"""Versions of routes that are told apart. An Envoy that has an older one counts as having none."""

SHOWN = 3
"""Names of Envoys in a sentence."""

logger = logging.getLogger(__name__)


class Envoy(Protocol):
    """What is known of an Envoy."""

    @property
    def id(self) -> str:
        """Its node id."""

    @property
    def connected(self) -> bool:
        """Whether its stream stands."""

    @property
    def routes(self) -> str:
        """Version of the routes that it has."""

    @property
    def routes_rejected(self) -> bool:
        """Whether it has refused all that came since."""


@dataclass(frozen=True, slots=True)
class _Lag:
    """An Envoy without the newest routes."""

    routes: str
    """What it has."""
    since: float
    """Unix time of the first look at which it had this and not the newest."""


@dataclass
class Rollout:
    """How far the routes have come. Numbers count the versions offered, from 1."""

    _routes: Mapping[str, Route] = field(default_factory=dict)
    _changed: dict[str, int] = field(default_factory=dict)
    """The version that brought each route in its present form, by `Route.name`."""
    _numbers: dict[str, int] = field(default_factory=dict)
    """Numbers of versions, the newest last. One that comes again gets the newest number: who has it is current."""
    _count: int = 0
    _lags: dict[str, _Lag] = field(default_factory=dict)
    late: Mapping[str, Reason] = field(default_factory=dict)
    """Why some Envoy does not serve a route as it should be, by `Route.name`, of the routes that are concerned."""

    def offer(self, routes: Iterable[Route], version: str) -> None:
        """Take in the routes that Envoys are sent from now on. `version`: that of the resource."""
        offered = {route.name: route for route in routes}
        self._count += 1
        self._numbers.pop(version, None)
        self._numbers[version] = self._count
        if len(self._numbers) > VERSIONS:
            del self._numbers[next(iter(self._numbers))]
        before = self._changed
        self._changed = {
            name: before[name] if self._routes.get(name) == route else self._count
            for name, route in offered.items()
        }
        self._routes = offered

    def observe(self, envoys: Iterable[Envoy], now: float) -> frozenset[str]:
        """Look at what the Envoys have. Returns the names of the routes of which something else is to be told.

        `now`: Unix time. An Envoy that is away cannot be asked: it goes on with what it has.
        """
        lags: dict[str, _Lag] = {}
        behind: list[tuple[Envoy, _Lag]] = []
        for envoy in envoys:
            if self._numbers.get(envoy.routes, 0) == self._count:
                continue
            lag = self._lags.get(envoy.id)
            if lag is None or lag.routes != envoy.routes:
                lag = _Lag(envoy.routes, now)
            lags[envoy.id] = lag
            if envoy.connected and now - lag.since >= PATIENCE:
                behind.append((envoy, lag))
        self._lags = lags
        before, self.late = self.late, self._explain(behind)
        return frozenset(
            name for name in before.keys() | self.late.keys() if before.get(name) != self.late.get(name)
        )

    def _explain(self, behind: list[tuple[Envoy, _Lag]]) -> dict[str, Reason]:
        found = {}
        for name, number in self._changed.items():
            lacking = [(envoy, lag) for envoy, lag in behind if self._numbers.get(lag.routes, 0) < number]
            if lacking:
                found[name] = _explain_late(lacking)
        return found


def _explain_late(lacking: list[tuple[Envoy, _Lag]]) -> Reason:
    rejected = [(envoy, lag) for envoy, lag in lacking if envoy.routes_rejected]
    chosen = rejected or lacking
    names = sorted(envoy.id for envoy, _ in chosen)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    shown = f"{', '.join(names[:SHOWN])}{more}"
    since = format_time(min(lag.since for _, lag in chosen))
    remedy = "restart it to be sure that nothing goes where it went before"
    if rejected:
        message = (
            f"Envoy {shown} rejects the routes since {since} and still serves this one as before: the operator's log "
            f"says why; {remedy}"
        )
        return Reason(Code.ROUTES_REJECTED, message)
    message = (
        f"Envoy {shown} has not confirmed the routes since {since} and may serve this one as before; {remedy}"
    )
    return Reason(Code.ROUTES_NOT_CONFIRMED, message)


async def watch_rollout(
    rollout: Rollout,
    find_envoys: Callable[[], Iterable[Envoy]],
    look_at: Callable[[str], None],
    interval: float,
) -> None:
    """Look from time to time. `look_at` gets the names of routes; `interval` is in seconds."""
    while True:
        await asyncio.sleep(interval)
        for name in sorted(rollout.observe(find_envoys(), time.time())):
            reason = rollout.late.get(name)
            if reason is not None:
                logger.warning("Route %s: %s: %s", name, reason.code, reason.message)
            look_at(name)
