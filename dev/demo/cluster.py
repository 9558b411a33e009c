"""The demo's cluster: a local one of its own, or the one that a kubeconfig names."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from dev.cluster.binaries import ensure_binaries
from dev.cluster.control_plane import ControlPlane
from dev.cluster.node_classes import parse_node_counts
from dev.demo.kube import Cluster, Manifest, load_manifests, namespace_manifest
from dev.demo.settings import CRDS, DEMO_NAMESPACE, EXAMPLES, NODES, OPERATOR_NAMESPACE, DemoSettings
from dev.demo.steps import Steps

NODE_COUNT = sum(count for _, count in parse_node_counts(NODES))

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
"""Label of a namespace whose pods must meet the strictest Pod Security Standard, as the operator's do."""


def start_control_plane(settings: DemoSettings, steps: Steps, stack: ExitStack) -> Path:
    """Start a control plane that the stack will stop, and return its kubeconfig."""
    with steps.step("Build the Kubernetes programs, or find them built"):
        ensure_binaries(steps.say)
    plane = ControlPlane(settings.folder / "cluster", report=steps.say)
    with steps.step("Start etcd, API server, scheduler and controller manager"):
        plane.start()
        stack.callback(plane.stop)
    return plane.kubeconfig


def install_kinds(cluster: Cluster, stack: ExitStack, *, tidy: bool) -> None:
    """Apply CRDs and namespaces. With `tidy` the stack deletes those that were not there before."""
    crds = load_manifests([CRDS])
    namespaces = [namespace_manifest(OPERATOR_NAMESPACE), namespace_manifest(DEMO_NAMESPACE, RESTRICTED)]
    if tidy:
        _delete_later(cluster, stack, [*crds, *namespaces])
    cluster.apply_crds(crds)
    cluster.apply(namespaces)


def apply_examples(cluster: Cluster, stack: ExitStack, *, tidy: bool) -> None:
    """Apply the examples. With `tidy` the stack deletes those that were not there before."""
    manifests = load_manifests(EXAMPLES)
    if tidy:
        _delete_later(cluster, stack, manifests)
    cluster.apply(manifests, DEMO_NAMESPACE)


def _delete_later(cluster: Cluster, stack: ExitStack, manifests: Sequence[Manifest]) -> None:
    new = [manifest for manifest in manifests if not cluster.exists(manifest, DEMO_NAMESPACE)]
    stack.callback(cluster.delete, new, DEMO_NAMESPACE)
