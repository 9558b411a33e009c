"""An inventory: what there is to run on and what runs, from a file. `live.py` reads the same from a cluster."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import API_VERSION, ApiModel, DnsSubdomain, LabelKey, LabelValue, split_key
from modelyard.api.placement import MOST_NODES
from modelyard.api.validation import read_manifest
from modelyard.cli.manifests import InputError, load_yaml, read_text
from modelyard.core.inventory import ZONE_LABEL, Inventory, Node, Usage, build_inventory
from modelyard.core.report.running import RunningVariant
from modelyard.core.snapshot import ChildDeployment, Pod

INVENTORY_API: Final = "plan.modelyard.dev/v1alpha1"
"""Not a kind of the cluster: a group of its own, so that `validate` and kubectl take it for no such thing."""
INVENTORY_KIND: Final = "Inventory"

_KeyText = Annotated[str, Field(pattern=r"^([a-z0-9][-a-z0-9]{0,62}/)?[a-z][-a-z0-9]{0,45}$")]


class _Strict(ApiModel):
    """A mistyped field is refused: nobody else would tell."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class NodeEntry(_Strict):
    """Nodes that are alike."""

    class_name: DnsSubdomain | None = Field(default=None, alias="class")
    """AcceleratorClass whose nodes these are: its resource and labels are theirs."""
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    accelerators: Annotated[int, Field(ge=1, le=1024)]
    """Of each node."""
    used: Annotated[int, Field(ge=0, le=1024)] = 0
    """Accelerators of each node that others hold."""
    resource: Annotated[str, Field(max_length=317)] | None = None
    """Extended resource. Default: that of the class, else nvidia.com/gpu."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)
    spot: bool = False
    """Spot capacity: the nodes also have the labels of the class's `spot.nodeSelector`."""
    zone: LabelValue | None = None


UNSTATED_ZONE = "unstated"
"""Zone of nodes that state none: every cloud labels its nodes, and spot pods are only placed on nodes with a zone."""


class RunningEntry(_Strict):
    """Replicas that run."""

    deployment: _KeyText
    """`namespace/name`; without a namespace, that of `--namespace`."""
    class_name: DnsSubdomain = Field(alias="class")
    count: Annotated[int, Field(ge=1, le=16)] = 1
    """Accelerators of one replica, on each of its nodes."""
    nodes: Annotated[int, Field(ge=1, le=MOST_NODES)] = 1
    """Nodes that one replica spans."""
    spot: bool = False
    replicas: Annotated[int, Field(ge=0, le=1000)]


class InventoryFile(_Strict):
    """The Inventory document."""

    api_version: Literal["plan.modelyard.dev/v1alpha1"]
    kind: Literal["Inventory"]
    nodes: Annotated[tuple[NodeEntry, ...], Field(max_length=1000)] = ()
    running: Annotated[tuple[RunningEntry, ...], Field(max_length=10_000)] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """What there is now."""

    accelerators: Mapping[str, AcceleratorClass] = field(default_factory=dict)
    running: Mapping[str, tuple[RunningVariant, ...]] = field(default_factory=dict)
    """By `namespace/name`."""
    nodes: tuple[Node, ...] | None = None
    """None: not read."""
    usages: tuple[Usage, ...] = ()
    complete: bool = True
    """Whether the accelerators that others hold are known."""
    deployments: Mapping[str, LLMDeployment] = field(default_factory=dict)
    """Those of a cluster; a file says only what runs."""
    pods: Mapping[str, tuple[Pod, ...]] = field(default_factory=dict)
    children: Mapping[str, Mapping[str, ChildDeployment]] = field(default_factory=dict)
    priorities: Mapping[str, int] = field(default_factory=dict)
    live: bool = False
    notes: tuple[str, ...] = ()

    def measure(self, managed: frozenset[str], gone: frozenset[str]) -> Inventory | None:
        """Return the nodes and what is free. What is not managed counts as held by others; what is gone as free."""
        if self.nodes is None:
            return None
        usages = [
            usage if usage.deployment in managed else Usage(usage.node, "", "", usage.accelerators)
            for usage in self.usages
            if usage.deployment not in gone or not usage.deployment
        ]
        return build_inventory(self.nodes, usages, complete=self.complete)


@dataclass(frozen=True, slots=True)
class ReadInventory:
    """An inventory file, before its classes are known: the manifests may define them too."""

    document: InventoryFile
    accelerators: Mapping[str, AcceleratorClass]


def read_inventory(path: Path) -> ReadInventory:
    """Read an inventory file: one Inventory document, and AcceleratorClasses beside it.

    Raises InputError with a line that names the field.
    """
    document: InventoryFile | None = None
    accelerators: dict[str, AcceleratorClass] = {}
    for item in load_yaml(read_text(path)):
        if not isinstance(item, Mapping):
            raise InputError("a document of an inventory is a mapping")
        if item.get("apiVersion") == API_VERSION and item.get("kind") == "AcceleratorClass":
            found = _read_class(item)
            accelerators[found.metadata.name] = found
        elif document is None:
            document = _read_document(item)
        else:
            raise InputError(
                f"more than one document that is no AcceleratorClass: one {INVENTORY_KIND} is wanted"
            )
    if document is None:
        raise InputError(f"no document of apiVersion {INVENTORY_API} and kind {INVENTORY_KIND}")
    return ReadInventory(document, accelerators)


