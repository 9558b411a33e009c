"""Random loads, histories and fleets."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import strategies as st

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.scaling import Scaling
from modelyard.core.availability import AvailabilityMemory, Shortage
from modelyard.core.budget.limits import SizeLimit
from modelyard.core.demand import Demand
from modelyard.core.inventory import Inventory, Usage, build_inventory
from modelyard.core.replicas import SizeInput, SizeMemory, Wanted
from modelyard.core.snapshot import Asked, ChildDeployment, GatewayReading, Pod, Snapshot
from modelyard.core.variants import variant_name
from tests.unit.core.build import (
    make_accelerator,
    make_deployment,
    make_node,
    make_pod,
    make_provider,
    make_route,
    make_tenant,
)

NOW = 1_000_000.0


def shuffle(value: Any, random: Random) -> Any:
    """Return the same with every mapping in it in another order, at any depth of mappings and dataclasses."""
    if isinstance(value, Mapping):
        items = [(key, shuffle(item, random)) for key, item in value.items()]
        random.shuffle(items)
        return dict(items)
    if is_dataclass(value) and not isinstance(value, type):
        changes = {
            item.name: shuffle(getattr(value, item.name), random) for item in fields(value) if item.init
        }
        return replace(value, **changes)
    return value


def shuffle_snapshot(snapshot: Snapshot, random: Random) -> Snapshot:
    """Return a snapshot that says the same in another order, that of a deployment's pods included."""
    shuffled: Snapshot = shuffle(snapshot, random)
    pods = {key: tuple(random.sample(found, len(found))) for key, found in shuffled.pods.items()}
    return replace(shuffled, pods=pods)


rates = st.floats(0.0, 10_000.0)


@st.composite
def scalings(draw: st.DrawFn, low: int = 0) -> Scaling:
    """Valid bounds."""
    smallest = draw(st.integers(low, 20))
    return Scaling(min=smallest, max=draw(st.integers(max(smallest, 1), 40)), idle_after="60s")


@st.composite
def memories(draw: st.DrawFn) -> SizeMemory:
    """Histories as the rule itself makes them: times rise, sizes fall."""
    ages = sorted(draw(st.sets(st.integers(1, 900), max_size=5)), reverse=True)
    sizes = sorted(draw(st.sets(st.integers(1, 40), min_size=len(ages), max_size=len(ages))), reverse=True)
    return SizeMemory(
        since=NOW - draw(st.integers(0, 2000)),
        wanted=tuple(Wanted(NOW - age, size) for age, size in zip(ages, sizes, strict=True)),
        active_at=NOW - draw(st.integers(0, 2000)),
        slept_at=draw(st.none() | st.integers(0, 2000).map(lambda age: NOW - age)),
    )


@st.composite
def inputs(draw: st.DrawFn, *, low: int = 0, known: bool | None = None) -> SizeInput:
    """Everything that the rule may look at; `known` fixes whether demand is known."""
    arrivals = st.none() | st.floats(NOW - 5000.0, NOW)
    demands = st.builds(Demand, rates, arrivals)
    present = draw(st.booleans()) if known is None else known
    return SizeInput(
        scaling=draw(scalings(low)),
        current=draw(st.none() | st.integers(0, 60)),
        serving=draw(st.integers(0, 60)),
        active=draw(st.integers(0, 5)),
        capacity=draw(st.floats(0.01, 100.0)),
        demand=draw(demands) if present else None,
        woken_at=draw(st.none() | st.floats(NOW - 5000.0, NOW)),
    )


