"""Objects made from the schemas, and damaged ones, through the whole operator without an API server."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import assume, given
from hypothesis import strategies as st

from modelyard.api.crd import KINDS
from modelyard.api.validation import validate
from modelyard.core.names import unix_time
from modelyard.core.routing import Endpoint, Route, RouteRule, RoutingTable, Upstream, WeightedTarget
from modelyard.gateway import protos
from modelyard.gateway.resources import Resources, build_resources
from modelyard.kube.projections import project_child, project_node, project_pod, project_usage
from modelyard.render.envoy.settings import GatewaySettings
from tests.fuzz import hostile
from tests.fuzz.conftest import TRIED, tries
from tests.fuzz.schemas import NAMESPACE, damaged, from_schema, manifest, manifests
from tests.fuzz.stage import Stage, settle
from tests.golden.pod_security import violations

CLASS = manifest("AcceleratorClass", {"resourceName": "nvidia.com/gpu", "price": {"onDemand": "1"}})
GOOD = manifest("LLMDeployment", {"model": {"source": "hf://org/good"}, "replicas": 1})
SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash", "-c", "-lc", "eval"}
CONTROLS = {chr(code) for code in (*range(32), 127)}


@pytest.mark.parametrize(
    "kind", ["LLMDeployment", "LLMRoute", "AcceleratorClass", "LLMProvider", "LLMTenant"]
)
@tries(60)
@given(data=st.data())
def test_no_object_stops_the_operator_or_another_object(kind: str, data: st.DataObject) -> None:
    """The objects come from a watch: the schema may be older or newer than the operator, so any may come."""
    TRIED[f"objects of {kind} through every handler"] += 1
    body = data.draw(manifests(kind), label="object")
    beside = [data.draw(manifests("LLMRoute"), label="route")] if kind != "LLMRoute" else []
    stage = settle(GOOD, CLASS, body, *beside)
    check_writes(stage)
    check_resources(stage.resources)
    # The good one beside it is served as if it were alone.
    written = [(item["kind"], item["metadata"]["name"]) for item in stage.client.applied]
    assert any(kind == "Deployment" and name.startswith("llmdeployment-0-") for kind, name in written)


@tries(150)
@given(data=st.data())
def test_what_a_deployment_becomes_is_harmless(data: st.DataObject) -> None:
    """Deployments that the API server would take."""
    spec = data.draw(from_schema("LLMDeployment"), label="spec")
    # One of these two, and a class that exists: else nothing is rendered, and nothing is shown.
    spec.pop("scaling", None)
    spec["replicas"] = data.draw(st.integers(1, 3))
    spec["placement"] = {**spec.get("placement", {}), "accelerators": [{"class": "acceleratorclass-1"}]}
    body = manifest("LLMDeployment", spec)
    assume(not [problem for problem in validate(body) if problem.severity == "Error"])
    TRIED["deployments that the API server takes, rendered"] += 1
    stage = settle(body, CLASS)
    check_writes(stage)
    check_resources(stage.resources)


@tries(150)
@given(
    names=st.lists(hostile.strings, min_size=1, max_size=4, unique=True),
    header=hostile.strings,
    refusal=st.none() | hostile.strings,
    tenant=hostile.strings,
)
def test_no_name_leaves_its_place_in_envoys_configuration(
    names: list[str], header: str, refusal: str | None, tenant: str
) -> None:
    """Names that no schema would let in, straight into the table."""
    TRIED["hostile names in the routing table"] += 1
    rule = RouteRule((WeightedTarget("team/m"),), tenants=(tenant,), headers=(("x-tier", header),))
    route = Route("team/m", tuple(names), (WeightedTarget("team/m"),), rules=(rule,), refusal=refusal)
    upstream = Upstream("team/m", 0, names[0], (Endpoint("10.0.0.1", 8000),))
    table = RoutingTable((route,), {"team/m": upstream}, anonymous=True)
    check_resources(build_resources(table, GatewaySettings(), tenant_keys={"0" * 64: tenant}))


@tries(400)
@given(data=st.data())
def test_no_pod_node_or_child_that_anybody_makes_stops_the_informers(data: st.DataObject) -> None:
    """What users may write freely in pods, nodes and Deployments, in the forms that the API server lets in."""
    TRIED["pods, nodes and Deployments of others"] += 1
    words = hostile.strings
    quantities = st.from_regex(r"[0-9]{1,18}(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9])", fullmatch=True)
    resources = st.dictionaries(st.sampled_from(("cpu", "nvidia.com/gpu", "a.example/b")), quantities)
    ports = st.lists(
        st.fixed_dictionaries({"containerPort": st.integers(1, 65535)}, optional={"name": words})
    )
    containers = st.lists(
        st.fixed_dictionaries(
            {"name": words},
            optional={
                "resources": st.fixed_dictionaries({}, optional={"requests": resources, "limits": resources}),
                "ports": ports,
            },
        ),
        max_size=3,
    )
    conditions = st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(("Ready", "PodScheduled", "Progressing", "X")), "status": words},
            optional={
                "reason": words,
                "message": words,
                "lastTransitionTime": st.just("2026-01-01T00:00:00Z"),
            },
        ),
        max_size=3,
    )
    labels = st.dictionaries(
        st.sampled_from(("modelyard.dev/variant", "modelyard.dev/accelerator", "a")), words, max_size=2
    )
    body = {
        "metadata": {
            "name": "x",
            "namespace": "other",
            "uid": "u",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"modelyard.dev/deployment": data.draw(words), **data.draw(labels)},
            "ownerReferences": data.draw(
                st.lists(st.fixed_dictionaries({"uid": words}, optional={"controller": st.booleans()}))
            ),
        },
        "spec": {
            "nodeName": data.draw(words),
            "containers": data.draw(containers),
            "initContainers": data.draw(containers),
        },
        "status": {
            "phase": data.draw(words),
            "podIP": "10.0.0.9",
            "conditions": data.draw(conditions),
            "allocatable": data.draw(resources),
        },
    }
    project_pod(body)
    project_usage(body)
    project_child(body)
    project_node({**body, "spec": {}})


def test_times_that_are_none_are_told_from_times() -> None:
    for text in hostile.STRINGS:
        try:
            unix_time(text)
        except ValueError:
            continue


@pytest.mark.parametrize("kind", KINDS)
@tries(60)
@given(data=st.data())
def test_the_offline_check_answers_everything(kind: str, data: st.DataObject) -> None:
    """`modelyard validate` reads files of anybody."""
    TRIED["manifests through the offline check"] += 1
    body = data.draw(damaged(kind) | hostile.json_values)
    json.dumps([str(problem) for problem in validate(body)])


# What is asserted of everything that the operator writes.


def check_writes(stage: Stage) -> None:
    for body in stage.client.applied:
        check_place(stage, body)
        # Everything goes over the wire as JSON, and etcd takes 1.5 MiB.
        assert len(json.dumps(body)) < 1_000_000
        if body["kind"] == "Deployment":
            check_pod(body["spec"]["template"]["spec"])
    for event in stage.client.created:
        assert event["metadata"]["namespace"] == event["involvedObject"]["namespace"] == NAMESPACE
        assert len(event["message"]) <= 1024


def check_place(stage: Stage, body: Mapping[str, Any]) -> None:
    """It is in the namespace of the object that it was made for, and called after it."""
    metadata = body["metadata"]
    assert metadata["namespace"] == NAMESPACE
    parents = {item["metadata"]["name"] for item in stage.bodies}
    assert any(metadata["name"] == parent or metadata["name"].startswith(f"{parent}-") for parent in parents)
    for owner in metadata.get("ownerReferences", ()):
        assert owner["name"] in parents
        assert owner["uid"] == f"uid-{owner['name']}"


def check_pod(pod: Mapping[str, Any]) -> None:
    """It is restricted, starts no shell, and names only what stands in its own namespace."""
    assert violations(dict(pod)) == []
    assert pod["automountServiceAccountToken"] is False
    assert all(set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for volume in pod["volumes"])
    (container,) = pod["containers"]
    assert "command" not in container
    assert not SHELLS & set(container["args"])
    assert not any("\0" in argument for argument in container["args"])
    assert "$(" not in "".join(container["args"]).replace("$$", "")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert "exec" not in container[probe]
    assert container["lifecycle"].keys() == {"preStop"}
    assert container["lifecycle"]["preStop"].keys() == {"sleep"}
    for mount in container["volumeMounts"]:
        assert ".." not in mount["mountPath"].split("/")


SCRIPTS: set[str] = set()
"""Every script that Envoy gets when there are hardly any objects."""

COMMANDS = ("%REQ(authorization)%", "%ENVIRONMENT(HOME)%", "%DYNAMIC_METADATA(modelyard:tenant)%")
"""Among the hostile strings: Envoy would put something else in their place, unless the percent sign is doubled."""


def check_resources(resources: Resources | None) -> None:
    """They are valid, no header can break out of its line or be a command, and no script holds anything of theirs."""
    if resources is None:
        return
    if not SCRIPTS:
        SCRIPTS.update(_scripts(build_resources(_smallest_table(), GatewaySettings())))
        assert len(SCRIPTS) > 1
    assert set(_scripts(resources)) <= SCRIPTS
    for value in _messages(resources):
        for path, item in _walk(value):
            if path[-1:] == ("header",) and isinstance(item, Mapping):
                name, text = str(item.get("key", "")), str(item.get("value", ""))
                assert not CONTROLS & {*name, *text}, item
                assert not any(command in text.replace("%%", "") for command in COMMANDS), item
            if path[-2:] == ("body", "inline_string"):
                json.loads(item)


def _smallest_table() -> RoutingTable:
    route = Route("t/m", ("m",), (WeightedTarget("t/m"),))
    return RoutingTable(
        (route,), {"t/m": Upstream("t/m", 0, "m", (Endpoint("10.0.0.1", 1),))}, anonymous=True
    )


def _scripts(resources: Resources) -> Iterator[str]:
    for value in _messages(resources):
        for path, item in _walk(value):
            if path[-1:] == ("inline_string",) and any("source_code" in step for step in path):
                yield item


_TYPES = {
    protos.CLUSTER: "envoy.config.cluster.v3.Cluster",
    protos.ENDPOINTS: "envoy.config.endpoint.v3.ClusterLoadAssignment",
    protos.LISTENER: "envoy.config.listener.v3.Listener",
    protos.ROUTES: "envoy.config.route.v3.RouteConfiguration",
}


def _messages(resources: Resources) -> Iterator[Any]:
    for type_url, name in _TYPES.items():
        for resource in resources.by_type[type_url].values():
            message = protos.message_class(name).FromString(resource.encoded)
            yield json_format.MessageToDict(
                message, preserving_proto_field_name=True, descriptor_pool=protos.pool()
            )


def _walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walk(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, path)


def test_a_good_object_is_served_by_this_stage() -> None:
    """The stage does not pass because nothing happens in it."""
    stage = settle(GOOD, CLASS)
    kinds = {body["kind"] for body in stage.client.applied}
    assert kinds >= {"ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment"}
    assert "llmdeployment-0" in str(stage.client.applied[-1])
    assert asyncio.run(_no_loop_is_left()) == 1


@pytest.mark.parametrize("scaler", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_an_outside_autoscaler_is_made_on_this_stage(scaler: str) -> None:
    external = {"min": 1, "max": 3, "actuator": "External", "external": {"scaler": scaler}}
    spec = {"model": {"source": "hf://org/good"}, "scaling": external}
    stage = settle(manifest("LLMDeployment", spec), CLASS)
    check_writes(stage)
    assert [body["metadata"]["name"] for body in stage.client.applied if body["kind"] == scaler] == [
        "llmdeployment-0"
    ]


async def _no_loop_is_left() -> int:
    return len(asyncio.all_tasks())
