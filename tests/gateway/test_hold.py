"""Sleeping models: requests are held, one signal wakes, readiness releases, and nothing is lost."""

import asyncio

from dev.envoy.process import EnvoyProcess
from modelyard.gateway.ads import AdsServer
from tests.gateway.conftest import PATIENCE, table_of, until

MODELS, CYCLES, REQUESTS = 20, 5, 20


async def test_2000_of_2000_held_requests_are_answered(gateway, make_backend):
    backend = await make_backend()
    names = [f"m{index}" for index in range(MODELS)]
    answered = 0
    for cycle in range(CYCLES):
        asleep = table_of(*((name, (), cycle) for name in names))
        await gateway.apply(asleep)
        gateway.wakes.clear()
        held = [
            asyncio.create_task(gateway.post({"model": name, "messages": []}))
            for name in names
            for _ in range(REQUESTS)
        ]
        await gateway.wait_waiting({f"team/{name}": (cycle + 1) * REQUESTS for name in names})
        assert not any(task.done() for task in held), "all of them wait"
        await until(lambda: len(gateway.wakes) >= MODELS)
        assert sorted(wake[:2] for wake in gateway.wakes) == sorted(
            (f"team/{name}", cycle) for name in names
        ), "one signal for each sleeping model, not one for each request"
        gateway.offer(table_of(*((name, (backend.endpoint,), cycle) for name in names)))
        replies = await asyncio.gather(*held)
        assert [status for status, _, _ in replies] == [200] * len(held)
        answered += len(replies)
    assert answered == MODELS * CYCLES * REQUESTS == 2000
    assert len(backend.bodies) == 2000


async def test_arrival_is_counted_while_the_request_waits(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (), 0)))
    held = asyncio.create_task(gateway.post({"model": "a"}))
    await gateway.wait_waiting({"team/a": 1})
    assert not held.done()
    assert not (await gateway.counters()).requests
    gateway.offer(table_of(("a", (backend.endpoint,), 0)))
    assert (await held)[0] == 200
    assert (await gateway.counters()).arrivals == {"team/a": 1}


async def test_a_hold_that_lasts_too_long_is_503_with_retry_after(gateway):
    await gateway.apply(table_of(("a", (), 0), hold_seconds=1))
    status, body, headers = await gateway.post({"model": "a"})
    assert status == 503
    assert int(headers["retry-after"]) > 0
    assert body["error"]["type"]
    assert len(gateway.wakes) == 1


async def test_a_request_that_began_before_the_generation_ended_is_released(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (), 0)))
    held = asyncio.create_task(gateway.post({"model": "a"}))
    await gateway.wait_waiting({"team/a": 1})
    await gateway.apply(table_of(("a", (), 1)))
    gateway.offer(table_of(("a", (backend.endpoint,), 1)))
    assert (await held)[0] == 200


async def test_a_server_that_starts_again_during_a_hold_hears_of_it(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("old", (backend.endpoint,), 0), ("a", (), 3)))
    held = asyncio.create_task(gateway.post({"model": "a"}))
    await gateway.wait_waiting({"team/a": 1})
    await gateway.server.stop()

    wakes = []
    woken = asyncio.Event()

    def wake(*signal):
        wakes.append(signal)
        woken.set()

    second = AdsServer(wake)
    await second.start("127.0.0.1", gateway.xds_port)
    try:
        gateway.server = second
        gateway.offer(table_of(("old", (backend.endpoint,), 0), ("a", (), 3)))
        async with asyncio.timeout(PATIENCE):
            await woken.wait()
        assert [signal[:2] for signal in wakes] == [("team/a", 3)], "only the model that is waited for"
        gateway.offer(table_of(("old", (backend.endpoint,), 0), ("a", (backend.endpoint,), 3)))
        assert (await held)[0] == 200
    finally:
        await second.stop()


async def test_counters_survive_a_restart_of_envoy(gateway, make_backend, tmp_path):
    from modelyard.gateway.counters import CounterTotals

    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    totals = CounterTotals()
    for _ in range(3):
        assert (await gateway.post({"model": "a"}))[0] == 200
    totals = totals.advance("envoy-1", await gateway.counters())
    await gateway.envoy.kill()
    gateway.envoy = EnvoyProcess(tmp_path, gateway.xds_port, gateway.settings.listener_port)
    async with gateway.envoy:
        assert (await gateway.post({"model": "a"}))[0] == 200
        totals = totals.advance("envoy-1", await gateway.counters())
    assert totals.totals.arrivals == {"team/a": 4}


async def test_holds_outlast_what_envoy_waits_for_clusters(gateway, make_backend):
    """Over ADS Envoy gives up a cluster that it asked for after 15 s (`initial_fetch_timeout`)."""
    backend = await make_backend()
    await gateway.apply(table_of(("a", (), 0), ("b", (), 0)))
    first = asyncio.create_task(gateway.post({"model": "a"}))
    await gateway.wait_waiting({"team/a": 1})
    second = asyncio.create_task(gateway.post({"model": "b"}))
    await gateway.wait_waiting({"team/b": 1})
    done, _ = await asyncio.wait({first, second}, timeout=17)
    assert not done
    assert sorted(wake[:2] for wake in gateway.wakes) == [("team/a", 0), ("team/b", 0)]
    gateway.offer(table_of(("a", (), 0), ("b", (backend.endpoint,), 0)))
    assert (await second)[0] == 200
    gateway.offer(table_of(("a", (backend.endpoint,), 0), ("b", (backend.endpoint,), 0)))
    assert (await first)[0] == 200
