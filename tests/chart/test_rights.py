"""What the operator may do, and what it does: the API server's audit log of releases whose every right is tried."""

import base64
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dev.charts.audit import Use, describe, find_refused, find_unused, find_uses, read_events
from dev.charts.helm import CHART, CRDS_CHART, NAMESPACE
from dev.cluster.components import AUDITED_GROUP
from dev.cluster.crds import GATEWAY_API, INFERENCE_EXTENSION, LEADER_WORKER_SET
from dev.cluster.waiting import wait_until
from dev.demo.kube import Cluster, namespace_manifest
from dev.stack import Stack
from modelyard.core.ledger.archive import DAY, KEPT_DAYS, KEPT_SUMS, archive_name, find_day
from modelyard.core.ledger.codec import Archive, encode_archive
from modelyard.gateway.authority import LIFETIME, Files, read_files, renew
from modelyard.kube.resources import (
    CONFIG_MAPS,
    HORIZONTAL_POD_AUTOSCALERS,
    HTTP_ROUTES,
    INFERENCE_POOLS,
    LEASES,
    LLM_BUDGETS,
    LLM_DEPLOYMENTS,
    LLM_PROVIDERS,
    LLM_ROUTES,
    LLM_TENANTS,
    SCALED_OBJECTS,
    SECRETS,
)
from modelyard.render.gateway_api import ROUTE_NAME
from modelyard.render.ledger import LABEL_LEDGER, build_ledger
from modelyard.runtime.xdstls import CLIENT_SECRET, SERVER_SECRET
from tests.apiserver.client import APPLY, CRDS_PATH, MERGE
from tests.apiserver.test_autoscalers import STAND_IN as KEDA
from tests.chart.conftest import MODELS, RESTRICTED, Place
from tests.chart.test_release import ACCOUNT, QUICK, SYSTEM, USER, XDS_HOST, Installed, manifest, model

NAMED, OTHER = "rights-named", "rights-other"
"""Namespaces of models: in `watchNamespaces`, and one that only a release for the whole cluster looks after."""
CLUSTER_ROLE = ("", f"{NAMESPACE}-modelyard-operator")
SYSTEM_ROLE = (NAMESPACE, "modelyard-operator")
MODELS_ROLE = (NAMED, "modelyard-operator-models")
ROLES = "/apis/rbac.authorization.k8s.io/v1"
PARENT = "infra/public/https"
CLASSES = "acceleratorClasses.cpu"
COMMON = (
    "--set=operator.highAvailability.enabled=true",
    f"--set-string={CLASSES}.requests.cpu=1,{CLASSES}.requests.memory=3Gi,{CLASSES}.price.onDemand=0.1",
)
GPU = {"resourceName": "nvidia.com/gpu", "memory": "24Gi", "price": {"onDemand": "1"}}


