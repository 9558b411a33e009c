"""The decision of the cluster, at a load that is stated instead of measured."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from modelyard.core.decide import decide, decide_deployment
from modelyard.core.demand import DemandMemory, Sample
from modelyard.core.load import LoadShape
from modelyard.core.plan import DeploymentPlan, Plan, Size
from modelyard.core.reasons import Code
from modelyard.core.replicas import SizeMemory
from modelyard.core.report.running import count_planned
from modelyard.core.report.steady import recall_load
from modelyard.core.scaling.rule import LoadMemory
from modelyard.core.scaling.schedules import Bounds, apply_bounds
from modelyard.core.shape import ShapeMemory
from modelyard.core.snapshot import ChildDeployment, Pod, Snapshot
from modelyard.core.state import DeploymentMemory, Memory, Policy

_ADDRESS = "192.0.2.1"
"""Of a replica that is taken to serve: from the block for documentation (RFC 5737), so it is nobody's."""


@dataclass(frozen=True, slots=True)
class StatedLoad:
    """What a deployment is asked."""

    shape: LoadShape
    requests_per_minute: float | None = None
    """None: not stated."""
    source: Literal["Spec", "File", "None"] = "None"
    """Where the rate comes from."""


def recall(loads: Mapping[str, StatedLoad], now: float, policy: Policy) -> Memory:
    """Return the memory of an operator that saw these loads for as long as it remembers.

    Its history has no beginning, so that no size is held for the sake of a load that may have been higher before.
    """
    return Memory({key: _recall(load, now, policy) for key, load in loads.items()})


def _recall(load: StatedLoad, now: float, policy: Policy) -> DeploymentMemory:
    demand, remembered = DemandMemory(), LoadMemory()
    if load.requests_per_minute is not None:
        rate, window = load.requests_per_minute / 60, policy.demand.long_window
        newest = Sample(now, rate * window)
        demand = DemandMemory(
            samples=(Sample(now - window, 0.0), newest), last_arrival=now if rate > 0 else None
        )
        remembered = recall_load(newest, rate, policy.size.load)
    shape = ShapeMemory(shape=load.shape) if load.source == "File" else ShapeMemory()
    return DeploymentMemory(size=SizeMemory(since=0.0, load=remembered), demand=demand, shape=shape)


def without_schedules(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with the bounds of each deployment's spec at all times."""
    bare = {
        key: deployment
        if deployment.spec.scaling is None
        else apply_bounds(deployment, Bounds(deployment.spec.scaling.min, deployment.spec.scaling.max))
        for key, deployment in snapshot.deployments.items()
    }
    return replace(snapshot, deployments=bare)


def settle(
    snapshot: Snapshot, loads: Mapping[str, StatedLoad], now: float, policy: Policy
) -> tuple[Plan, Memory]:
    """Return what the cluster decides once it has settled, and the decision's memory.

    Replicas that are written serve, and nothing waits that had to be worked off. A model that sleeps is woken with one
    replica whatever the load, and grows with the next decision: that one is returned. Schedules do not count: the load
    is stated for no time of day.
    """
    policy = without_backlog(policy)
    snapshot = without_schedules(snapshot)
    memory = recall(loads, now, policy)
    plan, remembered = decide(let_serve(snapshot), memory, now, policy)
    woken = {
        key: {item.placement.main.name: ChildDeployment(replicas=1)}
        for key, item in plan.deployments.items()
        if item.size is not None and item.size.reason.code == Code.WOKEN and item.placement is not None
    }
    if woken:
        awake = replace(snapshot, children={**snapshot.children, **woken})
        plan, remembered = decide(let_serve(awake), memory, now, policy)
    # The size goes on from what is recalled: that it grew a moment ago is not of the load, but of this question.
    decided = {
        key: replace(item, size=memory.deployments[key].size) for key, item in remembered.deployments.items()
    }
    sizes = _explain_sizes(snapshot, plan, Memory(decided), loads, now, policy)
    deployments = {
        key: replace(item, size=sizes.get(key, item.size)) for key, item in plan.deployments.items()
    }
    return Plan(deployments), remembered


def _explain_sizes(
    snapshot: Snapshot,
    plan: Plan,
    memory: Memory,
    loads: Mapping[str, StatedLoad],
    now: float,
    policy: Policy,
) -> Mapping[str, Size]:
    """Return the sizes as the next decision says them, once what was decided serves: no start is under way in them."""
    children = {
        key: _carry_out(item)
        for key, item in plan.deployments.items()
        if loads[key].requests_per_minute and item.refusal is None and item.size is not None
    }
    settled = let_serve(replace(snapshot, children={**snapshot.children, **children}))
    found = {}
    for key in children:
        before = plan.deployments[key].size
        size = decide_deployment(key, settled, memory.deployments[key], now, policy)[0].size
        if size is not None and before is not None and size.replicas == before.replicas:
            found[key] = size
    return found


def _carry_out(plan: DeploymentPlan) -> Mapping[str, ChildDeployment]:
    """Return the child Deployments that a plan leads to, with its size where that is advice or for others to act on."""
    counted = count_planned(plan)
    if plan.size is not None and counted and sum(count for _, count in counted) < plan.size.replicas:
        counted = ((counted[0][0], plan.size.replicas),)
    return {variant.name: ChildDeployment(replicas=count) for variant, count in counted if count}


def without_backlog(policy: Policy) -> Policy:
    """Return the policy without the replicas that work off what waits: by the time it has settled, nothing does."""
    return replace(policy, size=replace(policy.size, load=replace(policy.size.load, drain_time=math.inf)))


def let_serve(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with a pod that serves for each replica that is written."""
    pods = {
        key: tuple(_serve(key, snapshot.pods.get(key, ()), children))
        for key, children in snapshot.children.items()
    }
    return replace(snapshot, pods={**snapshot.pods, **pods})


def _serve(key: str, pods: tuple[Pod, ...], children: Mapping[str, ChildDeployment]) -> Iterator[Pod]:
    """Yield the pods there are, ready, and those that are missing. Whether one found a node stays as it is."""
    missing = {name: child.replicas for name, child in children.items()}
    for pod in pods:
        if pod.live and missing.get(pod.variant, 0) > 0:
            missing[pod.variant] -= 1
            yield replace(pod, ready=True, address=pod.address or _ADDRESS)
        else:
            yield pod
    for variant, count in missing.items():
        for number in range(count):
            name = f"{variant}-settled-{number}"
            yield Pod(
                name=name,
                uid=name,
                deployment=key,
                address=_ADDRESS,
                variant=variant,
                phase="Running",
                scheduled=True,
                ready=True,
            )
