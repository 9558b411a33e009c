"""Where deployments run when capacity goes and comes back: on KWOK's nodes, and with real traffic on local ones."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from kubernetes import client
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


@dataclass
class Watch:
    """Looks at a deployment's pods all the time, and remembers the fewest that served at once."""

    api: client.CoreV1Api
    namespace: str
    name: str
    fewest: int = 1_000_000
    looks: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def serving(self, variant: str | None = None) -> int:
        selector = f"{LABEL_DEPLOYMENT}={self.name}"
        if variant is not None:
            selector += f",{LABEL_VARIANT}={variant}"
        pods = self.api.list_namespaced_pod(self.namespace, label_selector=selector).items
        return sum(
            pod.metadata.deletion_timestamp is None
            and any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or ())
            for pod in pods
        )

    def run(self) -> None:
        while not self._stop.wait(0.05):
            self.fewest = min(self.fewest, self.serving())
            self.looks += 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


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
    watch = Watch(core, bed.namespace, name)
    wait_until(lambda: watch.serving(FIRST) == 3, "three replicas serve on the first choice", timeout_s=60)
    bed.wait_condition(name, "PlacementPreferred", "True", "Preferred")
    with watch.watching():
        cordon(core, pools["first"])
        drain(core, bed.namespace, pools["first"])
        wait_until(lambda: watch.serving(SECOND) == 3, "the second choice serves", timeout_s=60)
        bed.wait_condition(name, "PlacementPreferred", "False", "CapacityMissing")
        status = bed.deployment(name).status
        assert status.placement.class_name == "second"
        waiting = next(item for item in status.conditions if item.type == "PlacementPreferred")
        assert "first" in waiting.message, waiting.message
        bed.wait_condition(name, "Ready", "True", "Serving")
        first_looks = watch.looks

        cordon(core, pools["first"], off=False)
        wait_until(
            lambda: (watch.serving(FIRST), watch.serving(SECOND)) == (3, 0), "it is back", timeout_s=120
        )
        bed.wait_condition(name, "PlacementPreferred", "True", "Preferred")
        assert bed.deployment(name).status.placement.class_name == "first"
    # How many there are depends on how busy the machine is; it must have looked all through both moves.
    assert min(first_looks, watch.looks - first_looks) >= 5
    # The disruption budget lets one replica go at a time; Modelyard itself takes none before another serves.
    assert watch.fewest >= 2, f"only {watch.fewest} of 3 replicas served at a time"


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
        watch = Watch(core, bed.namespace, name)
        wait_until(lambda: watch.serving(SECOND) == 2, "the second choice serves", timeout_s=60)
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
        watch = Watch(core, bed.namespace, name)
        on_l4 = variant_name("cheap-l4", 1, spot=False)
        on_h100 = variant_name("h100", 1, spot=False)
        served = lambda variant, count: wait_until(  # noqa: E731
            lambda: watch.serving(variant) == count, f"{count} serve on {variant}", timeout_s=90
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
