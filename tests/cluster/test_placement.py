"""Where deployments run when capacity goes and comes back: on KWOK's nodes, and with real traffic on local ones."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from dev.cluster.fake_nodes import FakeNodes
from dev.cluster.node_classes import NODE_CLASSES
from dev.cluster.waiting import wait_until
from modelyard.api.meta import LABEL_DEPLOYMENT, LABEL_VARIANT
from modelyard.core.variants import variant_name

POOL_LABEL = "example.com/pool"


def pool_class(name: str, selector: dict[str, str], price: str) -> dict[str, Any]:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": name},
        "spec": {
            "resourceName": "nvidia.com/gpu",
            "nodeSelector": selector,
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "price": {"onDemand": price},
        },
    }


def serves(pod: client.V1Pod) -> bool:
    """Say whether a pod is Ready and not on its way out."""
    ready = any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or ())
    return ready and pod.metadata.deletion_timestamp is None


WATCH_S = 2
"""Seconds after which a watch is begun anew from where it ended: so long does a test wait for it in the end."""


@dataclass
class Watch:
    """Follows a deployment's pods, change by change, and remembers the fewest that served at once.

    Nothing is missed, however busy the machine is. What is written and what the disruption budget allows is followed
    beside it, and shown where the test fails.
    """

    api: client.CoreV1Api
    namespace: str
    name: str
    fewest: int = 1_000_000
    most: Counter[str] = field(default_factory=Counter)
    """Most pods that served at once, by variant, since they were last counted."""
    history: list[str] = field(default_factory=list)
    _seen: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Objects by kind and name."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def selector(self) -> str:
        return f"{LABEL_DEPLOYMENT}={self.name}"

    def serving(self, variant: str | None = None) -> int:
        pods = self.api.list_namespaced_pod(self.namespace, label_selector=self.selector).items
        return sum(serves(pod) and variant in {None, variant_of(pod)} for pod in pods)

    def describe(self) -> str:
        """Return one line: of each variant the pods and what is written, and what the disruption budget allows."""
        pods = [item for (kind, _), item in self._seen.items() if kind == "Pod"]
        parts = []
        for (kind, name), item in sorted(self._seen.items(), key=lambda entry: entry[0]):
            if kind == "Deployment":
                mine = [pod for pod in pods if variant_of(pod) == variant_of(item)]
                parts.append(
                    f"{name}: {sum(map(serves, mine))} of {len(mine)} pods serve, written {item.spec.replicas}, "
                    f"status {item.status.ready_replicas or 0} of {item.status.replicas or 0} ready"
                )
            elif kind == "PodDisruptionBudget" and item.status is not None:
                told = item.status
                parts.append(
                    f"allowed {told.disruptions_allowed}: {told.current_healthy} healthy of "
                    f"{told.expected_pods}, at least {told.desired_healthy}"
                )
        return "; ".join(parts)

    def note(self, kind: str, item: Any, *, gone: bool = False) -> None:
        """Take in one object as it is now."""
        with self._lock:
            self._seen.pop((kind, item.metadata.name), None)
            if not gone:
                self._seen[kind, item.metadata.name] = item
            if kind == "Pod":
                pods = [pod for (found, _), pod in self._seen.items() if found == "Pod"]
                counts = Counter(variant_of(pod) for pod in pods if serves(pod))
                self.fewest = min(self.fewest, counts.total())
                self.most |= counts
            line = self.describe()
            if not self.history or not self.history[-1].endswith(line):
                self.history.append(f"{time.strftime('%H:%M:%S')}  {line}")

    def follow(self, kind: str, objects: Any, version: str) -> None:
        """Take in what happens to the objects of a kind after a version of the list."""
        while not self._stop.is_set():
            stream = watch.Watch()
            for event in stream.stream(
                objects,
                self.namespace,
                label_selector=self.selector,
                resource_version=version,
                timeout_seconds=WATCH_S,
            ):
                version = event["object"].metadata.resource_version
                self.note(kind, event["object"], gone=event["type"] == "DELETED")

    @contextmanager
    def watching(self) -> Iterator[None]:
        kinds = {
            "Pod": self.api.list_namespaced_pod,
            "Deployment": client.AppsV1Api(self.api.api_client).list_namespaced_deployment,
            "PodDisruptionBudget": client.PolicyV1Api(
                self.api.api_client
            ).list_namespaced_pod_disruption_budget,
        }
        with ThreadPoolExecutor(len(kinds)) as pool:
            following = []
            for kind, objects in kinds.items():
                found = objects(self.namespace, label_selector=self.selector)
                if kind == "Pod":
                    self._seen |= {(kind, item.metadata.name): item for item in found.items}
                for item in found.items:
                    self.note(kind, item)
                following.append(pool.submit(self.follow, kind, objects, found.metadata.resource_version))
            try:
                yield
            finally:
                self._stop.set()
                for future in following:
                    future.result()
                # Shown where the test fails.
                print("\n".join(self.history))


def variant_of(item: Any) -> str:
    return str(item.metadata.labels[LABEL_VARIANT])


def cordon(api: client.CoreV1Api, nodes: list[str], *, off: bool = True) -> None:
    for node in nodes:
        api.patch_node(node, {"spec": {"unschedulable": off}})


def drain(api: client.CoreV1Api, namespace: str, nodes: list[str], timeout_s: float = 60) -> None:
    """Evict every pod of our namespace from the nodes, as `kubectl drain` does: 429 means that the budget says wait."""

    def evicted() -> bool:
        left = [
            pod
            for node in nodes
            for pod in api.list_namespaced_pod(namespace, field_selector=f"spec.nodeName={node}").items
        ]
        for pod in left:
            if pod.metadata.deletion_timestamp is not None:
                continue
            eviction = client.V1Eviction(
                metadata=client.V1ObjectMeta(name=pod.metadata.name, namespace=namespace)
            )
            try:
                api.create_namespaced_pod_eviction(pod.metadata.name, namespace, eviction)
            except ApiException as error:
                if error.status not in {404, 429}:
                    raise
        return not left

    wait_until(evicted, "the nodes are empty", timeout_s=timeout_s)


@pytest.fixture
def core(api) -> client.CoreV1Api:
    return client.CoreV1Api(api)


@pytest.fixture
def pools(bed, control_plane) -> Iterator[dict[str, list[str]]]:
    """Two pools of fake nodes, each with a class; the first is cheaper."""
    fake = FakeNodes(control_plane.kubeconfig)
    classes = [
        pool_class("first", {POOL_LABEL: "first"}, "1"),
        pool_class("second", {POOL_LABEL: "second"}, "3"),
    ]
    bed.cluster.apply(classes)
    try:
        l4 = NODE_CLASSES["l4"]
        yield {
            name: fake.add(
                [(replace(l4, labels={**l4.labels, POOL_LABEL: name}), 3)], prefix=f"{bed.namespace}-{name}"
            )
            for name in ("first", "second")
        }
    finally:
        fake.remove()
        fake.close()
        bed.cluster.delete(classes)


FIRST, SECOND = (variant_name(name, 1, spot=False) for name in ("first", "second"))


def test_capacity_that_goes_and_comes_back_leaves_no_gap(bed, make_model, pools, core):
    name = make_model(
        {"replicas": 3},
        routed=False,
        placement={"accelerators": [{"class": "first"}, {"class": "second"}]},
    )
    follower = Watch(core, bed.namespace, name)
    wait_until(lambda: follower.serving(FIRST) == 3, "three replicas serve on the first choice", timeout_s=60)
    bed.wait_condition(name, "PlacementPreferred", "True", "Preferred")
    with follower.watching():
        cordon(core, pools["first"])
        drain(core, bed.namespace, pools["first"])
        wait_until(lambda: follower.serving(SECOND) == 3, "the second choice serves", timeout_s=60)
        bed.wait_condition(name, "PlacementPreferred", "False", "CapacityMissing")
        status = bed.deployment(name).status
        assert status.placement.class_name == "second"
        waiting = next(item for item in status.conditions if item.type == "PlacementPreferred")
        assert "first" in waiting.message, waiting.message
        bed.wait_condition(name, "Ready", "True", "Serving")
        wait_until(lambda: follower.most[SECOND] == 3, "the first move was followed to its end")
        follower.most.clear()

        cordon(core, pools["first"], off=False)
        wait_until(
            lambda: (follower.serving(FIRST), follower.serving(SECOND)) == (3, 0), "it is back", timeout_s=120
        )
        bed.wait_condition(name, "PlacementPreferred", "True", "Preferred")
        assert bed.deployment(name).status.placement.class_name == "first"
        wait_until(lambda: follower.most[FIRST] == 3, "the second move was followed to its end")
    # The disruption budget lets one replica go at a time; Modelyard itself takes none before another serves.
    assert follower.fewest >= 2, f"only {follower.fewest} of 3 replicas served at a time"


def test_pods_that_stay_pending_move_on(bed, make_model, pools, core):
    """The nodes have free accelerators, but not the CPU: only the scheduler knows."""
    greedy = pool_class("greedy", {POOL_LABEL: "first"}, "0.5")
    greedy["spec"]["requests"] = {"cpu": "1000", "memory": "1Gi"}
    bed.cluster.apply([greedy])
    try:
        name = make_model(
            {"scaling": {"min": 2, "max": 4}},
            routed=False,
            placement={
                "accelerators": [
                    {"class": "greedy", "requestsPerMinute": 600},
                    {"class": "second", "requestsPerMinute": 600},
                ]
            },
        )
        follower = Watch(core, bed.namespace, name)
        wait_until(lambda: follower.serving(SECOND) == 2, "the second choice serves", timeout_s=60)
        bed.wait_condition(name, "PlacementPreferred", "False", "CapacityMissing")
        conditions = bed.deployment(name).status.conditions
        waiting = next(item for item in conditions if item.type == "PlacementPreferred")
        assert "Insufficient cpu" in waiting.message, "the scheduler's own words"
        assert "tried again" in waiting.message
        bed.wait_condition(name, "Ready", "True", "Serving")
        left = core.list_namespaced_pod(bed.namespace, label_selector=f"{LABEL_DEPLOYMENT}={name}").items
        assert all(pod.spec.node_name for pod in left), "no pod waits for nothing"
    finally:
        bed.cluster.delete([greedy])


async def test_clients_notice_nothing_of_a_move(bed, make_model, core):
    """The same with engines that answer: every request that is sent during both moves is answered."""
    cheap = pool_class("cheap-l4", {"nvidia.com/gpu.product": "NVIDIA-L4"}, "0.8")
    bed.cluster.apply([cheap])
    nodes = [
        node.metadata.name
        for node in core.list_node(label_selector="nvidia.com/gpu.product=NVIDIA-L4").items
        if node.metadata.name.startswith(bed.stack.node_prefix)
    ]
    assert len(nodes) == 2
    try:
        name = make_model(
            {"replicas": 2},
            placement={"accelerators": [{"class": "cheap-l4"}, {"class": "h100"}]},
        )
        follower = Watch(core, bed.namespace, name)
        on_l4 = variant_name("cheap-l4", 1, spot=False)
        on_h100 = variant_name("h100", 1, spot=False)
        served = lambda variant, count: wait_until(  # noqa: E731
            lambda: follower.serving(variant) == count, f"{count} serve on {variant}", timeout_s=90
        )
        await asyncio.to_thread(served, on_l4, 2)
        bed.wait_condition(name, "Ready", "True", "Serving")
        statuses: list[int] = []
        moved = asyncio.Event()

        async def send() -> None:
            while not moved.is_set():
                statuses.append((await bed.chat(name, timeout_s=30))[0])

        clients = [asyncio.create_task(send()) for _ in range(4)]
        try:
            cordon(core, nodes)
            await asyncio.to_thread(drain, core, bed.namespace, nodes, 90)
            await asyncio.to_thread(served, on_h100, 2)
            cordon(core, nodes, off=False)
            await asyncio.to_thread(served, on_l4, 2)
            await asyncio.to_thread(served, on_h100, 0)
        finally:
            moved.set()
            await asyncio.gather(*clients)
    finally:
        cordon(core, nodes, off=False)
        bed.cluster.delete([cheap])
    assert len(statuses) > 100
    assert set(statuses) == {200}
