"""When budgets are told what was spent, and when it is not known."""

import asyncio
from itertools import pairwise
from types import SimpleNamespace

import pytest

from modelyard.core.ledger.archive import OPEN_NAME
from modelyard.core.ledger.codec import decode_ledger
from modelyard.core.ledger.usage import Use
from modelyard.kube.client import ApiError
from modelyard.render.ledger import read_ledger
from modelyard.runtime import ledger as ledger_module
from tests.unit.core.build import make_provider
from tests.unit.runtime.ledgerstage import KEYS, Envoy, Server, make_keeper, read

NOW = 1_800_000_000.0
API = next(key for key in KEYS if key.target.startswith("provider:"))


@pytest.fixture
def stage():
    server = Server()
    keeper, fleet = make_keeper(server, NOW)
    price = {"inputPerMillion": "2", "outputPerMillion": "8"}
    fleet.providers["acme"] = make_provider("acme", {"name": "m", "price": price})
    return server, keeper, fleet


def spent(fleet):
    return sum(line.dollars for line in fleet.spend.lines)


def test_each_reading_is_told_before_it_is_written(stage):
    server, keeper, fleet = stage
    asyncio.run(keeper.start())
    envoy = Envoy(NOW - 100)
    for number in (1, 2, 3):
        envoy.serve(API, Use(requests=1, prompt=1_000_000))
        now = NOW + 1e9 + 2 * number
        read(fleet, "x", envoy.page(now))
        fleet.counted_until = now
        asyncio.run(keeper.look(now))
        assert (fleet.spend.time, spent(fleet)) == (now, pytest.approx(2.0 * number))
    assert server.writes == 0


def test_what_is_told_while_the_ledger_is_written_is_not_taken_back(stage, monkeypatch):
    """A budget that this has closed would open for a moment."""
    server, keeper, fleet = stage
    asyncio.run(keeper.start())
    envoy, told = Envoy(NOW - 100), []
    keeper._on_spend = lambda: told.append(spent(fleet))

    def reading(now):
        envoy.serve(API, Use(requests=1, prompt=1_000_000))
        read(fleet, "x", envoy.page(now))
        fleet.counted_until = now

    real = server.create

    async def create(*arguments):
        reading(NOW + 1e9 + 2)
        await keeper.look(NOW + 1e9 + 2)
        return await real(*arguments)

    monkeypatch.setattr(server, "create", create)
    reading(NOW + 1e9)
    asyncio.run(keeper.look(NOW + 1e9))
    asyncio.run(keeper.round(NOW + 1e9))
    assert told == pytest.approx([2.0, 4.0, 4.0])
    assert server.total().prompt == 1_000_000, "what came meanwhile is written next time"


def test_an_envoy_that_cannot_be_read_makes_the_spend_old(stage):
    _, keeper, fleet = stage
    asyncio.run(keeper.start())
    fleet.counted_until = NOW + 1e9
    asyncio.run(keeper.round(NOW + 1e9 + 1))
    asyncio.run(keeper.round(NOW + 1e9 + 200))
    asyncio.run(keeper.look(NOW + 1e9 + 202))
    assert fleet.spend.time == NOW + 1e9


def test_a_ledger_that_cannot_be_written_makes_the_spend_old(stage):
    server, keeper, fleet = stage
    asyncio.run(keeper.start())
    known = fleet.spend
    envoy = Envoy(NOW - 100)
    envoy.serve(API, Use(requests=1, prompt=1_000_000))
    read(fleet, "x", envoy.page(NOW + 1e9))
    fleet.counted_until = NOW + 1e9
    server.fault = "refused"
    with pytest.raises(ApiError):
        asyncio.run(keeper.round(NOW + 1e9))
    keeper._loaded = False
    asyncio.run(keeper.look(NOW + 1e9 + 2))
    assert fleet.spend is known
    asyncio.run(keeper.round(NOW + 1e9 + 10))
    assert spent(fleet) == pytest.approx(2.0)


def test_a_new_process_tells_what_is_written_and_until_when(stage):
    server, keeper, fleet = stage
    asyncio.run(keeper.start())
    envoy = Envoy(NOW - 100)
    envoy.serve(API, Use(requests=1, prompt=1_000_000))
    read(fleet, "x", envoy.page(NOW + 50))
    fleet.counted_until = NOW + 50
    asyncio.run(keeper.round(NOW + 50))
    again, fresh = make_keeper(server, NOW + 500)
    asyncio.run(again.start())
    assert (fresh.spend.time, spent(fresh)) == (NOW + 50, pytest.approx(2.0))
    asyncio.run(again.look(NOW + 502))
    assert fresh.spend.time == NOW + 50, "no Envoy has been read since"


