"""Routes and deployments as the decision about routes sees them."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmroute import LLMRoute
from modelyard.api.routetargets import RouteTarget
from modelyard.core.breakeven.inputs import BreakEvenPolicy, Target, TokenPrice
from modelyard.core.budget.limits import SizeLimit, limit_bounds
from modelyard.core.budget.rules import divide
from modelyard.core.choice import DEFAULT_REQUESTS_PER_MINUTE, expected_shape
from modelyard.core.decide import choose_reference, counted_shape, find_bounds
from modelyard.core.demand import wanted_weights
from modelyard.core.load import LoadShape
from modelyard.core.place import measure_room
from modelyard.core.reasons import Code, Reason
from modelyard.core.refusals import UNKNOWN_PRICE
from modelyard.core.routing import Route, WeightedTarget, adapter_key, deployment_key, route_name
from modelyard.core.scaling.schedules import Bounds
from modelyard.core.scaling.starts import start_time
from modelyard.core.snapshot import Pod, Snapshot
from modelyard.core.sovereign import sovereign_names
from modelyard.core.state import DeploymentMemory
from modelyard.core.targets import JudgedTarget, find_model, judge_route
from modelyard.core.variants import DEFAULT_START_TIME, Variant, VariantList


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target of a route that may get requests."""

    target: Target
    """Its name is the key of the upstream."""
    weight: int
    quality: float | None = None
    price: TokenPrice | None = None
    """Of a provider's model; None: not known."""

    @property
    def key(self) -> str:
        """Key in the routing table."""
        return self.target.name

    @property
    def deployment(self) -> str | None:
        """Key of the deployment that it is, or is an adapter of; None: a provider's model."""
        return deployment_key(self.key) if self.target.own else None


@dataclass(frozen=True, slots=True)
class RouteView:
    """An LLMRoute that owns its name."""

    route: LLMRoute
    sovereign: bool
    candidates: tuple[Candidate, ...]
    """In the order of the spec."""
    closed: tuple[tuple[Target, Reason], ...]
    """Targets that may get no requests, and why."""
    wanted: Mapping[str, int] = field(default_factory=dict)
    """Weight of each target that should get requests, where cost does not decide, under everybody's budgets.

    Empty: every request is refused.
    """
    withheld: Mapping[str, Reason] = field(default_factory=dict)
    """Candidates, by key, that should get no request for now: it is not known what was spent, a limit is used up, or a
    provider does not answer. Where cost decides they stay chosen: a moment says nothing about what is cheaper. Nothing
    spills to them."""
    tried: frozenset[str] = frozenset()
    """Those of them that a few requests go to, to find out whether they answer again."""
    refused: bool = False
    """Whether a budget refuses every request."""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return self.route.key

    @property
    def lowest_cost(self) -> bool:
        """Whether cost decides."""
        return self.route.spec.policy == "LowestCost"

    @property
    def spills(self) -> bool:
        """Whether requests may go elsewhere while replicas are missing."""
        return self.route.spec.spill is not False and len(self.candidates) > 1 and bool(self.deployments)

    @property
    def deployments(self) -> tuple[str, ...]:
        """Keys of its deployments, and of those whose adapters it leads to: each once."""
        return tuple(
            dict.fromkeys(item.deployment for item in self.candidates if item.deployment is not None)
        )


def needs_plan(route: LLMRoute) -> bool:
    """Say whether more than a route's spec may decide where its requests go."""
    if route.spec.policy == "LowestCost":
        # The API server refuses adapters here; of a route that came by all the same, the order decides.
        return all(target.adapter is None for target in route.spec.targets)
    return route.spec.spill is not False and len(route.spec.targets) > 1


def view_routes(snapshot: Snapshot, table: tuple[Route, ...]) -> tuple[RouteView, ...]:
    """Return the LLMRoutes that need more than their specs: those of lowest cost, and those that may spill.

    `table`: routes that the gateway knows; one that it does not know gets no requests.
    """
    known = {route.name: route for route in table}
    closed = sovereign_names(snapshot.routes.values())
    views: list[RouteView] = []
    for key, route in sorted(snapshot.routes.items()):
        named = known.get(route_name(key))
        if named is None or not needs_plan(route):
            continue
        sovereign = (route.metadata.namespace, route.spec.model) in closed
        view = _obey_budgets(_view_route(route, snapshot, sovereign=sovereign), named)
        view = _avoid_silent(view, snapshot)
        if view.lowest_cost or view.spills:
            views.append(view)
    return tuple(views)


