"""The catalogue of accelerators, and which entry a class means."""

from decimal import Decimal
from typing import Any

import pytest

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.catalog.accelerators import describe, find_hardware, load_accelerators
from modelyard.catalog.hardware import Hardware

GIB = 2**30
GPU = "nvidia.com/gpu"


def make_class(name: str = "gpus", **spec: Any) -> AcceleratorClass:
    return AcceleratorClass.model_validate({"metadata": {"name": name}, "spec": spec})


def described(name: str = "gpus", **spec: Any) -> Hardware:
    found = describe(make_class(name, **spec))
    assert found is not None
    return found


def test_every_entry_is_whole() -> None:
    names = [item.hardware.name for item in load_accelerators()]
    assert len(names) == len(set(names))
    for item in load_accelerators():
        hardware = item.hardware
        assert hardware.memory > 4 * GIB
        assert hardware.bandwidth is not None
        assert hardware.bandwidth > 1e11
        assert hardware.throughput["bf16"] > 1e13
        assert (hardware.on_demand is not None) == bool(hardware.price_source)
        assert hardware.spot is None or (
            hardware.on_demand is not None and hardware.spot <= hardware.on_demand
        )
        assert hardware.partition == (item.profile is not None)


def test_the_asked_kinds_are_there() -> None:
    names = {item.hardware.name for item in load_accelerators()}
    assert names >= {
        *("T4", "L4", "A10G", "L40S", "A100-40GB-SXM", "A100-80GB-SXM", "A100-80GB-PCIe", "H100-SXM"),
        *("H100-PCIe", "H100-NVL", "H200", "B200", "GB200", "MI300X", "A100-40GB-SXM-1g.5gb"),
        *("A100-80GB-SXM-3g.40gb", "H100-SXM-1g.10gb", "H100-SXM-2g.20gb", "H200-1g.18gb", "H200-3g.71gb"),
    }


def test_slices_of_a_device_do_not_have_more_than_the_device() -> None:
    # Two 3g slices are what an H100 can be cut into: half of the memory and bandwidth each, 60 of 132 multiprocessors.
    whole, part = find_hardware("H100-SXM"), find_hardware("H100-SXM-3g.40gb")
    assert whole is not None
    assert part is not None
    assert 2 * part.memory <= whole.memory
    assert part.bandwidth == pytest.approx((whole.bandwidth or 0) / 2)
    assert part.throughput["fp8"] == pytest.approx(whole.throughput["fp8"] * 60 / 132)
    assert part.on_demand == Decimal("3.44")
    assert part.link is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100", "H100-SXM"),
        ("h100-pcie", "H100-PCIe"),
        ("team-h100-nvl-spot", "H100-NVL"),
        ("a100", "A100-40GB-SXM"),
        ("a100-80gb", "A100-80GB-SXM"),
        ("nvidia-tesla-a100", "A100-40GB-SXM"),
        ("nvidia-a100-80gb", "A100-80GB-SXM"),
        ("l4", "L4"),
        ("l40s", "L40S"),
        ("tesla-t4", "T4"),
        ("h200", "H200"),
        ("mi300x", "MI300X"),
        ("h100-1g-10gb", "H100-SXM-1g.10gb"),
        ("a100-80gb-2g.20gb", "A100-80GB-SXM-2g.20gb"),
    ],
)
def test_name_of_the_class_finds_it(name: str, expected: str) -> None:
    assert described(name, resourceName=GPU).name == expected
    found = find_hardware(name)
    assert found is not None
    assert found.name == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "H100-SXM"),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-80GB-PCIe"}, "A100-80GB-PCIe"),
        ({"nvidia.com/gpu.product": "Tesla-T4-SHARED"}, "T4"),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-PCIe-MIG-3g.40gb"}, "H100-PCIe-3g.40gb"),
        ({"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, "MI300X"),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, "L4"),
        ({"karpenter.k8s.aws/instance-gpu-name": "l40s"}, "L40S"),
    ],
)
def test_product_label_goes_before_the_name(selector: dict[str, str], expected: str) -> None:
    assert described("a10g", resourceName=GPU, nodeSelector=selector).name == expected


def test_resource_of_a_profile_finds_the_slice_with_the_least_memory() -> None:
    assert described(resourceName="nvidia.com/mig-1g.10gb").name == "A100-80GB-SXM-1g.10gb"
    assert described(resourceName="nvidia.com/mig-1g.10gb.me").name == "A100-80GB-SXM-1g.10gb"
    assert described("h100-small", resourceName="nvidia.com/mig-1g.10gb").name == "H100-SXM-1g.10gb"
    label = {"nvidia.com/mig-2g.20gb.product": "NVIDIA-H100-80GB-HBM3-MIG-2g.20gb"}
    found = described("a100", resourceName="nvidia.com/mig-2g.20gb", nodeSelector=label)
    assert found.name == "H100-SXM-2g.20gb"
    on_gke = {
        "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
        "cloud.google.com/gke-gpu-partition-size": "3g.40gb",
    }
    assert described(resourceName=GPU, nodeSelector=on_gke).name == "H100-SXM-3g.40gb"


def test_class_overrides_field_by_field() -> None:
    found = described(
        "h100",
        resourceName=GPU,
        memory="70Gi",
        memoryBandwidth=3000,
        throughput={"bf16": 900},
        price={"onDemand": "2.5"},
    )
    assert (found.memory, found.bandwidth) == (70 * GIB, 3e12)
    assert found.throughput == {"bf16": 9e14, "fp8": 1.979e15, "int8": 1.979e15}
    assert (found.on_demand, found.spot, found.price_source) == (Decimal("2.5"), None, "AcceleratorClass")
    assert found.link == 450e9


def test_unknown_accelerator_needs_memory() -> None:
    assert describe(make_class("fast", resourceName=GPU)) is None
    found = described(
        "fast", resourceName="example.com/npu", memory="32Gi", price={"onDemand": "1", "spot": "0.5"}
    )
    assert found == Hardware(
        name="fast",
        memory=32 * GIB,
        on_demand=Decimal(1),
        spot=Decimal("0.5"),
        price_source="AcceleratorClass",
    )


def test_cpu_class_has_the_memory_of_its_pods() -> None:
    requests = {"cpu": "8", "memory": "24Gi"}
    assert described("l4", requests=requests) == Hardware(name="l4", memory=24 * GIB)
    assert described("cpu", requests=requests, memory="20Gi", memoryBandwidth=80) == Hardware(
        name="cpu", memory=20 * GIB, bandwidth=80e9
    )
