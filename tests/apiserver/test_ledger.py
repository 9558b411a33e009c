"""The ledger's objects on a real API server: compare-and-swap, archives that nobody can change, a restart."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from dev.cluster.control_plane import ControlPlane
from modelyard.cli.costread import read_view
from modelyard.cli.kubeconfig import Access
from modelyard.core.ledger.archive import OPEN_NAME, archive_name
from modelyard.core.ledger.book import Ledger
from modelyard.core.ledger.codec import decode_ledger
from modelyard.core.ledger.usage import NodeCounts, Use, spend_key
from modelyard.core.spend import HOUR
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.informers import Indices
from modelyard.kube.resources import CONFIG_MAPS
from modelyard.render.ledger import read_ledger
from modelyard.render.settings import PodPeer
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.ledger import LedgerKeeper
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import make_provider

T = 1_800_000_000.0
KEY = spend_key("blue", "team/chat@route", "provider:acme/large")


class Setting:
    """A namespace that stands for the gateway's, and operators that keep its ledger."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    def keeper(self, **changes: float) -> tuple[LedgerKeeper, Fleet]:
        """Return a keeper as a new process has it."""
        price = {"inputPerMillion": "2", "outputPerMillion": "8"}
        fleet = Fleet(indices=Indices(deployments={}, pods={}, accelerators={}))
        fleet.providers["acme"] = make_provider("acme", {"name": "large", "price": price})
        settings = replace(OperatorSettings(), **changes)
        settings = replace(settings, render=replace(settings.render, gateway=PodPeer(self.namespace, {})))
        return LedgerKeeper(self.client, fleet, settings), fleet


@pytest.fixture
async def setting(control_plane: ControlPlane, namespace: str) -> AsyncIterator[Setting]:
    client = await KubeClient.connect(control_plane.kubeconfig)
    yield Setting(client, namespace)
    await client.close()


async def read_open(setting: Setting) -> Ledger:
    body = await setting.client.get(CONFIG_MAPS, setting.namespace, OPEN_NAME)
    assert body is not None
    return decode_ledger(read_ledger(body))


def reading(seconds: float, tokens: int) -> tuple[NodeCounts, ...]:
    return (NodeCounts(T + seconds, 100 + seconds, {KEY: Use(requests=1, prompt=tokens)}),)


async def test_of_two_operators_one_writes_and_nothing_counts_twice(setting: Setting) -> None:
    (first, first_fleet), (second, second_fleet) = setting.keeper(), setting.keeper()
    await first.start()
    await second.start()
    first_fleet.counts["x"] = second_fleet.counts["x"] = reading(0, 1_000_000)
    await first.round(T)
    with pytest.raises(ApiError) as refused:
        await second.round(T)
    assert refused.value.status == 409
    await second._load()
    second_fleet.counts["x"] = reading(10, 3_000_000)
    await second.round(T + 10)
    first_fleet.counts["x"] = reading(20, 4_000_000)
    with pytest.raises(ApiError):
        await first.round(T + 20)
    await first._load()
    await first.round(T + 20)
    assert first_fleet.spend is not None
    assert sum(line.dollars for line in first_fleet.spend.lines) == pytest.approx(8.0)


async def test_hours_are_archived_and_cannot_be_changed(
    setting: Setting, control_plane: ControlPlane
) -> None:
    keeper, fleet = setting.keeper()
    await keeper.start()
    assert fleet.spend is not None
    assert fleet.spend.lines == ()
    fleet.counts["x"] = reading(0, 1_000_000)
    await keeper.round(T)
    assert fleet.counts == {}, "what is written is not kept"
    fleet.counts["x"] = reading(HOUR + 10, 2_000_000)
    for seconds in (HOUR + 10, HOUR + 20, HOUR + 30):
        await keeper.round(T + seconds)
    name = archive_name(int(T), HOUR)
    archive = await setting.client.get(CONFIG_MAPS, setting.namespace, name)
    assert archive is not None
    assert archive["immutable"] is True
    with pytest.raises(ApiError) as refused:
        await setting.client.replace(CONFIG_MAPS, {**archive, "data": {"ledger.json": "{}"}})
    assert refused.value.status == 422

    again, fresh = setting.keeper()
    await again.start()
    await again.round(T + HOUR + 40)
    assert fresh.spend is not None
    assert [(line.hour - T, line.dollars) for line in fresh.spend.lines] == [(0, 2.0), (HOUR, 2.0)]
    view = await read_view(Access((control_plane.kubeconfig,)), setting.namespace)
    assert {start - T: sum(line.dollars for line in lines) for start, lines in view.periods} == {
        0: 2.0,
        HOUR: 2.0,
    }


async def test_nothing_new_writes_nothing(setting: Setting) -> None:
    keeper, fleet = setting.keeper()
    await keeper.start()
    await keeper.round(T)
    assert await setting.client.get(CONFIG_MAPS, setting.namespace, OPEN_NAME) is None
    fleet.counts["x"] = reading(0, 1000)
    await keeper.round(T)
    before = await setting.client.get(CONFIG_MAPS, setting.namespace, OPEN_NAME)
    for seconds in range(10, 100, 10):
        fleet.counts["x"] = reading(seconds, 1000)
        await keeper.round(T + seconds)
    assert await setting.client.get(CONFIG_MAPS, setting.namespace, OPEN_NAME) == before


async def test_what_an_envoy_that_leaves_has_counted_is_written_at_once(setting: Setting) -> None:
    """Not when the next write is due, which is in an hour."""
    keeper, fleet = setting.keeper(read_interval=0.05, ledger_interval=3600.0)
    await keeper.start()
    assert keeper.write("x"), "it has told nothing yet"
    running = asyncio.create_task(keeper.run())
    try:
        now = time.time()
        for tokens in (1000, 1000, 3000):
            fleet.counts["x"] = (NodeCounts(now + tokens, None, {KEY: Use(requests=1, prompt=tokens)}),)
            async with asyncio.timeout(60):
                while not keeper.write("x"):
                    await asyncio.sleep(0.02)
            stored = await read_open(setting)
            assert stored.nodes["x"].counts == {KEY: Use(requests=1, prompt=tokens)}
    finally:
        running.cancel()


async def test_nothing_is_written_for_certain_after_a_conflict(setting: Setting) -> None:
    (first, first_fleet), (second, second_fleet) = setting.keeper(), setting.keeper()
    await first.start()
    await second.start()
    first_fleet.counts["x"] = second_fleet.counts["x"] = reading(0, 1000)
    await first.round(T)
    assert first.write("x")
    assert not second.write("x")
    with pytest.raises(ApiError):
        await second.round(T)
    assert not second.write("x")
    await second._load()
    assert second.write("x"), "the other one has written it"


async def test_a_ledger_of_another_version_is_not_overwritten(setting: Setting) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": OPEN_NAME, "namespace": setting.namespace},
        "data": {"ledger.json": '{"version":2}'},
    }
    written = await setting.client.create(CONFIG_MAPS, body)
    keeper, fleet = setting.keeper()
    await keeper.start()
    fleet.counts["x"] = reading(0, 1000)
    with pytest.raises(Exception, match="upgrade"):
        await keeper.round(T)
    assert fleet.spend is None
    assert await setting.client.get(CONFIG_MAPS, setting.namespace, OPEN_NAME) == written