def _view_route(route: LLMRoute, snapshot: Snapshot, *, sovereign: bool) -> RouteView:
    judged = judge_route(route, snapshot, sovereign=sovereign).targets
    pairs = tuple(zip(route.spec.targets, judged, strict=True))
    found: dict[str, Candidate] = {}
    for item in _candidates(pairs, snapshot):
        # The API server refuses a target that is named twice; of one that came by all the same, the first counts.
        found.setdefault(item.key, item)
    return RouteView(
        route=route,
        sovereign=sovereign,
        candidates=tuple(found.values()),
        closed=tuple(
            (find_target(route, target), item.closed) for target, item in pairs if item.closed is not None
        ),
    )


def _obey_budgets(view: RouteView, route: Route) -> RouteView:
    """Return a route without the targets that budgets let nobody use. Single tenants' rules do not count here."""
    view = replace(view, wanted=_find_wanted(view, route))
    rule = next((item for item in route.budgets if item.tenant is None), None)
    if rule is None:
        return view
    message = rule.refusal.message if rule.refusal is not None else "a budget lets it have no request"
    limited = rule.refusal is not None and rule.refusal.limited
    reason = Reason(Code.LIMIT_REACHED if limited else Code.BUDGET_LIMITED, message)
    withheld = rule.unknown if view.lowest_cost else ()
    taken = tuple(item for item in view.candidates if item.key in rule.without and item.key not in withheld)
    return replace(
        view,
        candidates=tuple(item for item in view.candidates if item not in taken),
        closed=(*view.closed, *((item.target, reason) for item in taken)),
        withheld={item.key: reason for item in view.candidates if item.key in withheld},
        refused=rule.closed,
    )


def _avoid_silent(view: RouteView, snapshot: Snapshot) -> RouteView:
    """Return a route that leaves out the providers' models that do not answer.

    Budgets come first: what they withhold is not tried either.
    """
    silent = {
        item.key: snapshot.silent[item.key]
        for item in view.candidates
        if item.key in snapshot.silent and item.key not in view.withheld
    }
    if not silent:
        return view
    return replace(view, withheld={**view.withheld, **silent}, tried=snapshot.tried & silent.keys())


def _find_wanted(view: RouteView, route: Route) -> dict[str, int]:
    """Return the weights by the spec as budgets change them, read as the demand of deployments reads them."""
    if view.lowest_cost:
        return {}
    targets = tuple(WeightedTarget(item.key, item.weight) for item in view.candidates)
    priority = view.route.spec.policy == "Priority"
    rest, _ = divide(replace(route, targets=targets, rules=(), priority=priority))
    return wanted_weights(rest.targets, priority=rest.priority)


def find_target(route: LLMRoute, target: RouteTarget) -> Target:
    """Return a target of a route under the key that the routing table has for it."""
    if target.deployment is not None:
        key = f"{route.metadata.namespace}/{target.deployment}"
        return Target("Deployment", key if target.adapter is None else adapter_key(key, target.adapter))
    return Target("Provider", f"provider:{target.provider}/{target.model}")


