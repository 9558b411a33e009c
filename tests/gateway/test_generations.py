"""Cluster names change with every sleep; requests that still use an old one, and restarts, must not be lost."""

import asyncio
import json

import pytest

from modelyard.core.routing import Route, RoutingTable, Upstream, WeightedTarget
from modelyard.gateway import protos
from modelyard.gateway.ads import AdsServer
from tests.gateway.conftest import PATIENCE, table_of, until


class SlowUpload:
    """A request whose body is finished only when told to: it keeps the routes of the moment it began."""

    def __init__(self, gateway, model):
        self._gateway = gateway
        self._start = json.dumps({"model": model}).encode()[:-1]
        self._finish = asyncio.Event()
        self.task = asyncio.create_task(self._send())

    async def _body(self):
        yield self._start
        await self._finish.wait()
        yield b"}"

    async def _send(self):
        url = f"{self._gateway.envoy.url}/v1/chat/completions"
        headers = {"Content-Type": "application/json"}
        async with self._gateway.session.post(url, data=self._body(), headers=headers) as reply:
            return reply.status

    async def begun(self):
        """Wait until Envoy has the request's headers."""
        url = f"{self._gateway.envoy.stats_url}/stats/prometheus?filter=downstream_rq_active"
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self._gateway.session.get(url) as reply:
                    active = [
                        line for line in (await reply.text()).splitlines() if 'prefix="gateway"' in line
                    ]
                if active and active[0].endswith(" 1"):
                    return
                await asyncio.sleep(0.02)

    def finish(self):
        self._finish.set()


async def test_an_upload_that_outlives_its_generation_wakes_the_model(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    upload = SlowUpload(gateway, "a")
    await upload.begun()
    await gateway.apply(table_of(("a", (), 1)))
    upload.finish()
    await until(lambda: gateway.wakes)
    assert [wake[:2] for wake in gateway.wakes] == [("team/a", 0)]
    gateway.offer(table_of(("a", (backend.endpoint,), 1)))
    assert await asyncio.wait_for(upload.task, PATIENCE) == 200


async def test_an_upload_under_a_name_that_envoy_asked_for_before_is_released(gateway, make_backend):
    """Envoy stays silent here: the arrival is the only sign of the request, and readiness must still release it."""
    backend = await make_backend()
    await gateway.apply(table_of(("a", (), 0)))
    first = asyncio.create_task(gateway.post({"model": "a"}))
    await gateway.wait_waiting({"team/a": 1})
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    assert (await first)[0] == 200

    upload = SlowUpload(gateway, "a")
    await upload.begun()
    await gateway.apply(table_of(("a", (), 1)))
    upload.finish()
    await gateway.wait_waiting({"team/a": 2})
    gateway.offer(table_of(("a", (backend.endpoint,), 1)))
    assert await asyncio.wait_for(upload.task, PATIENCE) == 200


async def test_requests_during_the_change_of_generation_are_all_answered(gateway, make_backend):
    """Clients that never stop asking while the model sleeps and wakes, as fast as the gateway can follow."""
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    statuses, stop = [], asyncio.Event()

    async def client():
        while not stop.is_set():
            statuses.append((await gateway.post({"model": "a"}))[0])

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for generation in range(1, 31):
        await gateway.apply(table_of(("a", (), generation)))
        await gateway.apply(table_of(("a", (backend.endpoint,), generation)))
        seen = len(statuses)
        await until(lambda seen=seen: len(statuses) >= seen + 16)
    stop.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert len(statuses) >= 30 * 16


async def test_one_target_asleep_and_one_serving(gateway, make_backend):
    backend = await make_backend()

    def table(*asleep):
        upstreams = {
            key: Upstream(key, 0, key, () if key in asleep else (backend.endpoint,)) for key in ("t/a", "t/b")
        }
        route = Route("t/r", ("both",), (WeightedTarget("t/a"), WeightedTarget("t/b")))
        return RoutingTable((route,), upstreams, anonymous=True)

    await gateway.apply(table("t/b"))
    tasks = [asyncio.create_task(gateway.post({"model": "both"})) for _ in range(40)]
    await gateway.wait_waiting({"t/r": 40})
    await until(lambda: gateway.wakes)
    assert [wake[:2] for wake in gateway.wakes] == [("t/b", 0)]
    gateway.offer(table())
    replies = await asyncio.gather(*tasks)
    assert [status for status, _, _ in replies] == [200] * 40
    assert {body["model"] for _, body, _ in replies} == {"t/a", "t/b"}


@pytest.mark.parametrize("changed", [False, True])
async def test_a_restarted_server_sends_only_what_changed(gateway, make_backend, changed):
    backend, other = await make_backend(), await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0), ("b", (backend.endpoint,), 0)))
    await gateway.server.stop()
    second = AdsServer(lambda *_: None)
    await second.start("127.0.0.1", gateway.xds_port)
    try:
        gateway.server = second
        target = other if changed else backend
        await gateway.apply(table_of(("a", (target.endpoint,), 0), ("b", (backend.endpoint,), 0)))
        accepted = second.nodes[gateway.envoy.node_id].acknowledged
        assert accepted.keys() == ({protos.ENDPOINTS} if changed else set())
        assert (await gateway.post({"model": "a"}))[0] == 200
        assert len(other.bodies) == int(changed)
        assert second.generations == {"team/a": 0, "team/b": 0}
    finally:
        await second.stop()


async def test_pods_come_and_go_without_loss(gateway, make_backend):
    engines = [await make_backend() for _ in range(3)]
    ends = [engine.endpoint for engine in engines]
    await gateway.apply(table_of(("a", (ends[0],), 0)))
    statuses, stop = [], asyncio.Event()

    async def client():
        while not stop.is_set():
            statuses.append((await gateway.post({"model": "a"}))[0])

    clients = [asyncio.create_task(client()) for _ in range(4)]
    for _ in range(5):
        for chosen in (ends, ends[1:], ends[2:], ends[:1], ends[:2]):
            await gateway.apply(table_of(("a", tuple(sorted(chosen)), 0)))
            seen = len(statuses)
            await until(lambda seen=seen: len(statuses) >= seen + 8)
    stop.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert all(engine.bodies for engine in engines)
