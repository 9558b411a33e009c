"""Fake nodes (KWOK): pods land on them as on real GPU nodes and count as Running."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from kubernetes import client

from dev.cluster.control_plane import ControlPlane
from dev.cluster.fake_nodes import FakeNodes
from dev.cluster.node_classes import parse_node_counts
from dev.cluster.waiting import wait_until


@pytest.fixture
def fake_nodes(control_plane: ControlPlane) -> Iterator[FakeNodes]:
    """Fake nodes that are gone after the test."""
    with closing(FakeNodes(control_plane.kubeconfig)) as nodes:
        yield nodes
        nodes.remove()


def gpu_pod(name: str, pool: str, *, tolerates: bool) -> client.V1Pod:
    """Return a restricted pod that needs one GPU of the H100 nodes whose names begin with `pool`."""
    toleration = client.V1Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name),
        spec=client.V1PodSpec(
            node_selector={"kubernetes.io/hostname": f"{pool}h100-0"},
            tolerations=[toleration] if tolerates else [],
            security_context=client.V1PodSecurityContext(
                run_as_non_root=True, seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault")
            ),
            containers=[
                client.V1Container(
                    name="engine",
                    image="example.com/engine:1",
                    resources=client.V1ResourceRequirements(limits={"nvidia.com/gpu": "1"}),
                    security_context=client.V1SecurityContext(
                        allow_privilege_escalation=False, capabilities=client.V1Capabilities(drop=["ALL"])
                    ),
                )
            ],
        ),
    )


def unschedulable(pod: client.V1Pod) -> str:
    """Return why the scheduler cannot place the pod, or an empty string."""
    conditions = (pod.status and pod.status.conditions) or []
    return next((str(c.message) for c in conditions if c.type == "PodScheduled" and c.status == "False"), "")


def test_a_gpu_pod_runs_on_a_fake_gpu_node(
    fake_nodes: FakeNodes, api: client.ApiClient, make_namespace: Callable[..., str]
) -> None:
    assert fake_nodes.add(parse_node_counts("h100:1=1"), prefix="runs-") == ["runs-h100-0"]
    core = client.CoreV1Api(api)
    namespace = make_namespace()
    core.create_namespaced_pod(namespace, gpu_pod("first", "runs-", tolerates=True))

    def running() -> client.V1Pod | None:
        pod = core.read_namespaced_pod("first", namespace)
        return pod if pod.status and pod.status.phase == "Running" else None

    pod = wait_until(running, "the pod runs")
    assert pod is not None
    assert pod.spec is not None
    assert pod.status is not None
    assert pod.spec.node_name == "runs-h100-0"
    assert (pod.status.pod_ip or "").startswith("10.24"), "fake pods stay out of the Services' range"

    core.create_namespaced_pod(namespace, gpu_pod("second", "runs-", tolerates=True))
    why = wait_until(
        lambda: unschedulable(core.read_namespaced_pod("second", namespace)), "the one GPU is taken"
    )
    assert "Insufficient nvidia.com/gpu" in why


def test_a_pod_without_the_toleration_stays_off_gpu_nodes(
    fake_nodes: FakeNodes, api: client.ApiClient, make_namespace: Callable[..., str]
) -> None:
    fake_nodes.add(parse_node_counts("h100=1"), prefix="tainted-")
    core = client.CoreV1Api(api)
    namespace = make_namespace()
    core.create_namespaced_pod(namespace, gpu_pod("plain", "tainted-", tolerates=False))
    why = wait_until(
        lambda: unschedulable(core.read_namespaced_pod("plain", namespace)), "the scheduler refuses"
    )
    assert "untolerated taint" in why


def test_removed_nodes_are_gone(fake_nodes: FakeNodes, api: client.ApiClient) -> None:
    names = fake_nodes.add(parse_node_counts("l4=2"), prefix="gone-")
    fake_nodes.remove()
    left = {node.metadata.name for node in client.CoreV1Api(api).list_node().items if node.metadata}
    assert left.isdisjoint(names)
