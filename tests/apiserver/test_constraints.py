"""Each constraint accepts what it should and refuses what it should, on the server and offline alike."""

import pytest

from modelyard.api.crd import KINDS
from modelyard.api.validation import validate
from tests.apiserver.cases import Case, all_cases
from tests.apiserver.client import ApiServer, resource_path
from tests.apiserver.manifests import smallest

ROOT = {"<nil>": "metadata.name"}
"""A rule on the whole object has no field of its own for the API server; here such rules are about the name."""


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_the_server_and_the_offline_check_agree(kinds: ApiServer, case: Case) -> None:
    path = resource_path(case.manifest["kind"], "default")
    reply = kinds.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", case.manifest)
    offline = {problem.field: problem for problem in validate(case.manifest)}
    if case.field is None:
        assert (reply.status, reply.message) == (201, "")
        assert not offline
        return
    assert reply.status == 422, reply.message
    assert case.message in reply.message
    assert {ROOT.get(cause["field"], cause["field"]) for cause in reply.causes} >= {case.field}
    assert offline[case.field].severity == "Error"
    if case.constraint.startswith("rule "):
        assert offline[case.field].message in reply.message
        assert reply.causes[0]["reason"] == "FieldValueInvalid"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("metadata", "accepted"),
    [
        ({"name": "a" * 46}, True),
        ({"name": "a", "labels": {"team": "search"}, "annotations": {"note": "ü"}}, True),
        ({"name": "a", "creationTimestamp": None, "labels": None}, True),
        ({"generateName": "model-"}, True),
        ({"generateName": "Model-"}, False),
        ({"name": "Upper"}, False),
        ({"name": "under_score"}, False),
        ({"name": "a" * 254}, False),
        ({"name": ""}, False),
        ({}, False),
        ({"name": "a", "labels": {"team": 1}}, False),
    ],
)
def test_metadata_is_judged_alike(
    kinds: ApiServer, kind: str, metadata: dict[str, object], accepted: bool
) -> None:
    manifest = {**smallest(kind), "metadata": metadata}
    reply = kinds.request("POST", f"{resource_path(kind, 'default')}?dryRun=All", manifest)
    assert (reply.status == 201) is accepted, reply.message
    assert (not validate(manifest)) is accepted


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("suspend", None, True),
        ("engine", None, True),
        ("model", {"source": "hf://org/repository", "contextLength": 8192.0}, True),
        ("model", None, False),
        ("replicas", None, False),
        ("rollout", {}, True),
        ("engine", {"parameters": {"dtype": None}}, True),
        ("placement", {"accelerators": [None]}, False),
        ("placement", {"accelerators": [{"class": None}]}, False),
    ],
)
def test_nulls_and_whole_numbers_are_judged_alike(
    kinds: ApiServer, field: str, value: object, accepted: bool
) -> None:
    manifest = smallest("LLMDeployment")
    manifest["spec"] = {**manifest["spec"], field: value}
    reply = kinds.request("POST", f"{resource_path('LLMDeployment', 'default')}?dryRun=All", manifest)
    assert (reply.status == 201) is accepted, reply.message
    assert (not validate(manifest)) is accepted, validate(manifest)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_is_a_warning_to_both(kinds: ApiServer, kind: str) -> None:
    manifest = smallest(kind)
    manifest["spec"] = {**manifest["spec"], "gpus": 4}
    path = f"{resource_path(kind, 'default')}?dryRun=All"
    warned = kinds.request("POST", f"{path}&fieldValidation=Warn", manifest)
    strict = kinds.request("POST", f"{path}&fieldValidation=Strict", manifest)
    assert warned.status == 201
    assert "gpus" not in warned.body["spec"]
    assert 'unknown field \\"spec.gpus\\"' in warned.warnings[0]
    assert strict.status == 400
    assert 'unknown field "spec.gpus"' in strict.message
    assert [(problem.field, problem.severity) for problem in validate(manifest)] == [("spec.gpus", "Warning")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_status_in_a_new_object_is_ignored_by_both(kinds: ApiServer, kind: str) -> None:
    manifest = {**smallest(kind), "status": {"observedGeneration": "wrong"}}
    reply = kinds.request("POST", f"{resource_path(kind, 'default')}?dryRun=All", manifest)
    assert reply.status == 201, reply.message
    # What the schema gives a new object, for those who wait for the operator to have seen it.
    assert reply.body.get("status") in (None, {"observedGeneration": -1})
    assert validate(manifest) == []
