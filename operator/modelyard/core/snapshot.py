"""What is, at one moment: immutable views of the cluster that the decision reads.

The views are small projections, not whole Kubernetes objects: a fleet has tens of thousands of pods.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmroute import LLMRoute
from modelyard.api.llmtenant import LLMTenant
from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.core.answering import Attempts
from modelyard.core.budget.limits import SizeLimit
from modelyard.core.inventory import Inventory
from modelyard.core.reasons import Reason

GATED = "SchedulingGated"
"""Reason of a pod with scheduling gates
(https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/)."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One engine pod."""

    name: str
    uid: str
    deployment: str
    """`namespace/name` of the LLMDeployment."""
    address: str = ""
    """Pod IP; empty until it has one."""
    port: int = 0
    """The engine's port."""
    accelerator: str = ""
    """AcceleratorClass that it was made for."""
    variant: str = ""
    """`Variant.name` that it was made for."""
    node: str = ""
    """Node that it was bound to; empty until it is scheduled."""
    accelerators: Mapping[str, int] = field(default_factory=dict)
    """Extended resources that it asks for, such as `nvidia.com/gpu`."""
    created: float = 0.0
    """Unix time in seconds."""
    ready_since: float | None = None
    """Unix time since which it is Ready; None while it is not."""
    phase: str = "Pending"
    scheduled: bool = False
    ready: bool = False
    terminating: bool = False
    waiting: str = ""
    """Why its container does not run, as the kubelet says it (`ImagePullBackOff`, `CrashLoopBackOff`), or why
    the scheduler found no node (`Unschedulable`)."""
    message: str = ""
    """The sentence that goes with `waiting`."""
    restarts: int = 0
    group: str = ""
    """Of a pod of a LeaderWorkerSet: set and number of its group; empty: the pod is a replica by itself."""
    member: int = 0
    """Its number in the group. 0 is the leader, which answers requests."""
    nodes: int = 1
    """Pods of the replica."""
    placed: int = 0
    """Of a replica of several pods: how many have a node. The scheduler binds them one by one."""

    @property
    def share_held(self) -> float:
        """Share of the replica's accelerators that it holds."""
        return self.placed / self.nodes if self.nodes > 1 else float(self.scheduled)

    @property
    def serving(self) -> bool:
        """Whether requests may be sent to it."""
        return self.ready and not self.terminating and bool(self.address)

    @property
    def gated(self) -> bool:
        """Whether somebody, such as a queue, keeps the scheduler from looking at it."""
        return self.waiting == GATED and not self.terminating

    @property
    def live(self) -> bool:
        """Whether it holds, or will hold, accelerators: not finished, not on its way out."""
        return self.phase in {"Pending", "Running"} and not self.terminating


@dataclass(frozen=True, slots=True)
class ChildDeployment:
    """A Deployment or LeaderWorkerSet under an LLMDeployment: one for each variant that it runs on."""

    replicas: int
    """`spec.replicas` as it stands."""
    started: bool = True
    """Whether Kubernetes' controllers have made pods for it, or cannot; True where they are not asked."""
    ready: int | None = None
    """Ready pods, as far as those controllers have seen; None where they are not asked."""
    deadline_exceeded: bool = False
    """Its pods did not become available within `progressDeadlineSeconds`."""
    message: str = ""
    progressing_since: float | None = None
    """Of a LeaderWorkerSet, which has no deadline of its own: Unix time since which not all groups are ready."""
    patience: float | None = None
    """Seconds that this may take."""

    def late(self, now: float) -> bool:
        """Return whether its pods have not become available in time. `now`: Unix time."""
        if self.deadline_exceeded or self.progressing_since is None or self.patience is None:
            return self.deadline_exceeded
        return self.replicas > 0 and now - self.progressing_since > self.patience


@dataclass(frozen=True, slots=True)
class GatewayReading:
    """Cumulative counters over all gateways, at one moment."""

    time: float
    """Unix time in seconds."""
    arrivals: Mapping[str, float] = field(default_factory=dict)
    """Requests that named the route, counted before any hold or queue, by `Route.name`."""
    active: Mapping[str, int] = field(default_factory=dict)
    """Requests being answered now, by `Upstream.deployment`."""
    answers: Mapping[str, float] = field(default_factory=dict)
    """Requests answered with tokens counted, by `Upstream.deployment`."""
    output_tokens: Mapping[str, float] = field(default_factory=dict)
    """Completion tokens, by `Upstream.deployment`."""
    input_tokens: Mapping[str, float] = field(default_factory=dict)
    """Prompt tokens, by `Upstream.deployment`."""
    route_answers: Mapping[str, float] = field(default_factory=dict)
    """Requests answered with tokens counted, by `Route.name`, whichever target answered."""
    route_output_tokens: Mapping[str, float] = field(default_factory=dict)
    """Completion tokens, by `Route.name`."""
    route_input_tokens: Mapping[str, float] = field(default_factory=dict)
    """Prompt tokens, by `Route.name`."""
    route_cached_tokens: Mapping[str, float] = field(default_factory=dict)
    """Of those, the ones that a cache answered, by `Route.name`."""
    attempts: Mapping[str, Attempts] = field(default_factory=dict)
    """What became of attempts at providers' models, by `external_key`."""
    estimated_tokens: Mapping[str, float] = field(default_factory=dict)
    """Tokens of requests whose answers told no usage, by `Upstream.deployment`: in none of those above."""


