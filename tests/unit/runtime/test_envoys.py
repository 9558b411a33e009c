"""Up to when Envoys are read, also those whose ADS stream is away."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import pytest
from aiohttp import web

from dev.envoy.process import LOOPBACK, free_port
from modelyard.core.ledger.usage import NodeCounts
from modelyard.core.spend import SpendKey
from modelyard.gateway import counters, protos
from modelyard.gateway.ads import AdsServer, Node
from modelyard.gateway.counters import STATS_PATH
from modelyard.gateway.streams import Stream
from modelyard.render.envoy.bootstrap import STATS_PORT_KEY
from modelyard.runtime import envoys
from modelyard.runtime.envoys import CLOSED_SECONDS, SILENT_SECONDS, EnvoyReader, Round

KEY = SpendKey("", "team", "team/chat@route", "team/own")


class Gateway:
    """Envoys that are pages of statistics, and a clock for what counts as gone."""

    def __init__(self, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = AdsServer(lambda _node, _names: None)
        self.counts: dict[str, tuple[NodeCounts, ...]] = {}
        self.reader = EnvoyReader(self.server, self.counts)
        self.session = session
        self.passed = 0.0
        self.requests: dict[str, int] = {}
        self.uptimes: dict[str, int] = {}
        self._runners: dict[str, web.AppRunner] = {}
        real = time.monotonic
        monkeypatch.setattr(envoys.time, "monotonic", lambda: real() + self.passed)
        monkeypatch.setattr(counters, "READ_SECONDS", 0.5)

    async def start(self, name: str) -> Node:
        """Let an Envoy serve its page and connect."""
        node = self.server._nodes.setdefault(name, Node(name, LOOPBACK, free_port()))
        node.connected = True
        self.requests.setdefault(name, 1)
        page = web.Application()

        async def answer(_: web.Request) -> web.Response:
            return web.Response(text=self._page(name))

        page.router.add_get(STATS_PATH, answer)
        self._runners[name] = web.AppRunner(page)
        await self._runners[name].setup()
        await web.TCPSite(self._runners[name], node.address, node.stats_port).start()
        return node

    async def stop(self, name: str) -> None:
        """Let an Envoy's process end; its stream is told apart."""
        await self._runners.pop(name).cleanup()

    async def read(self) -> Round:
        """Read once, those without a stream included."""
        await self.reader.round(self.session)
        await asyncio.gather(*self.reader._tries.values())
        return await self.reader.round(self.session)

    async def close(self) -> None:
        await self.reader.close()
        for name in list(self._runners):
            await self.stop(name)

    def counted(self, name: str) -> int:
        """Return the requests of an Envoy that the ledger can take in."""
        found = self.counts[name][-1].counts
        assert found is not None
        return found[KEY].requests

    def _page(self, name: str) -> str:
        labels = 'envoy_response_code_class="2",route="team/chat@route",model="chat",deployment="team/own"'
        uptime = f"envoy_server_uptime{{}} {self.uptimes[name]}\n" if name in self.uptimes else ""
        return f"envoy_modelyard_requests{{{labels}}} {self.requests[name]}\n{uptime}"


@pytest.fixture
async def gateway(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    async with aiohttp.ClientSession() as session:
        gateway = Gateway(session, monkeypatch)
        yield gateway
        await gateway.close()


@contextmanager
def silent(node: Node) -> Iterator[None]:
    """Take connections at the address of an Envoy, and answer nothing."""
    with socket.create_server((node.address, node.stats_port or 0)):
        yield


def until(found: Round) -> float:
    assert found.until is not None
    return found.until


async def test_an_envoy_whose_stream_is_away_is_read_on(gateway: Gateway) -> None:
    node = await gateway.start("one")
    await gateway.start("two")
    await gateway.read()
    node.connected = False
    gateway.requests["one"] = 7
    began = time.time()
    found = await gateway.read()
    assert gateway.counted("one") == 7, "what it spends is counted"
    assert (found.complete, found.present.keys()) == (True, {"one", "two"})
    assert until(await gateway.read()) >= began
    await gateway.stop("two")
    gateway.server._nodes["two"].connected = False
    assert (await gateway.read()).complete, "the last one that answers tells the demand"


async def test_a_closed_one_holds_spend_back_until_it_counts_as_gone(gateway: Gateway) -> None:
    node = await gateway.start("one")
    await gateway.start("two")
    known = until(await gateway.read())
    node.connected = False
    await gateway.stop("one")
    held = await gateway.read()
    assert until(held) >= known
    at = until(held)
    gateway.passed = CLOSED_SECONDS - 5
    held = await gateway.read()
    assert (until(held), held.envoys) == (at, 2)
    assert held.complete, "demand is what the others say"
    assert held.present.keys() == {"two"}
    gateway.passed = CLOSED_SECONDS + 1
    after = time.time()
    assert until(await gateway.read()) >= after
    assert gateway.server.nodes.keys() == {"two"}


async def test_a_silent_one_may_be_serving_for_longer(gateway: Gateway) -> None:
    node = await gateway.start("one")
    await gateway.start("two")
    await gateway.read()
    node.connected = False
    await gateway.stop("one")
    with silent(node):
        at = until(await gateway.read())
        gateway.passed = CLOSED_SECONDS + 1
        assert until(await gateway.read()) == at
        gateway.passed = SILENT_SECONDS + 1
        after = time.time()
        assert until(await gateway.read()) >= after


async def test_it_holds_nobody_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "READ_SECONDS", 3600.0)
    node = await gateway.start("one")
    await gateway.start("two")
    await gateway.read()
    node.connected = False
    await gateway.stop("one")
    with silent(node):
        for number in range(3):
            gateway.requests["two"] = 10 + number
            assert (await gateway.reader.round(gateway.session)).complete
            assert gateway.counted("two") == 10 + number


