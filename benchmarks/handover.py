"""How long Envoy has no operator when one is replaced or dies: `python -m benchmarks.handover`.

Real operators, a real API server and a real Envoy, on one machine. The time is taken from the signal that ends the
operator until one acts that has Envoy's stream. What Kubernetes adds is not in it: starting a container, telling
kube-proxy of another endpoint. Envoy serves with what it has all the while.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kubernetes.dynamic.exceptions import NotFoundError

from dev.cluster.control_plane import ControlPlane
from dev.cluster.processes import Component
from dev.cluster.relay import ServiceRelay
from dev.demo.kube import Cluster, load_manifests, namespace_manifest
from dev.demo.settings import CRDS
from dev.stack import Ports, envoy_component, operator_component
from modelyard.api.meta import LABEL_ACTIVE

NAMESPACE = "handover"
NAMES = ("operator-a", "operator-b")
LEASE = "modelyard"
POLL_S = 0.05
"""Seconds between two looks at an operator: what a figure may be off by."""
SERVES = {"modelyard_leader 1.0", "modelyard_gateway_nodes 1.0"}
"""Metrics of an operator that acts and has Envoy's stream."""
PATIENCE_S = 120.0
"""Longest wait for one round: then something is broken."""


@dataclass
class Scene:
    """An Envoy and up to two operators, of which it finds the one that acts."""

    cluster: Cluster
    kubeconfig: Path
    folder: Path
    envoy_ports: Ports
    ports: dict[str, Ports]
    only: str | None = None
    """The operator that Envoy is led to where none has a Lease; None: the one with the label."""

    def operator(self, name: str, *options: str) -> Component:
        """Return an operator that is not started yet."""
        return operator_component(
            self.kubeconfig,
            [NAMESPACE],
            replace(self.ports[name], gateway=self.envoy_ports.gateway),
            self.folder / f"{name}.log",
            *("--namespace", NAMESPACE, "--no-read-hub", *options),
        )

    def find_port(self) -> int | None:
        """Return the port of the operator that the Service would lead to."""
        if self.only is not None:
            return self.ports[self.only].xds
        pods = self.cluster.dynamic.resources.get(api_version="v1", kind="Pod")
        found = pods.get(namespace=NAMESPACE, label_selector=f"{LABEL_ACTIVE}=true").items
        return self.ports[found[0].metadata.name].xds if found else None

    def serves(self, name: str) -> bool:
        """Say whether an operator acts and has Envoy's stream. Envoy itself takes a connection for a stream."""
        try:
            with urllib.request.urlopen(self.ports[name].metrics_url, timeout=5) as reply:  # noqa: S310
                return set(reply.read().decode().splitlines()) >= SERVES
        except OSError:
            return False

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {PATIENCE_S:.0f} s: {what}")
            time.sleep(POLL_S)

    def gap(self, end: Callable[[], None], successor: str) -> float:
        """Return the seconds from the call that ends an operator until the next one serves Envoy."""
        begun = time.monotonic()
        end()
        self.wait(lambda: self.serves(successor), f"{successor} serves Envoy")
        return time.monotonic() - begun


