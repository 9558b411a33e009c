"""What the process knows: the watched objects, our own writes, the gateway's counters, and the decision's memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmroute import LLMRoute
from modelyard.api.llmtenant import LLMTenant
from modelyard.api.meta import Refusal, split_key
from modelyard.api.modelprofile import ModelProfile
from modelyard.core.answering import AnswerMemory, find_silent, find_tried
from modelyard.core.budget.judge import Standing
from modelyard.core.budget.limits import SizeLimit
from modelyard.core.certificates import Certificate
from modelyard.core.cost import TokenMemory
from modelyard.core.groups import GroupSupport, fold_groups, refuse_groups
from modelyard.core.ledger.usage import NodeCounts
from modelyard.core.names import Claim, Exposure, weigh_variants
from modelyard.core.plan import DeploymentPlan
from modelyard.core.providerlimits import LimitMemory
from modelyard.core.routeplan.model import RoutesMemory, RoutesPlan
from modelyard.core.routing import RoutingTable
from modelyard.core.snapshot import GatewayReading, Pod, Provider, ServiceReading, Snapshot
from modelyard.core.sovereign import make_sovereign
from modelyard.core.spend import Spend
from modelyard.core.state import DeploymentMemory
from modelyard.kube.expectations import Expectations
from modelyard.kube.informers import Indices, first
from modelyard.kube.projections import Seen, SeenChild
from modelyard.runtime.capacity import CapacityView
from modelyard.runtime.rollout import Rollout
from modelyard.runtime.routeindex import RouteChange, RouteIndex


@dataclass
class Fleet:
    """The state of the operator process. Everything in it can be lost: a restart rebuilds it from the cluster."""

    indices: Indices = field(default_factory=Indices)
    written: Expectations[Seen[LLMDeployment]] = field(default_factory=Expectations)
    written_routes: Expectations[Seen[LLMRoute]] = field(default_factory=Expectations)
    read_routes: dict[str, Seen[LLMRoute]] = field(default_factory=dict)
    """The last form of each LLMRoute that could be read."""
    written_children: Expectations[SeenChild] = field(default_factory=Expectations)
    """By `namespace/name` of the child."""
    strangers: dict[str, str] = field(default_factory=dict)
    """Kind and name of an object that stands where a child should be and is not ours, by `namespace/name` of the
    LLMDeployment."""
    providers: dict[str, Provider] = field(default_factory=dict)
    """LLMProviders of the gateway's namespace, by name."""
    provider_keys: dict[str, str] = field(default_factory=dict, repr=False)
    """Their API keys, of those whose Secrets hold one. They go to Envoy and nowhere else."""
    answers: dict[str, AnswerMemory] = field(default_factory=dict)
    """Whether their models answer, by `external_key`."""
    provider_limits: dict[str, LimitMemory] = field(default_factory=dict)
    """What is left of the limits of those that have some, by name."""
    certificate: Certificate | None = None
    """What the gateway shows its clients over TLS: the last good one."""
    budgets: tuple[Standing, ...] = ()
    """How the LLMBudgets of the gateway's namespace stand."""
    limits: dict[str, SizeLimit] = field(default_factory=dict)
    """What they ask of sizes, by `namespace/name` of the LLMDeployment."""
    cluster_domain: str = ""
    """DNS domain of the cluster; empty: it is not known."""
    silent_pickers: frozenset[str] = frozenset()
    """`namespace/name` of the LLMDeployments whose endpoint picker takes no connection."""
    tenants: dict[str, LLMTenant] = field(default_factory=dict)
    """LLMTenants of the gateway's namespace, by name."""
    tenant_keys: dict[str, str] = field(default_factory=dict, repr=False)
    """Their names, by the SHA-256 digests of their API keys."""
    profiles: dict[str, ModelProfile] = field(default_factory=dict)
    """What was read from models' own configurations, by `model.source`."""
    groups: dict[str, tuple[SeenChild, ...]] = field(default_factory=dict)
    """Child LeaderWorkerSets as they were read last, by `namespace/name` of the LLMDeployment."""
    group_support: dict[str, GroupSupport] = field(default_factory=dict)
    """What the cluster offers for replicas that span nodes, by namespace, where somebody wants to know."""
    capacity: CapacityView = field(default_factory=CapacityView)
    memory: dict[str, DeploymentMemory] = field(default_factory=dict)
    tokens: dict[str, TokenMemory] = field(default_factory=dict)
    plans: dict[str, DeploymentPlan] = field(default_factory=dict)
    """The newest plan of each deployment whose status has been written."""
    reading: GatewayReading | None = None
    counts: dict[str, tuple[NodeCounts, ...]] = field(default_factory=dict)
    """What Envoys said that the ledger has not written yet, by node id."""
    counted_until: float = 0.0
    """Unix time up to which all Envoys are read, also those whose ADS stream is away; 0 before the first reading."""
    readings: int = 0
    """Rounds in which any Envoy was read."""
    read_pace: float = 0.0
    """Seconds from one reading to the next, as they are now; 0 before the first."""
    spend: Spend | None = None
    """What was spent; None until the ledger was read."""
    services: dict[str, ServiceReading] = field(default_factory=dict)
    """How well requests were served since this process reads engines, of deployments whose engines tell."""
    routes_memory: RoutesMemory = field(default_factory=RoutesMemory)
    routes_plan: RoutesPlan = field(default_factory=RoutesPlan)
    """Where requests of LLMRoutes go, as it was decided last."""
    routes_written: dict[str, float] = field(default_factory=dict)
    """Unix time of the last write of each LLMRoute's status."""
    wakes: dict[str, float] = field(default_factory=dict)
    child_names: dict[str, set[str]] = field(default_factory=dict)
    """Names of the Deployments and LeaderWorkerSets that this process wrote, by `namespace/name` of the
    LLMDeployment."""
    _route_index: RouteIndex | None = None
    names: Snapshot = field(default_factory=Snapshot)
    """What the newest table was built from."""
    closed_names: frozenset[tuple[str, str]] = frozenset()
    """The `sovereign_names` of that."""
    owners: dict[str, Claim] = field(default_factory=dict)
    table: RoutingTable = field(default_factory=RoutingTable)
    rollout: Rollout = field(default_factory=Rollout)
    """How far Envoys have taken it."""

    def deployment(self, key: str) -> Seen[LLMDeployment] | None:
        """Return the newest view of an LLMDeployment."""
        seen = first(self.indices.deployments, key)
        if seen is None:
            self.written.forget(key)
            return None
        return self.written.resolve(key, seen.uid, seen.version, seen)

    def route(self, key: str) -> Seen[LLMRoute] | None:
        """Return the newest view of an LLMRoute."""
        seen = first(self.indices.routes, key)
        if seen is None:
            self.written_routes.forget(key)
            return None
        return self.written_routes.resolve(key, seen.uid, seen.version, seen)

    def known_route(self, key: str) -> LLMRoute | None:
        """Return what holds of an LLMRoute: as it stands, or in the last form that could be read, or its name alone.

        One that cannot be read any more and says that it is sovereign is so from then on.
        """
        seen = self.route(key)
        if seen is None:
            self.read_routes.pop(key, None)
            return None
        if seen.object is not None:
            self.read_routes[key] = seen
            return seen.object
        last = self.read_routes.get(key)
        if last is None or last.object is None or last.uid != seen.uid:
            return seen.fallback
        return last.object if seen.fallback is None else make_sovereign(last.object)

    def invalid_routes(self) -> dict[str, str]:
        """Return what is wrong with LLMRoutes of which nothing but the name holds."""
        found = {}
        for key in self.route_keys():
            seen = self.route(key)
            if seen is None or seen.fallback is None:
                continue
            if self.known_route(key) is seen.fallback:
                found[key] = seen.error
        return found

    def children(self, key: str, uid: str) -> dict[str, SeenChild]:
        """Return the newest views of what runs the pods of an LLMDeployment with that UID, by variant."""
        index = self.indices.children
        seen = {child.name: child for child in index[key]} if key in index else {}
        seen |= {child.name: child for child in self.groups.get(key, ())}
        namespace, _ = split_key(key)
        newest = {}
        for name in seen.keys() | self.child_names.get(key, set()):
            child, child_key = seen.get(name), f"{namespace}/{name}"
            view = (
                self.written_children.pending(child_key)
                if child is None
                else self.written_children.resolve(child_key, child.uid, child.version, child)
            )
            if view is not None and view.owner == uid and view.variant:
                newest[view.variant] = view
        return newest

    def note_child(self, key: str, child: SeenChild) -> None:
        """Remember a child Deployment or LeaderWorkerSet that was just written."""
        namespace, _ = split_key(key)
        self.child_names.setdefault(key, set()).add(child.name)
        self.written_children.note(f"{namespace}/{child.name}", child.uid, child.version, child)

    def take_unseen(self, key: str) -> tuple[str, ...]:
        """Return the names of children that were written and that the watch has not shown by their deadline.

        They are named once for each deadline. Those that the watch has shown since are found out by `children`.
        """
        namespace, _ = split_key(key)
        names = sorted(self.child_names.get(key, ()))
        return tuple(name for name in names if self.written_children.take_overdue(f"{namespace}/{name}"))

    def forget_child(self, key: str, name: str) -> None:
        """Drop what is remembered of a child Deployment or LeaderWorkerSet that was deleted."""
        namespace, _ = split_key(key)
        if key in self.groups:
            self.groups[key] = tuple(child for child in self.groups[key] if child.name != name)
        self.child_names.get(key, set()).discard(name)
        self.written_children.forget(f"{namespace}/{name}")

    def pods(self, key: str) -> tuple[Pod, ...]:
        """Return the replicas of an LLMDeployment, by name: its pods, each group as one."""
        index = self.indices.pods
        return fold_groups(index[key]) if key in index else ()

    def all_pods(self) -> Iterator[Pod]:
        """Yield the pods of all LLMDeployments, those of groups one by one."""
        index = self.indices.pods
        for key in list(index):
            yield from index[key]

    def accelerators(self) -> dict[str, AcceleratorClass]:
        """Return the readable AcceleratorClasses, by name."""
        found = {}
        for name in list(self.indices.accelerators):
            seen = first(self.indices.accelerators, name)
            if seen is not None and seen.object is not None:
                found[name] = seen.object
        return found

    def deployment_keys(self) -> list[str]:
        """Return `namespace/name` of every LLMDeployment."""
        return list(self.indices.deployments)

    def route_keys(self) -> list[str]:
        """Return `namespace/name` of every LLMRoute."""
        return list(self.indices.routes)

    def notice_route(self, key: str) -> RouteChange:
        """Take in that an LLMRoute has come, changed or gone. Returns what follows for others."""
        return self._named_routes().put(key, self.known_route(key))

    def routes_to(self, deployment: str) -> frozenset[str]:
        """Return `namespace/name` of the LLMRoutes that name an LLMDeployment, in their rules too."""
        return self._named_routes().routes_to(deployment)

    def is_sovereign(self, key: str) -> bool:
        """Say whether a sovereign name sends requests to an LLMDeployment."""
        return self._named_routes().is_sovereign(key)

    def _named_routes(self) -> RouteIndex:
        """Return what routes name, as of the last event of each: before the first it is found in all of them."""
        if self._route_index is None:
            self._route_index = RouteIndex()
            for route in self.readable_routes():
                self._route_index.put(route.key, route)
        return self._route_index

    def snapshot_one(self, key: str, deployment: LLMDeployment) -> Snapshot:
        """Return what the decision about one deployment looks at."""
        children = {
            variant: seen.child for variant, seen in self.children(key, deployment.metadata.uid).items()
        }
        accelerators = self.accelerators()
        inventory, node_sizes = self.capacity.measure(self.indices, accelerators)
        source = deployment.spec.model.source
        return Snapshot(
            deployments={key: deployment},
            accelerators=accelerators,
            pods={key: self.pods(key)},
            children={key: children} if children else {},
            strangers={key: self.strangers[key]} if key in self.strangers else {},
            inventory=inventory,
            spanning=self._spanning(deployment),
            node_sizes=node_sizes,
            priorities=self.priorities(),
            profiles={source: self.profiles[source]} if source in self.profiles else {},
            reading=self.reading,
            services={key: self.services[key]} if key in self.services else {},
            asked={key: self.routes_plan.asked[key]} if key in self.routes_plan.asked else {},
            wakes={key: self.wakes[key]} if key in self.wakes else {},
            limits={key: self.limits[key]} if key in self.limits else {},
        )

    def _spanning(self, deployment: LLMDeployment) -> dict[str, Refusal]:
        """Return why no replica of a deployment can span nodes, by its namespace, if it wants that and none can."""
        namespace = deployment.metadata.namespace
        if not deployment.spec.spans_nodes:
            return {}
        refusal = refuse_groups(self.group_support.get(namespace), namespace)
        return {} if refusal is None else {namespace: refusal}

    def priorities(self) -> dict[str, int]:
        """Return the values of the PriorityClasses, by name; none where they may not be read."""
        index = self.indices.priorities or {}
        return {name: seen.value for name in list(index) if (seen := first(index, name)) is not None}

    def snapshot_names(self) -> Snapshot:
        """Return what names and routes are decided from: every deployment, route and pod.

        A deployment is routed once it was decided on: before, the generation of its name is not known.
        """
        deployments = {
            deployment.key: deployment
            for deployment in self.readable()
            if deployment.status.observed_generation or deployment.key in self.plans
        }
        routes = {route.key: route for route in self.readable_routes()}
        return Snapshot(
            deployments=deployments,
            routes=routes,
            invalid=self.invalid_routes(),
            providers=self.providers,
            tenants=self.tenants,
            pods={key: self.pods(key) for key in deployments},
            silent=find_silent(self.answers),
            tried=find_tried(self.answers),
            silent_pickers=self.silent_pickers,
            cluster_domain=self.cluster_domain,
        )

    def snapshot_routes(self) -> Snapshot:
        """Return what the decision about routes looks at. A deployment that is put to sleep has no pods for it."""
        names = self.snapshot_names()
        accelerators = self.accelerators()
        inventory, _ = self.capacity.measure(self.indices, accelerators)
        asleep = {key for key, plan in self.plans.items() if plan.replicas == 0}
        return replace(
            names,
            accelerators=accelerators,
            pods={key: () if key in asleep else pods for key, pods in names.pods.items()},
            inventory=inventory,
            reading=self.reading,
            limits=self.limits,
        )

    def is_settled(self, key: str, now: float, interval: float) -> bool:
        """Say whether so many seconds have passed since the status of an LLMRoute was written."""
        return is_settled(self.routes_written, key, now, interval)

    def exposures(self) -> dict[str, Exposure]:
        """Return how each deployment stands in the gateway, as far as its status says so.

        Only what is written may be pushed: an operator that starts again must know every name that Envoy knows.
        """
        return {deployment.key: self.expose(deployment) for deployment in self.readable()}

    def expose(self, deployment: LLMDeployment) -> Exposure:
        """Return how one deployment stands in the gateway."""
        plan = self.plans.get(deployment.key)
        stored = deployment.status.gateway
        # The first generation is safe before it is written: a new start begins above all that Envoy knows.
        first_one = plan.generation if plan is not None and not deployment.status.observed_generation else 0
        return Exposure(
            generation=stored.generation if stored is not None else first_one,
            asleep=plan is not None and plan.replicas == 0,
            weights=_weights(plan),
        )

    def readable(self) -> Iterator[LLMDeployment]:
        """Yield every LLMDeployment that can be parsed."""
        for key in self.deployment_keys():
            seen = self.deployment(key)
            if seen is not None and seen.object is not None:
                yield seen.object

    def readable_routes(self) -> Iterator[LLMRoute]:
        """Yield what holds of every LLMRoute, if anything does."""
        for key in self.route_keys():
            known = self.known_route(key)
            if known is not None:
                yield known

    def forget(self, key: str) -> None:
        """Drop everything remembered of a deployment that is gone."""
        for name in tuple(self.child_names.get(key, ())):
            self.forget_child(key, name)
        named = (self.wakes, self.strangers, self.child_names, self.groups)
        for store in (self.memory, self.tokens, self.plans, self.services, *named):
            store.pop(key, None)
        self.written.forget(key)


def is_settled(written: Mapping[str, float], key: str, now: float, interval: float) -> bool:
    """Say whether so many seconds have passed since something was written. `written`, `now`: Unix times."""
    return now - written.get(key, 0.0) >= interval


def _weights(plan: DeploymentPlan | None) -> dict[str, int]:
    if plan is None or plan.placement is None:
        return {}
    return weigh_variants({item.variant.name: item.variant.capacity for item in plan.placement.variants})
