"""The placement problem and its answer: plain values, in and out of the solvers.

One problem holds every deployment of the fleet. A deployment may run on several variants at once (a class of
accelerator, how many of them, on demand or spot); the answer says how many replicas of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant that a deployment may run on."""

    name: str
    """Unique within its deployment."""
    pool: str
    """The kind of node it needs: replicas of candidates with the same pool compete for the same nodes."""
    accelerators: int
    """Accelerators of one replica, all on one node, or on one place for a group of nodes (`NodeGroup.free`)."""
    capacity: float
    """Requests per second that one replica answers within the objective."""
    price: float
    """US dollars per hour and replica."""
    spot: bool = False
    start_time: float = 0.0
    """Seconds until a new replica serves, a new node not counted."""
    ceiling: int | None = None
    """At most this many replicas: what is known to be obtainable after some stayed Pending. None: no limit."""
    label: str = ""
    """How people read it, such as `2 x h100`; empty: by its name."""
    nodes: str = ""
    """How people read its pool, such as `nodes of class h100`; empty: by the pool's name."""


@dataclass(frozen=True, slots=True)
class PlacementDemand:
    """What one deployment needs."""

    key: str
    """`namespace/name`."""
    candidates: tuple[Candidate, ...]
    capacity: float
    """Requests per second that its replicas must answer in all. 0: only the bounds on replicas count."""
    minimum: int = 0
    """Replicas."""
    maximum: int = 1000
    """Replicas."""
    priority: int = 0
    """Value of its PriorityClass: of two that cannot both be met, the higher is."""
    current: Mapping[str, int] = field(default_factory=dict)
    """Replicas that run now, by candidate. They hold accelerators that `NodeGroup.free` does not count as free."""
    on_demand_base: int = 0
    """Replicas that must not be spot."""


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Nodes that the same candidates may use."""

    name: str
    pools: frozenset[str]
    """Pools of the candidates that may use these nodes."""
    free: tuple[int, ...]
    """For each node, or place for a group of nodes, the accelerators that deployments of the problem may use: free
    now, or held by a replica of `PlacementDemand.current`. What others hold is not in it."""
    zone: str = ""
    """Failure zone. Spot capacity of one zone may be lost as a whole."""
    delay: float = 0.0
    """Seconds until its accelerators can be used: how long a new node takes, 0 for nodes that exist."""
    running: tuple[Mapping[tuple[str, str], int], ...] = ()
    """For each node (in the order of `free`), the replicas of `PlacementDemand.current` on it, by (key, candidate). A
    running replica stays on its node, where it may keep a larger one out, unless one of higher priority takes its
    place (as the kube-scheduler preempts). Empty: not known, so they count as if they could be packed anew."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what some deployments may cost in all."""

    name: str
    keys: frozenset[str]
    """Deployments, `namespace/name`."""
    per_hour: float
    """US dollars per hour."""


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """What tunes the choice."""

    switching_hours: float = 0.5
    """Hours over which a cheaper variant must earn what a change costs: a replica that is moved is paid for twice
    while the new one starts, and this many hours of its saving must cover that. Keeps the choice from flapping."""
    hysteresis: float = 0.05
    """Share of the price of a replica that its replacement must save at the least, however fast it starts: prices
    that wobble by 1 or 2 % change nothing."""
    gap: float = 0.01
    """Relative distance to the optimum at which the search stops."""
    node_limit: int = 2_000
    """Branch-and-bound nodes after which the search stops. No clock: the same problem gives the same answer."""


@dataclass(frozen=True, slots=True)
class PlacementProblem:
    """Everything that the choice depends on."""

    demands: tuple[PlacementDemand, ...]
    groups: tuple[NodeGroup, ...] | None
    """None: the nodes are not known, so inventory limits nothing."""
    budgets: tuple[Budget, ...] = ()
    policy: PlacementPolicy = field(default_factory=PlacementPolicy)


@dataclass(frozen=True, slots=True)
class Allocation:
    """The replicas of one deployment."""

    replicas: Mapping[str, int] = field(default_factory=dict)
    """By candidate; none with 0."""
    shortage: float = 0.0
    """Requests per second that could not be placed."""
    limits: tuple[str, ...] = ()
    """Sentences: what kept a better choice out (inventory of a pool, a budget, the maximum)."""


@dataclass(frozen=True, slots=True)
class PlacementResult:
    """The answer for all deployments."""

    allocations: Mapping[str, Allocation]
    """By `namespace/name`."""
    cost: float
    """US dollars per hour."""
    objective: float
    """What was minimised: cost, switching cost and penalties for shortage."""
    bound: float
    """A proven lower bound on the objective."""
    method: str
    """`optimal`, `search` (stopped at the gap or node limit) or `greedy`."""

    @property
    def gap(self) -> float:
        """Relative distance between the objective and its bound."""
        return 0.0 if self.objective <= 0 else max(0.0, (self.objective - self.bound) / self.objective)