@dataclass(frozen=True, slots=True)
class ServiceReading:
    """How well requests were served: counts over all engines of a deployment since they were first read."""

    time: float
    """Unix time in seconds."""
    requests: float
    """Answered."""
    missed: float
    """Of them, those outside the objective."""
    waiting: float = 0.0
    """Requests in the engines' queues at that time, scheduled by none yet."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What routes ask of a deployment."""

    replicas: int = 0
    """At least so many, within its bounds: those that go where it costs least, and came for that."""
    released_at: float | None = None
    """Unix time since which none of them sends to it any more and nothing else is expected; None: something does."""
    relieved: bool = False
    """Whether requests that it has no serving replicas for go elsewhere, so that none waits."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An LLMProvider, and what its Secrets say beside the API key, which no decision ever sees."""

    object: LLMProvider
    trust: str | None = None
    """PEM certificates that the server's is checked with. None: the public ones of the gateway's system."""
    refusal: Refusal | None = None
    """Why no request can be sent: a Secret is missing or cannot be used."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision may look at."""

    deployments: Mapping[str, LLMDeployment] = field(default_factory=dict)
    """By `namespace/name`, like all mappings here."""
    routes: Mapping[str, LLMRoute] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    """By name: those in the gateway's namespace."""
    tenants: Mapping[str, LLMTenant] = field(default_factory=dict)
    """By name: those in the gateway's namespace."""
    accelerators: Mapping[str, AcceleratorClass] = field(default_factory=dict)
    """By name."""
    pods: Mapping[str, tuple[Pod, ...]] = field(default_factory=dict)
    """By `namespace/name` of their LLMDeployment."""
    children: Mapping[str, Mapping[str, ChildDeployment]] = field(default_factory=dict)
    """By `namespace/name` of the LLMDeployment, then by `Variant.name`."""
    strangers: Mapping[str, str] = field(default_factory=dict)
    """Kind and name of an object that Modelyard did not make and that stands where a child should be."""
    inventory: Inventory | None = None
    """None: nodes are not read, which is not the same as no nodes."""
    spanning: Mapping[str, Refusal] = field(default_factory=dict)
    """Why no replica can span nodes, by namespace; a namespace that is missing has what it takes."""
    node_sizes: Mapping[str, int] = field(default_factory=dict)
    """Accelerators of one node, by AcceleratorClass, as `measure_node_sizes` gives them."""
    priorities: Mapping[str, int] = field(default_factory=dict)
    """Values of the PriorityClasses, by name."""
    profiles: Mapping[str, ModelProfile] = field(default_factory=dict)
    """Profiles read from a model's own configuration, by `model.source`."""
    reading: GatewayReading | None = None
    """None: no gateway was read, which is not the same as no traffic."""
    services: Mapping[str, ServiceReading] = field(default_factory=dict)
    """By `namespace/name`, of deployments whose engines tell."""
    asked: Mapping[str, Asked] = field(default_factory=dict)
    """What routes ask of deployments, by `namespace/name`."""
    wakes: Mapping[str, float] = field(default_factory=dict)
    """Unix time of the newest wake signal (a held request), by `namespace/name`."""
    limits: Mapping[str, SizeLimit] = field(default_factory=dict)
    """What budgets ask of sizes, by `namespace/name`, of the deployments that they are about."""
    silent: Mapping[str, Reason] = field(default_factory=dict)
    """Providers' models that do not answer, by `external_key`, and why that is thought."""
    tried: frozenset[str] = frozenset()
    """Those of them that a few requests go to, to find out whether they answer again."""
    silent_pickers: frozenset[str] = frozenset()
    """`namespace/name` of the deployments whose endpoint picker takes no connection."""
    cluster_domain: str = ""
    """DNS domain of the cluster, such as `cluster.local`; empty: it is not known."""
    invalid: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with routes that were never seen in a form that can be read: they stand for their names only, and
    no request goes anywhere through them."""
