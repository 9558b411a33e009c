"""The decision: what each LLMDeployment should be, as a chain of small checks. The first that answers wins.

    placement -> name of the children free? -> size (suspended? fixed? decided) -> generation in the gateway

The order is the specification. Every step returns its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.core.demand import (
    DemandMemory,
    DemandPolicy,
    estimate_demand,
    find_shares,
    observe_share,
    split_arrivals,
)
from modelyard.core.names import serving_endpoints
from modelyard.core.plan import Code, DeploymentPlan, Placement, Plan, Reason, Size
from modelyard.core.replicas import SizeInput, SizeMemory, SizePolicy, decide_size
from modelyard.core.routing import Route
from modelyard.core.snapshot import Snapshot

DEFAULT_REQUESTS_PER_MINUTE = 60
"""Requests per minute and replica where the spec gives none: 1/s, below every measured 8B row of the public
throughput tables (an L4 answers about 3/s), so that the first guess starts too many replicas, not too few."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that tunes the decision. The defaults are for production; the demo plays time faster."""

    demand: DemandPolicy = field(default_factory=DemandPolicy)
    size: SizePolicy = field(default_factory=SizePolicy)
    hold: float = 600.0
    """Seconds that a request may wait for a sleeping model."""


@dataclass(frozen=True, slots=True)
class DeploymentMemory:
    """What the decision remembers of one deployment."""

    size: SizeMemory
    demand: DemandMemory = field(default_factory=DemandMemory)
    serving: bool | None = None
    """Whether it had an endpoint at the last decision; None before the first."""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decision remembers between calls."""

    deployments: Mapping[str, DeploymentMemory] = field(default_factory=dict)


def observe_demand(
    snapshot: Snapshot, routes: tuple[Route, ...], memory: Memory, now: float, policy: Policy
) -> Memory:
    """Return the memory with the snapshot's counter reading taken in."""
    reading = snapshot.reading
    if reading is None:
        return memory
    shares = find_shares(routes, snapshot.deployments)
    deployments = dict(memory.deployments)
    for key, total in split_arrivals(reading, shares).items():
        remembered = deployments.get(key) or DeploymentMemory(size=SizeMemory(since=now))
        demand = observe_share(remembered.demand, reading.time, total, shares[key], policy.demand)
        deployments[key] = replace(remembered, demand=demand)
    return Memory(deployments)


def decide(snapshot: Snapshot, memory: Memory, now: float, policy: Policy) -> tuple[Plan, Memory]:
    """Return the plan for every deployment of the snapshot, and the memory for the next call."""
    plans: dict[str, DeploymentPlan] = {}
    remembered: dict[str, DeploymentMemory] = {}
    for key in snapshot.deployments:
        plans[key], remembered[key] = decide_deployment(
            key, snapshot, memory.deployments.get(key), now, policy
        )
    return Plan(plans), Memory(remembered)


def decide_deployment(
    key: str, snapshot: Snapshot, memory: DeploymentMemory | None, now: float, policy: Policy
) -> tuple[DeploymentPlan, DeploymentMemory]:
    """Return the plan for one deployment, and its memory for the next call."""
    deployment = snapshot.deployments[key]
    if memory is None:
        memory = DeploymentMemory(size=SizeMemory(since=now))
    if memory.serving is None:
        # The wake signal of a request that is held since before a restart may be older than the first reading.
        since = min(memory.size.since, snapshot.wakes.get(key, now))
        memory = replace(memory, size=replace(memory.size, since=since))
    plan, memory = _decide_workload(deployment, snapshot, memory, now, policy)
    generation, memory = _decide_generation(deployment, plan, snapshot, memory)
    return replace(plan, generation=generation), memory


def _decide_workload(
    deployment: LLMDeployment, snapshot: Snapshot, memory: DeploymentMemory, now: float, policy: Policy
) -> tuple[DeploymentPlan, DeploymentMemory]:
    """Decide where it runs and how many replicas it has, or refuse."""
    key = deployment.key
    plan = DeploymentPlan(key=key)
    placement = choose_placement(deployment, snapshot)
    if isinstance(placement, Refusal):
        return replace(plan, refusal=placement), memory
    child = snapshot.children.get(key)
    if child is not None and not child.owned:
        message = (
            f"a Deployment {key} exists that Modelyard did not make: delete it or rename this LLMDeployment"
        )
        return replace(plan, placement=placement, refusal=Refusal(Code.NAME_CONFLICT, message)), memory
    size, memory = _decide_size(deployment, placement, snapshot, memory, now, policy)
    replicas = _written_replicas(deployment, size, snapshot)
    return replace(plan, placement=placement, size=size, replicas=replicas), memory


