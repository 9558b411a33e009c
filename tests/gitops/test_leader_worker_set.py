"""Replicas that span nodes: LeaderWorkerSet's own definition, installed later, and the operator that uses it.

What its controller does, to make the pods of the groups and to write the status, is done here.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from dev.cluster.crds import LEADER_WORKER_SET
from dev.cluster.waiting import wait_until
from modelyard.core.groups import CRD, GROUPS_READY
from modelyard.core.reasons import Code
from modelyard.kube.resources import DEPLOYMENTS, LEADER_WORKER_SETS, NETWORK_POLICIES, PODS, SERVICES
from tests.apiserver.client import MERGE
from tests.apiserver.foreign import install, remove
from tests.gitops.conftest import Site
from tests.gitops.health import ArgoHealth, kstatus

NAME = "wide"
FILE = "leaderworkerset.x-k8s.io_leaderworkersets.yaml"
LWS = "leaderworkerset.sigs.k8s.io"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
MODEL = {"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "contextLength": 8192}


def model(name: str, **spec: Any) -> dict[str, Any]:
    fields = {"model": MODEL, "replicas": 1, **spec}
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": fields,
    }


def placed(nodes: int) -> dict[str, Any]:
    return {"accelerators": [{"class": "l4", "count": 1, "nodes": nodes, "requestsPerMinute": 60}]}


def condition(site: Site, manifest: dict[str, Any], kind: str) -> dict[str, str]:
    """Return a condition; empty without it."""
    for item in site.read(manifest).get("status", {}).get("conditions", ()):
        if item["type"] == kind:
            return dict(item)
    return {}


def told(site: Site, manifest: dict[str, Any], kind: str) -> tuple[str, str]:
    found = condition(site, manifest, kind)
    return found.get("status", ""), found.get("reason", "")


def wait_told(site: Site, manifest: dict[str, Any], kind: str, status: str, reason: str) -> None:
    wait_until(
        lambda: told(site, manifest, kind) == (status, reason), f"{kind} {status} {reason}", timeout_s=60
    )


def listed(site: Site, resource: Any) -> list[dict[str, Any]]:
    """Return the objects of a kind that belong to the model."""
    path = f"{resource.path(site.models)}?labelSelector=modelyard.dev/deployment={NAME}"
    return list(site.server.request("GET", path).body["items"])


def group_set(site: Site) -> dict[str, Any] | None:
    found = listed(site, LEADER_WORKER_SETS)
    return found[0] if found else None


def set_replicas(site: Site) -> int | None:
    body = group_set(site)
    return None if body is None else int(body["spec"]["replicas"])


def make_group(site: Site, number: int) -> list[str]:
    """Make the pods of a group as LeaderWorkerSet's controller and webhook do. Returns their names."""
    body = group_set(site)
    assert body is not None
    name, template = body["metadata"]["name"], body["spec"]["leaderWorkerTemplate"]
    names = []
    for member in range(template["size"]):
        own = copy.deepcopy(template["workerTemplate" if member else "leaderTemplate"])
        labels = {f"{LWS}/name": name, f"{LWS}/group-index": str(number), f"{LWS}/worker-index": str(member)}
        variables = {
            "LWS_LEADER_ADDRESS": f"{name}-{number}.{name}.{site.models}",
            "LWS_GROUP_SIZE": str(template["size"]),
            "LWS_WORKER_INDEX": str(member),
        }
        (container,) = own["spec"]["containers"]
        container["env"][:0] = [{"name": key, "value": value} for key, value in variables.items()]
        names.append(f"{name}-{number}" + (f"-{member}" if member else ""))
        owner = {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "name": name,
            "uid": body["metadata"]["uid"],
            "controller": True,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": names[-1],
                "labels": {**own["metadata"]["labels"], **labels},
                "annotations": {f"{LWS}/size": str(template["size"])},
                "ownerReferences": [owner],
            },
            "spec": own["spec"],
        }
        reply = site.server.request("POST", f"{PODS.path(site.models)}?fieldValidation=Strict", pod)
        assert reply.status == 201, reply.message
    return names


