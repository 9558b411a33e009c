"""A move of a deployment whose nodes are drained: in any order of events only one replica is missing at a time.

The model is that of Kubernetes as far as this goes. Its controllers share one view of the pods and one of the
Deployments, and each view may be old. The ReplicaSet makes and removes pods, first those that do not serve. The
disruption budget allows what is healthy beyond all that is written less one, where a Deployment counts from the first
pod of it that is seen. An eviction that was allowed takes the pod at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.allocation import Situation, find_unsettled, hold_back
from modelyard.core.availability import AvailabilityMemory
from modelyard.core.inventory import Pool
from modelyard.core.snapshot import ChildDeployment, Pod
from modelyard.core.variants import VariantList
from tests.unit.core.build import make_accelerator, make_deployment, make_pod, make_variant

OLD, NEW = (
    make_variant(make_accelerator(name), pool=Pool("nvidia.com/gpu", (("kind", name),)))
    for name in ("old", "new")
)
NAMES = (OLD.name, NEW.name)


@dataclass
class Cluster:
    """A deployment of `wanted` replicas that serve on the old variant's nodes and are to move to the new one's."""

    wanted: int
    pods: dict[str, Pod] = field(default_factory=dict)
    children: dict[str, ChildDeployment] = field(default_factory=dict)
    seen_pods: dict[str, Pod] = field(default_factory=dict)
    """As the controllers see them."""
    seen_children: dict[str, ChildDeployment] = field(default_factory=dict)
    expected: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in NAMES})
    """Pods that a ReplicaSet has made or removed and has not seen come or go: until then it does nothing more."""
    known: tuple[dict[str, Pod], dict[str, ChildDeployment]] = ({}, {})
    """As the operator sees them."""
    allowed: int = 0
    evicted: set[str] = field(default_factory=set)
    """Pods that the budget has let go and the disruption controller has not seen go."""
    made: int = 0

    def __post_init__(self) -> None:
        self.children[OLD.name] = ChildDeployment(self.wanted, started=False, ready=0)
        for _ in range(2):
            self.see_children()
            self.replace_old()
            for name in self.pods:
                self.pods[name] = replace(self.pods[name], ready=True)
            self.see_pods()
        self.budget()
        self.look()

    def serving(self) -> int:
        return sum(pod.ready for pod in self.pods.values())

    def see_pods(self) -> None:
        """The controllers catch up with the pods, and say so in the status of the Deployments."""
        self.seen_pods = dict(self.pods)
        for name, child in self.children.items():
            mine = [pod for pod in self.pods.values() if pod.variant == name]
            self.expected[name].clear()
            self.children[name] = replace(child, started=bool(mine), ready=sum(pod.ready for pod in mine))

    def see_children(self) -> None:
        self.seen_children = dict(self.children)

    def replace_old(self) -> None:
        self._replicate(OLD.name)

    def replace_new(self) -> None:
        self._replicate(NEW.name)

    def _replicate(self, name: str) -> None:
        mine = [pod for pod in self.seen_pods.values() if pod.variant == name]
        if name not in self.seen_children or self.expected[name]:
            return
        count = self.seen_children[name].replicas
        for pod in sorted(mine, key=lambda pod: pod.ready)[: max(len(mine) - count, 0)]:
            self.pods.pop(pod.name, None)
            self.expected[name].add(pod.name)
        for _ in range(count - len(mine)):
            self.made += 1
            pod = make_pod(f"pod-{self.made}", variant=name, ready=False)
            self.pods[pod.name] = pod
            self.expected[name].add(pod.name)

    def budget(self) -> None:
        """The disruption controller writes how many evictions it allows."""
        self.evicted &= self.seen_pods.keys()
        counted = {pod.variant for pod in self.seen_pods.values()}
        expected = sum(child.replicas for name, child in self.seen_children.items() if name in counted)
        healthy = sum(pod.ready and name not in self.evicted for name, pod in self.seen_pods.items())
        self.allowed = max(healthy - (expected - 1), 0) if expected else 0

    def drain(self) -> None:
        """Whoever drains the old nodes tries one more pod that serves there."""
        left = [pod for pod in self.pods.values() if pod.variant == OLD.name and pod.ready]
        if left and self.allowed:
            self.allowed -= 1
            self.evicted.add(left[0].name)
            del self.pods[left[0].name]

    def start(self) -> None:
        """One more pod serves, on the new nodes: those of the old ones take no new pods."""
        for name, pod in self.pods.items():
            if pod.variant == NEW.name and not pod.ready:
                self.pods[name] = replace(pod, ready=True)
                return

    def look(self) -> None:
        self.known = (dict(self.pods), dict(self.children))

    def operate(self) -> None:
        """The operator decides from what it sees, and writes one Deployment after the other."""
        pods, children = self.known
        # Of its own writes it always knows.
        children = {
            name: replace(
                children.get(name, ChildDeployment(0, started=False, ready=0)), replicas=child.replicas
            )
            for name, child in self.children.items()
        }
        situation = Situation(
            make_deployment(replicas=self.wanted),
            VariantList((OLD, NEW)),
            children,
            tuple(pods.values()),
            AvailabilityMemory(),
            None,
        )
        targets = {NEW.name: self.wanted}
        serving = {name: situation.serving(name) for name in situation.written}
        unsettled = find_unsettled(situation, targets)
        written = hold_back(targets, situation.written, serving, (OLD, NEW), unsettled)
        for name in reversed(NAMES):
            before = self.children.get(name, ChildDeployment(0, started=False, ready=0))
            self.children[name] = replace(before, replicas=written.get(name, 0))


EVENTS: dict[str, Callable[[Cluster], None]] = {
    event.__name__: event
    for event in (
        *(Cluster.see_pods, Cluster.see_children, Cluster.replace_old, Cluster.replace_new, Cluster.budget),
        *(Cluster.drain, Cluster.start, Cluster.look, Cluster.operate),
    )
}


@settings(deadline=None, max_examples=300)
@given(st.integers(2, 4), st.lists(st.sampled_from(sorted(EVENTS)), min_size=40, max_size=100))
def test_a_drain_takes_one_replica_at_a_time_whatever_is_seen_when(wanted: int, events: list[str]):
    cluster = Cluster(wanted)
    assert cluster.serving() == wanted
    for event in events:
        EVENTS[event](cluster)
        assert cluster.serving() >= wanted - 1, event


def test_a_drain_ends_and_everything_serves_on_the_new_nodes():
    cluster = Cluster(3)
    for _ in range(12):
        for event in EVENTS.values():
            event(cluster)
    assert [pod.variant for pod in cluster.pods.values()] == [NEW.name] * 3
    assert cluster.serving() == 3
