"""The catalogue of accelerators, and what an `AcceleratorClass` means by it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from modelyard.api.acceleratorclass import AcceleratorClass, AcceleratorClassSpec
from modelyard.api.quantities import parse_quantity
from modelyard.catalog.hardware import Hardware

_GIB = 2**30
_GIGA = 1e9
_TERA = 1e12

_PRODUCT_LABELS = (
    # https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery
    "nvidia.com/gpu.product",
    # https://github.com/ROCm/k8s-device-plugin/blob/master/cmd/k8s-node-labeller/README.md
    "amd.com/gpu.product-name",
    "beta.amd.com/gpu.product-name",
    # https://cloud.google.com/kubernetes-engine/docs/how-to/gpus
    "cloud.google.com/gke-accelerator",
    # https://karpenter.sh/docs/reference/instance-types/
    "karpenter.k8s.aws/instance-gpu-name",
)
"""Node labels whose value names the accelerator, most exact first."""

_SLICE_PRODUCT_LABEL = re.compile(r"^nvidia\.com/mig-.+\.product$")
"""GPU Feature Discovery's product label of one MIG profile, where a node has several."""

_SLICE_LABEL = "cloud.google.com/gke-gpu-partition-size"
"""Node label whose value is a MIG profile."""

_SLICE_RESOURCE = re.compile(r"^nvidia\.com/mig-(?P<profile>.+)$")
"""Extended resource of one MIG profile."""

_SLICE = re.compile(r"(?<![0-9a-z])(?P<profile>[1-7]g[.-]?[0-9]+gb)(?![0-9a-z])", re.IGNORECASE)
"""A MIG profile inside a product or class name, such as `NVIDIA-A100-SXM4-80GB-MIG-1g.10gb` or `h100-1g-10gb`."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An entry of the catalogue: a whole device or one MIG slice."""

    hardware: Hardware
    products: frozenset[str]
    """Values of the product labels of nodes, in normal form."""
    names: frozenset[str]
    """What a class may be called that means it, in normal form."""
    profile: str | None = None
    """MIG profile such as `1g.10gb`; None: the whole device."""


@cache
def load_accelerators() -> tuple[Accelerator, ...]:
    """Return the catalogue in its order, each device followed by its MIG slices."""
    text = files("modelyard.catalog").joinpath("accelerators.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return tuple(
        accelerator
        for entry in document["accelerators"]
        for accelerator in _read_entry(entry, document["prices"])
    )


def find_hardware(name: str) -> Hardware | None:
    """Return what the catalogue means by a name such as `H100-SXM`, `l4` or `a100-80gb-1g.10gb`."""
    found = _choose(_named(name))
    return found.hardware if found else None


def describe(accelerator_class: AcceleratorClass) -> Hardware | None:
    """Return what the arithmetic needs to know of a class, None if neither it nor the catalogue gives memory.

    The catalogue's entry is found by the node selector's product label, the MIG profile of the resource, or the
    class's own name (`h100`, `team-a100-80gb`, `l4-spot`), in this order. A name that means several entries means the
    one with the least memory, so that what is promised fits on each of them, and of those the catalogue's first.
    What the class states replaces the catalogue's figure, field by field.
    """
    spec = accelerator_class.spec
    found = find_accelerator(accelerator_class) if spec.resource_name is not None else None
    memory = _stated_memory(spec)
    if found is None and memory is None:
        return None
    known = found.hardware if found else Hardware(name=accelerator_class.metadata.name, memory=0)
    return _override(known if memory is None else replace(known, memory=memory), spec)


def find_accelerator(accelerator_class: AcceleratorClass) -> Accelerator | None:
    """Return the catalogue's entry for a class that has accelerators, None if there is none."""
    spec, name = accelerator_class.spec, accelerator_class.metadata.name
    profile = _stated_profile(spec)
    for candidates in (_with_product(spec), _named(name)):
        if profile is not None:
            candidates = [item for item in _with_slices(candidates) if item.profile == profile]
        if candidates:
            return _choose(candidates)
    if profile is not None:
        return _choose(item for item in load_accelerators() if item.profile == profile)
    return None


def _choose(candidates: Iterable[Accelerator]) -> Accelerator | None:
    """Return the one with the least memory. `min` keeps the first of equals, which is the catalogue's first."""
    return min(candidates, key=lambda item: item.hardware.memory, default=None)


def _with_product(spec: AcceleratorClassSpec) -> list[Accelerator]:
    """Return the entries that the node selector's product label names; the most exact label wins."""
    selector = spec.node_selector
    exact = [value for key, value in sorted(selector.items()) if _SLICE_PRODUCT_LABEL.match(key)]
    for value in (*exact, *(selector[key] for key in _PRODUCT_LABELS if key in selector)):
        # A time-sliced GPU carries the suffix; its memory is that of the device.
        product = _normalise(value.removesuffix("-SHARED"))
        found = [item for item in load_accelerators() if product in item.products] or _named(value)
        if found:
            return found
    return []