def test_hours_are_archived_while_everybody_is_served(stage):
    """Every round has something new to write; two days later all hours but the last have objects."""
    server, keeper, fleet = stage
    asyncio.run(keeper.start())
    envoy = Envoy(NOW - 100)
    rounds = 48 * 12

    async def serve():
        for number in range(rounds):
            envoy.serve(API, Use(requests=1, prompt=1_000))
            now = NOW + 300 * number
            read(fleet, "x", envoy.page(now))
            fleet.counted_until = now
            writes = server.writes
            await keeper.round(now)
            assert server.writes - writes == 1

    asyncio.run(serve())
    names = sorted(server.objects)
    assert len(names) == 1 + 47
    open_part = decode_ledger(read_ledger(server.objects[OPEN_NAME]))
    assert len(open_part.settled) <= 1
    assert server.total().requests >= rounds - 1
    assert len({line.hour for line in fleet.spend.lines}) == 48
    assert spent(fleet) == pytest.approx(rounds * 1_000 * 2e-6)


def test_hours_become_days(stage):
    server, keeper, fleet = stage
    asyncio.run(keeper.start())
    envoy = Envoy(NOW - 100)

    async def serve():
        for hour in range(30):
            envoy.serve(API, Use(requests=1, prompt=1_000_000))
            now = NOW + 3600 * hour
            read(fleet, "x", envoy.page(now))
            for more in range(3):
                await keeper.round(now + 10 * more)
        for more in range(40):
            await keeper.round(NOW + 40 * 86400 + 10 * more)

    asyncio.run(serve())
    assert sorted(server.objects) == [OPEN_NAME, "modelyard-ledger-2027-01-15", "modelyard-ledger-2027-01-16"]
    assert server.total() == Use(requests=30, prompt=30_000_000)


def test_after_a_failed_round_only_archives_that_are_not_known_are_read(stage):
    server, keeper, fleet = stage
    asyncio.run(keeper.start())
    envoy = Envoy(NOW - 100)

    async def serve(by, its, hours):
        for hour in hours:
            now = NOW + 3600 * hour
            envoy.serve(API, Use(requests=1, prompt=1_000_000))
            read(its, "x", envoy.page(now))
            its.counted_until = now
            for more in range(3):
                await by.round(now + 10 * more)

    asyncio.run(serve(keeper, fleet, range(5)))
    known = set(server.objects) - {OPEN_NAME}
    # Another process takes over for two hours.
    other, fleet_of_other = make_keeper(server, NOW + 5 * 3600)
    fleet_of_other.providers.update(fleet.providers)
    asyncio.run(serve(other, fleet_of_other, range(5, 7)))
    new = set(server.objects) - known - {OPEN_NAME}
    gone = min(known)
    del server.objects[gone]
    assert (len(known), len(new)) == (4, 2)
    read(fleet, "x", envoy.page(NOW + 7 * 3600))

    async def rounds():
        for more in range(2):
            await keeper.round(NOW + 7 * 3600 + more)

    with pytest.raises(ApiError, match="changed"):
        asyncio.run(rounds())
    keeper._loaded = False
    server.bodies.clear()
    asyncio.run(keeper.round(NOW + 7 * 3600 + 10))
    assert server.bodies == [OPEN_NAME, *sorted(new)]
    assert spent(fleet) == pytest.approx(2.0 * 6), "an archive that is gone is not counted any more"


def test_a_failed_round_is_tried_again_at_the_next_look(stage, monkeypatch):
    _, keeper, _ = stage
    clock, rounds = [0.0], []

    async def sleep(duration):
        clock[0] += duration

    async def fail(now):
        rounds.append(clock[0])
        if len(rounds) == 4:
            raise asyncio.CancelledError
        if len(rounds) < 3:
            raise ApiError(409, "Conflict", "it has changed")

    monkeypatch.setattr(ledger_module, "time", SimpleNamespace(monotonic=lambda: clock[0], time=lambda: NOW))
    monkeypatch.setattr(ledger_module, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    monkeypatch.setattr(keeper, "round", fail)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keeper.run())
    look, write = keeper._settings.read_interval, keeper._settings.ledger_interval
    assert [after - before for before, after in pairwise(rounds)] == [look, look, write]
