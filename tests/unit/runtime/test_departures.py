"""Who leaves, and when what an Envoy counted is written."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from modelyard.kube.client import ApiError
from modelyard.kube.resources import PODS, Resource
from modelyard.runtime import departures
from modelyard.runtime.departures import GATEWAY_PODS, DepartureKeeper
from modelyard.runtime.settings import SYSTEM_NAMESPACE, OperatorSettings


class Pods:
    """An API server with pods of the gateway."""

    def __init__(self) -> None:
        self.leaving: set[str] = set()
        self.staying: set[str] = set()
        self.error: ApiError | None = None
        self.lists = 0

    async def list_pages(
        self, resource: Resource, query: Mapping[str, str], limit: int = 500, namespace: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        assert (resource, namespace) == (PODS, SYSTEM_NAMESPACE)
        assert query["labelSelector"] == GATEWAY_PODS
        self.lists += 1
        if self.error is not None:
            raise self.error
        for uid in sorted(self.staying):
            yield {"metadata": {"uid": uid}}
        for uid in sorted(self.leaving):
            yield {"metadata": {"uid": uid, "deletionTimestamp": "2026-11-30T12:00:00Z"}}


class Envoys:
    """What was read and written of Envoys, and which of them may end."""

    def __init__(self) -> None:
        self.read: dict[str, float] = {}
        self.written: set[str] = set()
        self.asked: list[str] = []
        self.finished: list[str] = []

    def read_since(self, node: str, moment: float) -> bool:
        return self.read.get(node, 0.0) >= moment

    def write(self, node: str) -> bool:
        self.asked.append(node)
        return node in self.written


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
def envoys() -> Envoys:
    return Envoys()


@pytest.fixture
def keeper(pods: Pods, envoys: Envoys) -> DepartureKeeper:
    return DepartureKeeper(
        pods,  # type: ignore[arg-type]  # the one method that is used
        OperatorSettings(),
        envoys.read_since,
        envoys.write,
        envoys.finished.append,
    )


async def test_who_leaves_is_what_the_api_server_says(keeper: DepartureKeeper, pods: Pods) -> None:
    pods.leaving, pods.staying = {"a"}, {"b"}
    assert await keeper.is_leaving("a")
    assert not await keeper.is_leaving("b")
    assert not await keeper.is_leaving("somebody")
    assert pods.lists == 1, "many questions at a time are one list"


async def test_without_the_right_nobody_leaves_and_the_log_says_so_once(
    keeper: DepartureKeeper, pods: Pods, caplog: pytest.LogCaptureFixture
) -> None:
    pods.leaving = {"a"}
    pods.error = ApiError(403, "Forbidden", "pods is forbidden")
    with caplog.at_level(logging.WARNING):
        assert not await keeper.is_leaving("a")
        assert not await keeper.is_leaving("a")
    assert [record.getMessage().count("grant list on pods") for record in caplog.records] == [1]
    pods.error = None
    assert await keeper.is_leaving("a")


async def test_it_is_settled_when_a_later_reading_is_written(
    keeper: DepartureKeeper, pods: Pods, envoys: Envoys
) -> None:
    pods.leaving = {"a"}
    envoys.read["a"] = 1.0
    envoys.written = {"a"}
    waiting = asyncio.create_task(keeper.settle("a"))
    await asyncio.sleep(3 * departures.LOOK_SECONDS)
    assert not waiting.done(), "the reading began before the question"
    assert not envoys.asked
    envoys.written.clear()
    envoys.read["a"] = float("inf")
    await asyncio.sleep(3 * departures.LOOK_SECONDS)
    assert not waiting.done(), "it is not written"
    assert envoys.asked, "a write is asked for"
    envoys.written = {"a"}
    assert await waiting
    assert envoys.finished == ["a"]


async def test_one_that_stays_is_not_finished(keeper: DepartureKeeper, pods: Pods, envoys: Envoys) -> None:
    """Anybody may ask for the path on the gateway; an Envoy that goes on must be missed when it is away."""
    pods.staying = {"a"}
    envoys.read["a"] = float("inf")
    envoys.written = {"a"}
    assert await keeper.settle("a")
    assert envoys.finished == []


async def test_what_takes_too_long_is_no(
    keeper: DepartureKeeper, envoys: Envoys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_patience", 0.0)
    assert not await keeper.settle("a")
    assert envoys.finished == []
