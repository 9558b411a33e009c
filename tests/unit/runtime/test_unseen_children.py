"""A plan whose child the watch never shows is issued again after its deadline, and not before."""

from types import SimpleNamespace

import pytest

from modelyard.kube.expectations import DEADLINE, Expectations
from modelyard.kube.informers import Indices
from modelyard.runtime.children import ChildApplier
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.reconcile import Reconciler
from modelyard.runtime.settings import OperatorSettings
from tests.golden.cases import SETTINGS, read_workload

WORKLOAD = read_workload("external-actuator")
KEY = WORKLOAD.deployment.key


class Server:
    """Holds the children; nothing that happens to them reaches the watch."""

    def __init__(self):
        self.objects, self.reads = {}, 0
        self.writes = []

    async def get(self, resource, namespace, name):
        self.reads += 1
        return self.objects.get((resource.kind, f"{namespace}/{name}"))

    async def apply(self, resource, manifest, subresource="", manager=""):
        del subresource, manager
        self.writes.append(resource.kind)
        metadata = {**manifest["metadata"], "uid": "u1", "resourceVersion": str(len(self.writes))}
        written = {**manifest, "metadata": metadata, "status": {}}
        self.objects[resource.kind, f"{metadata['namespace']}/{metadata['name']}"] = written
        return written


class Bench:
    def __init__(self):
        self.now = 0.0
        self.server = Server()
        expected = Expectations(clock=lambda: self.now)
        indices = Indices(deployments={}, routes={}, accelerators={}, pods={}, children={})
        self.fleet = Fleet(indices=indices, written_children=expected)
        nothing = SimpleNamespace(apply=self._nothing, look_again=lambda _key: None)
        self.reconciler = Reconciler(
            self.server,
            ChildApplier(self.server),
            self.fleet,
            nothing,
            lambda _key: None,
            nothing,
            nothing,
            nothing,
            nothing,
            OperatorSettings(render=SETTINGS),
        )
        self.reconciler._workloads = lambda _deployment, _placement: [WORKLOAD]

    async def _nothing(self, *_):
        return None

    async def apply(self):
        plan = SimpleNamespace(refusal=None, placement=SimpleNamespace(variants=(), remove=()))
        self.fleet.children(KEY, WORKLOAD.deployment.metadata.uid)
        before = len(self.server.writes), self.server.reads
        await self.reconciler._apply(KEY, WORKLOAD.deployment, plan)
        return self.server.writes[before[0] :], self.server.reads - before[1]


@pytest.fixture
def bench():
    return Bench()


async def test_a_child_that_is_gone_without_an_event_is_written_again(bench):
    written, _ = await bench.apply()
    assert "Deployment" in written
    for key in [key for key in bench.server.objects if key[0] == "Deployment"]:
        del bench.server.objects[key]
    bench.now = DEADLINE
    assert await bench.apply() == ([], 0)
    bench.now = DEADLINE + 1.0
    written, _ = await bench.apply()
    assert written == ["Deployment"]


async def test_one_that_stands_is_looked_at_once_for_each_deadline_and_not_written(bench):
    await bench.apply()
    bench.now = DEADLINE + 1.0
    written, reads = await bench.apply()
    assert (written, reads > 0) == ([], True)
    bench.now += 2.0
    assert await bench.apply() == ([], 0)
