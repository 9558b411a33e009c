"""From a chart whose operator has no Lease, and from one operator to two: one command, and never two that act."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dev.charts.helm import CHART
from dev.cluster.waiting import wait_until
from dev.demo.kube import namespace_manifest
from tests.chart.combinations import FOLDER
from tests.chart.conftest import RESTRICTED, Place

PREVIOUS = FOLDER / "previous" / "modelyard-0.2.0.tgz"
"""The last version whose only operator acts without a Lease, packaged."""
SYSTEM = "upgrades"
"""Namespace of this release: another file's may have the usual one."""
WATCH_S = 30
"""Longest wait for an event that the API server has already: a bound on a busy machine."""


@dataclass
class Release:
    """A release of the chart, whose pods run without a process."""

    place: Place

    def upgrade(self, chart: str, *options: str) -> None:
        self.place.install(chart, "modelyard", f"--namespace={SYSTEM}", *options)

    def find(self, kind: str, api_version: str = "v1", **query: Any) -> Any:
        resource = self.place.cluster.dynamic.resources.get(api_version=api_version, kind=kind)
        return resource.get(namespace=SYSTEM, **query)

    def operators(self) -> Any:
        return self.find("Pod", label_selector="app.kubernetes.io/component=operator")

    def uids(self) -> set[str]:
        return {pod.metadata.uid for pod in self.operators().items if not pod.metadata.deletionTimestamp}

    def strategy(self) -> str:
        (found,) = self.find(
            "Deployment", "apps/v1", label_selector="app.kubernetes.io/component=operator"
        ).items
        return str(found.spec.strategy.type)

    def changes(self, since: str, wanted: set[tuple[str, bool]], before: set[str]) -> list[tuple[str, bool]]:
        """Return in their order what happened to operators' pods until all `wanted` did: the type of the event, and
        whether it is a pod of `before`."""
        pods = self.place.cluster.dynamic.resources.get(api_version="v1", kind="Pod")
        seen: list[tuple[str, bool]] = []
        for event in pods.watch(
            namespace=SYSTEM,
            label_selector="app.kubernetes.io/component=operator",
            resource_version=since,
            timeout=WATCH_S,
        ):
            change = (event["type"], event["object"].metadata.uid in before)
            if change not in seen:
                seen.append(change)
            if wanted <= set(seen):
                return seen
        raise AssertionError(f"of {wanted} only {seen} happened")


@pytest.fixture(scope="module")
def release(place: Place) -> Iterator[Release]:
    """The previous version with its defaults: one operator, without a Lease."""
    namespace = namespace_manifest(SYSTEM, RESTRICTED)
    place.cluster.apply([namespace])
    found = Release(place)
    try:
        found.upgrade(str(PREVIOUS), *place.pinned(), "--set=gateway.replicas=1")
        yield found
    finally:
        place.helm.run("uninstall", "modelyard", f"--namespace={SYSTEM}", "--ignore-not-found", "--wait")
        place.cluster.delete([namespace])


ADDED, DELETED = ("ADDED", False), ("DELETED", True)
"""A new operator's pod is there; one of before is gone."""


def test_one_without_a_lease_ends_before_the_next_begins(release):
    before = release.operators()
    old = {pod.metadata.uid for pod in before.items}
    assert "--lease" not in str(before.to_dict())
    release.upgrade(str(CHART), "--reset-then-reuse-values")
    assert release.strategy() == "Recreate"
    seen = release.changes(before.metadata.resourceVersion, {ADDED, DELETED}, old)
    assert seen.index(DELETED) < seen.index(ADDED)
    assert "--lease=modelyard-operator" in str(release.operators().to_dict())


def test_one_with_a_lease_leaves_when_the_next_stands_by(release):
    before = release.operators()
    old = release.uids()
    release.upgrade(str(CHART), "--reset-then-reuse-values", "--set=operator.logLevel=DEBUG")
    assert release.strategy() == "RollingUpdate"
    seen = release.changes(before.metadata.resourceVersion, {ADDED, DELETED}, old)
    assert seen.index(ADDED) < seen.index(DELETED)


def test_a_second_one_is_one_command_and_the_first_stays(release):
    first = release.uids()
    assert len(first) == 1
    release.upgrade(str(CHART), "--reset-then-reuse-values", "--set=operator.highAvailability.enabled=true")
    assert len(release.uids()) == 2
    assert first < release.uids()
    release.upgrade(str(CHART), "--reset-then-reuse-values", "--set=operator.highAvailability.enabled=false")
    wait_until(lambda: len(release.uids()) == 1, "one operator is left", timeout_s=WATCH_S)
