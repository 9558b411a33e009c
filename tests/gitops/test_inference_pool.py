"""The InferencePool of a deployment with an endpoint picker: the extension's own definition, installed later."""

import asyncio
import copy
from collections.abc import Iterable
from typing import Any, cast

from dev.cluster.control_plane import ControlPlane
from dev.cluster.crds import INFERENCE_EXTENSION
from dev.cluster.waiting import wait_until
from dev.demo.kube import namespace_manifest
from dev.envoy.process import free_port
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.reasons import Code
from modelyard.core.routing import Picker
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import INFERENCE_POOLS
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.pickers import Connector, PickerKeeper
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from tests.apiserver.client import APPLY, CRDS_PATH, MERGE
from tests.gitops.conftest import Site

DEFINITION = "inferencepools.inference.networking.k8s.io"
NAME = "picked"


def condition(site: Site, manifest: dict[str, Any], kind: str) -> tuple[str, str] | None:
    """Return status and reason of a condition; None without it."""
    for item in site.read(manifest)["status"].get("conditions", ()):
        if item["type"] == kind:
            return item["status"], item["reason"]
    return None


def pool(site: Site) -> dict[str, Any] | None:
    reply = site.server.request("GET", INFERENCE_POOLS.path(site.models, NAME))
    return reply.body if reply.status == 200 else None


def test_the_pool_comes_with_the_extension_follows_the_spec_and_goes_with_the_field(
    site: Site, examples: list[dict[str, Any]]
) -> None:
    for item in examples:
        if item["kind"] == "AcceleratorClass":
            site.apply(item, "tests")
    manifest = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "contextLength": 8192},
            "placement": {"accelerators": [{"class": "l4", "requestsPerMinute": 60, "count": 1}]},
            "replicas": 1,
            "endpointPicker": {"service": "epp", "failureMode": "FailOpen"},
        },
    }

    def wait_pool(status: str, reason: str) -> None:
        told = (status, reason)
        wait_until(
            lambda: condition(site, manifest, "InferencePoolReady") == told, f"told {reason}", timeout_s=60
        )

    assert site.apply(manifest, "tests").status in {200, 201}
    wait_pool("False", Code.INFERENCE_API_MISSING)
    # Nobody listens there: it is told, and the model serves all the same.
    wait_until(
        lambda: condition(site, manifest, "EndpointPickerAnswers") == ("False", Code.PICKER_SILENT),
        "the picker is silent",
        timeout_s=60,
    )
    wait_until(
        lambda: condition(site, manifest, "Ready") == ("True", Code.SERVING), "it serves", timeout_s=60
    )

    definition = INFERENCE_EXTENSION.load("inference.networking.k8s.io_inferencepools.yaml")
    path = f"{CRDS_PATH}/{DEFINITION}?fieldManager=tests&force=true"
    reply = site.server.request("PATCH", path, definition, APPLY)
    assert reply.status in {200, 201}, reply.message
    wait_pool("True", Code.POOL_APPLIED)
    made = pool(site)
    assert made is not None
    assert made["spec"]["selector"] == {"matchLabels": {"modelyard.dev/deployment": NAME}}
    assert made["spec"]["targetPorts"] == [{"number": 8000}]
    picker = made["spec"]["endpointPickerRef"]
    assert (picker["name"], picker["port"], picker["failureMode"]) == ("epp", {"number": 9002}, "FailOpen")
    assert [owner["uid"] for owner in made["metadata"]["ownerReferences"]] == [
        site.read(manifest)["metadata"]["uid"]
    ]

    # The pods that it selects are those that serve.
    changed = copy.deepcopy(manifest)
    changed["spec"]["endpointPicker"] = {"service": "epp", "port": 9003}
    site.apply(changed, "tests")
    wait_until(
        lambda: (
            (found := pool(site)) is not None
            and found["spec"]["endpointPickerRef"]["port"] == {"number": 9003}
            and found["spec"]["endpointPickerRef"]["failureMode"] == "FailClose"
        ),
        "the pool follows the spec",
        timeout_s=60,
    )
    edit = {"spec": {"targetPorts": [{"number": 1234}]}}
    site.server.request("PATCH", INFERENCE_POOLS.path(site.models, NAME), edit, MERGE)
    wait_until(
        lambda: (found := pool(site)) is not None and found["spec"]["targetPorts"] == [{"number": 8000}],
        "an edit of the pool is taken back",
        timeout_s=60,
    )
    plain = copy.deepcopy(manifest)
    del plain["spec"]["endpointPicker"]
    site.apply(plain, "tests")
    wait_until(lambda: pool(site) is None, "the pool goes with the field", timeout_s=60)
    wait_until(
        lambda: condition(site, manifest, "InferencePoolReady") is None, "and its condition", timeout_s=60
    )

    # A pool of that name that somebody else made stays as it is.
    other = {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": NAME},
        "spec": {
            "selector": {"matchLabels": {"app": "other"}},
            "targetPorts": [{"number": 80}],
            "endpointPickerRef": {"name": "other", "port": {"number": 9002}},
        },
    }
    reply = site.server.request("POST", INFERENCE_POOLS.path(site.models), other)
    assert reply.status == 201, reply.message
    site.apply(manifest, "tests")
    wait_pool("False", Code.NAME_CONFLICT)
    kept = pool(site)
    assert kept is not None
    assert kept["spec"]["selector"] == {"matchLabels": {"app": "other"}}
    site.server.request("DELETE", site.place(manifest))
    site.server.request("DELETE", f"{CRDS_PATH}/{DEFINITION}")