NAMES = ("alpha", "beta", "gamma")
NAMESPACES = ("one", "two")
GPU = "nvidia.com/gpu"
CLASSES = ("a10g", "l4", "h100")
ACCELERATORS = {
    "a10g": make_accelerator("a10g", nodeSelector={"kind": "a10g"}, price="0.5"),
    "l4": make_accelerator("l4", nodeSelector={"kind": "l4"}, price="0.8"),
    "h100": make_accelerator(
        "h100",
        price=None,
        nodeSelector={"kind": "h100"},
        spot={"nodeSelector": {"type": "spot"}},
        available=4,
    ),
}
VARIANTS = tuple(
    variant_name(name, count, spot=spot) for name in CLASSES for count in (1, 2) for spot in (False, True)
)
"""Some of them are in no deployment's list, as after a change of its spec."""
ZONE = "topology.kubernetes.io/zone"
NODES = (
    make_node("l4-1", 2),
    make_node("l4-2", 1, schedulable=False),
    make_node("h100-1", 4),
    make_node("h100-2", 2, labels={"kind": "h100", "type": "spot", ZONE: "a"}),
    make_node("h100-3", 2, labels={"kind": "h100", "type": "spot", ZONE: "b"}),
)


@st.composite
def deployments(draw: st.DrawFn, key: str) -> LLMDeployment:
    """A deployment that may share names with others."""
    spec: dict[str, Any] = {"suspend": draw(st.booleans())}
    if draw(st.booleans()):
        spec["replicas"] = draw(st.integers(0, 3))
    else:
        spec["scaling"] = {
            "min": draw(st.integers(1, 2)),
            "max": draw(st.integers(2, 9)),
            "mode": draw(st.sampled_from(["Active", "Advise"])),
            "actuator": draw(st.sampled_from(["Modelyard", "External"])),
        }
    adapters = draw(st.lists(st.sampled_from((*NAMES, "lora")), unique=True, max_size=2))
    model = {
        "name": draw(st.none() | st.sampled_from((*NAMES, "one/alpha"))),
        "adapters": [{"name": name, "source": "hf://org/lora"} for name in adapters],
    }
    status = {
        "readyReplicas": draw(st.integers(0, 2)),
        "gateway": {"generation": draw(st.integers(0, 5))},
    }
    options = [
        {
            "class": name,
            "count": draw(st.integers(1, 2)),
            "requestsPerMinute": draw(st.none() | st.integers(30, 300)),
        }
        for name in draw(st.lists(st.sampled_from(CLASSES), unique=True, min_size=1))
    ]
    placement: dict[str, Any] = {"accelerators": options, "priority": draw(st.none() | st.just("high"))}
    if draw(st.booleans()):
        placement["spot"] = {"onDemandBase": draw(st.integers(0, 2))}
    return make_deployment(
        key,
        created=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
        model=model,
        placement=placement,
        status=status,
        **spec,
    )


@st.composite
def pods(draw: st.DrawFn, key: str) -> tuple[Pod, ...]:
    """Pods of several variants that serve, load or wait for a node."""
    found = []
    for index in range(draw(st.integers(0, 4))):
        node = draw(st.sampled_from(("", *(node.name for node in NODES))))
        ready = bool(node) and draw(st.booleans())
        found.append(
            make_pod(
                f"pod-{index}",
                key,
                address=f"10.0.0.{index}",
                variant=draw(st.sampled_from(VARIANTS)),
                node=node,
                scheduled=bool(node),
                ready=ready,
                phase="Running" if ready else "Pending",
                terminating=draw(st.booleans()),
                waiting="" if node else draw(st.sampled_from(("", "Unschedulable"))),
                accelerators={GPU: draw(st.integers(1, 2))} if node else {},
                created=NOW - draw(st.integers(0, 200)),
            )
        )
    return tuple(found)


def make_inventory(found: dict[str, tuple[Pod, ...]]) -> Inventory:
    """The nodes with what these pods and some of others hold."""
    usages = [
        Usage(pod.node, key if pod.live else "", pod.variant, pod.accelerators)
        for key, items in found.items()
        for pod in items
        if pod.node
    ]
    return build_inventory(NODES, [*usages, Usage("h100-1", "", "", {GPU: 1})], complete=True)


