"""The loop in a small model of a cluster: what is decided is applied, pods appear, wait and serve, and again.

The model is that of Kubernetes as far as placement sees it: a Deployment keeps its number of pods and removes those
that serve last, a scheduler takes the first node with room, pods on a node that vanished are replaced.
"""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.availability import AvailabilityPolicy
from modelyard.core.decide import decide
from modelyard.core.demand import DemandMemory, Sample
from modelyard.core.inventory import Node, Pool, Usage, build_inventory
from modelyard.core.plan import DeploymentPlan
from modelyard.core.replicas import SizeMemory, SizePolicy
from modelyard.core.snapshot import ChildDeployment, Pod, Snapshot
from modelyard.core.state import DeploymentMemory, Memory, Policy
from modelyard.core.variants import variant_name
from tests.unit.core.build import KEY, NOW, make_accelerator, make_deployment, make_node, make_pod
from tests.unit.core.plainload import PLAIN_LOAD

GPU = "nvidia.com/gpu"
POLICY = Policy(
    size=SizePolicy(load=PLAIN_LOAD),
    availability=AvailabilityPolicy(patience=20.0, retry=100.0, longest_retry=400.0),
)
"""As in production, but five minutes take one and a half: fewer decisions in which nothing happens."""
TICK = 10.0
"""Seconds between two decisions."""
START = 40.0
"""Seconds from a node to the first answer."""
CLASSES = {
    name: make_accelerator(name, price=price, nodeSelector={"kind": name})
    for name, price in (("cheap", "1"), ("middle", "2"), ("dear", "4"))
}
VARIANTS = {variant_name(name, 1, spot=False): name for name in CLASSES}
POOLS = {variant: Pool(GPU, (("kind", name),)) for variant, name in VARIANTS.items()}
CHEAP, MIDDLE, DEAR = VARIANTS

