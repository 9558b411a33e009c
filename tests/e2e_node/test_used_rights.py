"""What the operator asked of the API server in all tests of this folder.

Files run in the order of their names: this is the last.
"""

import ast

import pytest

from dev.charts.audit import (
    Event,
    Right,
    describe,
    find_refused,
    find_rights,
    find_unused,
    find_uses,
    read_events,
)
from dev.charts.helm import CHART, Helm, Manifest
from dev.charts.permissions import roles
from tests.e2e_node.support import REPOSITORY, SYSTEM, TEAM

OPERATOR = f"system:serviceaccount:{SYSTEM}:modelyard-operator"

CHART_RUN = "tests/chart/test_rights.py::test_with_named_namespaces_every_right_is_used_and_none_is_missing"

ELSEWHERE = {
    CHART_RUN: {
        # `actuator: External`, replicas that span nodes, and an endpoint picker. All but its kind are listed.
        *(
            Right(resource, verb)
            for resource in (
                "horizontalpodautoscalers.autoscaling",
                "leaderworkersets.leaderworkerset.x-k8s.io",
                "scaledobjects.keda.sh",
            )
            for verb in ("create", "delete", "get", "patch")
        ),
        *(
            Right("inferencepools.inference.networking.k8s.io", verb)
            for verb in ("create", "delete", "get", "list", "patch")
        ),
        # A variant that is not wanted any more; a sum of days that is too old; certificates that have ended.
        Right("deployments.apps", "delete"),
        Right("configmaps", "delete"),
        Right("secrets", "update", "modelyard-xds-client"),
        Right("secrets", "update", "modelyard-xds-server"),
    },
}
"""Rights that no test of this folder makes use of, by the test that does: that one fails if any right of its release is
not used."""


@pytest.fixture(scope="module")
def events(bed) -> list[Event]:
    """What the accounts of both namespaces asked for."""
    log = bed.cluster.control_plane.audit_log
    return [item for name in (SYSTEM, TEAM) for item in read_events(log, f"system:serviceaccount:{name}:")]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> list[Manifest]:
    """The roles of README's release."""
    helm = Helm(tmp_path_factory.mktemp("helm"))
    return list(roles(helm.render(CHART, (), f"--set=watchNamespaces={{{TEAM}}}")).values())


def test_nobody_but_the_operator_asked_for_anything(events):
    assert {event["user"]["username"] for event in events} == {OPERATOR}


def test_nothing_was_refused(bed, events):
    refused = find_refused(events)
    # Helm takes the rights away before the operator's pod has ended.
    taken = min(
        event["requestReceivedTimestamp"]
        for event in read_events(bed.cluster.control_plane.audit_log, "admin")
        if event["verb"] == "delete"
        and event["objectRef"]["resource"] in {"rolebindings", "clusterrolebindings"}
    )
    assert [describe(event) for event in refused if event["requestReceivedTimestamp"] < taken] == []


def test_every_right_is_used_here_or_in_another_run(events, release):
    """It judges the whole folder: run it with the other tests."""
    uses = find_uses(events)
    unused = {right for role in release for right in find_unused(role, uses)}
    assert unused == {right for rights in ELSEWHERE.values() for right in rights}


def test_the_other_runs_exist(release):
    allowed = {right for role in release for right in find_rights(role)}
    for test, rights in ELSEWHERE.items():
        file, _, name = test.partition("::")
        tree = ast.parse((REPOSITORY / file).read_text())
        assert name in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}
        assert rights <= allowed