def pod(name: str) -> dict[str, Any]:
    """Return a pod that nothing runs: the operators are processes beside the cluster."""
    container = {"name": "operator", "image": "example.com/none"}
    spec = {"schedulerName": "nobody", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def lease(name: str, *, uid: bool = True) -> tuple[str, ...]:
    """Return the options of an operator with a Lease, as the chart gives them."""
    own = ("--lease", LEASE, "--pod-name", name)
    return (*own, "--pod-uid", f"uid-of-{name}") if uid else own


def replaced(scene: Scene) -> float:
    """One without a Lease ends, and then the next begins: the strategy Recreate."""
    first, second = scene.operator(NAMES[0]), scene.operator(NAMES[0])
    scene.only = NAMES[0]
    return _play(scene, [first], [second], _in_turn(first.stop, second.start))


def restarted_alone(scene: Scene) -> float:
    """One without a Lease is killed, and its container begins anew."""
    first = scene.operator(NAMES[0])
    scene.only = NAMES[0]
    return _play(scene, [first], [], _in_turn(first.kill, first.start))


def handed_over(scene: Scene) -> float:
    """One is told to end while the next stands by: a rolling update, of one replica or of two."""
    first, second = (scene.operator(name, *lease(name)) for name in NAMES)
    return _play(scene, [first, second], [], first.terminate, NAMES[1])


def restarted(scene: Scene) -> float:
    """One with a Lease is killed, and its container begins anew."""
    first = scene.operator(NAMES[0], *lease(NAMES[0]))
    return _play(scene, [first], [], _in_turn(first.kill, first.start))


def restarted_without_uid(scene: Scene) -> float:
    """Let one begin anew that does not know that the one before it has ended."""
    first = scene.operator(NAMES[0], *lease(NAMES[0], uid=False))
    return _play(scene, [first], [], _in_turn(first.kill, first.start))


def followed(scene: Scene) -> float:
    """One is killed and does not come back, while the other stands by."""
    first, second = (scene.operator(name, *lease(name)) for name in NAMES)
    return _play(scene, [first, second], [], first.kill, NAMES[1])


def _in_turn(*steps: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for step in steps:
            step()

    return run


def _play(
    scene: Scene,
    started: Sequence[Component],
    later: Sequence[Component],
    end: Callable[[], None],
    successor: str = NAMES[0],
) -> float:
    """Start operators one after the other, and take the time. They are gone afterwards, and the Lease is free."""
    try:
        for component in started:
            component.start()
            component.wait_ready(PATIENCE_S)
        scene.wait(lambda: scene.serves(NAMES[0]), "the first serves Envoy")
        return scene.gap(end, successor)
    finally:
        for component in (*started, *later):
            component.stop()
        scene.only = None
        # What was killed gave nothing back.
        leases = scene.cluster.dynamic.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
        with suppress(NotFoundError):
            leases.delete(name=LEASE, namespace=NAMESPACE)


SCENARIOS: dict[str, Callable[[Scene], float]] = {
    "one without a Lease, ended, then the next starts (Recreate)": replaced,
    "one hands over to the next that stands by (rolling update)": handed_over,
    "one without a Lease, killed, starts anew": restarted_alone,
    "one with a Lease, killed, starts anew": restarted,
    "one with a Lease and no POD_UID, killed, starts anew": restarted_without_uid,
    "two, one killed, the other follows": followed,
}


def main(arguments: Sequence[str]) -> int:
    """Measure and print. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--only", default="", help="measure those with this in their name")
    options = parser.parse_args(arguments)
    rounds: int = options.rounds
    chosen = {name: play for name, play in SCENARIOS.items() if options.only in name}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-handover-")))
        plane = stack.enter_context(ControlPlane(folder / "plane"))
        cluster = stack.enter_context(Cluster(plane.kubeconfig))
        cluster.apply_crds(load_manifests([CRDS]))
        cluster.apply([namespace_manifest(NAMESPACE)])
        cluster.apply([pod(name) for name in NAMES], NAMESPACE)
        ports = Ports.choose()
        scene = Scene(
            cluster,
            plane.user_kubeconfig("handover", ["system:masters"]),
            folder,
            ports,
            {name: Ports.choose() for name in NAMES},
        )
        service = stack.enter_context(ServiceRelay(scene.find_port))
        own = replace(ports, xds=service.port)
        envoy = envoy_component(folder / "envoy.json", own, folder / "envoy.log", "handover")
        stack.callback(envoy.stop)
        envoy.start()
        print(
            f"{platform.processor() or platform.machine()}, n = {rounds} each, seconds: median (least to most)"
        )
        for name, play in chosen.items():
            found = [play(scene) for _ in range(rounds)]
            print(
                f"{name}: {statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