# Each example is hundreds of decisions.
unhurried = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Cluster:
    """Nodes with one deployment, and the operator's memory of it. Every replica answers one request per second."""

    deployment: LLMDeployment
    nodes: dict[str, Node]
    visible: bool = True
    """Whether the operator may read nodes."""
    rate: float | None = None
    """Requests per second; None: no counters are read."""
    now: float = NOW
    children: dict[str, int] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    made: int = 0
    history: list[dict[str, int]] = field(default_factory=list)
    """What was wanted of each variant, whenever that changed."""

    def snapshot(self) -> Snapshot:
        usages = [Usage(pod.node, KEY, pod.variant, {GPU: 1}) for pod in self.pods if pod.node]
        inventory = build_inventory(self.nodes.values(), usages, complete=True) if self.visible else None
        return Snapshot(
            deployments={KEY: self.deployment},
            accelerators=CLASSES,
            pods={KEY: tuple(self.pods)},
            children={KEY: {name: ChildDeployment(count) for name, count in self.children.items()}},
            inventory=inventory,
        )

    def step(self) -> DeploymentPlan:
        """Decide, apply, and let the cluster go on for a tick."""
        if self.rate is not None:
            before = self.memory.deployments.get(KEY) or DeploymentMemory(size=SizeMemory(since=self.now))
            samples = (Sample(self.now - 10.0, 0.0), Sample(self.now, 10.0 * self.rate))
            demand = DemandMemory(samples, last_arrival=self.now)
            self.memory = Memory({KEY: replace(before, demand=demand)})
        plans, self.memory = decide(self.snapshot(), self.memory, self.now, POLICY)
        plan = plans.deployments[KEY]
        assert plan.placement is not None
        before = self.serving()
        for name in plan.placement.remove:
            self.children.pop(name)
        for item in plan.placement.variants:
            assert item.replicas is not None
            self.children[item.variant.name] = item.replicas
        wanted = {item.variant.name: item.wanted for item in plan.placement.variants if item.wanted}
        if not self.history or self.history[-1] != wanted:
            self.history.append(wanted)
        self.now += TICK
        self._control()
        assert plan.size is not None
        assert self.serving() >= min(before, plan.size.replicas), "a pod that is needed was taken away"
        self._schedule()
        return plan

    def run(self, seconds: float, least: int = 0) -> None:
        """Go on for a while, during which at least so many replicas serve at any moment."""
        until = self.now + seconds
        while self.now < until:
            self.step()
            assert self.serving() >= least

    def run_until(self, expected: dict[str, int], seconds: float, least: int = 0) -> None:
        """Go on until just these pods are there and serve."""
        until = self.now + seconds
        while self.now < until and self.placed() != expected:
            self.run(TICK, least)
        assert self.placed() == expected

    def placed(self) -> dict[str, int]:
        """Return the serving pods of each variant; empty while others are about."""
        counts = {name: self.serving(name) for name in VARIANTS if self.serving(name)}
        return counts if sum(counts.values()) == len(self.pods) else {}

    def restart(self) -> None:
        self.memory = Memory()

    def serving(self, variant: str | None = None) -> int:
        return sum(pod.serving and variant in (None, pod.variant) for pod in self.pods)

    def take(self, kind: str) -> list[Node]:
        """Take away all nodes of a class."""
        gone = [node for node in self.nodes.values() if node.labels["kind"] == kind]
        for node in gone:
            del self.nodes[node.name]
        self.pods = [pod for pod in self.pods if not pod.node or pod.node in self.nodes]
        return gone

    def give(self, nodes: list[Node]) -> None:
        self.nodes |= {node.name: node for node in nodes}

    def _control(self) -> None:
        for variant in POOLS:
            mine = [pod for pod in self.pods if pod.variant == variant]
            wanted = self.children.get(variant, 0)
            # Of the pods to go, those without a node are the first, and those that serve the last.
            mine.sort(key=lambda pod: (not pod.serving, not pod.scheduled, pod.created))
            for pod in mine[wanted:]:
                self.pods.remove(pod)
            for _ in range(wanted - len(mine)):
                self.made += 1
                self.pods.append(
                    make_pod(
                        f"pod-{self.made}",
                        variant=variant,
                        address=f"10.0.{self.made // 250}.{self.made % 250 + 1}",
                        accelerators={GPU: 1},
                        created=self.now,
                        phase="Pending",
                        scheduled=False,
                        ready=False,
                    )
                )

    def _schedule(self) -> None:
        used: dict[str, int] = {}
        for pod in self.pods:
            used[pod.node] = used.get(pod.node, 0) + 1
        for index, pod in enumerate(self.pods):
            if pod.node:
                ready = self.now - (pod.ready_since or 0.0) >= START
                self.pods[index] = replace(pod, ready=pod.ready or ready)
                continue
            for node in self.nodes.values():
                if POOLS[pod.variant].admits(node) and used.get(node.name, 0) < node.accelerators[GPU]:
                    used[node.name] = used.get(node.name, 0) + 1
                    # The model keeps in `ready_since` when the pod got its node, until it serves.
                    self.pods[index] = replace(
                        pod, node=node.name, scheduled=True, phase="Running", waiting="", ready_since=self.now
                    )
                    break
            else:
                self.pods[index] = replace(pod, waiting="Unschedulable", message="0 nodes are available")


def make_cluster(*, visible: bool, size: int = 2, rate: float | None = None, **gpus: int) -> Cluster:
    gpus = gpus or {"cheap": 2, "middle": 4}
    spec = {"replicas": size} if rate is None else {"scaling": {"min": 1, "max": 10}}
    deployment = make_deployment(classes=tuple(CLASSES), **spec)
    nodes = {f"{kind}-{i}": make_node(f"{kind}-{i}") for kind, count in gpus.items() for i in range(count)}
    return Cluster(deployment, nodes, visible, rate)


either = pytest.mark.parametrize("visible", [True, False], ids=["cluster", "namespaced"])
sizes = pytest.mark.parametrize("rate", [None, 1.6], ids=["fixed", "scaled"])


@either
@sizes
def test_it_lands_on_the_second_choice_and_returns_without_a_gap(visible: bool, rate: float | None):
    cluster = make_cluster(visible=visible, rate=rate)
    cluster.run_until({CHEAP: 2}, 400.0)
    taken = cluster.take("cheap")
    # Where nodes are not read, pods that wait for the whole patience are how it shows.
    cluster.run_until({MIDDLE: 2}, POLICY.availability.patience + START + 6 * TICK)
    cluster.run(400.0, least=2)
    before = len(cluster.history)
    cluster.give(taken)
    cluster.run_until({CHEAP: 2}, POLICY.availability.longest_retry + 200.0, least=2)
    cluster.run(600.0, least=2)
    assert cluster.children == {CHEAP: 2}
    # It is tried in vain while the nodes are away, where they cannot be seen, and then once more.
    assert before <= (3 if visible else 8)
    assert len(cluster.history) - before == 1


