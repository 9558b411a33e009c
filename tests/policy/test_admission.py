"""Each rule of `policies/` lets through what it should and refuses what it should, on a real API server."""

import re
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.waiting import wait_until
from tests.apiserver.client import MERGE, ApiServer, Reply, resource_path
from tests.apiserver.manifests import BASES, change_field, manifest, parse_path
from tests.policy.conftest import LIMIT, POLICIES, MakeNamespace, policy_path, read_policies

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"

DEPLOYMENT = manifest(
    "LLMDeployment",
    "model",
    model={"source": "hf://org/model"},
    placement={"accelerators": [{"class": "policy-l4", "count": 2}]},
    replicas=2,
)
SCALED = change_field(DEPLOYMENT, ("spec", "scaling"), {"min": 1, "max": 2})
del SCALED["spec"]["replicas"]
TWO_CLASSES = [{"class": "policy-l4", "count": 1}, {"class": "policy-h100", "count": 4}]
SCHEDULE = {"name": "day", "start": "0 8 * * *", "duration": "8h", "max": 5}
ROUTE = manifest("LLMRoute", "route", model="m", targets=[{"deployment": "model"}])
PROVIDER = {"provider": "acme", "model": "large"}
OTHER = {"provider": "other", "model": "large"}

ACCEPTED: list[tuple[str, dict[str, str], dict[str, Any], dict[str, Any]]] = [
    ("replicas at the limit", {"max_replicas": "2"}, DEPLOYMENT, {}),
    ("unlimited replicas", {"max_replicas": "unlimited"}, DEPLOYMENT, {"spec.replicas": 1000}),
    ("scaling at the limit", {"max_replicas": "2"}, SCALED, {}),
    ("a schedule at the limit", {"max_replicas": "5"}, SCALED, {"spec.scaling.schedules": [SCHEDULE]}),
    ("no replicas where none may be", {"max_replicas": "0"}, DEPLOYMENT, {"spec.replicas": 0}),
    ("accelerators of a replica", {"max_accelerators_per_replica": "2"}, DEPLOYMENT, {}),
    ("accelerators in all", {"max_accelerators": "4"}, DEPLOYMENT, {}),
    ("accelerators of scaling", {"max_accelerators": "4"}, SCALED, {}),
    ("several classes", {"max_accelerators": "8"}, DEPLOYMENT, {"spec.placement.accelerators": TWO_CLASSES}),
    # 2 x 2 x 0.3, exactly.
    ("the price at the ceiling", {"max_price_per_hour": "1.2"}, DEPLOYMENT, {}),
    ("a class without a price, without a ceiling", {"max_accelerators": "4"}, DEPLOYMENT,
     {"spec.placement.accelerators.0.class": "policy-unpriced"}),
    ("a source", {"allowed_sources": "hf://org/ pvc://"}, DEPLOYMENT, {}),
    ("another source", {"allowed_sources": "hf://org/\npvc://"}, DEPLOYMENT,
     {"spec.model.source": "pvc://models/a"}),
    ("an engine", {"allowed_engines": "LlamaCpp vLLM"}, DEPLOYMENT, {}),
    ("a class", {"allowed_classes": "policy-h100 policy-l4"}, DEPLOYMENT, {}),
    ("no priority", {"allowed_priorities": "low"}, DEPLOYMENT, {}),
    ("a priority", {"allowed_priorities": "low"}, DEPLOYMENT, {"spec.placement.priority": "low"}),
    ("a provider", {"allowed_providers": "acme"}, ROUTE, {"spec.targets": [PROVIDER]}),
    ("no provider", {"allowed_providers": ""}, ROUTE, {}),
    ("any policy of data", {"data_policy": "Any"}, ROUTE, {}),
    ("a sovereign route", {"data_policy": "Sovereign"}, ROUTE, {"spec.dataPolicy": "Sovereign"}),
    # Suspended: there are no pods, and unsuspending is judged.
    ("suspended", {"max_replicas": "0"}, DEPLOYMENT, {"spec.suspend": True}),
]  # fmt: skip