def _read_class(item: Mapping[str, Any]) -> AcceleratorClass:
    found, problems = read_manifest(item)
    if not isinstance(found, AcceleratorClass):
        raise InputError("; ".join(str(problem) for problem in problems))
    return found


def _read_document(item: Mapping[str, Any]) -> InventoryFile:
    try:
        return InventoryFile.model_validate(dict(item), by_name=False, by_alias=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {first['msg']}") from error


def build_present(
    read: ReadInventory, accelerators: Mapping[str, AcceleratorClass], namespace: str
) -> Present:
    """Return what the file says there is, with all known classes. Raises InputError for a class that none defines."""
    nodes = tuple(_nodes(read.document, accelerators))
    running: dict[str, list[RunningVariant]] = {}
    for entry in read.document.running:
        if entry.class_name not in accelerators:
            raise InputError(
                f"running: class {entry.class_name} is defined nowhere: add its AcceleratorClass"
            )
        key = entry.deployment if "/" in entry.deployment else f"{namespace}/{entry.deployment}"
        running.setdefault(key, []).append(
            RunningVariant(
                entry.class_name,
                entry.count * entry.nodes,
                entry.replicas,
                spot=entry.spot,
                nodes=entry.nodes,
            )
        )
    usages, notes = _seat(nodes, running, accelerators, read.document)
    return Present(
        accelerators=read.accelerators,
        running={key: tuple(variants) for key, variants in running.items()},
        nodes=nodes,
        usages=usages,
        children={
            key: {variant.name: ChildDeployment(replicas=variant.replicas) for variant in variants}
            for key, variants in running.items()
        },
        notes=notes,
    )


def _nodes(document: InventoryFile, accelerators: Mapping[str, AcceleratorClass]) -> Iterator[Node]:
    for index, entry in enumerate(document.nodes):
        labels: dict[str, str] = {}
        resource = entry.resource or "nvidia.com/gpu"
        if entry.class_name is not None:
            accelerator = accelerators.get(entry.class_name)
            if accelerator is None:
                raise InputError(
                    f"nodes.{index}: class {entry.class_name} is defined nowhere: add its AcceleratorClass"
                )
            spec = accelerator.spec
            if entry.spot and spec.spot is None:
                raise InputError(f"nodes.{index}: class {entry.class_name} has no spot capacity (spec.spot)")
            resource = entry.resource or spec.resource_name or resource
            labels = {**spec.node_selector, **(spec.spot.node_selector if entry.spot and spec.spot else {})}
        labels[ZONE_LABEL] = entry.zone or UNSTATED_ZONE
        for number in range(entry.count):
            yield Node(
                name=f"node-{index:04d}-{number:05d}",
                labels={**labels, **entry.labels},
                accelerators={resource: entry.accelerators},
            )


def _seat(
    nodes: tuple[Node, ...],
    running: Mapping[str, list[RunningVariant]],
    accelerators: Mapping[str, AcceleratorClass],
    document: InventoryFile,
) -> tuple[tuple[Usage, ...], tuple[str, ...]]:
    """Put what runs on nodes of its class, the largest replicas first: the file does not say on which they are."""
    free = {node.name: dict(node.accelerators) for node in nodes}
    usages = []
    for entry_index, entry in enumerate(document.nodes):
        for node in nodes:
            if entry.used and node.name.startswith(f"node-{entry_index:04d}-"):
                (resource,) = node.accelerators
                free[node.name][resource] -= entry.used
                usages.append(Usage(node.name, "", "", {resource: entry.used}))
    missing: dict[str, int] = {}
    rows = [(key, variant) for key, variants in sorted(running.items()) for variant in variants]
    for key, variant in sorted(rows, key=lambda row: (-row[1].count, row[0], row[1].name)):
        spec = accelerators[variant.class_name].spec
        if spec.resource_name is None:
            continue
        wanted = {**spec.node_selector, **(spec.spot.node_selector if variant.spot and spec.spot else {})}
        per_node, left = variant.count // variant.nodes, variant.replicas * variant.nodes
        for node in nodes:
            while (
                left
                and wanted.items() <= node.labels.items()
                and free[node.name].get(spec.resource_name, 0) >= per_node
            ):
                free[node.name][spec.resource_name] -= per_node
                held = {spec.resource_name: per_node}
                usages.append(Usage(node.name, key, variant.name, held, nodes=variant.nodes))
                left -= 1
        if left:
            missing[key] = missing.get(key, 0) + math.ceil(left / variant.nodes)
    notes = tuple(
        f"the inventory has no room for {count} of the running replicas of {key}"
        for key, count in sorted(missing.items())
    )
    return tuple(usages), notes


def split_namespace(key: str, namespace: str) -> str:
    """Return `namespace/name` of what a user wrote with or without a namespace."""
    return key if split_key(key)[1] else f"{namespace}/{key}"
