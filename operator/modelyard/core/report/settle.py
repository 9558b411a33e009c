"""The decision of the cluster, at a load that is stated instead of measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from modelyard.core.decide import decide
from modelyard.core.demand import DemandMemory, DemandPolicy, Sample
from modelyard.core.load import LoadShape
from modelyard.core.plan import Plan
from modelyard.core.reasons import Code
from modelyard.core.replicas import SizeMemory
from modelyard.core.shape import ShapeMemory
from modelyard.core.snapshot import ChildDeployment, Snapshot
from modelyard.core.state import DeploymentMemory, Memory, Policy


@dataclass(frozen=True, slots=True)
class StatedLoad:
    """What a deployment is asked."""

    shape: LoadShape
    requests_per_minute: float | None = None
    """None: not stated."""
    source: Literal["Spec", "File", "None"] = "None"
    """Where the rate comes from."""


def recall(loads: Mapping[str, StatedLoad], now: float, policy: DemandPolicy) -> Memory:
    """Return the memory of an operator that saw these loads for as long as it remembers.

    Its history has no beginning, so that no size is held for the sake of a load that may have been higher before.
    """
    return Memory({key: _recall(load, now, policy) for key, load in loads.items()})


def _recall(load: StatedLoad, now: float, policy: DemandPolicy) -> DeploymentMemory:
    demand = DemandMemory()
    if load.requests_per_minute is not None:
        rate, window = load.requests_per_minute / 60, policy.long_window
        demand = DemandMemory(
            samples=(Sample(now - window, 0.0), Sample(now, rate * window)),
            last_arrival=now if rate > 0 else None,
        )
    shape = ShapeMemory(shape=load.shape) if load.source == "File" else ShapeMemory()
    return DeploymentMemory(size=SizeMemory(since=0.0), demand=demand, shape=shape)


def settle(
    snapshot: Snapshot, loads: Mapping[str, StatedLoad], now: float, policy: Policy
) -> tuple[Plan, Memory]:
    """Return what the cluster decides, and the decision's memory.

    A model that sleeps is woken with one replica whatever the load, and grows with the next decision: that one is
    returned.
    """
    memory = recall(loads, now, policy.demand)
    plan, remembered = decide(snapshot, memory, now, policy)
    woken = {
        key: {item.placement.main.name: ChildDeployment(replicas=1)}
        for key, item in plan.deployments.items()
        if item.size is not None and item.size.reason.code == Code.WOKEN and item.placement is not None
    }
    if not woken:
        return plan, remembered
    return decide(replace(snapshot, children={**snapshot.children, **woken}), memory, now, policy)
