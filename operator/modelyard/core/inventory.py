"""Which accelerators can be had: nodes, what is free on them, and what node autoscaling could add."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelyard.api.acceleratorclass import AcceleratorClass, Toleration
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.quantities import parse_duration
from modelyard.core.placement.problem import NodeGroup

ZONE_LABEL = "topology.kubernetes.io/zone"
"""https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone."""

DEFAULT_PER_NODE = 8
"""Accelerators of a node of a class that states no `perNode` and has no node yet: the size of the usual HGX node."""

UNLIMITED = 100_000
"""Replicas of a class without accelerators: CPU is not counted here, the scheduler does that."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node that keeps pods away: `NoSchedule` or `NoExecute`."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Node:
    """A node with accelerators."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    schedulable: bool = True
    """False: cordoned, or not Ready."""
    accelerators: Mapping[str, int] = field(default_factory=dict)
    """Allocatable extended resources."""

    @property
    def zone(self) -> str:
        """Failure zone; empty if it says none."""
        return self.labels.get(ZONE_LABEL, "")


@dataclass(frozen=True, slots=True)
class Usage:
    """Accelerators that one pod holds."""

    node: str
    deployment: str
    """`namespace/name` of the LLMDeployment; empty for a pod of others, or one on its way out."""
    variant: str
    accelerators: Mapping[str, int]
    nodes: int = 1
    """Pods of the replica that it belongs to, each on a node as a rule."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A replica of a deployment on a node, or the part of it that is there."""

    deployment: str
    variant: str
    resource: str
    count: int
    nodes: int = 1
    """Pods of the replica."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node and what is used of it."""

    node: Node
    free: Mapping[str, int]
    """Accelerators that nobody holds, by resource."""
    holdings: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """All nodes with accelerators."""

    nodes: tuple[NodeState, ...] = ()
    complete: bool = True
    """False: pods of other namespaces are not read, so what is free is an upper bound."""


def build_inventory(nodes: Iterable[Node], usages: Iterable[Usage], *, complete: bool) -> Inventory:
    """Return the inventory: what each node has, less what pods hold."""
    by_node: dict[str, list[Usage]] = defaultdict(list)
    for usage in usages:
        by_node[usage.node].append(usage)
    states = []
    for node in sorted(nodes, key=lambda node: node.name):
        free = dict(node.accelerators)
        holdings = []
        for usage in by_node[node.name]:
            for resource, count in usage.accelerators.items():
                free[resource] = free.get(resource, 0) - count
                if usage.deployment:
                    holdings.append(Holding(usage.deployment, usage.variant, resource, count, usage.nodes))
        left = {resource: max(count, 0) for resource, count in free.items()}
        holdings.sort(key=lambda item: (item.deployment, item.variant, item.resource))
        states.append(NodeState(node, left, tuple(holdings)))
    return Inventory(tuple(states), complete)


@dataclass(frozen=True, slots=True)
class Pool:
    """What a pod asks of its node. Pods of equal pools compete for the same nodes."""

    resource: str | None
    """Extended resource; None: CPU only."""
    selector: tuple[tuple[str, str], ...] = ()
    avoid: tuple[tuple[str, str], ...] = ()
    """Labels that together mark nodes to stay away from: spot capacity, for pods on demand."""
    tolerations: tuple[Toleration, ...] = ()
    zoned: bool = False
    """True: pods are spread over zones, so a node without a zone is passed over."""
    nodes: int = 1
    """Pods of one replica, each with a node of its own. Above 1, replicas compete for nodes with those of this pool
    alone (`build_groups`)."""
    per_node: int = 0
    """Accelerators of each of them; only looked at where a replica has several."""

    @property
    def name(self) -> str:
        """A name that is equal for equal pools."""
        parts = [self.resource or "cpu", *(f"{key}={value}" for key, value in self.selector)]
        parts += ["zoned"] * self.zoned + [f"!{key}={value}" for key, value in self.avoid]
        parts += [f"{self.nodes} nodes of {self.per_node}"] * (self.nodes > 1)
        parts += [f"~{item.key}:{item.value}:{item.effect}" for item in self.tolerations]
        return ",".join(parts)

    def admits(self, node: Node) -> bool:
        """Return whether such a pod may run on a node, free or not."""
        if self.resource is None or not node.accelerators.get(self.resource):
            return False
        if self.zoned and not node.zone:
            return False
        if any(node.labels.get(key) != value for key, value in self.selector):
            return False
        if self.avoid and all(node.labels.get(key) == value for key, value in self.avoid):
            return False
        return all(any(_tolerates(item, taint) for item in self.tolerations) for taint in node.taints)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in (None, taint.effect):
        return False
    if toleration.key is None:
        return toleration.operator == "Exists"
    if toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == taint.value


