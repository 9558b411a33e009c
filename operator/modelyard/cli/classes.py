"""AcceleratorClasses as the catalogue describes them, where neither the files nor what runs defines them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import GROUP
from modelyard.catalog.accelerators import Accelerator, find_accelerator, load_accelerators

CLASS_LABEL: Final = f"{GROUP}/accelerator-class"
"""Node label that finds the nodes of a class of the catalogue, in an inventory file: no product label is known."""

_SPOT_LABELS: Final = {"karpenter.sh/capacity-type": "spot"}
"""https://karpenter.sh/docs/concepts/nodepools/."""


def default_class(name: str) -> AcceleratorClass | None:
    """Return the class that a name such as `l4`, `h100` or `a100-40gb-1g.10gb` means; None if it means none."""
    plain = _build(name, "nvidia.com/gpu")
    found = find_accelerator(plain)
    return None if found is None else _describe(name, found)


def catalogue_classes() -> dict[str, AcceleratorClass]:
    """Return a class for each whole device of the catalogue that has a price: without one, none is compared."""
    return {
        name: _describe(name, item)
        for item in load_accelerators()
        if item.profile is None and item.hardware.on_demand is not None
        for name in (item.hardware.name.lower(),)
    }


def complete_classes(
    known: Mapping[str, AcceleratorClass], named: Iterable[str]
) -> tuple[dict[str, AcceleratorClass], list[str], frozenset[str]]:
    """Return the known classes and those of the catalogue that are named, with notes, and the names that mean none."""
    found, notes, missing = dict(known), [], set()
    for name in sorted(set(named) - set(known)):
        default = default_class(name)
        if default is None:
            missing.add(name)
            continue
        found[name] = default
        notes.append(
            f"AcceleratorClass {name} is in no file: the catalogue's memory, speed and price are used"
        )
    return found, notes, frozenset(missing)


def named_classes(deployments: Iterable[LLMDeployment]) -> set[str]:
    """Return the classes that deployments name."""
    return {option.class_name for item in deployments for option in item.spec.placement.accelerators}


def _describe(name: str, accelerator: Accelerator) -> AcceleratorClass:
    """Return a class of the accelerator, with spot capacity where the catalogue knows its price."""
    resource = "nvidia.com/gpu"
    if accelerator.profile is not None:
        resource = f"nvidia.com/mig-{accelerator.profile}"
    elif accelerator.hardware.name.startswith("MI"):
        resource = "amd.com/gpu"
    return _build(name, resource, spot=accelerator.hardware.spot is not None)


def _build(name: str, resource: str, *, spot: bool = False) -> AcceleratorClass:
    spec: dict[str, Any] = {"resourceName": resource, "nodeSelector": {CLASS_LABEL: name}}
    if spot:
        spec["spot"] = {"nodeSelector": _SPOT_LABELS}
    return AcceleratorClass.model_validate({"metadata": {"name": name}, "spec": spec})
