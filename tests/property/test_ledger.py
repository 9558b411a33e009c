"""Laws of the ledger: whatever fails in whatever order, nothing is counted twice, and what is lost has a bound."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.ledger.codec import LedgerError
from modelyard.core.ledger.usage import YOUNG, Use
from modelyard.kube.client import ApiError
from tests.unit.runtime.ledgerstage import KEYS, Envoy, Server, make_keeper, read

NODES = ("x", "y")
START = 1_800_000_000.0

uses = st.builds(
    Use,
    requests=st.integers(0, 3),
    prompt=st.integers(0, 50),
    completion=st.integers(0, 50),
    estimated_prompt=st.integers(0, 5),
)
steps = st.one_of(
    st.tuples(st.just("serve"), st.sampled_from(NODES), st.sampled_from(KEYS), uses),
    st.tuples(st.just("read"), st.sampled_from((0, 1))),
    st.tuples(
        st.just("round"), st.sampled_from((0, 1)), st.sampled_from(("", "", "", "refused", "unanswered"))
    ),
    st.tuples(st.just("wait"), st.sampled_from((0.1, 2.0, 10.0, 60.0, 4000.0))),
    st.tuples(st.just("operator restarts"), st.sampled_from((0, 1))),
    st.tuples(st.just("envoy crashes"), st.sampled_from(NODES)),
)


class World:
    """Two Envoys, and two operators that both believe to be the only one."""

    def __init__(self) -> None:
        self.now = START
        self.server = Server()
        self.envoys = {node: Envoy(START) for node in NODES}
        self.operators = [make_keeper(self.server, self.now) for _ in range(2)]
        self.served, self.lost, self.young = Use(), Use(), False

    def serve(self, node, key, use):
        self.envoys[node].serve(key, use)
        self.served += use

    def read(self, number):
        fleet = self.operators[number][1]
        for node, envoy in self.envoys.items():
            page = envoy.page(self.now)
            read(fleet, node, page)
            self.young |= page.uptime < YOUNG

    async def round(self, number, fault=""):
        self.server.fault = fault
        try:
            await self.operators[number][0].round(self.now)
        except (ApiError, LedgerError):
            self.operators[number][0]._loaded = False
        self.server.fault = ""

    def restart(self, number):
        self.operators[number] = make_keeper(self.server, self.now)

    def crash(self, node):
        self.envoys[node] = Envoy(self.now)


async def play(world, script, *, crashes):
    for kind, *rest in script:
        if kind == "serve":
            world.serve(*rest)
        elif kind == "read":
            world.read(*rest)
        elif kind == "round":
            await world.round(*rest)
        elif kind == "wait":
            world.now += rest[0]
        elif kind == "operator restarts":
            world.restart(*rest)
        elif crashes:
            world.crash(*rest)
    # One operator is left. It reads and writes, after a conflict once more.
    world.now += 5
    world.restart(0)
    world.read(0)
    for _ in range(12):
        await world.round(0)
        world.now += 10


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=40))
def test_sums_equal_what_was_counted(script):
    """Any interleaving of reads, writes, conflicts, unknown outcomes and restarts of two operators."""
    world = World()
    asyncio.run(play(world, script, crashes=False))
    assert world.server.total() == world.served


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=40))
def test_nothing_is_counted_twice_over_crashes(script):
    world = World()
    asyncio.run(play(world, script, crashes=True))
    for written, served in zip(world.server.total().values, world.served.values, strict=True):
        assert written <= served


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.tuples(st.sampled_from(KEYS), uses), max_size=4), st.booleans(), st.booleans()),
        max_size=15,
    )
)
def test_a_crash_of_an_envoy_costs_one_read_interval_at_most(intervals):
    """Each interval: requests, a read, perhaps more requests and a crash before the next read."""

    async def run():
        world = World()
        world.now += 2 * YOUNG
        lost = Use()
        for served, crashes, writes in intervals:
            for key, use in served:
                world.serve("x", key, use)
            world.read(0)
            if writes:
                await world.round(0)
            if crashes:
                for key, use in served:
                    world.serve("x", key, use)
                    lost += use
                world.crash("x")
            # A pod takes longer to start than its age is uncertain.
            world.now += 2 * YOUNG
        world.read(0)
        for _ in range(12):
            await world.round(0)
            world.now += 10
        return world, lost

    world, lost = asyncio.run(run())
    written = world.server.total()
    assert written + lost == world.served


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=30))
def test_nothing_new_writes_nothing(script):
    world = World()
    asyncio.run(play(world, script, crashes=True))
    before = world.server.writes

    async def idle():
        for _ in range(5):
            world.read(0)
            await world.round(0)
            world.now += 2

    asyncio.run(idle())
    assert world.server.writes == before