REFUSED: list[tuple[str, dict[str, str], dict[str, Any], dict[str, Any], str]] = [
    ("no limits", {}, DEPLOYMENT, {}, "states no limits, so it may run no models"),
    ("a misspelt limit", {"max_replcas": "9"}, DEPLOYMENT, {}, "that are no limits (misspelt?)"),
    *(
        (f"{name} {value!r}", {name: value}, DEPLOYMENT, {},
         f"annotation {LIMIT}{name.replace('_', '-')} of Namespace ")
        for name in ("max_replicas", "max_accelerators", "max_accelerators_per_replica", "max_price_per_hour")
        for value in ("", "-1", "many", "1e3", "1.", "99999999999999999999")
    ),
    ("a half replica", {"max_replicas": "1.5"}, DEPLOYMENT, {}, "is not a whole number"),
    ("replicas", {"max_replicas": "2"}, DEPLOYMENT, {"spec.replicas": 3},
     "spec.replicas: 3 replicas are more than the 2 that Namespace"),
    ("scaling", {"max_replicas": "2"}, SCALED, {"spec.scaling.max": 3},
     "spec.scaling: 3 replicas are more than the 2"),
    ("a schedule", {"max_replicas": "4"}, SCALED, {"spec.scaling.schedules": [SCHEDULE]},
     "spec.scaling: 5 replicas are more than the 4"),
    ("accelerators of a replica", {"max_accelerators_per_replica": "1"}, DEPLOYMENT, {},
     "spec.placement.accelerators: a replica may have 1 accelerators"),
    ("accelerators of a replica over nodes", {"max_accelerators_per_replica": "2"}, DEPLOYMENT,
     {"spec.placement.accelerators.0.nodes": 2},
     "spec.placement.accelerators: a replica may have 2 accelerators"),
    ("accelerators of all nodes", {"max_accelerators": "7"}, DEPLOYMENT,
     {"spec.placement.accelerators.0.nodes": 2}, "spec: 8 accelerators at its largest size are more than the 7"),
    ("the price of all nodes", {"max_price_per_hour": "1.2"}, DEPLOYMENT,
     {"spec.placement.accelerators.0.nodes": 2}, "costs more on AcceleratorClass policy-l4 than the 1.2 US"),
    ("accelerators in all", {"max_accelerators": "3"}, DEPLOYMENT, {},
     "spec: 4 accelerators at its largest size are more than the 3"),
    ("accelerators of a schedule", {"max_accelerators": "9"}, SCALED, {"spec.scaling.schedules": [SCHEDULE]},
     "spec: 10 accelerators at its largest size"),
    ("the second class", {"max_accelerators": "7"}, DEPLOYMENT,
     {"spec.placement.accelerators": TWO_CLASSES}, "spec: 8 accelerators at its largest size"),
    ("no count", {"max_accelerators": "9"}, DEPLOYMENT,
     {"spec.placement.accelerators": [{"class": "policy-l4"}]}, "name the classes, each with count"),
    ("no classes", {"max_accelerators": "9"}, DEPLOYMENT, {"spec.placement": {}},
     "name the classes, each with count"),
    ("no classes, with a ceiling", {"max_price_per_hour": "9"}, DEPLOYMENT, {"spec.placement": {}},
     "name the classes, each with count"),
    ("the price", {"max_price_per_hour": "1.199999"}, DEPLOYMENT, {},
     "costs more on AcceleratorClass policy-l4 than the 1.199999 US dollars an hour"),
    ("the price of the second class", {"max_price_per_hour": "10"}, DEPLOYMENT,
     {"spec.placement.accelerators": TWO_CLASSES}, "costs more on AcceleratorClass policy-h100 than the 10 US"),
    ("the price of a schedule", {"max_price_per_hour": "2"}, SCALED, {"spec.scaling.schedules": [SCHEDULE]},
     "costs more on AcceleratorClass policy-l4"),
    ("a class without a price", {"max_price_per_hour": "100"}, DEPLOYMENT,
     {"spec.placement.accelerators.0.class": "policy-unpriced"},
     "AcceleratorClass policy-unpriced has no price"),
    ("a source", {"allowed_sources": "hf://organisation/ pvc://"}, DEPLOYMENT, {},
     "spec.model: the source hf://org/model is not allowed"),
    ("a name that goes on", {"allowed_sources": "hf://org/"}, DEPLOYMENT,
     {"spec.model.source": "hf://org-of-mine/model"}, "the source hf://org-of-mine/model is not allowed"),
    ("the source of an adapter", {"allowed_sources": "hf://org/"}, DEPLOYMENT,
     {"spec.model.adapters": [{"name": "a", "source": "hf://evil/adapter"}]},
     "the source hf://evil/adapter is not allowed"),
    ("every source", {"allowed_sources": ""}, DEPLOYMENT, {}, "begins with one of none"),
    ("an engine", {"allowed_engines": "LlamaCpp"}, DEPLOYMENT, {},
     "spec.engine.name: vLLM is not allowed in Namespace"),
    ("a class", {"allowed_classes": "policy-h100"}, DEPLOYMENT, {},
     "name each class, and only ones of policy-h100"),
    ("every class", {"allowed_classes": "policy-l4"}, DEPLOYMENT, {"spec.placement": {}},
     "name each class, and only ones of policy-l4"),
    ("a priority", {"allowed_priorities": "low"}, DEPLOYMENT,
     {"spec.placement.priority": "system-node-critical"},
     "spec.placement.priority: system-node-critical is not allowed"),
    ("a provider", {"allowed_providers": "acme"}, ROUTE, {"spec.targets": [PROVIDER, OTHER]},
     "spec.targets: the provider other is not allowed"),
    ("the provider of a rule", {"allowed_providers": "acme"}, ROUTE,
     {"spec.rules": [{"match": {"tenants": ["t"]}, "targets": [OTHER]}]},
     "spec.targets: the provider other is not allowed"),
    ("every provider", {"allowed_providers": ""}, ROUTE, {"spec.targets": [PROVIDER]}, "use one of none"),
    ("an open route", {"data_policy": "Sovereign"}, ROUTE, {},
     "spec.dataPolicy: no request of Namespace"),
    ("an unknown policy of data", {"data_policy": "Closed"}, ROUTE, {}, "is neither Any nor Sovereign"),
]  # fmt: skip


