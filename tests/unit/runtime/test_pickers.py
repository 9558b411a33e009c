"""Whether endpoint pickers answer: told after some patience, published at once, and forgotten with the deployment."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.reasons import Code
from modelyard.core.routing import Picker
from modelyard.kube.client import ApiError
from modelyard.runtime import pickers
from modelyard.runtime.pickers import PATIENCE, Connector, PickerKeeper
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import KEY, make_deployment


@dataclass
class FewDeployments:
    """What the keeper sees of a fleet."""

    deployments: list[LLMDeployment]
    silent_pickers: frozenset[str] = frozenset()
    cluster_domain: str = "cluster.local"

    def readable(self) -> list[LLMDeployment]:
        return self.deployments

    def is_sovereign(self, _key: str) -> bool:
        return False


@dataclass
class Stage:
    """A keeper whose picker answers as told, and what it asked for."""

    answers: bool = True
    asked: list[Picker] = field(default_factory=list)
    published: int = 0
    queued: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        picker = {"service": "picker", "failureMode": "FailOpen"}
        self.fleet = FewDeployments([make_deployment(endpointPicker=picker), make_deployment("team/plain")])
        self.keeper = PickerKeeper(None, self.fleet, self, OperatorSettings(), self.publish, self.probe)

    def publish(self) -> None:
        self.published += 1

    def add_all(self, keys: Iterable[str]) -> None:
        self.queued += sorted(keys)

    async def probe(self, picker: Picker) -> bool:
        self.asked.append(picker)
        return self.answers

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.keeper.probe()


async def test_a_picker_counts_as_silent_after_some_looks_and_answers_at_once():
    stage = Stage()
    await stage.look(3)
    # A deployment without one is not asked for.
    assert set(stage.asked) == {Picker("picker.team.svc.cluster.local.", 9002)}
    stage.answers = False
    await stage.look(PATIENCE - 1)
    assert (stage.fleet.silent_pickers, stage.published) == (frozenset(), 0)
    await stage.look()
    assert (stage.fleet.silent_pickers, stage.published, stage.queued) == (frozenset({KEY}), 1, [KEY])
    await stage.look(5)
    assert stage.published == 1, "what stays is not published again"
    stage.answers = True
    await stage.look()
    assert (stage.fleet.silent_pickers, stage.published, stage.queued) == (frozenset(), 2, [KEY, KEY])


async def test_one_lost_look_is_none():
    stage = Stage()
    for _ in range(4):
        stage.answers = not stage.answers
        await stage.look()
    assert stage.published == 0


async def test_a_deployment_that_goes_is_forgotten():
    stage = Stage(answers=False)
    await stage.look(PATIENCE)
    assert stage.fleet.silent_pickers == {KEY}
    stage.fleet.deployments = []
    await stage.look()
    assert stage.fleet.silent_pickers == frozenset()


async def test_names_without_an_answer_do_not_keep_other_pickers_or_the_operator_waiting(monkeypatch):
    release, asked = threading.Event(), []

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        if host.startswith("stuck"):
            release.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "no server answers")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(pickers, "PROBE_INTERVAL", 0.5)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    good = Picker("good.team.svc", server.sockets[0].getsockname()[1])
    # More than the threads that asyncio has for everything.
    stuck = [Picker(f"stuck-{number}.evil.svc", 9002) for number in range(40)]
    connects = Connector()
    try:
        for _ in range(2):
            answers = await asyncio.gather(*map(connects, (*stuck, good)))
            assert answers == [False] * len(stuck) + [True]
        assert await asyncio.wait_for(asyncio.to_thread(lambda: True), 5)
        assert sorted(asked) == sorted([*(item.host for item in stuck), good.host, good.host])
    finally:
        release.set()
        server.close()


async def test_nobody_listens_at_a_silent_picker():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connects = Connector()
    assert await connects(Picker("127.0.0.1", port))
    server.close()
    await server.wait_closed()
    assert not await connects(Picker("127.0.0.1", port))


class RefusingServer:
    """An API server with a policy that refuses the pools of one namespace."""

    def __init__(self) -> None:
        self.applied: list[str] = []

    async def list_pages(self, *_: object, **__: object) -> AsyncIterator[dict[str, object]]:
        for body in ():
            yield body

    async def get(self, *_: object) -> None:
        return None

    async def apply(self, _: object, manifest: dict[str, Any]) -> None:
        key = f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"
        if key.startswith("bad/"):
            raise ApiError(422, "Invalid", "ValidatingAdmissionPolicy 'no-pools' denied the request")
        self.applied.append(key)


async def test_a_pool_that_is_refused_does_not_keep_other_teams_from_theirs(monkeypatch):
    async def is_served(*_: object) -> bool:
        return True

    monkeypatch.setattr(pickers, "is_served", is_served)
    server, picker = RefusingServer(), {"service": "picker"}
    fleet = FewDeployments([make_deployment(key, endpointPicker=picker) for key in ("bad/a", "team/b")])
    stage = Stage()
    keeper = PickerKeeper(server, fleet, stage, OperatorSettings(), stage.publish, stage.probe)
    await keeper.keep()
    assert server.applied == ["team/b"]
    conditions = {item.key: keeper.explain(item)[1].reason.code for item in fleet.deployments}
    assert conditions == {"bad/a": Code.POOL_PENDING, "team/b": Code.POOL_APPLIED}