def _candidates(pairs: Iterable[tuple[RouteTarget, JudgedTarget]], snapshot: Snapshot) -> Iterator[Candidate]:
    for target, judged in pairs:
        if judged.target is None:
            continue
        key, weight = judged.target.upstream, judged.target.weight
        if judged.external is None:
            yield Candidate(Target("Deployment", key), weight, _number(target.quality))
            continue
        model = find_model(snapshot.providers[judged.external.provider], judged.external.model)
        price = model.price if model is not None else None
        quality = target.quality or (model.quality if model is not None else None)
        yield Candidate(
            Target("Provider", key),
            weight,
            _number(quality),
            None
            if price is None
            else TokenPrice(
                float(price.input_per_million),
                float(price.output_per_million),
                _number(price.cached_input_per_million),
            ),
        )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A deployment that routes may send to."""

    key: str
    variant: Variant | None
    """What its replicas are counted in; None: not decided on yet, or it cannot be run as its spec stands."""
    shape: LoadShape
    """The request that its capacity stands for."""
    serving: int
    """Pods that get requests."""
    present: int
    """Pods, those that start included."""
    minimum: int
    maximum: int
    start_time: float
    """Seconds from a new replica to its first answer."""
    measured: bool = True
    """Whether its capacity is worked out or declared: one that is only assumed says nothing about saturation."""
    contested: bool = False
    """Whether another model waits for its accelerators."""
    decided: bool = True
    """False: it has not been decided on since the operator started, so that nothing may follow from it."""
    missed: float | None = None
    """Share of requests that its size is planned to miss now, as the size rule has learned it; None: the usual."""

    def plan(self, policy: BreakEvenPolicy) -> BreakEvenPolicy:
        """Return the policy with that share: what routes find full, the size rule must, too."""
        return policy if self.missed is None else replace(policy, missed=self.missed)

    @property
    def capacity(self) -> float:
        """Requests per second of one replica, of the shape."""
        return DEFAULT_REQUESTS_PER_MINUTE / 60 if self.variant is None else self.variant.capacity

    @property
    def stand_in(self) -> float:
        """US dollars per hour and replica to decide with where the price is not known."""
        return UNKNOWN_PRICE if self.variant is None else self.variant.stand_in


def view_deployment(
    key: str,
    snapshot: Snapshot,
    memories: Mapping[str, DeploymentMemory],
    waiting: Mapping[str, AbstractSet[str]],
    expected_load: float,
    now: float,
) -> DeploymentView:
    """Return a deployment as routes see it.

    `waiting`: `find_waiting`; `expected_load`: requests per second that may come to it.
    """
    deployment, memory = snapshot.deployments[key], memories.get(key)
    pods = snapshot.pods.get(key, ())
    serving, present = sum(pod.serving for pod in pods), sum(pod.live for pod in pods)
    answer = memory.choice.answer if memory is not None and memory.choice is not None else None
    if memory is None or not isinstance(answer, VariantList):
        # What runs goes on, whatever is wrong with the spec; what nobody has looked at yet may run.
        scaling = deployment.spec.scaling
        most = (
            serving
            if answer is not None
            else (deployment.spec.replicas or 0)
            if scaling is None
            else scaling.max
        )
        return DeploymentView(
            key=key,
            variant=None,
            shape=expected_shape(deployment),
            serving=serving,
            present=present,
            minimum=0,
            maximum=max(most, serving),
            start_time=DEFAULT_START_TIME,
            measured=False,
            decided=answer is not None,
        )
    variant = _main_variant(deployment, answer, memory, expected_load)
    least, most = _bounds(deployment, answer, memory, present, snapshot.limits.get(key), now)
    accelerator = variant.accelerator
    room = measure_room(variant, snapshot.inventory)
    if accelerator.spec.billing == "Committed" and room is not None:
        # No node is added for money: what others hold cannot be had.
        most = max(min(most, present + room), least)
    return DeploymentView(
        key=key,
        variant=variant,
        shape=counted_shape(deployment, memory, variant),
        serving=serving,
        present=present,
        minimum=least,
        maximum=most,
        start_time=start_time(memory.size.starts, variant.start_time),
        measured=variant.speed is not None or _is_declared(deployment, variant),
        contested=bool(waiting.get(accelerator.metadata.name, frozenset()) - {key}),
        missed=memory.size.load.headroom.allowed,
    )


def _main_variant(
    deployment: LLMDeployment, answer: VariantList, memory: DeploymentMemory, load: float
) -> Variant:
    """Return the variant of most replicas; without any, the one that the size rule would count in."""
    placed = memory.allocation.allocation.replicas if memory.allocation is not None else {}
    running = [variant for variant in answer.variants if placed.get(variant.name)]
    if running:
        return max(running, key=lambda variant: placed[variant.name])
    return choose_reference(deployment.spec.scaling, answer.variants, load)


def _bounds(
    deployment: LLMDeployment,
    answer: VariantList,
    memory: DeploymentMemory,
    present: int,
    limit: SizeLimit | None,
    now: float,
) -> tuple[int, int]:
    """Return the fewest and the most replicas that there may be."""
    scaling = deployment.spec.scaling
    if deployment.spec.suspend:
        return 0, 0
    if scaling is None:
        count = deployment.spec.replicas or 0
        return count, count
    if scaling.mode == "Advise":
        # Nobody acts on what is decided: there is what there is.
        return present, present
    bounds = find_bounds(deployment, answer, memory, now)
    if not isinstance(bounds, Bounds):
        return scaling.min, scaling.max
    bounds = limit_bounds(bounds, limit, present)
    return bounds.min, bounds.max


def _is_declared(deployment: LLMDeployment, variant: Variant) -> bool:
    name = variant.accelerator.metadata.name
    options = deployment.spec.placement.accelerators
    return any(option.class_name == name and option.requests_per_minute is not None for option in options)


def find_waiting(
    pods: Mapping[str, tuple[Pod, ...]], memories: Mapping[str, DeploymentMemory]
) -> dict[str, set[str]]:
    """Return the deployments that wait for accelerators, by class: they have pods without a node, or a shortage.

    A pod that waits elsewhere because nothing of its class is to be had is told by the shortage alone.
    """
    waiting: dict[str, set[str]] = {}
    for key, found in pods.items():
        for pod in found:
            if pod.live and not pod.scheduled and pod.accelerator is not None:
                waiting.setdefault(pod.accelerator, set()).add(key)
    for key, memory in memories.items():
        shortages = memory.availability.shortages
        if not shortages or memory.choice is None:
            continue
        answer = memory.choice.answer
        for item in answer.variants if isinstance(answer, VariantList) else ():
            if item.name in shortages:
                waiting.setdefault(item.accelerator.metadata.name, set()).add(key)
    return waiting