def patched(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        base = change_field(base, parse_path(path), value)
    return base


def create(server: ApiServer, namespace: str, body: dict[str, Any], query: str = "") -> Reply:
    return server.request("POST", f"{resource_path(body['kind'], namespace)}{query}", body)


@pytest.mark.parametrize(("name", "limits", "base", "changes"), ACCEPTED, ids=[case[0] for case in ACCEPTED])
def test_is_let_through(
    limited_server: ApiServer,
    make_limited: MakeNamespace,
    name: str,
    limits: dict[str, str],
    base: dict[str, Any],
    changes: dict[str, Any],
) -> None:
    reply = create(limited_server, make_limited(**limits), patched(base, changes), "?dryRun=All")
    assert reply.status == 201, reply.message


@pytest.mark.parametrize(
    ("name", "limits", "base", "changes", "message"), REFUSED, ids=[case[0] for case in REFUSED]
)
def test_is_refused(
    limited_server: ApiServer,
    make_limited: MakeNamespace,
    name: str,
    limits: dict[str, str],
    base: dict[str, Any],
    changes: dict[str, Any],
    message: str,
) -> None:
    namespace = make_limited(**limits)
    reply = create(limited_server, namespace, patched(base, changes), "?dryRun=All")
    assert reply.status == 403, reply.message
    assert message in reply.message
    assert namespace in reply.message


def test_every_manifest_that_the_kinds_allow_can_be_judged(
    limited_server: ApiServer, make_limited: MakeNamespace
) -> None:
    """No rule ends in an error of evaluation, whatever fields there are."""
    generous = {
        "max_replicas": "999999",
        "max_accelerators": "999999",
        "max_accelerators_per_replica": "999",
        "max_price_per_hour": "999999",
        "allowed_sources": "hf:// pvc://",
        "allowed_engines": "vLLM LlamaCpp",
        "allowed_priorities": "high",
        "allowed_providers": "openai",
        "data_policy": "Any",
    }
    namespace = make_limited(**generous)
    for base in (*BASES["LLMDeployment"], *BASES["LLMRoute"]):
        reply = create(limited_server, namespace, base, "?dryRun=All")
        assert "evaluat" not in reply.message.lower()
        assert "no such key" not in reply.message
        assert reply.status == 201 or "each with count" in reply.message, reply.message


def test_a_namespace_may_be_left_out(limited_server: ApiServer, make_limited: MakeNamespace) -> None:
    free = make_limited({"modelyard.dev/limits": "Unlimited"})
    large = change_field(DEPLOYMENT, ("spec", "replicas"), 1000)
    assert create(limited_server, free, large, "?dryRun=All").status == 201


def test_what_is_there_is_left_alone_until_its_spec_changes(
    limited_server: ApiServer, make_limited: MakeNamespace
) -> None:
    namespace = make_limited({"modelyard.dev/limits": "Unlimited"})
    assert create(limited_server, namespace, DEPLOYMENT).status == 201
    path = resource_path("LLMDeployment", namespace, "model")
    # As if the platform team had set limits since.
    labels = {
        "metadata": {"labels": {"modelyard.dev/limits": None}, "annotations": {f"{LIMIT}max-replicas": "1"}}
    }
    changed = limited_server.request("PATCH", f"/api/v1/namespaces/{namespace}", labels, MERGE)
    assert changed.status == 200
    # The API server's admission learns of a Namespace's change within moments.
    more = {"spec": {"replicas": 3}}
    wait_until(
        lambda: limited_server.request("PATCH", f"{path}?dryRun=All", more, MERGE).status == 403,
        "the limit is in force",
    )
    allowed = limited_server.request("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE)
    assert allowed.status == 200, allowed.message
    same = limited_server.request("PATCH", path, {"spec": {"replicas": 2}}, MERGE)
    assert same.status == 200, same.message
    suspended = limited_server.request("PATCH", f"{path}?dryRun=All", {"spec": {"suspend": True}}, MERGE)
    assert suspended.status == 200, suspended.message
    status = limited_server.request("PATCH", f"{path}/status", {"status": {"replicas": 2}}, MERGE)
    assert status.status == 200, status.message
    assert limited_server.request("DELETE", path).status == 200


def test_an_update_is_judged_as_a_creation_is(limited_server: ApiServer, make_limited: MakeNamespace) -> None:
    namespace = make_limited(max_replicas="2", allowed_sources="hf://org/")
    assert create(limited_server, namespace, DEPLOYMENT).status == 201
    path = resource_path("LLMDeployment", namespace, "model")
    for change, message in (
        ({"replicas": 3}, "3 replicas are more than the 2"),
        ({"model": {"source": "hf://evil/model"}}, "hf://evil/model is not allowed"),
    ):
        refused = limited_server.request("PATCH", path, {"spec": change}, MERGE)
        assert refused.status == 403, refused.message
        assert message in refused.message
    assert limited_server.request("PATCH", path, {"spec": {"replicas": 1}}, MERGE).status == 200


def test_suspending_is_no_way_round_a_limit(limited_server: ApiServer, make_limited: MakeNamespace) -> None:
    namespace = make_limited(max_replicas="1")
    suspended = change_field(DEPLOYMENT, ("spec", "suspend"), True)
    assert create(limited_server, namespace, suspended).status == 201
    path = resource_path("LLMDeployment", namespace, "model")
    resumed = limited_server.request("PATCH", path, {"spec": {"suspend": False}}, MERGE)
    assert (resumed.status, "2 replicas are more than the 1" in resumed.message) == (403, True)


@pytest.mark.parametrize(
    ("limits", "replicas", "message"),
    [
        ({"max_replicas": "3"}, 3, None),
        ({"max_replicas": "3"}, 4, "spec.replicas: 4 replicas are more than the 3"),
        ({"max_accelerators": "4"}, 1, None),
        ({"max_accelerators": "4"}, 3, "change spec.replicas of the LLMDeployment itself"),
        ({"max_price_per_hour": "100"}, 3, "change spec.replicas of the LLMDeployment itself"),
        ({"max_accelerators": "unlimited", "max_replicas": "9"}, 3, None),
    ],
)
def test_kubectl_scale_is_no_way_round_a_limit(
    limited_server: ApiServer,
    make_limited: MakeNamespace,
    limits: dict[str, str],
    replicas: int,
    message: str | None,
) -> None:
    namespace = make_limited(**limits)
    made = create(limited_server, namespace, DEPLOYMENT)
    assert made.status == 201, made.message
    path = resource_path("LLMDeployment", namespace, "model", "scale")
    reply = limited_server.request("PATCH", path, {"spec": {"replicas": replicas}}, MERGE)
    if message is None:
        assert (reply.status, reply.body["spec"]) == (200, {"replicas": replicas})
    else:
        assert (reply.status, message in reply.message) == (403, True), reply.message


def test_the_api_server_finds_no_fault_with_the_expressions(limited_server: ApiServer) -> None:
    for item in read_policies():
        body = limited_server.request("GET", policy_path(item)).body
        assert body["spec"].get("failurePolicy", "Fail") == "Fail"
        warnings = body.get("status", {}).get("typeChecking", {}).get("expressionWarnings", [])
        assert warnings == []


# Without an API server.


def test_every_file_is_in_the_bundle() -> None:
    files = {path.name for path in POLICIES.glob("*.yaml")} - {"kustomization.yaml"}
    kinds = [(item["kind"], item["metadata"]["name"]) for item in read_policies()]
    assert len(kinds) == 2 * len(files) == len(set(kinds))


def test_every_policy_is_bound_and_denies() -> None:
    policies, bindings = (
        {item["metadata"]["name"]: item for item in read_policies() if item["kind"] == kind}
        for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    )
    assert policies.keys() == bindings.keys()
    for name, binding in bindings.items():
        assert binding["spec"]["policyName"] == name
        assert binding["spec"]["validationActions"] == ["Deny"]
        assert policies[name]["spec"]["failurePolicy"] == "Fail"


def test_every_limit_is_in_the_list_of_known_ones_and_on_the_page() -> None:
    texts = [path.read_text(encoding="utf-8") for path in POLICIES.glob("*-*.yaml")]
    used = {name for text in texts for name in re.findall(rf"\[\?'{LIMIT}([a-z-]+)'\]", text)}
    (listed,) = (
        set(re.findall(rf"'{LIMIT}([a-z-]+)'", text.partition("key in [")[2].partition("])")[0]))
        for text in texts
        if "key in [" in text
    )
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert used == listed == documented
