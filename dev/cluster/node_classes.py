"""The node classes of local clusters: what a node of each kind offers, as real ones report it.

Both kinds of local node use this table: the fake nodes of KWOK and the nodes of the local agent,
so that a pod schedules alike on either. Labels are those that the kubelet, a cloud provider and
NVIDIA's GPU feature discovery set:
https://kubernetes.io/docs/reference/labels-annotations-taints/ and
https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

GPU_RESOURCE = "nvidia.com/gpu"
"""The extended resource that NVIDIA's device plugin registers."""

GPU_TAINT: Mapping[str, str] = MappingProxyType(
    {"key": GPU_RESOURCE, "value": "present", "effect": "NoSchedule"}
)
"""The taint that keeps pods without a GPU off GPU nodes, as GKE and many EKS set-ups put it:
https://cloud.google.com/kubernetes-engine/docs/how-to/gpus#create"""

MAX_PODS = 110
"""Pods a node takes: the kubelet's default `maxPods`,
https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/"""

ZONES = ("local-a", "local-b", "local-c")
"""Zones that `node_manifests` spreads nodes over."""


@dataclass(frozen=True, slots=True)
class NodeClass:
    """One kind of node.

    `cpu` is in vCPUs, `memory` a Kubernetes quantity, `gpus` a count. `labels` are those of the
    class; `node_manifest` adds the ones that differ by node. `gpu_memory_mib` is per GPU.
    """

    name: str
    cpu: int
    memory: str
    gpus: int = 0
    gpu_memory_mib: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()

    def with_gpus(self, gpus: int) -> NodeClass:
        """Return this class with another number of GPUs.

        Raises ValueError if the class has no GPUs or `gpus` is below 1.
        """
        if self.gpus == 0:
            raise ValueError(f"node class {self.name!r} has no GPUs; write it without ':{gpus}'")
        if gpus < 1:
            raise ValueError(f"node class {self.name!r} needs at least 1 GPU, not {gpus}")
        return replace(self, gpus=gpus, labels={**self.labels, "nvidia.com/gpu.count": str(gpus)})


def _gpu_class(
    name: str,
    *,
    instance_type: str,
    cpu: int,
    memory: str,
    gpus: int,
    product: str,
    family: str,
    gpu_memory_mib: int,
    compute: tuple[int, int],
) -> NodeClass:
    return NodeClass(
        name=name,
        cpu=cpu,
        memory=memory,
        gpus=gpus,
        gpu_memory_mib=gpu_memory_mib,
        labels={
            "node.kubernetes.io/instance-type": instance_type,
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": product,
            "nvidia.com/gpu.family": family,
            "nvidia.com/gpu.count": str(gpus),
            "nvidia.com/gpu.memory": str(gpu_memory_mib),
            "nvidia.com/gpu.compute.major": str(compute[0]),
            "nvidia.com/gpu.compute.minor": str(compute[1]),
        },
        taints=(GPU_TAINT,),
    )


# Instance sizes: https://aws.amazon.com/ec2/instance-types/p5/ (p5.48xlarge),
# https://aws.amazon.com/ec2/instance-types/g6/ (g6.xlarge, 12xlarge, 48xlarge) and
# https://aws.amazon.com/ec2/instance-types/m7i/ (m7i.4xlarge). GPU memory is what `nvidia-smi`
# reports as total in MiB, which is what GPU feature discovery puts in the label.
NODE_CLASSES: Mapping[str, NodeClass] = MappingProxyType(
    {
        node_class.name: node_class
        for node_class in (
            _gpu_class(
                "h100",
                instance_type="p5.48xlarge",
                cpu=192,
                memory="2048Gi",
                gpus=8,
                product="NVIDIA-H100-80GB-HBM3",
                family="hopper",
                gpu_memory_mib=81559,
                compute=(9, 0),
            ),
            _gpu_class(
                "l4",
                instance_type="g6.xlarge",
                cpu=4,
                memory="16Gi",
                gpus=1,
                product="NVIDIA-L4",
                family="ada-lovelace",
                gpu_memory_mib=23034,
                compute=(8, 9),
            ),
            _gpu_class(
                "l4x4",
                instance_type="g6.12xlarge",
                cpu=48,
                memory="192Gi",
                gpus=4,
                product="NVIDIA-L4",
                family="ada-lovelace",
                gpu_memory_mib=23034,
                compute=(8, 9),
            ),
            _gpu_class(
                "l4x8",
                instance_type="g6.48xlarge",
                cpu=192,
                memory="768Gi",
                gpus=8,
                product="NVIDIA-L4",
                family="ada-lovelace",
                gpu_memory_mib=23034,
                compute=(8, 9),
            ),
            NodeClass(
                name="cpu",
                cpu=16,
                memory="64Gi",
                labels={"node.kubernetes.io/instance-type": "m7i.4xlarge"},
            ),
        )
    }
)
"""Every node class by its name on the command line."""


def parse_node_counts(text: str) -> list[tuple[NodeClass, int]]:
    """Read `h100=2,l4=4,cpu=1` as classes with the number of nodes of each.

    `h100:1=2` asks for two H100 nodes with one GPU each. Raises ValueError with a sentence that
    names the part at fault.
    """
    counts: list[tuple[NodeClass, int]] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        kind, _, count = part.partition("=")
        name, _, gpus = kind.partition(":")
        if name not in NODE_CLASSES:
            raise ValueError(f"unknown node class {name!r} in {part!r}; known: {', '.join(NODE_CLASSES)}")
        numbers = [count or "1", gpus or "1"]
        if not all(number.isdecimal() for number in numbers):
            raise ValueError(f"{part!r} is not CLASS[:GPUS]=COUNT, for example h100:1=2")
        node_class = NODE_CLASSES[name]
        counts.append((node_class.with_gpus(int(gpus)) if gpus else node_class, int(count or "1")))
    return counts


def node_manifest(
    name: str,
    cls: NodeClass,
    *,
    annotations: Mapping[str, str] | None = None,
    zone: str = ZONES[0],
) -> dict[str, Any]:
    """Return the `v1` Node of this name and class, `status` with capacity and allocatable included.

    The API server drops `status` on create only for kinds whose strategy says so, and Node's does
    not; who registers the node keeps the conditions current.
    """
    resources = {"cpu": str(cls.cpu), "memory": cls.memory, "pods": str(MAX_PODS)}
    if cls.gpus:
        resources[GPU_RESOURCE] = str(cls.gpus)
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/region": "local",
        "topology.kubernetes.io/zone": zone,
        **cls.labels,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": dict(annotations or {})},
        "spec": {"taints": [dict(taint) for taint in cls.taints]},
        "status": {"capacity": resources, "allocatable": dict(resources)},
    }


def node_manifests(
    counts: Sequence[tuple[NodeClass, int]],
    *,
    annotations: Mapping[str, str] | None = None,
    prefix: str = "",
) -> list[dict[str, Any]]:
    """Return a Node per counted node, named `CLASS-0`, `CLASS-1`, ... after `prefix`, spread over `ZONES`."""
    manifests: list[dict[str, Any]] = []
    taken: dict[str, int] = {}
    for cls, count in counts:
        for _ in range(count):
            index = taken.get(cls.name, 0)
            taken[cls.name] = index + 1
            zone = ZONES[index % len(ZONES)]
            name = f"{prefix}{cls.name}-{index}"
            manifests.append(node_manifest(name, cls, annotations=annotations, zone=zone))
    return manifests
