"""The holder of the Lease when the API server does not answer, or the process itself was away."""

import asyncio
import contextlib

import pytest

from modelyard.core.lease import Record, Terms
from modelyard.kube.client import ApiError
from modelyard.runtime.health import Health
from modelyard.runtime.leader import Leader, LeaseLostError

TERMS = Terms(duration=4.0, deadline=2.0, retry=0.05, look=0.05, request=0.2)
"""Seconds. The deadline is longer than a busy machine leaves this process without a turn."""


class Store:
    """A Lease whose server can fail."""

    def __init__(self):
        self.lease: Record | None = None
        self.version = 0
        self.failing: Exception | None = None
        self.hanging = False
        self.writes = 0

    async def answer(self):
        await asyncio.sleep(0)
        if self.hanging:
            await asyncio.Event().wait()
        if self.failing is not None:
            raise self.failing

    async def read(self):
        await self.answer()
        return self.lease

    async def write(self, record):
        await self.answer()
        self.writes += 1
        if record.version != (self.lease.version if self.lease else ""):
            return None
        self.version += 1
        self.lease = Record(
            record.holder,
            record.duration,
            record.acquired,
            record.renewed,
            record.transitions,
            str(self.version),
        )
        return self.lease


class Clock:
    """The loop's clock, which a test can put forward as a suspension does."""

    def __init__(self):
        self.skipped = 0.0

    def __call__(self):
        return asyncio.get_running_loop().time() + self.skipped


@pytest.fixture
async def held():
    """A store, a clock, and a leader that holds the Lease, with its task."""
    store, clock = Store(), Clock()
    leader = Leader(store, "me", TERMS, clock)
    running = asyncio.create_task(leader.run())
    async with asyncio.timeout(20):
        await leader.acquired.wait()
    yield store, clock, leader, running
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError, LeaseLostError):
        await running


async def lost(running) -> str:
    async with asyncio.timeout(20):
        with pytest.raises(LeaseLostError) as raised:
            await running
    return str(raised.value)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_a_holder_that_cannot_renew_ends_before_another_may_begin(held, how):
    store, _, leader, running = held
    if how == "hangs":
        store.hanging = True
    else:
        store.failing = ApiError(503, "ServiceUnavailable", "later")
    assert "could not be renewed in time" in await lost(running)
    assert not leader.holds()


async def test_one_failure_is_no_loss(held):
    store, _, leader, running = held
    store.failing = ApiError(503, "ServiceUnavailable", "later")
    await asyncio.sleep(TERMS.retry * 2)
    store.failing, before = None, store.writes
    async with asyncio.timeout(20):
        while store.writes < before + 2:
            await asyncio.sleep(0.01)
    assert leader.holds()
    assert not running.done()


async def test_a_process_that_was_away_may_write_nothing_from_the_first_moment(held):
    _, clock, leader, running = held
    clock.skipped += TERMS.deadline
    # Before any task of the election has had its turn.
    assert not leader.holds()
    await lost(running)


async def test_a_renewal_that_was_stored_without_an_answer_is_given_back_too(held):
    store, _, leader, running = held
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await store.write(leader._candidate.claim("meanwhile"))
    await leader.release()
    assert store.lease.holder == ""


async def test_a_server_that_is_away_is_asked_no_faster_than_stated():
    store = Store()
    store.failing = ApiError(403, "Forbidden", "no")
    asked = 0
    answer = store.answer

    async def count():
        nonlocal asked
        asked += 1
        await answer()

    store.answer = count
    running = asyncio.create_task(Leader(store, "me", TERMS).run())
    await asyncio.sleep(TERMS.retry * 10)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert 0 < asked <= 11


async def test_who_may_not_read_the_lease_does_not_stand_by():
    store, clock, health = Store(), Clock(), Health()
    store.lease = Record("other", 60.0, renewed="1", version="1")
    leader = Leader(store, "me", TERMS, clock)
    assert health.ready == (False, "reading the cluster")
    health.synced, health.informed = True, leader.informed
    assert health.ready == (False, "the Lease cannot be read or written"), "it has not looked yet"
    running = asyncio.create_task(leader.run())
    async with asyncio.timeout(20):
        while not leader.informed():
            await asyncio.sleep(0.01)
    assert health.ready == (True, "standing by")
    store.failing = ApiError(403, "Forbidden", "no")
    await asyncio.sleep(0)
    clock.skipped += TERMS.duration
    assert health.ready == (False, "the Lease cannot be read or written")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    health.acting = True
    assert health.ready == (True, "ready")
