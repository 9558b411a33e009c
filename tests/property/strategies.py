"""Random loads, histories and fleets."""

from typing import Any

from hypothesis import strategies as st

from modelyard.api.llmdeployment import LLMDeployment, Scaling
from modelyard.core.demand import Demand
from modelyard.core.replicas import SizeInput, SizeMemory, Wanted
from modelyard.core.snapshot import ChildDeployment, GatewayReading, Snapshot
from modelyard.core.variants import variant_name
from tests.unit.core.build import make_accelerator, make_deployment, make_pod, make_route

NOW = 1_000_000.0
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
CLASSES = ("cpu", "l4", "h100")


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
    return make_deployment(
        key,
        created=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
        model=model,
        classes=tuple(draw(st.lists(st.sampled_from(CLASSES), unique=True, min_size=1))),
        status=status,
        **spec,
    )


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
    pods = {
        key: tuple(
            make_pod(f"pod-{index}", key, address=f"10.0.0.{index}", ready=draw(st.booleans()))
            for index in range(1, draw(st.integers(1, 4)))
        )
        for key in chosen
    }
    children = {
        key: {
            variant_name(draw(st.sampled_from(CLASSES)), 1, spot=False): ChildDeployment(
                draw(st.integers(0, 9))
            )
        }
        for key in chosen
        if draw(st.booleans())
    }
    strangers = {key: "Deployment x/y" for key in chosen if draw(st.booleans())}
    arrivals = {key: draw(st.floats(0.0, 1e6)) for key in chosen}
    return Snapshot(
        deployments={key: draw(deployments(key)) for key in chosen},
        routes={route.key: route for route in routes},
        accelerators={name: make_accelerator(name) for name in draw(st.sets(st.sampled_from(CLASSES)))},
        pods=pods,
        children=children,
        strangers=strangers,
        reading=draw(st.none() | st.just(GatewayReading(NOW, arrivals))),
        wakes={key: NOW for key in chosen if draw(st.booleans())},
    )