@st.composite
def availabilities(draw: st.DrawFn) -> AvailabilityMemory:
    """What may be remembered of variants that could not be had."""
    shortages = st.builds(
        Shortage,
        ceiling=st.integers(0, 3),
        retry_at=st.integers(-100, 600).map(lambda seconds: NOW + seconds),
        failures=st.integers(1, 5),
        free=st.none() | st.integers(0, 4),
        message=st.just("0/5 nodes are available"),
    )
    missing = draw(st.dictionaries(st.sampled_from(VARIANTS), shortages, max_size=3))
    tried = draw(st.dictionaries(st.sampled_from(VARIANTS), shortages, max_size=2))
    return AvailabilityMemory(missing, {name: item for name, item in tried.items() if name not in missing})


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Small fleets in which names collide, classes are missing and pods come and go."""
    keys = [f"{namespace}/{name}" for namespace in NAMESPACES for name in NAMES]
    chosen = draw(st.lists(st.sampled_from(keys), unique=True))
    routes = [
        make_route(
            key,
            draw(st.sampled_from((*NAMES, "one/alpha"))),
            dict.fromkeys(draw(st.sets(st.sampled_from(NAMES), min_size=1)), draw(st.integers(1, 3))),
            created=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
        )
        for key in draw(st.lists(st.sampled_from(keys), unique=True, max_size=3))
    ]
    running = {key: draw(pods(key)) for key in chosen}
    counts = st.builds(ChildDeployment, st.integers(0, 6))
    children = {
        key: draw(st.dictionaries(st.sampled_from(VARIANTS), counts, min_size=1, max_size=3))
        for key in chosen
        if draw(st.booleans())
    }
    strangers = {key: "Deployment x/y" for key in chosen if draw(st.integers(0, 3)) == 0}
    arrivals = {key: draw(st.floats(0.0, 1e6)) for key in chosen}
    return Snapshot(
        deployments={key: draw(deployments(key)) for key in chosen},
        routes={route.key: route for route in routes},
        accelerators={name: ACCELERATORS[name] for name in draw(st.sets(st.sampled_from(CLASSES)))},
        pods=running,
        children=children,
        strangers=strangers,
        inventory=draw(st.none() | st.just(make_inventory(running))),
        priorities={"high": 1000},
        reading=draw(st.none() | st.just(GatewayReading(NOW, arrivals))),
        wakes={key: NOW for key in chosen if draw(st.booleans())},
    )


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    """The same with what else a decision may look at: tenants, providers, limits of budgets, what routes ask."""
    snapshot = draw(snapshots())
    keys = list(snapshot.deployments)
    some = st.lists(st.sampled_from(keys), unique=True) if keys else st.just([])
    limits = st.builds(
        SizeLimit,
        capped_by=st.sampled_from(("", "one", "one, two")),
        max_share=st.none() | st.just(Decimal("0.5")),
        grows=st.booleans(),
    )
    asked = st.builds(
        Asked, st.integers(0, 4), released_at=st.none() | st.just(NOW - 60.0), relieved=st.booleans()
    )
    allow = st.none() | st.just([{"namespace": "one"}]) | st.just([{"namespace": "two", "names": ["alpha"]}])
    reading = snapshot.reading
    if reading is not None:
        counted = {key: draw(st.integers(0, 5)) for key in draw(some)}
        reading = replace(
            reading,
            active=counted,
            answers={key: 10.0 * count for key, count in counted.items()},
            input_tokens={key: 900.0 * count for key, count in counted.items()},
            output_tokens={key: 500.0 * count for key, count in counted.items()},
        )
    return replace(
        snapshot,
        reading=reading,
        tenants={
            name: make_tenant(name, allow=draw(allow))
            for name in draw(st.sets(st.sampled_from(("blue", "green"))))
        },
        providers={name: make_provider(name) for name in draw(st.sets(st.sampled_from(("acme", "zeta"))))},
        limits={key: draw(limits) for key in draw(some)},
        asked={key: draw(asked) for key in draw(some)},
        node_sizes={name: draw(st.integers(1, 4)) for name in draw(st.sets(st.sampled_from(CLASSES)))},
        priorities={"high": 1000, "low": -5},
    )
