"""How long an operator that is told to end goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from modelyard.kube.client import ApiError
from modelyard.kube.resources import PODS, Resource
from modelyard.runtime import succession
from modelyard.runtime.succession import APPEAR_SECONDS, END_SECONDS, LOOK_SECONDS, OPERATOR_PODS, Succession

NAMESPACE, OWN = "system", "operator-1"
GRACE = 100.0


def pod(name: str, *, ready: bool = False, deleted: bool = False, phase: str = "Running") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if deleted:
        metadata |= {"deletionTimestamp": "2026-12-01T12:00:00Z", "deletionGracePeriodSeconds": int(GRACE)}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": metadata, "status": {"phase": phase, "conditions": conditions}}


class Pods:
    """An API server whose pods are a function of the time."""

    def __init__(self, at: Callable[[float], list[dict[str, Any]]]) -> None:
        self.at, self.now, self.lists = at, 0.0, 0

    async def list_pages(
        self, resource: Resource, query: Mapping[str, str], limit: int = 500, namespace: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        assert (resource, namespace, query["labelSelector"]) == (PODS, NAMESPACE, OPERATOR_PODS)
        self.lists += 1
        for item in self.at(self.now):
            yield item


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch):
    """Returns the seconds that an operator goes on."""

    async def waited(at: Callable[[float], list[dict[str, Any]]]) -> float:
        pods = Pods(at)

        async def sleep(seconds: float) -> None:
            pods.now += seconds

        monkeypatch.setattr(succession.asyncio, "sleep", sleep)
        await Succession(pods, NAMESPACE, OWN, lambda: pods.now).wait()  # type: ignore[arg-type]
        return pods.now

    return waited


async def test_it_goes_on_until_the_next_one_is_ready(wait):
    assert await wait(lambda now: [pod(OWN, deleted=True), pod("next", ready=now >= 42)]) == 42


async def test_one_that_is_ready_already_is_not_waited_for(wait):
    assert await wait(lambda _: [pod(OWN, deleted=True), pod("next", ready=True)]) == 0


async def test_the_next_one_may_appear_late(wait):
    def at(now: float) -> list[dict[str, Any]]:
        own = pod(OWN, deleted=True)
        return [own, pod("next", ready=now >= 50)] if now >= APPEAR_SECONDS / 2 else [own]

    assert await wait(at) == 50


@pytest.mark.parametrize(
    "others",
    [
        [],
        [pod("before", deleted=True, ready=True)],
        [pod("evicted", phase="Failed", ready=True)],
    ],
    ids=["alone", "another leaves", "another has ended"],
)
async def test_it_ends_soon_where_none_comes(wait, others):
    assert await wait(lambda _: [pod(OWN, deleted=True), *others]) == APPEAR_SECONDS


async def test_a_container_that_ends_alone_waits_for_nobody(wait):
    """The kubelet starts it anew in the same pod."""
    assert await wait(lambda _: [pod(OWN)]) == 0
    assert await wait(lambda _: []) == 0


async def test_it_ends_by_itself_before_it_is_killed(wait):
    def at(now: float) -> list[dict[str, Any]]:
        return [pod(OWN, deleted=True), pod("next")]

    assert await wait(at) == GRACE - END_SECONDS


async def test_an_api_server_that_does_not_answer_is_asked_again(wait):
    def at(now: float) -> list[dict[str, Any]]:
        if now < 3 * LOOK_SECONDS:
            raise ApiError(503, "ServiceUnavailable", "later")
        return [pod(OWN, deleted=True), pod("next", ready=now >= 20)]

    assert await wait(at) == 20


async def test_an_api_server_that_never_answers_is_not_asked_for_long(wait):
    def at(_: float) -> list[dict[str, Any]]:
        raise ApiError(503, "ServiceUnavailable", "later")

    assert await wait(at) == APPEAR_SECONDS


@pytest.mark.parametrize("status", [401, 403])
async def test_one_that_is_uninstalled_waits_for_nobody(wait, status):
    """Helm takes its rights away before it ends, and then its token is not known any more."""

    def at(_: float) -> list[dict[str, Any]]:
        raise ApiError(status, "Forbidden", "no")

    assert await wait(at) == 0


async def test_only_one_that_acts_waits():
    class Never:
        async def wait(self) -> None:
            raise AssertionError

    for acting, following in ((False, Never()), (True, None)):
        ending = succession.Ending(lambda acting=acting: acting, following)  # type: ignore[arg-type,misc]
        task = asyncio.create_task(ending.run())
        await asyncio.sleep(0)
        assert not task.done()
        ending.tell()
        await task
