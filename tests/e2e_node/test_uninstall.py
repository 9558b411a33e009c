"""Removing Modelyard leaves nothing. Runs last: files run in the order of their names."""

import json

from tests.e2e_node.support import SYSTEM, TEAM

LIMIT_S = 60
"""Seconds that the namespaces may take to go, the bar of the project: a finalizer or a pod that hangs takes longer."""


def test_uninstall_and_namespaces_are_gone_within_a_minute(bed, gemma):
    bed.wait_serving(gemma, 2)
    bed.run("helm", "uninstall", "modelyard", "-n", SYSTEM)
    bed.run("helm", "uninstall", "modelyard-crds", "-n", SYSTEM)
    bed.kubectl("delete", "namespace", TEAM, SYSTEM, f"--timeout={LIMIT_S}s")

    left = json.loads(bed.kubectl("get", "namespaces", "-o", "json"))["items"]
    assert not {TEAM, SYSTEM} & {item["metadata"]["name"] for item in left}
    for kind in ("clusterroles", "clusterrolebindings", "validatingadmissionpolicies"):
        names = json.loads(bed.kubectl("get", kind, "-o", "json"))["items"]
        assert [item["metadata"]["name"] for item in names if "modelyard" in item["metadata"]["name"]] == []
    for node in bed.cluster.nodes:
        assert node.ctr("containers", "list", "--quiet").split() == []