def delete_pods(site: Site) -> None:
    for pod in listed(site, PODS):
        site.server.request(
            "DELETE", f"{PODS.path(site.models, pod['metadata']['name'])}?gracePeriodSeconds=0"
        )


def say(site: Site, **conditions: str) -> None:
    """Write the status of the set as its controller does: each condition with the time since which it holds."""
    body = group_set(site)
    assert body is not None
    items = [
        {
            "type": kind,
            "status": "True" if since else "False",
            "reason": "GroupsProgressing" if kind == "Progressing" else "AllGroupsReady",
            "message": "",
            "lastTransitionTime": since or "2026-01-01T00:00:00Z",
        }
        for kind, since in conditions.items()
    ]
    path = LEADER_WORKER_SETS.path(site.models, body["metadata"]["name"], "status")
    reply = site.server.request("PATCH", path, {"status": {"conditions": items}}, MERGE)
    assert reply.status == 200, reply.message


def endpoints(site: Site) -> set[str]:
    """Return the addresses behind the model's Service, as Kubernetes' own controller finds them."""
    path = f"{SLICES.format(site.models)}?labelSelector=kubernetes.io/service-name={NAME}"
    found = site.server.request("GET", path).body["items"]
    return {
        address for item in found for endpoint in item["endpoints"] or () for address in endpoint["addresses"]
    }


@pytest.fixture
def definition(site: Site) -> Iterator[list[str]]:
    """Paths of definitions that are removed at the end."""
    paths: list[str] = []
    yield paths
    for path in paths:
        remove(site.server, path)