def grouped(name: str) -> dict:
    """A model whose replicas span two nodes. No node has such an accelerator here, so it never runs."""
    model = {"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "contextLength": 8192}
    placed = {"class": "gpu", "count": 1, "nodes": 2, "requestsPerMinute": 60}
    fields = {"model": model, "replicas": 1, "placement": {"accelerators": [placed]}}
    return manifest("LLMDeployment", name, fields)


@dataclass
class Log:
    """What the operator asked of the API server since a moment."""

    path: Path
    offset: int

    @classmethod
    def begin(cls, place: Place) -> "Log":
        return cls(place.plane.audit_log, place.plane.audit_log.stat().st_size)

    def uses(self) -> set[Use]:
        return find_uses(read_events(self.path, USER, self.offset))

    def refused(self) -> list[str]:
        return [describe(event) for event in find_refused(read_events(self.path, USER, self.offset))]

    def wait(self, verb: str, resource: str, namespace: str, name: str = "") -> None:
        """Wait until a right is used in a namespace."""
        wait_until(
            lambda: any(
                (use.verb, use.resource, use.namespace) == (verb, resource, namespace)
                and name in {"", use.name}
                for use in self.uses()
            ),
            f"the operator's {verb} on {resource} {name} in {namespace}",
            timeout_s=180,
        )


@dataclass
class Release:
    """A release of the present charts, the operator and Envoy that run with its rights, and its requests."""

    live: Installed
    log: Log

    @property
    def place(self) -> Place:
        return self.live.place

    def exists(self, path: str) -> bool:
        return self.place.server.request("GET", path).status == 200

    def wait(self, path: str, *, gone: bool = False) -> None:
        """Wait until an object is there, or is not any more."""
        wait_until(
            lambda: self.exists(path) is not gone, f"{path} {'goes' if gone else 'comes'}", timeout_s=180
        )

    def roles(self) -> dict[tuple[str, str], dict]:
        """What Helm has made, by namespace and name."""
        found = {}
        for plural in ("roles", "clusterroles"):
            path = f"{ROLES}/{plural}?labelSelector=app.kubernetes.io/instance=modelyard"
            for item in self.place.server.request("GET", path).body["items"]:
                found[item["metadata"].get("namespace", ""), item["metadata"]["name"]] = item
        return found


@pytest.fixture(scope="module")
def release(place: Place, tmp_path_factory) -> Iterator[Release]:
    """A release for one namespace; other projects' kinds are there, too."""
    definitions = (
        KEDA,
        GATEWAY_API.load("gateway.networking.k8s.io_httproutes.yaml"),
        INFERENCE_EXTENSION.load("inference.networking.k8s.io_inferencepools.yaml"),
        LEADER_WORKER_SET.load("leaderworkerset.x-k8s.io_leaderworkersets.yaml"),
    )
    for item in definitions:
        name = item["metadata"]["name"]
        path = f"{CRDS_PATH}/{name}?fieldManager=tests&force=true"
        assert place.server.request("PATCH", path, item, APPLY).status in {200, 201}
        place.server.wait_for_condition(CRDS_PATH, name, "Established")
    place.install(str(CRDS_CHART), "modelyard-crds")
    clear(place)
    leave_old_sum(place)
    place.cluster.apply([namespace_manifest(name, RESTRICTED) for name in (NAMED, OTHER)])
    log = Log.begin(place)
    place.install(str(CHART), "modelyard", f"--set=watchNamespaces={{{NAMED}}}", *COMMON, *place.pinned())
    pods = place.cluster.dynamic.resources.get(api_version="v1", kind="Pod")
    (pod, *_) = pods.get(
        namespace=NAMESPACE,
        label_selector="app.kubernetes.io/component=operator,app.kubernetes.io/instance=modelyard",
    ).items
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", AUDITED_GROUP]
    stack = Stack(
        folder=tmp_path_factory.mktemp("rights"),
        kubeconfig=place.plane.kubeconfig,
        operator_kubeconfig=place.plane.user_kubeconfig(USER, groups),
        namespaces=(NAMED,),
        nodes="cpu=1",
        node_prefix="rights",
        standin_rules=("class=cpu:STANDIN_PROFILE=zero",),
        operator_options=(
            *("--namespace", NAMESPACE, "--lease", ACCOUNT, "--pod-name", pod.metadata.name),
            *QUICK,
            *("--xds-tls-interval", "0.5"),
        ),
        anonymous=False,
    )
    with stack:
        live = Installed(place, stack)
        live.encrypt()
        place.cluster.apply(SYSTEM, NAMESPACE)
        for item in SYSTEM[1:]:
            live.wait_ready(item["kind"], item["metadata"]["name"], NAMESPACE)
        yield Release(live, log)


def clear(place: Place) -> None:
    """Take away what other tests left, and what this operator is to make itself."""
    for resource in (LLM_DEPLOYMENTS, LLM_ROUTES):
        place.server.request("DELETE", resource.path(MODELS))
    place.server.request("DELETE", f"{CONFIG_MAPS.path(NAMESPACE)}?labelSelector={LABEL_LEDGER}")
    # A status that is right already would not be written again.
    for resource in (LLM_PROVIDERS, LLM_BUDGETS, LLM_TENANTS):
        path = resource.path(NAMESPACE)
        place.server.request("DELETE", path)
        wait_until(
            lambda path=path: not place.server.request("GET", path).body["items"],
            f"no {resource.kind} is left",
        )
    for path in (
        *(SECRETS.path(NAMESPACE, name) for name in (SERVER_SECRET, CLIENT_SECRET)),
        LEASES.path(NAMESPACE, ACCOUNT),
    ):
        place.server.request("DELETE", path)


def leave_old_sum(place: Place) -> None:
    """Put a sum into the ledger that is so old that an operator which finds it when it starts deletes it."""
    age = dt.timedelta(days=KEPT_DAYS + KEPT_SUMS + 1)
    start = find_day(int((dt.datetime.now(dt.UTC) - age).timestamp()))
    text = encode_archive(Archive(start, DAY, ()))
    old = build_ledger(archive_name(start, DAY), NAMESPACE, "Day", text)
    assert place.server.request("POST", CONFIG_MAPS.path(NAMESPACE), old).status == 201


def use_every_right(release: Release, namespace: str) -> None:
    """Ask for all that the operator may do, with models of one namespace."""
    live, cluster = release.live, release.place.cluster
    first, scaled, third, wide = (f"{namespace}-{name}" for name in ("first", "scaled", "third", "wide"))
    route = manifest("LLMRoute", "route", {"model": f"{namespace}-front", "targets": [{"deployment": first}]})
    cluster.apply([model(first, replicas=1), route], namespace)
    live.wait_ready("LLMDeployment", first, namespace)
    live.wait_ready("LLMRoute", "route", namespace)

    # Autoscalers and an InferencePool come and go, and so does a variant that is not wanted any more.
    outside = {"min": 1, "max": 2, "actuator": "External"}
    picker = {"service": "epp", "failureMode": "FailOpen"}
    cluster.apply([model(scaled, scaling=outside, endpointPicker=picker)], namespace)
    release.wait(HORIZONTAL_POD_AUTOSCALERS.path(namespace, scaled))
    release.wait(INFERENCE_POOLS.path(namespace, scaled))
    cluster.apply([model(scaled, scaling={**outside, "external": {"scaler": "ScaledObject"}})], namespace)
    release.wait(SCALED_OBJECTS.path(namespace, scaled))
    release.wait(HORIZONTAL_POD_AUTOSCALERS.path(namespace, scaled), gone=True)
    release.wait(INFERENCE_POOLS.path(namespace, scaled), gone=True)
    other = {"requests": {"cpu": "1", "memory": "3Gi"}, "price": {"onDemand": "0.05"}}
    cluster.apply([manifest("AcceleratorClass", "other", other)])
    moved = {"accelerators": [{"class": "other", "requestsPerMinute": 60}]}
    cluster.apply([model(scaled, scaling={"min": 1, "max": 2}, placement=moved)], namespace)
    release.wait(SCALED_OBJECTS.path(namespace, scaled), gone=True)
    release.log.wait("delete", "deployments.apps", namespace)

    # Replicas that span nodes, until they need not.
    cluster.apply([manifest("AcceleratorClass", "gpu", GPU), grouped(wide)], namespace)
    release.log.wait("patch", "leaderworkersets.leaderworkerset.x-k8s.io", namespace)
    cluster.apply([model(wide, replicas=1)], namespace)
    release.log.wait("delete", "leaderworkersets.leaderworkerset.x-k8s.io", namespace)

    # What happens again is counted on the Event that stands.
    for name, stalled in (("nowhere", "True"), ("cpu", "False"), ("nowhere", "True")):
        unplaced = {"accelerators": [{"class": name, "requestsPerMinute": 60}]}
        cluster.apply([model(third, replicas=1, placement=unplaced)], namespace)
        wait_until(
            lambda wanted=stalled: live.condition("LLMDeployment", third, namespace, "Stalled") == wanted,
            f"{third} on {name} is stalled: {stalled}",
            timeout_s=180,
        )
    release.log.wait("patch", "events", namespace)

    # What is used is written, what is too old is deleted, and a certificate that has ended is replaced.
    assert live.ask(first) == first
    for verb in ("update", "delete"):
        release.log.wait(verb, "configmaps", NAMESPACE)
    expire(release)


def expire(release: Release) -> None:
    """Put certificates that have ended into both Secrets, of the authority that stands, and wait for new ones."""
    names = (SERVER_SECRET, CLIENT_SECRET)
    server = read(release, SERVER_SECRET)
    then = dt.datetime.now(dt.UTC) - LIFETIME - dt.timedelta(days=1)
    ended = renew(replace(server, chain="", key=""), None, XDS_HOST, then)
    for name, files in zip(names, ended, strict=True):
        data = {key: base64.b64encode(value).decode() for key, value in files.data().items()}
        path = SECRETS.path(NAMESPACE, name)
        assert release.place.server.request("PATCH", path, {"data": data}, MERGE).status == 200
    for name in names:
        release.log.wait("update", "secrets", NAMESPACE, name)
        wait_until(
            lambda name=name: read(release, name).not_after > dt.datetime.now(dt.UTC).timestamp(),
            f"{name} is valid again",
        )


def read(release: Release, name: str) -> Files:
    """The files of a Secret."""
    data = release.place.server.request("GET", SECRETS.path(NAMESPACE, name)).body["data"]
    return read_files({key: base64.b64decode(value) for key, value in data.items()}, name)


def test_with_named_namespaces_every_right_is_used_and_none_is_missing(release):
    use_every_right(release, NAMED)
    roles, uses = release.roles(), release.log.uses()
    assert roles.keys() == {CLUSTER_ROLE, SYSTEM_ROLE, MODELS_ROLE}
    assert release.log.refused() == []
    for name, role in roles.items():
        assert find_unused(role, uses) == set(), f"{name}: use it here, or take it from the chart"


def test_cluster_wide_and_with_a_gateway_every_right_is_used_and_none_is_missing(release):
    """The operator that is there works on while the Roles of its namespaces become a ClusterRole."""
    place, operator = release.place, release.live.stack.operator
    options = ("--set=clusterWide=true", f"--set=gateway.parents={{{PARENT}}}")
    place.install(str(CHART), "modelyard", *options, *COMMON, *place.pinned())
    operator.stop()
    at = operator.command.index("--watch-namespace")
    operator.command[at : at + 2] = ["--gateway-parent", PARENT]
    leave_old_sum(place)
    since = Log.begin(place)
    operator.start()
    operator.wait_ready()

    release.wait(HTTP_ROUTES.path(NAMESPACE, ROUTE_NAME))
    use_every_right(replace(release, log=since), OTHER)
    roles = release.roles()
    assert roles.keys() == {CLUSTER_ROLE, SYSTEM_ROLE}
    assert release.log.refused() == []
    # The gateway's namespace has a Role of its own, whose rights overlap.
    outside = [use for use in since.uses() if use.namespace != NAMESPACE]
    assert find_unused(roles[CLUSTER_ROLE], outside) == set()
    assert find_unused(roles[SYSTEM_ROLE], release.log.uses()) == set()


def test_apply_of_what_is_not_there_needs_the_right_to_create(place):
    """Why roles have `create` beside `patch`."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "patcher"},
        "rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["patch"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "patcher"}],
    }
    place.cluster.apply([role, binding], "team-b")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"ports": [{"port": 1}]},
    }
    with Cluster(place.plane.user_kubeconfig("patcher")) as patcher, pytest.raises(Exception, match="403"):
        patcher.apply([service], "team-b")
