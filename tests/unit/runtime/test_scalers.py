"""Autoscaler objects: made as far as the cluster lets us, removed when unwanted, never in the way of anything else."""

import asyncio
from dataclasses import replace

import pytest

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.external import ScalerSupport
from modelyard.kube.client import ApiError
from modelyard.kube.resources import SCALERS
from modelyard.runtime.children import ChildApplier
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.scalers import ScalerKeeper
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.support import VERBS, find_support
from tests.golden.cases import SETTINGS, read_workload

HPA, KEDA = "HorizontalPodAutoscaler", "ScaledObject"
WORKLOAD = read_workload("external-actuator")
KEY = WORKLOAD.deployment.key
NAMESPACE, NAME = KEY.split("/")


def deployment(**scaling):
    body = WORKLOAD.deployment.model_dump(by_alias=True, exclude_none=True)
    body["spec"]["scaling"] = {"min": 1, "max": 4, "actuator": "External", **scaling}
    return LLMDeployment.model_validate(body)


KEDA_WANTED = {"external": {"scaler": KEDA}}
OURS = {"actuator": "Modelyard"}


class Server:
    """The part of an API server that autoscalers touch; `denied` are verbs, `broken` an error for everything."""

    def __init__(self):
        self.objects, self.denied, self.broken = {}, set(), None
        self.keda, self.adapter, self.minor = False, 404, "37+"
        self.writes = []

    async def request(self, method, path, **_):
        if self.broken:
            raise self.broken
        if path == "/version":
            return {"major": "1", "minor": self.minor}
        if path.startswith("/apis/keda.sh") and not self.keda:
            raise ApiError(404, "NotFound", "not found")
        if path.startswith("/apis/external.metrics") and self.adapter != 200:
            raise ApiError(self.adapter, "", "service unavailable")
        return {"resources": [{"name": "scaledobjects"}]}

    async def may(self, resource, verb, namespace=""):
        del resource, namespace
        return verb not in self.denied

    async def get(self, resource, namespace, name):
        return self.objects.get((resource.kind, f"{namespace}/{name}"))

    async def apply(self, resource, manifest):
        if "patch" in self.denied:
            raise ApiError(403, "Forbidden", "not allowed")
        metadata = {**manifest["metadata"], "uid": "u1", "resourceVersion": str(len(self.writes))}
        written = {**manifest, "metadata": metadata}
        self.writes.append(("apply", resource.kind))
        self.objects[resource.kind, f"{metadata['namespace']}/{metadata['name']}"] = written
        return written

    async def delete(self, resource, namespace, name, uid):
        if "delete" in self.denied:
            raise ApiError(403, "Forbidden", "not allowed")
        found = self.objects.get((resource.kind, f"{namespace}/{name}"))
        if found is None or found["metadata"]["uid"] != uid:
            return False
        self.writes.append(("delete", resource.kind))
        del self.objects[resource.kind, f"{namespace}/{name}"]
        return True

    async def list_pages(self, resource, query, limit=500, namespace=""):
        del query, limit, namespace
        if self.broken:
            raise self.broken
        if resource.kind == KEDA and not self.keda:
            raise ApiError(404, "NotFound", "not found")
        for (kind, _), body in list(self.objects.items()):
            if kind == resource.kind:
                yield body


class Queue(WorkQueue):
    def __init__(self):
        super().__init__()
        self.added = []

    def add(self, key):
        self.added.append(key)


class Fleet:
    def __init__(self):
        self.all = [deployment()]

    def readable(self):
        return iter(self.all)


class Bench:
    def __init__(self):
        self.server, self.fleet, self.queue = Server(), Fleet(), Queue()
        self.restart()

    def restart(self):
        settings = OperatorSettings(namespaces=(NAMESPACE,), render=SETTINGS)
        self.children = ChildApplier(self.server)
        self.keeper = ScalerKeeper(self.server, self.children, self.fleet, self.queue, settings)

    async def reconcile(self, **scaling):
        wanted = deployment(**scaling)
        self.fleet.all = [wanted]
        removed = await self.keeper.remove_unwanted(wanted)
        await self.keeper.apply(wanted, replace(WORKLOAD, deployment=wanted))
        answer = self.keeper.explain(wanted)
        return removed, None if answer is None else (answer[0], answer[1].code)

    def kinds(self):
        return sorted(kind for kind, _ in self.server.objects)


@pytest.fixture
def bench():
    return Bench()


async def test_an_hpa_is_made_and_the_missing_adapter_is_said(bench):
    assert await bench.reconcile() == (False, (False, "MetricsAdapterMissing"))
    assert bench.kinds() == [HPA]
    assert await bench.reconcile() == (False, (False, "MetricsAdapterMissing"))
    assert bench.server.writes == [("apply", HPA)], "nothing to do, nothing written"


async def test_what_the_hpa_says_of_itself_counts_once_there_is_an_adapter(bench):
    bench.server.adapter = 200
    assert (await bench.reconcile())[1] == (False, "ScalerPending")
    live = bench.server.objects[HPA, KEY]
    for status, expected in (("False", (False, "ScalerFailing")), ("True", (True, "ScalerActive"))):
        live["status"] = {
            "conditions": [
                {"type": "AbleToScale", "status": "True"},
                {"type": "ScalingActive", "status": status, "message": "no metrics returned"},
            ]
        }
        live["metadata"]["resourceVersion"] += "1"
        bench.queue.added.clear()
        await bench.keeper.start()
        assert bench.queue.added == [KEY], "the condition must be written"
        assert (await bench.reconcile())[1] == expected