async def test_one_that_comes_back_counts_from_where_it_was(gateway: Gateway) -> None:
    node = await gateway.start("one")
    await gateway.read()
    await gateway.stop("one")
    node.connected = False
    at = until(await gateway.read())
    gateway.passed = CLOSED_SECONDS - 5
    await gateway.start("one")
    assert until(await gateway.read()) > at
    await gateway.stop("one")
    node.connected = False
    # The time that it was away before does not count.
    held = until(await gateway.read())
    gateway.passed += CLOSED_SECONDS - 5
    assert until(await gateway.read()) == held


async def test_a_connected_one_that_cannot_be_read_is_never_gone(gateway: Gateway) -> None:
    await gateway.start("one")
    await gateway.start("two")
    await gateway.read()
    await gateway.stop("one")
    at = until(await gateway.read())
    gateway.passed = 10 * SILENT_SECONDS
    found = await gateway.read()
    assert (until(found), found.complete) == (at, False)


async def test_one_that_was_never_read_makes_spend_unknown(gateway: Gateway) -> None:
    await gateway.start("one")
    node = Node("two", LOOPBACK, free_port(), connected=True)
    gateway.server._nodes["two"] = node
    assert (await gateway.read()).until is None
    node.connected = False
    assert (await gateway.read()).until is None
    gateway.passed = CLOSED_SECONDS + 1
    assert (await gateway.read()).until is not None


def test_an_address_has_one_envoy() -> None:
    """The pod of the first is gone, and the second has got its address."""
    server = AdsServer(lambda _node, _names: None)
    server._nodes["old"] = Node("old", "10.0.0.7", 9901)
    server._nodes["other"] = Node("other", "10.0.0.8", 9901)
    identity = protos.message_class(protos.DELTA_REQUEST)().node
    identity.id = "new"
    identity.metadata.fields[STATS_PORT_KEY].number_value = 9901
    server._connect(Stream(demand=lambda *_: None), identity, "ipv4:10.0.0.7:40000")
    assert server.nodes.keys() == {"new", "other"}


async def test_the_lifetime_of_an_envoy_that_comes_back_is_no_demand(gateway: Gateway) -> None:
    """Nor is that of one that another operator served before; one that is gone is forgotten."""

    def total() -> int:
        return sum(gateway.reader.totals.totals.requests.values())

    node = await gateway.start("one")
    await gateway.start("two")
    gateway.requests.update(one=5_000_000, two=3)
    gateway.uptimes.update(one=86_400, two=86_400)
    assert (await gateway.read()).complete
    assert total() == 5_000_003, "the first reading is what later ones are compared with"
    await gateway.stop("one")
    node.connected = False
    await gateway.read()
    assert gateway.reader.totals.last.keys() == {"one", "two"}
    gateway.passed += CLOSED_SECONDS
    await gateway.read()
    assert gateway.reader.totals.last.keys() == {"two"}
    assert gateway.server.nodes.keys() == {"two"}
    gateway.requests.update(one=5_000_100, two=4)
    await gateway.start("one")
    assert (await gateway.read()).complete
    assert total() == 5_000_004
    gateway.requests["one"] += 7
    await gateway.read()
    assert total() == 5_000_011


async def test_one_that_has_told_all_is_missed_by_nobody(gateway: Gateway) -> None:
    node = await gateway.start("one")
    await gateway.start("two")
    before = time.time()
    assert not gateway.reader.read_since("one", before)
    await gateway.read()
    assert gateway.reader.read_since("one", before)
    assert not gateway.reader.read_since("one", time.time())
    gateway.reader.finish("one")
    assert (await gateway.read()).present.keys() == {"one", "two"}, "it is read until it ends"
    await gateway.stop("one")
    node.connected = False
    with silent(node):
        after = time.time()
        assert until(await gateway.read()) >= after
    assert gateway.server.nodes.keys() == {"two"}
    assert not gateway.reader.read_since("one", before)


async def test_one_that_has_told_all_and_stays_is_read_on(gateway: Gateway) -> None:
    node = await gateway.start("one")
    await gateway.read()
    gateway.reader.finish("one")
    node.connected = False
    gateway.requests["one"] = 9
    await gateway.read()
    assert gateway.counted("one") == 9
    assert gateway.server.nodes.keys() == {"one"}