class Users:
    """Deployments that name a picker, as the operator sees them, and who is asked to look at them again."""

    silent_pickers: frozenset[str] = frozenset()
    cluster_domain = ""

    def __init__(self, *deployments: LLMDeployment) -> None:
        self.deployments = deployments
        self.queued: list[str] = []

    def readable(self) -> tuple[LLMDeployment, ...]:
        return self.deployments

    def is_sovereign(self, _key: str) -> bool:
        return False

    def add_all(self, keys: Iterable[str]) -> None:
        self.queued += sorted(keys)


def grant(namespace: str, user: str) -> list[dict[str, Any]]:
    """Return what lets a user keep the pools of a namespace."""
    group, name = "rbac.authorization.k8s.io", "keeps-pools"
    metadata = {"name": name, "namespace": namespace}
    verbs = ["get", "list", "create", "patch", "delete"]
    rule = {"apiGroups": ["inference.networking.k8s.io"], "resources": ["inferencepools"], "verbs": verbs}
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        },
    ]


async def test_a_namespace_where_nothing_may_be_listed_speaks_for_itself(
    site: Site, plane: ControlPlane
) -> None:
    allowed, closed, user = f"{site.models}-a", f"{site.models}-b", "modelyard-some"
    site.cluster.apply([namespace_manifest(allowed, {}), namespace_manifest(closed, {})])
    site.cluster.apply(grant(allowed, user))
    path = f"{CRDS_PATH}/{DEFINITION}"
    await asyncio.to_thread(
        wait_until, lambda: site.server.request("GET", path).status == 404, "no definition", timeout_s=60
    )
    definition = INFERENCE_EXTENSION.load("inference.networking.k8s.io_inferencepools.yaml")
    reply = site.server.request("PATCH", f"{path}?fieldManager=tests&force=true", definition, APPLY)
    assert reply.status in {200, 201}, reply.message
    users = Users(
        *(
            LLMDeployment.model_validate(
                {
                    "metadata": {"name": NAME, "namespace": namespace, "uid": f"uid-{namespace}"},
                    "spec": {
                        "model": {"source": "hf://org/model"},
                        "replicas": 1,
                        "endpointPicker": {"service": "epp"},
                    },
                }
            )
            for namespace in (allowed, closed)
        )
    )
    client = await KubeClient.connect(plane.user_kubeconfig(user, []))
    settings = OperatorSettings(namespaces=(closed, allowed))
    keeper = PickerKeeper(client, cast("Fleet", users), cast("WorkQueue", users), settings, lambda: None)

    def told() -> dict[str, str]:
        return {
            item.metadata.namespace: verdict.reason.code
            for item in users.deployments
            for verdict in keeper.explain(item)
            if verdict.type == "InferencePoolReady"
        }

    async def keep_until(wanted: dict[str, str]) -> None:
        """Look as the operator does: again after a look that the API server did not answer."""
        async with asyncio.timeout(60):
            while told() != wanted:
                try:
                    await keeper.keep()
                except ApiError as error:
                    # A definition that has just come is answered so until its storage is ready.
                    if error.status != 429:
                        raise
                await asyncio.sleep(0.2)

    try:
        await keep_until({allowed: Code.POOL_APPLIED, closed: Code.POOL_FORBIDDEN})
        site.cluster.apply(grant(closed, user))
        await keep_until(dict.fromkeys((allowed, closed), Code.POOL_APPLIED))
    finally:
        await client.close()
        site.server.request("DELETE", path)
        for namespace in (allowed, closed):
            site.server.request("DELETE", f"/api/v1/namespaces/{namespace}")


async def test_a_picker_is_asked_by_a_connection() -> None:
    port, connects = free_port(), Connector()
    assert not await connects(Picker("127.0.0.1", port))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with server:
        assert await connects(Picker("127.0.0.1", port))
    assert not await connects(Picker("no-such-name.invalid", port))