def test_groups_come_with_the_kind_serve_by_their_leaders_and_go_with_the_spec(
    site: Site, examples: list[dict[str, Any]], definition: list[str]
) -> None:
    for item in examples:
        if item["kind"] == "AcceleratorClass":
            site.apply(item, "tests")
    manifest = model(NAME, placement=placed(2))
    beside = model("beside", placement=placed(1))

    # Without the kind it is told what lacks, and others are served.
    for item in (manifest, beside):
        assert site.apply(item, "tests").status in {200, 201}
    wait_told(site, manifest, GROUPS_READY, "False", Code.LEADER_WORKER_SET_MISSING)
    wait_told(site, manifest, "Stalled", "True", Code.LEADER_WORKER_SET_MISSING)
    assert CRD in condition(site, manifest, "Ready")["message"]
    wait_told(site, beside, "Ready", "True", Code.SERVING)
    assert condition(site, beside, GROUPS_READY) == {}
    assert (listed(site, DEPLOYMENTS), listed(site, PODS)) == ([], [])

    # It is found when it is installed.
    definition.append(install(site.server, LEADER_WORKER_SET, FILE))
    wait_until(lambda: group_set(site) is not None, "the set is made", timeout_s=60)
    wait_told(site, manifest, GROUPS_READY, "True", Code.LEADER_WORKER_SET_FOUND)
    wait_told(site, manifest, "Ready", "False", Code.STARTING)
    made = group_set(site)
    assert made is not None
    assert (made["spec"]["replicas"], made["spec"]["leaderWorkerTemplate"]["size"]) == (1, 2)
    assert [owner["uid"] for owner in made["metadata"]["ownerReferences"]] == [
        site.read(manifest)["metadata"]["uid"]
    ]
    assert listed(site, DEPLOYMENTS) == []
    (policy,) = listed(site, NETWORK_POLICIES)
    peers = {"podSelector": {"matchLabels": {"modelyard.dev/deployment": NAME}}}
    assert {"from": [peers]} in policy["spec"]["ingress"]
    assert {"to": [peers]} in policy["spec"]["egress"]

    # A leader without the rest of its group serves nobody; a whole group is one replica.
    leader, worker = make_group(site, 0)
    wait_told(site, manifest, "Ready", "True", Code.SERVING)
    status = site.read(manifest)["status"]
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert (status["placement"]["count"], status["placement"]["nodes"]) == (1, 2)
    assert status["placement"]["variants"][0]["deployment"] == made["metadata"]["name"]
    pods = {pod["metadata"]["name"]: pod for pod in listed(site, PODS)}
    assert pods.keys() == {leader, worker}
    wait_until(
        lambda: endpoints(site) == {pods[leader]["status"]["podIP"]},
        "the leader alone is behind the Service",
        timeout_s=60,
    )
    say(site, Progressing="", Available="2026-01-01T00:00:00Z")
    wait_told(site, manifest, "Progressing", "False", Code.NOT_PROGRESSING)
    waiting = site.read(manifest)
    assert (ArgoHealth().judge(waiting)[0], kstatus(waiting)) == ("Healthy", "Current")

    # kubectl scale; the second group never gets ready in time.
    scale = {"spec": {"replicas": 2}}
    reply = site.server.request("PATCH", f"{site.place(manifest)}/scale", scale, MERGE)
    assert reply.status == 200, reply.message
    wait_until(lambda: set_replicas(site) == 2, "the size is written", timeout_s=60)
    say(site, Progressing="2026-01-01T00:00:00Z", Available="")
    wait_told(site, manifest, "Stalled", "True", Code.START_TIMEOUT)
    say(site, Progressing="", Available="2026-01-01T00:00:00Z")
    make_group(site, 1)
    wait_told(site, manifest, "Stalled", "False", Code.NOT_STALLED)
    wait_until(lambda: site.read(manifest)["status"]["readyReplicas"] == 2, "two groups serve", timeout_s=60)

    # A worker that leaves takes its group out of service before LeaderWorkerSet has deleted the leader.
    site.server.request("DELETE", f"{PODS.path(site.models, worker)}?gracePeriodSeconds=0")
    wait_until(lambda: site.read(manifest)["status"]["readyReplicas"] == 1, "one group serves", timeout_s=60)

    # What others change of it is taken back.
    edit = {"spec": {"rolloutStrategy": {"rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1}}}}
    site.server.request("PATCH", LEADER_WORKER_SETS.path(site.models, made["metadata"]["name"]), edit, MERGE)

    def surge() -> int:
        body = group_set(site)
        assert body is not None
        return int(body["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]["maxSurge"])

    wait_until(lambda: surge() == 1, "an edit is taken back", timeout_s=60)

    # Put to sleep it has no groups, and asks for them again afterwards.
    site.apply(model(NAME, placement=placed(2), suspend=True), "tests")
    wait_until(lambda: set_replicas(site) == 0, "it has no groups", timeout_s=60)
    delete_pods(site)
    wait_told(site, manifest, "Ready", "False", Code.SUSPENDED)
    site.apply(manifest, "tests")
    wait_until(lambda: set_replicas(site) == 1, "it has one again", timeout_s=60)
    make_group(site, 0)
    wait_told(site, manifest, "Ready", "True", Code.SERVING)

    # On one node it is a Deployment, and the set goes when that serves.
    site.apply(model(NAME, placement=placed(1)), "tests")
    wait_until(lambda: group_set(site) is None, "the set goes", timeout_s=60)
    assert len(listed(site, DEPLOYMENTS)) == 1
    wait_until(lambda: condition(site, manifest, GROUPS_READY) == {}, "and its condition", timeout_s=60)
    plain = {"modelyard.dev/deployment": NAME}
    wait_until(
        lambda: [item["spec"]["selector"] for item in listed(site, SERVICES)] == [plain],
        "the Service selects all pods",
        timeout_s=60,
    )
    (policy,) = listed(site, NETWORK_POLICIES)
    assert {"from": [peers]} not in policy["spec"]["ingress"]

    # And back, and away: what owns it takes it along.
    site.apply(manifest, "tests")
    wait_until(lambda: group_set(site) is not None, "the set comes back", timeout_s=60)
    site.server.request("DELETE", site.place(manifest))
    site.server.request("DELETE", site.place(beside))
    wait_until(lambda: group_set(site) is None, "it goes with its owner", timeout_s=120)
