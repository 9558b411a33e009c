"""Removing Modelyard by README's commands leaves nothing.

Files run in the order of their names: after this one only what was logged is judged.
"""

import json
import re
import time

from dev.cluster.waiting import wait_until
from tests.e2e_node.support import README, SYSTEM, TEAM, UNINSTALL, commands_of

LIMIT_S = 60
"""Seconds from the first command until the namespaces are gone, the bar of the project: a finalizer or a pod that hangs
takes longer."""


def test_uninstall_and_namespaces_are_gone_within_a_minute(bed, gemma, terminal):
    bed.wait_serving(gemma, 2)
    end = time.monotonic() + LIMIT_S
    for command in commands_of(README, UNINSTALL):
        terminal.run(command)
    bed.kubectl("delete", "namespace", TEAM, SYSTEM, f"--timeout={end - time.monotonic():.0f}s")
    assert time.monotonic() < end

    assert not {TEAM, SYSTEM} & names(bed, "namespaces")
    for kind in ("clusterroles", "clusterrolebindings", "validatingadmissionpolicies"):
        assert [name for name in names(bed, kind) if "modelyard" in name] == []
    for node in bed.cluster.nodes:
        # Records of ended containers stay until the kubelet's next round of cleaning.
        wait_until(lambda node=node: not node.ctr("tasks", "list", "--quiet"), f"nothing runs on {node.name}")


def test_the_kinds_stay_with_their_objects_until_they_are_deleted(bed, terminal):
    assert "cpu" in names(bed, "acceleratorclasses")
    (command,) = re.findall(r"`(kubectl delete crds [^`]+)` ends them too", README.read_text())
    terminal.run(command)
    assert [name for name in names(bed, "crds") if name.endswith(".modelyard.dev")] == []


def names(bed, kind: str) -> set[str]:
    """The names of all objects of a kind that has no namespaces."""
    return {item["metadata"]["name"] for item in json.loads(bed.kubectl("get", kind, "-o", "json"))["items"]}
