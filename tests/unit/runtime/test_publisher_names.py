"""Who is told that a name belongs to somebody else, and which routes an LLMDeployment concerns."""

import asyncio
import contextlib

import pytest

from modelyard.gateway.ads import AdsServer
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.publisher import Publisher
from modelyard.runtime.settings import OperatorSettings
from tests.unit.core.build import KEY, make_deployment, make_targets_route

OWN = {"deployment": "llama"}


def make_fleet(*routes) -> Fleet:
    deployment = make_deployment(KEY, status={"observedGeneration": 3})
    return Fleet(
        indices=Indices(
            deployments={KEY: [Seen(uid="1", version="1", object=deployment)]},
            routes={route.key: [Seen(uid=route.key, version="1", object=route)] for route in routes},
            accelerators={},
            pods={KEY: []},
        )
    )


def test_an_llmdeployment_concerns_the_routes_that_name_it():
    ruled = {"match": {"tenants": ["search"]}, "targets": [OWN]}
    fleet = make_fleet(
        make_targets_route("team/one", "one", OWN),
        make_targets_route("team/two", "two", {"deployment": "other"}),
        make_targets_route("team/three", "three", {"deployment": "other"}, rules=[ruled]),
        make_targets_route("team2/four", "four", OWN),
    )
    assert sorted(fleet.routes_to(KEY)) == ["team/one", "team/three"]
    assert list(fleet.routes_to("team/gone")) == []


@pytest.fixture
async def told():
    """Names that changed hands, as the publisher tells them, and the fleet that it publishes."""
    fleet, names = make_fleet(make_targets_route("team/one", "one", OWN)), []
    publisher = Publisher(
        fleet,
        AdsServer(lambda *_: None),
        LimitBook(),
        OperatorSettings(),
        lambda found: names.append(set(found)),
    )
    running = asyncio.create_task(publisher.run())
    yield fleet, names, publisher
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_names_are_told_once_when_they_change_hands(told):
    fleet, names, publisher = told
    await publisher.published()
    (first,) = names
    assert {"one", "team/one", KEY} <= first
    await publisher.published()
    assert len(names) == 1, "nothing has changed"
    other = make_targets_route("team/two", "two", OWN)
    fleet.indices.routes["team/two"] = [Seen(uid="9", version="1", object=other)]
    await publisher.published()
    assert names[1] == {"two", "team/two"}
    del fleet.indices.routes["team/two"]
    await publisher.published()
    assert names[2] == {"two", "team/two"}