def _named(name: str) -> list[Accelerator]:
    """Return the entries that a name means: those with the longest alias that stands in it as whole words."""
    match = _SLICE.search(name)
    profile = _profile(match["profile"]) if match else None
    words = f"-{_normalise(_SLICE.sub('', name))}-"
    best: list[Accelerator] = []
    length = 0
    for accelerator in load_accelerators():
        if accelerator.profile is not None:
            continue
        matched = max((len(alias) for alias in accelerator.names if f"-{alias}-" in words), default=0)
        if matched > length:
            best, length = [accelerator], matched
        elif matched == length > 0:
            best.append(accelerator)
    if profile is None:
        return best
    return [item for item in _with_slices(best) if item.profile == profile]


def _with_slices(devices: Iterable[Accelerator]) -> Iterator[Accelerator]:
    """Yield the entries, and the slices of those that are whole devices."""
    names = {item.hardware.name for item in devices}
    for item in load_accelerators():
        device = item.hardware.name.removesuffix(f"-{item.profile}")
        if item.hardware.name in names or device in names:
            yield item


def _stated_profile(spec: AcceleratorClassSpec) -> str | None:
    """Return the MIG profile that the resource, or the node selector, names."""
    match = _SLICE_RESOURCE.match(spec.resource_name or "")
    text = match["profile"] if match else spec.node_selector.get(_SLICE_LABEL)
    return _profile(text) if text else None


def _stated_memory(spec: AcceleratorClassSpec) -> int | None:
    """Return bytes: `spec.memory`, or for a CPU-only class the memory that its pods ask for."""
    if spec.memory is not None:
        return int(parse_quantity(spec.memory))
    if spec.resource_name is None and spec.requests is not None:
        return int(parse_quantity(spec.requests.memory))
    return None


def _override(hardware: Hardware, spec: AcceleratorClassSpec) -> Hardware:
    """Replace the catalogue's figures by those of the class."""
    changes: dict[str, Any] = {}
    if spec.memory_bandwidth is not None:
        changes["bandwidth"] = spec.memory_bandwidth * _GIGA
    if spec.throughput is not None:
        stated = spec.throughput.model_dump(exclude_none=True)
        changes["throughput"] = dict(hardware.throughput) | {
            precision: value * _TERA for precision, value in stated.items()
        }
    if spec.price is not None:
        # The catalogue's spot price belongs to its own on-demand price, so it does not stay beside another.
        changes |= {
            "on_demand": Decimal(spec.price.on_demand),
            "spot": None if spec.price.spot is None else Decimal(spec.price.spot),
            "price_source": "AcceleratorClass",
        }
    return replace(hardware, **changes)


def _profile(text: str) -> str:
    """Return a MIG profile in its usual form. Media extensions (`+me`, `.me`) change neither memory nor speed."""
    plain = re.sub(r"[.+]me(\.all)?$", "", text.lower())
    return re.sub(r"^([1-7]g)[.-]?", r"\1.", plain)


def _normalise(name: str) -> str:
    """Return a name in the form that is compared: lower case, one dash between words, no vendor."""
    words = re.sub(r"[^0-9a-z.]+", "-", name.lower()).strip("-")
    return re.sub(r"^(nvidia|amd-instinct|amd)-", "", words)


def _read_entry(entry: Mapping[str, Any], prices: Mapping[str, str]) -> Iterator[Accelerator]:
    """Yield the device and its slices."""
    price: Mapping[str, str] = entry.get("price", {})
    device = Hardware(
        name=entry["name"],
        memory=int(entry["memory"] * _GIB),
        bandwidth=entry["bandwidth"] * _GIGA,
        throughput={precision: value * _TERA for precision, value in entry["throughput"].items()},
        link=entry["link"] * _GIGA,
        on_demand=Decimal(price["on_demand"]) if "on_demand" in price else None,
        spot=Decimal(price["spot"]) if "spot" in price else None,
        price_source=prices[price["source"]] if price else "",
    )
    products = frozenset(map(_normalise, entry["products"]))
    names = frozenset(map(_normalise, (entry["name"], *entry["products"], *entry.get("names", ()))))
    yield Accelerator(device, products, names)
    for profile, (memory, multiprocessors, eighths) in entry.get("slices", {}).items():
        share = multiprocessors / entry["multiprocessors"]
        yield Accelerator(
            hardware=Hardware(
                name=f"{device.name}-{profile}",
                memory=int(memory * _GIB),
                bandwidth=entry["bandwidth"] * _GIGA * eighths / 8,
                throughput={precision: value * share for precision, value in device.throughput.items()},
                on_demand=_slice_price(device.on_demand, profile, eighths),
                spot=_slice_price(device.spot, profile, eighths),
                price_source=f"share of {device.name}: {device.price_source}" if device.price_source else "",
                partition=True,
            ),
            products=frozenset(f"{product}-mig-{profile}" for product in products),
            names=frozenset(f"{name}-{profile}" for name in names),
            profile=profile,
        )


def _slice_price(price: Decimal | None, profile: str, eighths: int) -> Decimal | None:
    """Return the price of the larger of the slice's shares: sevenths of compute (its first digit), eighths of memory.

    What it takes of the scarcer of the two cannot be sold again.
    """
    if price is None:
        return None
    share = max(Decimal(int(profile[0])) / 7, Decimal(eighths) / 8)
    return round(price * share, 4)