@either
def test_nodes_that_vanish_while_there_is_a_shortage_are_missed_too(visible: bool):
    cluster = make_cluster(visible=visible, size=3)
    cluster.run_until({CHEAP: 2, MIDDLE: 1}, 400.0)
    cluster.run(POLICY.availability.retry)
    cluster.take("cheap")
    cluster.run(POLICY.availability.patience + START + 6 * TICK)
    assert cluster.serving(MIDDLE) == 3


@sizes
def test_a_lost_memory_changes_nothing_that_stands(rate: float | None):
    cluster = make_cluster(visible=True, rate=rate, cheap=1, middle=4)
    cluster.run_until({CHEAP: 1, MIDDLE: 1}, 400.0)
    for _ in range(5):
        cluster.restart()
        cluster.step()
        assert cluster.children == {CHEAP: 1, MIDDLE: 1}


@sizes
def test_where_nodes_are_not_read_a_lost_memory_costs_one_attempt(rate: float | None):
    cluster = make_cluster(visible=False, rate=rate, cheap=1, middle=4)
    cluster.run_until({CHEAP: 1, MIDDLE: 1}, 400.0)
    cluster.restart()
    before = len(cluster.history)
    cluster.run(POLICY.availability.patience + 3 * TICK, least=2)
    assert cluster.placed() == {CHEAP: 1, MIDDLE: 1}
    assert len(cluster.history) - before == 2


@either
def test_lost_metrics_take_nothing_away_in_the_middle_of_a_change(visible: bool):
    cluster = make_cluster(visible=visible, rate=2.4, cheap=3, middle=4)
    cluster.run_until({CHEAP: 3}, 400.0)
    taken = cluster.take("cheap")
    cluster.run_until({MIDDLE: 3}, 400.0)
    cluster.give(taken)
    for _ in range(60):
        if CHEAP in cluster.children:
            break
        cluster.run(TICK, least=3)
    assert set(cluster.children) == {CHEAP, MIDDLE}
    cluster.rate = None
    cluster.run(400.0, least=3)
    assert sum(cluster.history[-1].values()) == 3


def test_replicas_that_stay_until_others_serve_are_not_replaced_as_well():
    cluster = make_cluster(visible=True, rate=1.6, middle=2)
    cluster.run_until({MIDDLE: 2}, 400.0)
    cluster.restart()
    cluster.give([make_node(f"cheap-{i}") for i in range(8)])
    cluster.run_until({CHEAP: 2}, 200.0, least=2)
    assert max(sum(wanted.values()) for wanted in cluster.history) == 2


events = st.lists(
    st.tuples(
        st.sampled_from(["take cheap", "take middle", "give", "restart", "lose metrics", "load"]),
        st.integers(1, 12),
        st.sampled_from([0.4, 1.6, 3.2]),
    ),
    max_size=6,
)


@unhurried
@given(events, st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_whatever_happens_it_settles_where_it_is_cheapest(
    events: list[tuple[str, int, float]], visible: bool, scaled: bool, cheap: int, middle: int
):
    cluster = make_cluster(visible=visible, rate=1.6 if scaled else None, cheap=cheap, middle=middle, dear=2)
    away: list[Node] = []
    for event, ticks, rate in events:
        if event.startswith("take"):
            away += cluster.take(event.split()[1])
        elif event == "give":
            cluster.give(away)
            away = []
        elif event == "restart":
            cluster.restart()
        elif scaled:
            cluster.rate = None if event == "lose metrics" else rate
        cluster.run(ticks * TICK)
    cluster.rate = 1.6 if scaled else None
    # The window for a smaller size, one longest wait for a new attempt, and the time that this one takes.
    cluster.run(POLICY.size.down_window + POLICY.availability.longest_retry + 200.0)
    left = 2
    for name, kind in VARIANTS.items():
        there = sum(node.labels["kind"] == kind for node in cluster.nodes.values())
        assert cluster.serving(name) == min(there, left)
        left -= min(there, left)
    assert len(cluster.history) <= 6 * (len(events) + 3)