def choose_placement(deployment: LLMDeployment, snapshot: Snapshot) -> Placement | Refusal:
    """Return the first accelerator option whose class exists."""
    options = deployment.spec.placement.accelerators
    for option in options:
        accelerator = snapshot.accelerators.get(option.class_name)
        if accelerator is None:
            continue
        per_minute = option.requests_per_minute or DEFAULT_REQUESTS_PER_MINUTE
        assumed = (
            "" if option.requests_per_minute else ", assumed: set requestsPerMinute to what you measured"
        )
        message = f"{option.count} x {option.class_name}; {per_minute} requests a minute and replica{assumed}"
        return Placement(accelerator, option.count, per_minute / 60, message)
    wanted = ", ".join(option.class_name for option in options)
    return Refusal(
        Code.ACCELERATOR_NOT_FOUND,
        f"placement.accelerators names no AcceleratorClass that exists ({wanted}): create one, or name one of "
        f"{', '.join(sorted(snapshot.accelerators)) or 'none yet'}",
    )


def _decide_size(
    deployment: LLMDeployment,
    placement: Placement,
    snapshot: Snapshot,
    memory: DeploymentMemory,
    now: float,
    policy: Policy,
) -> tuple[Size, DeploymentMemory]:
    spec = deployment.spec
    if spec.suspend or spec.scaling is None:
        # History starts when load decides again: a request from before must not wake what the user switched off.
        memory = replace(memory, size=SizeMemory(since=now))
    if spec.suspend:
        return Size(0, Reason(Code.SUSPENDED, "suspend is true")), memory
    if spec.scaling is None:
        replicas = spec.replicas or 0
        return Size(replicas, Reason(Code.FIXED, f"replicas is {replicas}")), memory
    child = snapshot.children.get(deployment.key)
    pods = snapshot.pods.get(deployment.key, ())
    reading = snapshot.reading
    data = SizeInput(
        scaling=spec.scaling,
        current=child.replicas if child is not None else None,
        serving=sum(pod.serving for pod in pods),
        active=reading.active.get(deployment.key, 0) if reading is not None else 0,
        capacity=placement.capacity,
        demand=estimate_demand(memory.demand, now, policy.demand),
        woken_at=snapshot.wakes.get(deployment.key),
        hold=policy.hold,
    )
    size, size_memory = decide_size(data, memory.size, now, policy.size)
    return size, replace(memory, size=size_memory)


def _written_replicas(deployment: LLMDeployment, size: Size, snapshot: Snapshot) -> int | None:
    """Return what is written into the child: the size, unless the user keeps that to somebody else."""
    scaling = deployment.spec.scaling
    if scaling is None or deployment.spec.suspend:
        return size.replicas
    if scaling.actuator == "External":
        return None
    if scaling.mode == "Advise":
        child = snapshot.children.get(deployment.key)
        return child.replicas if child is not None else max(scaling.min, 1)
    return size.replicas


def _decide_generation(
    deployment: LLMDeployment, plan: DeploymentPlan, snapshot: Snapshot, memory: DeploymentMemory
) -> tuple[int, DeploymentMemory]:
    """Return the generation of the cluster name: one more whenever it stops serving.

    A deployment that is put to sleep stops serving at once, before its pods go. After a restart the status tells
    what was served before.
    """
    stored = deployment.status.gateway.generation if deployment.status.gateway else 0
    generation = max(memory.generation, stored)
    before = deployment.status.ready_replicas > 0 if memory.serving is None else memory.serving
    endpoints = serving_endpoints(snapshot.pods.get(deployment.key, ()))
    serving = bool(endpoints) and plan.replicas != 0
    if before and not serving:
        generation += 1
    return generation, replace(memory, generation=generation, serving=serving)