def find_pool(
    deployment: LLMDeployment, accelerator: AcceleratorClass, *, spot: bool, nodes: int = 1, per_node: int = 0
) -> Pool:
    """Return what the pods of a deployment ask of their nodes; `nodes` and `per_node` are as in `Pool`."""
    spec = accelerator.spec
    selector = {**deployment.spec.placement.node_selector, **spec.node_selector}
    tolerations = list(spec.tolerations)
    avoid: dict[str, str] = {}
    if spec.spot is not None:
        if spot:
            selector |= spec.spot.node_selector
            tolerations += spec.spot.tolerations
        else:
            avoid = dict(spec.spot.node_selector)
    return Pool(
        resource=spec.resource_name,
        selector=tuple(sorted(selector.items())),
        avoid=tuple(sorted(avoid.items())),
        tolerations=tuple(sorted(tolerations, key=lambda item: item.model_dump_json())),
        zoned=spot and spec.spot is not None,
        nodes=nodes,
        per_node=per_node if nodes > 1 else 0,
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """A pool, and the class whose nodes it uses."""

    pool: Pool
    class_name: str
    spot: bool = False


def node_size(accelerator: AcceleratorClass, inventory: Inventory | None) -> int:
    """Return the accelerators of one node of a class: what it states, else its largest node, else the usual."""
    spec = accelerator.spec
    if spec.resource_name is None:
        return 1
    if spec.per_node is not None:
        return spec.per_node
    sizes = [state.node.accelerators[spec.resource_name] for state in _class_nodes(accelerator, inventory)]
    return max(sizes, default=DEFAULT_PER_NODE)


def count_accelerators(accelerator: AcceleratorClass, inventory: Inventory | None) -> tuple[int, int]:
    """Return how many accelerators the nodes of a class have, and how many of them a new pod could get now."""
    resource, total, free = accelerator.spec.resource_name, 0, 0
    for state in _class_nodes(accelerator, inventory):
        if resource is not None:
            total += state.node.accelerators[resource]
            free += state.free.get(resource, 0) if state.node.schedulable else 0
    return total, free


def _class_nodes(accelerator: AcceleratorClass, inventory: Inventory | None) -> list[NodeState]:
    """Return the nodes of a class, whatever taints they have."""
    spec = accelerator.spec
    pool = Pool(spec.resource_name, tuple(sorted(spec.node_selector.items())), tolerations=(_ANY,))
    states = inventory.nodes if inventory is not None else ()
    return [state for state in states if pool.admits(state.node)]


_ANY = Toleration(operator="Exists")
"""Tolerates every taint."""


def measure_node_sizes(
    accelerators: Mapping[str, AcceleratorClass], inventory: Inventory | None
) -> dict[str, int]:
    """Return the accelerators of one node of every class."""
    return {name: node_size(accelerator, inventory) for name, accelerator in accelerators.items()}


def build_groups(
    inventory: Inventory,
    offers: Iterable[Offer],
    accelerators: Mapping[str, AcceleratorClass],
    movable: frozenset[str],
) -> tuple[NodeGroup, ...]:
    """Return the nodes that the offers may use, grouped by who may use them.

    `movable` are the deployments that the problem places: what they hold counts as theirs to use.

    A replica that spans nodes is no item that fits on one: each such pool gets as many places as the nodes have now,
    and one place is one replica. That two pools may count the same free accelerators is found out by Pending pods.
    """
    offers = sorted(offers, key=lambda offer: (offer.pool.name, offer.class_name, offer.spot))
    spots = {offer.pool.name for offer in offers if offer.spot}
    every = {offer.pool.name: offer.pool for offer in offers}
    pools = {name: pool for name, pool in every.items() if pool.nodes == 1}
    spanning = [pool for pool in every.values() if pool.nodes > 1]
    groups: dict[tuple[str, frozenset[str], str], list[tuple[int, dict[tuple[str, str], int]]]] = defaultdict(
        list
    )
    for state in inventory.nodes:
        for resource in state.node.accelerators:
            names = frozenset(
                name for name, pool in pools.items() if pool.resource == resource and pool.admits(state.node)
            )
            if not names:
                continue
            usable = state.free.get(resource, 0) if state.node.schedulable else 0
            running: dict[tuple[str, str], int] = defaultdict(int)
            for item in state.holdings:
                if item.resource == resource and item.deployment in movable and item.nodes == 1:
                    usable += item.count
                    running[item.deployment, item.variant] += 1
            # A pod that was bound by hand may ask for more than the node has, until its kubelet refuses it.
            usable = min(usable, state.node.accelerators[resource])
            zone = state.node.zone if names & spots else ""
            groups[resource, names, zone].append((usable, dict(running)))
    built = [
        NodeGroup(
            name=f"{resource}/{zone or 'any'}/{index}",
            pools=names,
            free=tuple(usable for usable, _ in nodes),
            zone=zone,
            running=tuple(running for _, running in nodes),
        )
        for index, ((resource, names, zone), nodes) in enumerate(
            sorted(groups.items(), key=lambda item: (item[0][0], item[0][2], sorted(item[0][1])))
        )
    ]
    built += [
        NodeGroup(name=f"cpu/{name}", pools=frozenset({name}), free=(UNLIMITED,))
        for name, pool in pools.items()
        if pool.resource is None
    ]
    built += [
        NodeGroup(
            name=f"groups/{pool.name}",
            pools=frozenset({pool.name}),
            free=(pool.nodes * pool.per_node,) * places,
        )
        for pool in spanning
        if (places := count_places(inventory, pool, movable))
    ]
    return (*built, *_new_nodes(inventory, offers, accelerators))


def _new_nodes(
    inventory: Inventory, offers: Iterable[Offer], accelerators: Mapping[str, AcceleratorClass]
) -> Iterable[NodeGroup]:
    """Yield, for each class that says how many accelerators can be had, the nodes that do not exist yet."""
    offers = tuple(offers)
    for name, accelerator in sorted(accelerators.items()):
        spec = accelerator.spec
        if spec.available is None or spec.resource_name is None:
            continue
        own = Pool(spec.resource_name, tuple(sorted(spec.node_selector.items())), tolerations=(_ANY,))
        present = sum(
            state.node.accelerators[spec.resource_name] for state in inventory.nodes if own.admits(state.node)
        )
        size = node_size(accelerator, inventory)
        missing = max(spec.available - present, 0)
        free = [size] * (missing // size) + ([missing % size] if missing % size else [])
        delay = float(parse_duration(spec.provision_time)) if spec.provision_time else 0.0
        own_pools = [offer.pool for offer in offers if offer.class_name == name]
        single = frozenset(pool.name for pool in own_pools if pool.nodes == 1)
        if free and single:
            yield NodeGroup(name=f"new/{name}", pools=single, free=tuple(free), delay=delay)
        for pool in dict.fromkeys(pool for pool in own_pools if pool.nodes > 1):
            places = sum(count // pool.per_node for count in free) // pool.nodes
            if places:
                yield NodeGroup(
                    name=f"new/{name}/{pool.name}",
                    pools=frozenset({pool.name}),
                    free=(pool.nodes * pool.per_node,) * places,
                    delay=delay,
                )


def count_places(inventory: Inventory, pool: Pool, movable: frozenset[str] = frozenset()) -> int:
    """Return for how many replicas that span nodes there is room, those of `movable` deployments taken away."""
    if pool.resource is None:
        return 0
    parts = 0
    for state in inventory.nodes:
        if pool.admits(state.node):
            free = state.free.get(pool.resource, 0) if state.node.schedulable else 0
            free += sum(
                item.count
                for item in state.holdings
                if item.resource == pool.resource and item.deployment in movable and item.nodes > 1
            )
            parts += min(free, state.node.accelerators[pool.resource]) // pool.per_node
    return parts // pool.nodes
