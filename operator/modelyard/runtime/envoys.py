"""Reads the counters of every Envoy, and says up to when all are read.

An Envoy whose ADS stream is away goes on serving, and spending, with what it has. So it is read on, beside the others,
who are not kept waiting for it. What an Envoy may have spent is not known from the moment on at which it could be read
last, until it can be read again or counts as gone.
"""

import asyncio
import errno
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from modelyard.core.ledger.usage import NodeCounts, keep_reading
from modelyard.gateway.ads import AdsServer, Node
from modelyard.gateway.counters import CounterTotals, GatewayCounters, read_counters
from modelyard.runtime.usage import count_use

logger = logging.getLogger(__name__)

CLOSED_SECONDS = 10.0
"""Seconds after which an Envoy without an ADS stream is gone if its address refuses each connection: its stats listener
is open for as long as the process runs, and one that starts again comes back within a second (`retry_back_off` of the
bootstrap), on a busy machine later."""

SILENT_SECONDS = 300.0
"""Seconds after which an Envoy without an ADS stream is gone if nothing answers at its address. That is what a deleted
pod looks like on many networks, and a node that is cut off too: after this time Kubernetes itself gives up the pods of
a node that it does not hear of (`tolerationSeconds` of `node.kubernetes.io/unreachable`, by default)."""


@dataclass(frozen=True, slots=True)
class _Try:
    """One try to read an Envoy."""

    began: float
    """Unix time."""
    ended: float
    """Unix time."""
    found: GatewayCounters | Exception


@dataclass(slots=True)
class _State:
    """What is known of reading one Envoy."""

    read: float | None = None
    """Unix time at which the last good reading began; None: there was none."""
    good: bool = False
    """Whether the last try was good."""
    silent: float | None = None
    """Monotonic time since which no try was good while its stream was away; None: that is not so."""
    closed: float | None = None
    """The same, since which each try was refused."""
    told: bool = False
    """Whether the log says that it cannot be read."""

    def gone(self, now: float) -> bool:
        """Say whether one whose stream is away will not come back, at a monotonic time."""
        return (self.closed is not None and now - self.closed >= CLOSED_SECONDS) or (
            self.silent is not None and now - self.silent >= SILENT_SECONDS
        )


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of readings found."""

    complete: bool
    """Whether every Envoy with an ADS stream was read, and at least one at all."""
    until: float | None
    """Unix time up to which all are read; None: not known of some. Without any Envoy: when the round began."""
    envoys: int
    """Envoys that may be serving."""
    present: Mapping[str, GatewayCounters] = field(default_factory=dict)
    """Newest counts of those that answer, by node id."""
    longest: float = 0.0
    """Seconds of the longest good reading."""
    news: bool = False
    """Whether any was read."""


class EnvoyReader:
    """Reads Envoys. All methods belong to one event loop."""

    def __init__(self, server: AdsServer, counts: dict[str, tuple[NodeCounts, ...]]) -> None:
        """Read the Envoys of a server. `counts` takes in what the ledger needs, by node id."""
        self._server = server
        self._counts = counts
        self._states: dict[str, _State] = {}
        self._tries: dict[str, asyncio.Task[_Try]] = {}
        self._shown: float | None = None
        """Monotonic time of the last complete round; None: there was none."""
        self._finished: set[str] = set()
        """Envoys that have told all and end now."""
        self.totals = CounterTotals()

    def read_since(self, name: str, moment: float) -> bool:
        """Return whether a good reading of an Envoy began at a Unix time or later."""
        state = self._states.get(name)
        return state is not None and state.good and state.read is not None and state.read >= moment

    def finish(self, name: str) -> None:
        """Take in that an Envoy has nothing more to tell: when its stream ends, it is gone."""
        self._finished.add(name)

    async def round(self, session: aiohttp.ClientSession) -> Round:
        """Try to read every Envoy, and wait for those that have an ADS stream."""
        began = time.time()
        nodes = {node.id: node for node in self._server.nodes.values() if node.stats_port}
        for node in nodes.values():
            if node.id not in self._tries:
                self._tries[node.id] = asyncio.create_task(_try(session, node))
        awaited = [self._tries[node.id] for node in nodes.values() if node.connected]
        if awaited:
            await asyncio.wait(awaited)
        longest, news = 0.0, False
        for name in [name for name, task in self._tries.items() if task.done()]:
            made = self._tries.pop(name).result()
            if name in nodes:
                good = self._take(nodes[name], made)
                news = news or good
                longest = max(longest, made.ended - made.began) if good else longest
        self._forget(nodes)
        states = [self._states.get(name, _State()) for name in nodes]
        reads = [state.read for state in states if state.read is not None]
        until = began if not nodes else min(reads) if len(reads) == len(states) else None
        present = {
            name: self.totals.last[name] for name in nodes if name in self._states and self._states[name].good
        }
        complete = bool(present) and all(name in present for name, node in nodes.items() if node.connected)
        if complete:
            self._shown = time.monotonic()
        return Round(complete, until, len(nodes), present, longest, news)

    async def close(self) -> None:
        """Give up what is being read."""
        for task in self._tries.values():
            task.cancel()
        await asyncio.gather(*self._tries.values(), return_exceptions=True)
        self._tries.clear()

    def _take(self, node: Node, made: _Try) -> bool:
        """Take in what a try found. Returns whether it was good."""
        state = self._states.setdefault(node.id, _State())
        if isinstance(made.found, GatewayCounters):
            since = None if self._shown is None else time.monotonic() - self._shown
            self.totals = self.totals.advance(node.id, made.found, since)
            reading = count_use(made.found, made.ended)
            self._counts[node.id] = keep_reading(self._counts.get(node.id, ()), reading)
            self._states[node.id] = _State(read=made.began, good=True)
            return True
        if not state.told:
            logger.warning("Counters of Envoy %s cannot be read: %s", node.id, made.found or "no answer")
        state.told, state.good = True, False
        now = time.monotonic()
        refused = getattr(made.found, "errno", None) == errno.ECONNREFUSED
        if node.connected:
            state.silent = state.closed = None
        else:
            state.silent = now if state.silent is None else state.silent
            state.closed = (now if state.closed is None else state.closed) if refused else None
        return False

    def _forget(self, nodes: dict[str, Node]) -> None:
        """Leave out the Envoys that are gone."""
        now = time.monotonic()
        for name, state in list(self._states.items()):
            node = nodes.get(name)
            ended = name in self._finished and not state.good
            if node is not None and (node.connected or not (ended or state.gone(now))):
                continue
            if node is not None:
                logger.info("Envoy %s is gone", name)
                self._server.forget(name)
                del nodes[name]
            del self._states[name]
            self._finished.discard(name)
            self.totals = self.totals.forget(name)


async def _try(session: aiohttp.ClientSession, node: Node) -> _Try:
    began = time.time()
    found: GatewayCounters | Exception
    try:
        found = await read_counters(session, _stats_url(node))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        found = error
    return _Try(began, time.time(), found)


def _stats_url(node: Node) -> str:
    host = f"[{node.address}]" if ":" in node.address else node.address
    return f"http://{host}:{node.stats_port}"
