"""The decision: what each LLMDeployment should be, as a chain of small checks. The first that answers wins.

    variants that fit -> name of the children free? -> size (suspended? fixed? decided) -> placement
    -> generation in the gateway

The order is the specification. Every step returns its reason.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.api.scaling import Scaling
from modelyard.core.allocation import AllocationMemory, Situation
from modelyard.core.availability import AvailabilityMemory, observe_availability
from modelyard.core.budget.limits import SizeLimit, limit_bounds
from modelyard.core.choice import expected_shape, recall_variants
from modelyard.core.demand import (
    estimate_demand,
    find_shares,
    observe_share,
    split_arrivals,
)
from modelyard.core.load import LoadShape
from modelyard.core.names import serving_endpoints
from modelyard.core.place import cost_of_load, measure_room, place
from modelyard.core.placement.problem import Budget
from modelyard.core.placement.solve import solve
from modelyard.core.plan import DeploymentPlan, Plan, Size
from modelyard.core.rearrange import adopt, build_problem
from modelyard.core.reasons import Code, Reason
from modelyard.core.replicas import SizeInput, SizeMemory, decide_size
from modelyard.core.routing import Route
from modelyard.core.scaling.schedules import Bounds, apply_bounds, bounds_at, check_schedules, lead_time
from modelyard.core.scaling.starts import observe_starts, start_time
from modelyard.core.scaling.work import compare_work, observe_work, weigh_request
from modelyard.core.shape import current_shape, observe_shape
from modelyard.core.snapshot import Asked, Snapshot
from modelyard.core.state import DeploymentMemory, Memory, Policy
from modelyard.core.variants import DEFAULT_START_TIME, Variant, VariantList


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
        shape = observe_shape(remembered.shape, reading, key)
        deployments[key] = replace(remembered, demand=demand, shape=shape)
    return Memory(deployments)


def decide(
    snapshot: Snapshot, memory: Memory, now: float, policy: Policy, budgets: tuple[Budget, ...] = ()
) -> tuple[Plan, Memory]:
    """Return the plan for every deployment of the snapshot, and the memory for the next call.

    Each is decided on by itself, then the placement of all is solved together; where that is better, it counts.
    """
    plans: dict[str, DeploymentPlan] = {}
    remembered: dict[str, DeploymentMemory] = {}
    for key in snapshot.deployments:
        plans[key], remembered[key] = decide_deployment(
            key, snapshot, memory.deployments.get(key), now, policy
        )
    current = {
        key: {variant: child.replicas for variant, child in children.items()}
        for key, children in snapshot.children.items()
    }
    problem = build_problem(
        remembered, current, snapshot.accelerators, snapshot.inventory, policy.placement, budgets
    )
    if problem is not None:
        for key, better in adopt(remembered, problem, solve(problem)).items():
            plans[key], remembered[key] = decide_deployment(key, snapshot, better, now, policy)
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
    """Decide how many replicas it has and where they run, or refuse."""
    plan = DeploymentPlan(key=deployment.key)
    shape = current_shape(memory.shape, expected_shape(deployment))
    choice = recall_variants(deployment, snapshot, shape, policy.variants, memory.speeds, memory.choice)
    memory = replace(memory, choice=choice)
    bounds = find_bounds(deployment, choice.answer, memory, now)
    if isinstance(bounds, Refusal):
        return replace(plan, refusal=bounds), memory
    if bounds is not None:
        written = sum(child.replicas for child in snapshot.children.get(deployment.key, {}).values())
        bounds = limit_bounds(bounds, snapshot.limits.get(deployment.key), written)
    # Everything after this, size and placement alike, sees the bounds in force as the spec's.
    found = examine(
        deployment if bounds is None else apply_bounds(deployment, bounds),
        snapshot,
        choice.answer,
        memory.availability,
        now,
        policy,
    )
    if isinstance(found, Refusal):
        return replace(plan, refusal=found), memory
    memory = replace(memory, availability=found.availability)
    size, memory = _decide_size(found, bounds, snapshot, memory, now, policy)
    placement, size, allocation = place(found, size, memory.allocation, policy.placement)
    counts = [item.replicas for item in placement.variants]
    replicas = None if None in counts else sum(count or 0 for count in counts)
    plan = replace(plan, placement=placement, size=size, replicas=replicas)
    return plan, replace(memory, allocation=allocation)


def examine(
    deployment: LLMDeployment,
    snapshot: Snapshot,
    choice: VariantList | Refusal,
    memory: AvailabilityMemory,
    now: float,
    policy: Policy,
) -> Situation | Refusal:
    """Return what there is of a deployment and how it may run, or why it cannot."""
    key = deployment.key
    if isinstance(choice, Refusal):
        return choice
    if key in snapshot.strangers:
        stranger = snapshot.strangers[key]
        message = f"a {stranger} exists that Modelyard did not make: delete it or rename this LLMDeployment"
        return Refusal(Code.NAME_CONFLICT, message)
    pods = snapshot.pods.get(key, ())
    availability = observe_availability(
        memory,
        choice.variants,
        pods,
        lambda variant: measure_room(variant, snapshot.inventory),
        now,
        policy.availability,
    )
    return Situation(
        deployment=deployment,
        choice=choice,
        children=snapshot.children.get(key, {}),
        pods=pods,
        availability=availability,
        inventory=snapshot.inventory,
        priorities=snapshot.priorities,
    )


def find_bounds(
    deployment: LLMDeployment, choice: VariantList | Refusal, memory: DeploymentMemory, now: float
) -> Bounds | Refusal | None:
    """Return the bounds in force, or why the schedules cannot be followed; None where load does not decide."""
    scaling = deployment.spec.scaling
    if scaling is None or deployment.spec.suspend:
        return None
    variants = choice.variants if isinstance(choice, VariantList) else ()
    assumed = max((variant.start_time for variant in variants), default=DEFAULT_START_TIME)
    lead = lead_time(start_time(memory.size.starts, assumed))
    return check_schedules(scaling) or bounds_at(scaling, now, lead)


def _decide_size(
    situation: Situation,
    bounds: Bounds | None,
    snapshot: Snapshot,
    memory: DeploymentMemory,
    now: float,
    policy: Policy,
) -> tuple[Size, DeploymentMemory]:
    deployment = situation.deployment
    spec = deployment.spec
    if spec.suspend or spec.scaling is None:
        # History starts when load decides again: a request from before must not wake what the user switched off.
        memory = replace(memory, size=SizeMemory(since=now))
    if spec.suspend:
        return Size(0, Reason(Code.SUSPENDED, "suspend is true")), memory
    if spec.scaling is None:
        replicas = spec.replicas or 0
        return Size(replicas, Reason(Code.FIXED, f"replicas is {replicas}")), memory
    base = snapshot.deployments[deployment.key].spec.scaling
    reading = snapshot.reading
    demand = estimate_demand(memory.demand, now, policy.demand)
    wanted = 0.0 if demand is None else demand.rate / policy.size.utilization
    reference = find_reference(situation, wanted)
    capacity = {variant.name: variant.capacity for variant in situation.choice.variants}
    present = find_present(situation, memory.allocation)
    starts = observe_starts(memory.size.starts, situation.pods)
    serving = sum(pod.serving for pod in situation.pods)
    active = reading.active.get(deployment.key, 0) if reading is not None else 0
    speed = reference.speed if reference.speed is not None and reference.speed.feasible else None
    shape = counted_shape(deployment, memory, reference)
    requests = observe_work(memory.size.work, reading, deployment.key, shape)
    worth, requests = weigh_request(requests, reference, shape, requests.mean or shape)
    before = memory.size.usual
    rescale = compare_work(reference, shape, before) if before is not None and before != shape else 1.0
    data = SizeInput(
        scaling=spec.scaling,
        bounds=bounds,
        service=snapshot.services.get(deployment.key),
        slept_by=snapshot.limits.get(deployment.key, SizeLimit()).slept_by,
        sleeps=base is not None and base.min == 0,
        current=sum(present.values()) if situation.children else None,
        serving=serving,
        active=active,
        capacity=reference.capacity,
        demand=demand,
        woken_at=snapshot.wakes.get(deployment.key),
        hold=policy.hold,
        # `fsum` gives the same in whatever order the children come.
        held=math.fsum(count * capacity.get(name, reference.capacity) for name, count in present.items()),
        largest=max(capacity.values()),
        start_time=start_time(starts, reference.start_time),
        service_time=speed.batch / speed.requests_per_second if speed is not None else None,
        # What a replica runs at its capacity does not wait; without a reading it is not known.
        waiting=max(active - serving * speed.batch, 0)
        if speed is not None and serving and reading is not None
        else None,
        asked=snapshot.asked.get(deployment.key, Asked()),
        work=worth,
        rescale=rescale,
    )
    remembered = replace(memory.size, starts=starts, work=requests, usual=shape)
    size, size_memory = decide_size(data, remembered, now, policy.size)
    return size, replace(memory, size=size_memory)


def counted_shape(deployment: LLMDeployment, memory: DeploymentMemory, variant: Variant) -> LoadShape:
    """Return the mean request that the capacity of a variant stands for."""
    expected = expected_shape(deployment)
    speed = variant.speed
    if (speed is None or not speed.feasible) and deployment.spec.load is not None:
        # A declared capacity is that of the declared request.
        return expected
    return current_shape(memory.shape, expected)


def find_present(situation: Situation, allocation: AllocationMemory | None) -> Mapping[str, int]:
    """Return the replicas that count as present, by variant: without those that only stay until others serve.

    Counted as present, they would be replaced too, and that at every decision anew. What was decided before a restart
    is not known; then all that is written counts.
    """
    written = situation.written
    decided = allocation.allocation.replicas if allocation is not None else {}
    return decided if written and decided else written


def find_reference(situation: Situation, capacity: float) -> Variant:
    """Return the variant that sizes are counted in: the cheapest that carries the load within the bounds.

    Where none can, the one that carries most.
    """
    return choose_reference(situation.deployment.spec.scaling, situation.choice.variants, capacity)


def choose_reference(scaling: Scaling | None, variants: tuple[Variant, ...], capacity: float) -> Variant:
    """Return the variant that sizes are counted in, of these (`find_reference`)."""
    least, most = (scaling.min, scaling.max) if scaling is not None else (1, 1)
    able = [variant for variant in variants if variant.capacity * most >= capacity * (1 - 1e-9)]
    if not able:
        return max(variants, key=lambda variant: variant.capacity)
    return min(able, key=lambda variant: cost_of_load(variant, capacity, least))


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
