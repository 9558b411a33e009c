"""Removing Modelyard leaves nothing. Runs last: files run in the order of their names."""

import json

from dev.cluster.waiting import wait_until
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
        # Records of ended containers stay until the kubelet's next round of cleaning.
        wait_until(lambda node=node: not node.ctr("tasks", "list", "--quiet"), f"nothing runs on {node.name}")
