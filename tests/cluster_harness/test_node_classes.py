"""What the nodes of local clusters offer, and how a fleet of them is asked for."""

import pytest

from dev.cluster.node_classes import NODE_CLASSES, node_manifest, node_manifests, parse_node_counts


def test_counts_are_read_by_class() -> None:
    counts = parse_node_counts("h100=2, l4=4,cpu")
    assert [(cls.name, cls.gpus, count) for cls, count in counts] == [
        ("h100", 8, 2),
        ("l4", 1, 4),
        ("cpu", 0, 1),
    ]
    assert parse_node_counts("") == []


def test_gpus_per_node_can_be_overridden() -> None:
    ((cls, count),) = parse_node_counts("h100:1=2")
    assert (cls.gpus, cls.labels["nvidia.com/gpu.count"], count) == (1, "1", 2)
    assert NODE_CLASSES["h100"].labels["nvidia.com/gpu.count"] == "8"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("h200=1", "unknown node class 'h200'"),
        ("h100=two", "'h100=two' is not CLASS"),
        ("h100:x=1", "'h100:x=1' is not CLASS"),
        ("h100=-1", "'h100=-1' is not CLASS"),
        ("cpu:1=1", "'cpu' has no GPUs"),
        ("l4:0=1", "at least 1 GPU"),
    ],
)
def test_a_wrong_count_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_node_counts(text)


def test_a_gpu_node_is_labelled_and_tainted_like_a_real_one() -> None:
    node = node_manifest("gpu-7", NODE_CLASSES["h100"], annotations={"made.by/test": "yes"}, zone="z")
    labels = node["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == "gpu-7"
    assert labels["topology.kubernetes.io/zone"] == "z"
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert labels["nvidia.com/gpu.count"] == node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert node["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert node["metadata"]["annotations"] == {"made.by/test": "yes"}


def test_a_cpu_node_takes_any_pod() -> None:
    node = node_manifest("plain", NODE_CLASSES["cpu"])
    assert node["spec"]["taints"] == []
    assert "nvidia.com/gpu" not in node["status"]["capacity"]


def test_node_names_are_distinct_and_zones_spread() -> None:
    nodes = node_manifests(parse_node_counts("h100=2,h100:1=1,cpu=1"), prefix="a-")
    assert [node["metadata"]["name"] for node in nodes] == ["a-h100-0", "a-h100-1", "a-h100-2", "a-cpu-0"]
    assert len({node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in nodes[:3]}) == 3