async def test_switching_the_scaler_removes_the_old_object(bench):
    await bench.reconcile()
    bench.server.keda = True
    assert (await bench.reconcile(**KEDA_WANTED))[0] is True
    assert bench.kinds() == [KEDA]
    assert await bench.reconcile(**OURS) == (True, None)
    assert bench.kinds() == []
    assert await bench.reconcile(**OURS) == (False, None)


async def test_advice_and_a_scaler_of_ones_own_remove_it_too(bench):
    for other in ({"mode": "Advise"}, {"external": {"scaler": "None"}}):
        await bench.reconcile()
        assert bench.kinds() == [HPA]
        await bench.reconcile(**other)
        assert bench.kinds() == []


async def test_a_restart_finds_the_object_that_is_not_wanted_any_more(bench):
    await bench.reconcile()
    bench.restart()
    await bench.keeper.start()
    assert await bench.reconcile(**OURS) == (True, None)
    assert bench.kinds() == []


async def test_an_object_of_somebody_else_is_neither_changed_nor_deleted(bench):
    theirs = {"metadata": {"name": NAME, "namespace": NAMESPACE, "uid": "x", "resourceVersion": "1"}}
    bench.server.objects[HPA, KEY] = theirs
    assert (await bench.reconcile())[1] == (False, "ScalerConflict")
    assert await bench.reconcile(**OURS) == (False, None)
    assert bench.server.objects[HPA, KEY] is theirs
    assert bench.server.writes == []


async def test_an_hpa_that_keda_made_with_our_labels_is_not_ours(bench):
    await bench.reconcile()
    made = bench.server.objects.pop((HPA, KEY))
    made["metadata"]["name"] = f"keda-hpa-{NAME}"
    made["metadata"]["ownerReferences"][0] |= {"kind": KEDA, "uid": "of-the-scaled-object"}
    bench.server.objects[HPA, f"{NAMESPACE}/keda-hpa-{NAME}"] = made
    bench.restart()
    await bench.keeper.start()
    assert await bench.reconcile(**OURS) == (False, None)
    assert bench.kinds() == [HPA]


async def test_without_keda_nothing_is_written(bench):
    assert await bench.reconcile(**KEDA_WANTED) == (False, (False, "KedaMissing"))
    assert bench.server.writes == []


@pytest.mark.parametrize("verb", VERBS)
async def test_a_missing_right_is_a_condition(bench, verb):
    bench.server.denied = {verb}
    assert (await bench.reconcile())[1] == (False, "ScalerForbidden")
    assert bench.server.writes == []


async def test_a_right_taken_away_later_does_not_stop_the_reconcile(bench):
    await bench.reconcile()
    bench.server.denied = {"patch", "delete"}
    assert await bench.reconcile(max=9) == (False, (False, "ScalerForbidden"))
    assert await bench.reconcile(**OURS) == (False, (False, "ScalerForbidden")), "it stands and cannot go"
    bench.server.denied = set()
    assert await bench.reconcile(**OURS) == (True, None)


async def test_an_api_server_that_does_not_answer_changes_nothing(bench):
    await bench.reconcile()
    bench.server.broken = ApiError(500, "Internal", "etcd is slow")
    bench.queue.added.clear()
    await bench.keeper.start()
    assert bench.queue.added == []
    assert (await bench.reconcile())[1] == (False, "MetricsAdapterMissing"), "what was known stands"


async def test_an_adapter_that_is_installed_later_is_noticed(bench):
    settings = OperatorSettings(namespaces=(NAMESPACE,), render=SETTINGS, scaler_interval=0.001)
    bench.keeper = ScalerKeeper(bench.server, bench.children, bench.fleet, bench.queue, settings)
    await bench.reconcile()
    bench.queue.added.clear()
    bench.server.adapter = 200
    loop = asyncio.create_task(bench.keeper.run())
    try:
        async with asyncio.timeout(10):
            while not bench.queue.added:
                await asyncio.sleep(0)
    finally:
        loop.cancel()
    assert (await bench.reconcile())[1] == (False, "ScalerPending")


async def test_a_deleted_object_is_made_again(bench):
    await bench.reconcile()
    bench.server.objects.clear()
    bench.queue.added.clear()
    await bench.keeper.start()
    assert bench.queue.added == [KEY]
    await bench.reconcile()
    assert bench.kinds() == [HPA]


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        (HPA, {"adapter": 200}, ScalerSupport(tolerance=True)),
        (HPA, {"adapter": 200, "minor": "34"}, ScalerSupport()),
        (
            HPA,
            {"adapter": 503},
            ScalerSupport(adapter="Failing", adapter_message="service unavailable", tolerance=True),
        ),
        (KEDA, {"adapter": 404, "keda": True}, ScalerSupport(adapter="Missing")),
        (KEDA, {"adapter": 200, "keda": True}, ScalerSupport()),
    ],
)
async def test_support_is_asked_for(kind, state, expected):
    server = Server()
    vars(server).update(state)
    assert await find_support(server, kind, NAMESPACE) == expected


def test_each_kind_has_a_resource():
    assert {kind: resource.kind for kind, resource in SCALERS.items()} == {HPA: HPA, KEDA: KEDA}
