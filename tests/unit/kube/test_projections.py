"""Small views of nodes, pods and priorities: what the placement needs of them."""

from typing import Any

import pytest

from modelyard.core.inventory import Node, Taint, Usage
from modelyard.kube.projections import (
    accelerator_requests,
    project_child,
    project_groups,
    project_node,
    project_pod,
    project_priority,
    project_usage,
)

GPU = "nvidia.com/gpu"
READY = [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]


def node(conditions: Any = READY, allocatable: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "a", "uid": "u", "labels": {"zone": "z"}},
        "spec": spec,
        "status": {"conditions": conditions, "allocatable": allocatable or {GPU: "8"}},
    }


def test_a_node_is_its_labels_taints_and_accelerators():
    allocatable = {
        "cpu": "64",
        "memory": "1Ti",
        "pods": "110",
        "ephemeral-storage": "1Ti",
        "hugepages-2Mi": "0",
        "attachable-volumes-csi-x.example/y": "25",
        GPU: "8",
        "rdma/ib": "1k",
    }
    taints = [
        {"key": GPU, "value": "present", "effect": "NoSchedule"},
        {"key": "old", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
        {"key": "soft", "effect": "PreferNoSchedule"},
    ]
    seen = project_node(node(allocatable=allocatable, taints=taints))
    assert seen.uid == "u"
    assert seen.node == Node(
        name="a",
        labels={"zone": "z"},
        taints=(Taint(GPU, "present", "NoSchedule"), Taint("old", "", "NoExecute")),
        accelerators={GPU: 8, "rdma/ib": 1000},
    )


@pytest.mark.parametrize(
    ("conditions", "spec", "schedulable"),
    [
        (READY, {}, True),
        (READY, {"unschedulable": True}, False),
        ([{"type": "Ready", "status": "False"}], {}, False),
        ([{"type": "Ready", "status": "Unknown"}], {}, False),
        ([], {}, False),
    ],
)
def test_a_node_takes_pods_if_it_is_ready_and_not_cordoned(
    conditions: list[dict[str, str]], spec: dict[str, Any], schedulable: bool
):
    assert project_node(node(conditions, **spec)).node.schedulable is schedulable


def test_a_cordon_is_no_taint_of_its_own():
    # Pods that run there stay, so nothing but `schedulable` may say it.
    taints = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    assert project_node(node(unschedulable=True, taints=taints)).node.taints == ()


def test_a_new_node_without_anything_is_a_node_without_accelerators():
    seen = project_node({"metadata": {"name": "a", "uid": "u"}})
    assert seen.node == Node(name="a", schedulable=False)


def container(requests: dict[str, str] | None = None, limits: dict[str, str] | None = None) -> dict[str, Any]:
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    return {"name": "c", "resources": resources} if resources else {"name": "c"}


@pytest.mark.parametrize(
    ("containers", "initial", "expected"),
    [
        ([container()], [], {}),
        ([container({"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "4Mi"})], [], {}),
        ([container({GPU: "2"}, {GPU: "2"})], [], {GPU: 2}),
        ([container(limits={GPU: "2"})], [], {GPU: 2}),
        ([container({GPU: "2"}), container({GPU: "1", "rdma/ib": "1"})], [], {GPU: 3, "rdma/ib": 1}),
        # Those that run before take what the others will, or more of it.
        ([container({GPU: "2"})], [container({GPU: "1"}), container({GPU: "1"})], {GPU: 2}),
        ([container({GPU: "2"})], [container({GPU: "4"})], {GPU: 4}),
    ],
)
def test_what_a_pod_asks_for(
    containers: list[dict[str, Any]], initial: list[dict[str, Any]], expected: dict[str, int]
):
    assert accelerator_requests({"containers": containers, "initContainers": initial}) == expected


@pytest.mark.parametrize(
    ("spec", "phase", "held"),
    [
        ({"nodeName": "a", "containers": [container({GPU: "2"})]}, "Running", True),
        ({"nodeName": "a", "containers": [container({GPU: "2"})]}, "Pending", True),
        ({"nodeName": "a", "containers": [container({GPU: "2"})]}, "Succeeded", False),
        ({"nodeName": "a", "containers": [container({GPU: "2"})]}, "Failed", False),
        ({"containers": [container({GPU: "2"})]}, "Pending", False),
        ({"nodeName": "a", "containers": [container({"cpu": "2"})]}, "Running", False),
    ],
)
def test_pods_of_others_hold_what_they_ask_for_while_they_have_a_node(
    spec: dict[str, Any], phase: str, held: bool
):
    usage = project_usage({"metadata": {"name": "x"}, "spec": spec, "status": {"phase": phase}})
    assert usage == (Usage("a", "", "", {GPU: 2}) if held else None)


def pod(status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "p",
            "namespace": "team",
            "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "modelyard.dev/deployment": "llama",
                "modelyard.dev/variant": "abcde",
                "modelyard.dev/accelerator": "l4",
            },
        },
        "spec": {"containers": [container({GPU: "1"})], **spec},
        "status": status,
    }


def test_an_engine_pod_says_variant_node_accelerators_and_since_when():
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:02:00Z"}
    seen = project_pod(pod({"phase": "Running", "conditions": [ready]}, nodeName="a"))
    assert (seen.deployment, seen.variant, seen.accelerator) == ("team/llama", "abcde", "l4")
    assert (seen.node, seen.scheduled, dict(seen.accelerators)) == ("a", True, {GPU: 1})
    assert seen.ready_since == seen.created + 120.0 == 1_767_225_720.0


def test_a_pod_that_finds_no_node_says_what_the_scheduler_said():
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu." + "x" * 600,
    }
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:02:00Z"}
    seen = project_pod(pod({"phase": "Pending", "conditions": [scheduled, ready]}))
    assert (seen.node, seen.scheduled, seen.waiting, seen.ready_since) == ("", False, "Unschedulable", None)
    assert seen.message.startswith("0/3 nodes are available")
    assert len(seen.message) == 512


def test_a_pod_from_before_variants_has_none():
    body = pod({})
    del body["metadata"]["labels"]["modelyard.dev/variant"]
    assert project_pod(body).variant == ""


LWS = "leaderworkerset.sigs.k8s.io"


@pytest.mark.parametrize(
    ("labels", "annotations", "expected"),
    [
        ({"name": "x", "group-index": "3", "worker-index": "0"}, {"size": "2"}, ("x/3", 0, 2)),
        ({"name": "x", "group-index": "3", "worker-index": "1"}, {"size": "2"}, ("x/3", 1, 2)),
        # Whoever may create pods may write anything: none of it may pass for a leader, or end the watch.
        ({"name": "x", "worker-index": "one"}, {"size": "0"}, ("x/", -1, 1)),
        ({"name": "x"}, {"size": "many"}, ("x/", -1, 1)),
        ({"worker-index": "1"}, {"size": "2"}, ("", 0, 1)),
    ],
)
def test_a_pod_of_a_group_says_which_and_its_number(
    labels: dict[str, str], annotations: dict[str, str], expected: tuple[str, int, int]
):
    body = pod({})
    body["metadata"]["labels"] |= {f"{LWS}/{key}": value for key, value in labels.items()}
    body["metadata"]["annotations"] = {f"{LWS}/{key}": value for key, value in annotations.items()}
    seen = project_pod(body)
    assert (seen.group, seen.member, seen.nodes) == expected


def group_set(*conditions: dict[str, str], deadline: str | None = "2460") -> dict[str, Any]:
    annotations = {} if deadline is None else {"modelyard.dev/progress-deadline-seconds": deadline}
    return {
        "metadata": {
            "name": "x-abcde",
            "uid": "u",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"modelyard.dev/variant": "abcde"},
            "annotations": annotations,
            "ownerReferences": [{"uid": "mine", "controller": True}],
        },
        "spec": {"replicas": 3},
        "status": {"conditions": list(conditions)},
    }


def test_a_set_says_variant_owner_size_and_since_when_it_progresses():
    progressing = {
        "type": "Progressing",
        "status": "True",
        "lastTransitionTime": "2026-01-01T00:01:00Z",
    }
    seen = project_groups(group_set(progressing))
    assert (seen.kind, seen.variant, seen.owner, seen.child.replicas) == (
        "LeaderWorkerSet",
        "abcde",
        "mine",
        3,
    )
    assert (seen.child.progressing_since, seen.child.patience) == (1_767_225_660.0, 2460.0)
    done = [{**progressing, "status": "False"}, {**progressing, "type": "Available"}]
    assert project_groups(group_set(*done)).child.progressing_since is None
    # Nobody has looked at it: its controller may not run.
    assert project_groups(group_set()).child.progressing_since == 1_767_225_600.0
    assert project_groups(group_set(progressing, deadline=None)).child.patience is None


def test_a_priority_is_its_value():
    seen = project_priority({"metadata": {"name": "high", "uid": "u"}, "value": 1000})
    assert (seen.uid, seen.value) == ("u", 1000)
    assert project_priority({"metadata": {"name": "none", "uid": "u"}}).value == 0


@pytest.mark.parametrize(("labels", "variant"), [({"modelyard.dev/variant": "abcde"}, "abcde"), ({}, "")])
def test_a_child_says_its_variant_and_its_owner(labels: dict[str, str], variant: str):
    owners = [{"uid": "other"}, {"uid": "mine", "controller": True}]
    body = {
        "metadata": {
            "name": "x",
            "uid": "u",
            "resourceVersion": "7",
            "labels": labels,
            "ownerReferences": owners,
        },
        "spec": {"replicas": 3},
    }
    seen = project_child(body)
    assert (seen.variant, seen.owner, seen.child.replicas) == (variant, "mine", 3)


@pytest.mark.parametrize(
    ("status", "started", "ready"),
    [
        ({}, False, 0),
        ({"replicas": 2}, True, 0),
        ({"replicas": 3, "readyReplicas": 2}, True, 2),
        ({"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]}, True, 0),
        ({"conditions": [{"type": "ReplicaFailure", "status": "False"}]}, False, 0),
    ],
)
def test_a_child_says_how_far_the_controllers_are(status: dict[str, Any], started: bool, ready: int):
    metadata = {"name": "x", "uid": "u", "resourceVersion": "7"}
    seen = project_child({"metadata": metadata, "spec": {"replicas": 3}, "status": status})
    assert (seen.child.started, seen.child.ready) == (started, ready)


@pytest.mark.parametrize(
    ("written", "count"),
    [("8", 8), ("1k", 1000), ("1e3", 1000), ("2E2", 200), ("1e+1", 10), ("1E", 10**18), ("1Ei", 2**60)],
)
def test_every_form_of_a_whole_quantity_is_read(written: str, count: int) -> None:
    """The API server keeps `1e3` as it is, so anybody who may create a pod may write it."""
    pod = {"spec": {"nodeName": "n", "containers": [{"resources": {"requests": {GPU: written}}}]}}
    assert project_usage(pod) == Usage("n", "", "", {GPU: count})
    assert project_node(node(allocatable={GPU: written})).node.accelerators == {GPU: count}
