"""The definitions as the API server serves them: no complaint, defaults, columns and subresources."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from modelyard.api.crd import KINDS
from modelyard.api.llmdeployment import LLMDeploymentStatus
from modelyard.api.meta import GROUP, Condition, wire
from tests.apiserver.client import CRDS_PATH, MERGE, ApiServer, Reply, resource_path
from tests.apiserver.manifests import BASES, manifest, smallest
from tests.apiserver.statuses import TIME, fill_status

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def test_the_definitions_are_taken_without_a_warning(applied: dict[str, Reply]) -> None:
    assert sorted(applied) == sorted(f"{kind.plural}.{GROUP}" for kind in KINDS.values())
    assert [reply.warnings for reply in applied.values()] == [()] * len(KINDS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_schema_is_structural_and_served(kinds: ApiServer, kind: Any) -> None:
    body = kinds.request("GET", f"{CRDS_PATH}/{kind.plural}.{GROUP}").body
    conditions = {item["type"]: item["status"] for item in body["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    names = body["status"]["acceptedNames"]
    assert (names["shortNames"], names["categories"]) == ([kind.short_name], ["modelyard"])


@pytest.mark.parametrize(
    "base", [base for bases in BASES.values() for base in bases], ids=lambda b: f"{b['kind']}-{b['metadata']}"
)
def test_the_server_fills_the_defaults_of_the_models(
    kinds: ApiServer, namespace: str, base: dict[str, Any]
) -> None:
    reply = kinds.request("POST", f"{resource_path(base['kind'], namespace)}?dryRun=All", base)
    model = KINDS[base["kind"]].model
    assert reply.status == 201, reply.message
    assert reply.body["spec"] == wire(model.model_validate(base))["spec"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_spec_survives(kinds: ApiServer, namespace: str, kind: str) -> None:
    for base in BASES[kind]:
        path = f"{resource_path(kind, namespace)}?dryRun=All&fieldValidation=Strict"
        stored = kinds.request("POST", path, base).body["spec"]
        assert is_part_of(base["spec"], stored)


def test_no_default_creates_scaling(kinds: ApiServer, namespace: str) -> None:
    path = f"{resource_path('LLMDeployment', namespace)}?dryRun=All"
    stored = kinds.request("POST", path, smallest("LLMDeployment")).body["spec"]
    assert "scaling" not in stored
    assert stored["engine"] == {"name": "vLLM", "parameters": {}}
    assert stored["rollout"] == {"strategy": "Surge", "startTimeout": "30m", "drainTimeout": "2m"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_status_survives(kinds: ApiServer, namespace: str, kind: str) -> None:
    with_object = create(kinds, namespace, smallest(kind))
    full = fill_status(KINDS[kind].model)
    reply = patch_status(kinds, with_object, full)
    try:
        assert reply.status == 200, reply.message
        assert reply.body["status"] == full
        assert wire(KINDS[kind].model.model_validate(reply.body))["status"] == full
    finally:
        delete(kinds, with_object)


def test_the_smallest_status_is_accepted(kinds: ApiServer, namespace: str) -> None:
    created = create(kinds, namespace, smallest("LLMDeployment"))
    ready = Condition(type="Ready", status="False", reason="New", last_transition_time="2026-01-01T00:00:00Z")
    status = wire(LLMDeploymentStatus(conditions=(ready,)))
    assert patch_status(kinds, created, status).body["status"] == status


def test_status_and_spec_are_written_apart(kinds: ApiServer, namespace: str) -> None:
    created = create(kinds, namespace, smallest("LLMDeployment"))
    changed = {"spec": {"replicas": 3}, "status": {"replicas": 2}}
    path = resource_path("LLMDeployment", namespace, "plain")
    through_status = kinds.request("PATCH", f"{path}/status", changed, MERGE).body
    assert (through_status["spec"]["replicas"], through_status["status"]["replicas"]) == (1, 2)
    assert through_status["metadata"]["generation"] == created["metadata"]["generation"]
    through_object = kinds.request("PATCH", path, {**changed, "status": {"replicas": 9}}, MERGE).body
    assert (through_object["spec"]["replicas"], through_object["status"]["replicas"]) == (3, 2)
    assert through_object["metadata"]["generation"] == created["metadata"]["generation"] + 1


def test_scale_reads_and_writes_replicas(kinds: ApiServer, namespace: str) -> None:
    create(kinds, namespace, smallest("LLMDeployment"))
    path = resource_path("LLMDeployment", namespace, "plain")
    selector = f"{GROUP}/deployment=plain"
    kinds.request("PATCH", f"{path}/status", {"status": {"replicas": 1, "selector": selector}}, MERGE)
    scale = kinds.request("GET", f"{path}/scale").body
    assert scale["spec"] == {"replicas": 1}
    assert scale["status"] == {"replicas": 1, "selector": selector}
    scale["spec"]["replicas"] = 5
    assert kinds.request("PUT", f"{path}/scale", scale).body["spec"] == {"replicas": 5}
    assert kinds.request("GET", path).body["spec"]["replicas"] == 5


def test_scale_is_refused_where_modelyard_decides(kinds: ApiServer, namespace: str) -> None:
    base = smallest("LLMDeployment")
    del base["spec"]["replicas"]
    base["spec"]["scaling"] = {"max": 4}
    create(kinds, namespace, base)
    path = resource_path("LLMDeployment", namespace, "plain")
    refused = kinds.request("PATCH", f"{path}/scale", {"spec": {"replicas": 5}}, MERGE)
    assert refused.status == 422
    assert "set exactly one of replicas (a fixed size) and scaling (Modelyard decides)" in refused.message
    assert "replicas" not in kinds.request("GET", path).body["spec"]


COLUMNS: Mapping[str, Mapping[str, object]] = {
    "LLMDeployment": {
        "Model": "text",
        "Replicas": 2,
        "Desired": 2,
        "Ready": "True",
        "Reason": "text",
        "Cost/h": "0.31",
        "Engine": "vLLM",
        "Accelerator": "text",
        "Cost/1M tokens": "0.31",
        "Source": "hf://org/repository",
    },
    "LLMRoute": {
        "Model": "org/model",
        "Policy": "Weighted",
        "Target": "text",
        "Spill%": 2,
        "Ready": "True",
        "Reason": "text",
        "Data": "Any",
        "Since": TIME,
        "Why": "text",
        "Break-even/min": "0.31",
    },
    "LLMProvider": {
        "URL": "https://llm.example.com:8443/proxy/v1beta/openai/",
        "Region": "eu-west-1",
        "Ready": "True",
        "Reason": "text",
    },
    "LLMBudget": {
        "Amount": "100",
        "Period": "Month",
        "Spent": "100",
        "Share": "0.8125",
        "Runs out": "2026-12-24",
        "Resets": "2026-01-02T03:04:05Z",
        "Ready": "True",
        "Reason": "text",
    },
    "LLMTenant": {"Ready": "True", "Reason": "text"},
    "AcceleratorClass": {
        "Resource": "nvidia.com/gpu",
        "Memory": "24Gi",
        "Cost/h": "5",
        "Billing": "Committed",
    },
}
WIDE = {
    *("Engine", "Accelerator", "Cost/1M tokens", "Source", "Resets"),
    *("Data", "Since", "Why", "Break-even/min"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_get_shows_the_columns(kinds: ApiServer, namespace: str, kind: str) -> None:
    base = BASES[kind][-1] if kind in {"AcceleratorClass", "LLMProvider"} else BASES[kind][0]
    created = create(kinds, namespace, base)
    patch_status(kinds, created, fill_status(KINDS[kind].model))
    try:
        name = created["metadata"]["name"]
        table = kinds.request("GET", resource_path(kind, namespace, name), accept=TABLE).body
        headers = [column["name"] for column in table["columnDefinitions"]]
        cells = dict(zip(headers, table["rows"][0]["cells"], strict=True))
        assert headers == ["Name", *COLUMNS[kind], "Age"]
        assert {key: cells[key] for key in COLUMNS[kind]} == COLUMNS[kind]
        wide = {column["name"] for column in table["columnDefinitions"] if column["priority"] == 1}
        assert wide == WIDE & COLUMNS[kind].keys()
    finally:
        delete(kinds, created)


def test_an_update_may_not_break_a_rule(kinds: ApiServer, namespace: str) -> None:
    create(kinds, namespace, manifest("LLMRoute", "route", **BASES["LLMRoute"][0]["spec"]))
    path = resource_path("LLMRoute", namespace, "route")
    refused = kinds.request("PATCH", path, {"spec": {"timeouts": {"hold": "2h"}}}, MERGE)
    assert (refused.status, "hold must be from 1s to 1h" in refused.message) == (422, True)


def create(server: ApiServer, namespace: str, base: dict[str, Any]) -> dict[str, Any]:
    created = copy.deepcopy(base)
    if not KINDS[base["kind"]].namespaced:
        created["metadata"]["name"] = namespace  # Unique in the cluster.
    reply = server.request(
        "POST", f"{resource_path(base['kind'], namespace)}?fieldValidation=Strict", created
    )
    assert reply.status == 201, reply.message
    return reply.body


def delete(server: ApiServer, created: dict[str, Any]) -> None:
    """Remove an object: one of the cluster's scope outlives the namespace of its test."""
    metadata = created["metadata"]
    path = resource_path(created["kind"], metadata.get("namespace", ""), metadata["name"])
    assert server.request("DELETE", path).status == 200


def patch_status(server: ApiServer, created: dict[str, Any], status: dict[str, Any]) -> Reply:
    metadata = created["metadata"]
    path = resource_path(created["kind"], metadata.get("namespace", ""), metadata["name"], "status")
    return server.request("PATCH", f"{path}?fieldValidation=Strict", {"status": status}, MERGE)


def is_part_of(sent: Any, stored: Any) -> bool:
    """Whether all that was sent is there; what is there beside it are defaults."""
    if isinstance(sent, dict):
        return all(key in stored and is_part_of(value, stored[key]) for key, value in sent.items())
    if isinstance(sent, list):
        return len(sent) == len(stored) and all(map(is_part_of, sent, stored))
    return bool(sent == stored)
