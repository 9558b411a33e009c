"""`modelyard status`: the whole installation in one look."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from modelyard.api.meta import API_VERSION
from modelyard.cli.main import app
from modelyard.cli.status import suggest_names
from modelyard.cli.statusformat import age
from modelyard.cli.statusread import describe_operators
from tests.unit.cli.clusterstub import serve_lists

SINCE = "2026-01-01T09:00:00Z"


def condition(kind, status, reason, message=""):
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": SINCE,
    }


def body(kind, name, spec, conditions, *, namespace="team", **status):
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": name,
            "resourceVersion": "1",
            "generation": 1,
        },
        "spec": spec,
        "status": {"observedGeneration": 1, "conditions": conditions, **status},
    }


def model(name, *conditions, **status):
    spec = {"model": {"source": "hf://a/b"}, "scaling": {"min": 1, "max": 8}}
    return body("LLMDeployment", name, spec, list(conditions), **status)


FINE = condition("Ready", "True", "Serving", "2 of 2 replicas serve")
STALLED = condition("Stalled", "True", "DoesNotFit", "weights of 140 GB do not fit into 8 x l4")

LISTS = {
    "llmdeployments": [
        model(
            "chat",
            FINE,
            replicas=2,
            readyReplicas=2,
            cost={"perHour": "1.9"},
            placement={
                "class": "l4",
                "count": 1,
                "variants": [{"class": "l4", "count": 1, "replicas": 2, "readyReplicas": 2}],
            },
            scaling={
                "desiredReplicas": 2,
                "reason": "OfferedLoad",
                "message": "need 2",
                "numbers": {"level": "6.67", "backlog": "0"},
            },
        ),
        model("huge", STALLED, condition("Ready", "False", "DoesNotFit")),
    ],
    "llmroutes": [
        body(
            "LLMRoute",
            "front",
            {"model": "front", "targets": [{"deployment": "chat"}]},
            [condition("Ready", "True", "Routed")],
        )
    ],
    "llmbudgets": [
        body(
            "LLMBudget",
            "gpu",
            {"amount": "100", "period": "Day"},
            [FINE],
            namespace="modelyard-system",
            spent="40",
            share="0.4",
        )
    ],
    "llmtenants": [
        body(
            "LLMTenant",
            "blue",
            {"keys": [{"name": "s", "key": "k"}]},
            [condition("Ready", "False", "SecretNotFound", "Secret s does not exist")],
            namespace="modelyard-system",
        )
    ],
    "configmaps": [],
}


def run(tmp_path, *options, lists=None):
    with serve_lists(tmp_path, {**LISTS, **(lists or {})}) as (kubeconfig, seen):
        result = CliRunner().invoke(app, ["status", "--kubeconfig", str(kubeconfig), *options])
    return result, seen


def test_trouble_is_told_first_with_its_sentence(tmp_path):
    result, _ = run(tmp_path)
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    begin = lines.index("needs attention")
    told = lines[begin + 1 : begin + 5]
    assert told[0].startswith("stalled   LLMDeployment team/huge: DoesNotFit since ")
    assert told[1] == "weights of 140 GB do not fit into 8 x l4"
    assert told[2].startswith("not ready LLMTenant blue: SecretNotFound since ")
    assert told[3] == "Secret s does not exist"
    rows = [line.split() for line in lines]
    assert [
        "team/chat",
        "healthy",
        "2/2",
        "Serving",
        "2",
        "x",
        "l4",
        "1.9",
        "6.67",
        "0",
        "OfferedLoad",
    ] in rows
    assert ["gpu", "healthy", "$40", "$100", "40%", "Day"] in rows
    assert ["team/front", "healthy", "front", "Weighted", "chat"] in rows


def test_it_only_reads(tmp_path):
    _, seen = run(tmp_path)
    assert {line.partition(" ")[0] for line in seen} == {"GET"}


def test_json_and_yaml_have_the_same_fields(tmp_path):
    found = json.loads(run(tmp_path, "-o", "json")[0].stdout)
    other = yaml.safe_load(run(tmp_path, "-o", "yaml")[0].stdout)
    assert {**found, "time": ""} == {**other, "time": ""}
    assert [item["name"] for item in found["deployments"]] == ["team/huge", "team/chat"]
    assert found["deployments"][0]["level"] == "Stalled"


@pytest.mark.parametrize(
    ("lists", "code"),
    [
        ({}, 3),
        ({"llmdeployments": LISTS["llmdeployments"][:1]}, 3),
        ({"llmdeployments": LISTS["llmdeployments"][:1], "llmtenants": []}, 0),
    ],
)
def test_check_fails_where_somebody_must_act(tmp_path, lists, code):
    assert run(tmp_path, "--check", lists=lists)[0].exit_code == code


def test_check_of_one_name_is_about_that_one(tmp_path):
    assert run(tmp_path, "chat", "--check")[0].exit_code == 0
    result, _ = run(tmp_path, "team/huge", "--check")
    assert result.exit_code == 3
    assert "team/chat" not in result.stdout


def test_a_name_that_is_not_there(tmp_path):
    result, _ = run(tmp_path, "caht")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: no LLMDeployment or LLMRoute caht: did you mean team/chat?\n"


def test_a_namespace_of_its_own(tmp_path):
    _, seen = run(tmp_path, "-n", "team")
    assert "GET /apis/modelyard.dev/v1alpha1/namespaces/team/llmdeployments" in seen
    assert "GET /apis/modelyard.dev/v1alpha1/namespaces/modelyard-system/llmbudgets" in seen


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        ({"llmbudgets": 403}, "llmbudgets may not be read in namespace modelyard-system"),
        ({"llmproviders": 404}, "the cluster does not know the kind LLMProvider (apply crds/)"),
        ({"nodes": 403}, "nodes may not be read: free accelerators are not known"),
        ({"pods": 403}, "pods may not be read (in all namespaces: give one with -n)"),
        ({"configmaps": 403}, "nothing is known of the ledger"),
    ],
)
def test_what_may_not_be_read_is_said(tmp_path, refused, told):
    result, _ = run(tmp_path, lists=refused)
    assert result.exit_code == 0
    assert told in result.stdout
    assert "team/chat" in result.stdout


def test_an_object_of_another_version_is_said(tmp_path):
    broken = {**LISTS["llmdeployments"][0], "spec": {"model": 3}}
    result, _ = run(tmp_path, lists={"llmdeployments": [broken]})
    assert "LLMDeployment team/chat cannot be read and is left out: spec.model" in result.stdout


def test_nothing_may_be_read(tmp_path):
    kinds = ("deployments", "routes", "budgets", "tenants", "providers")
    refused = {f"llm{kind}": 403 for kind in kinds} | {"acceleratorclasses": 403}
    result, _ = run(tmp_path, lists=refused)
    assert result.exit_code == 1
    assert "the cluster cannot be read" in result.stderr


def test_markup_and_control_characters_of_others_do_nothing(tmp_path):
    message = "[red]a\x1b[2J[/red]"
    hostile = model("chat", condition("Ready", "False", "X", message))
    result, _ = run(tmp_path, lists={"llmdeployments": [hostile]})
    assert "\x1b" not in result.stdout
    assert "[red]a [2J[/red]" in result.stdout


@pytest.mark.parametrize(
    "options",
    [("-n", "a", "-A"), ("--watch", "-o", "json"), ("--watch", "--check"), ("a/b", "-n", "c")],
)
def test_options_that_contradict_each_other(tmp_path, options):
    result, seen = run(tmp_path, *options)
    assert (result.exit_code, seen) == (2, [])


def test_an_unknown_context(tmp_path):
    result, seen = run(tmp_path, "--context", "other")
    assert (result.exit_code, seen) == (2, [])
    assert "there is no context other: it has stub" in result.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("chat", ": did you mean a/chat, b/chat?"),
        ("a/caht", ": did you mean a/chat, b/chat?"),
        ("zzz", ""),
    ],
)
def test_near_names(name, told):
    assert suggest_names(name, ["a/chat", "b/chat", "b/embedding"]) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "119m"), (7200, "2h"), (200_000, "2d")]
)
def test_ages(seconds, told):
    assert age("2026-01-01T00:00:00Z", 1_767_225_600 + seconds) == told


def pod(name, *, ready=True, active=None, image="registry:5000/modelyard:0.2.0@sha256:ab"):
    labels = {} if active is None else {"modelyard.dev/active": active}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"image": image}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def test_operators():
    rows = describe_operators([pod("b", active="true"), pod("a")])
    assert [(row.name, row.active, row.version) for row in rows] == [
        ("a", False, "0.2.0"),
        ("b", True, "0.2.0"),
    ]
    alone = describe_operators([pod("a", image="registry:5000/modelyard")])[0]
    assert (alone.active, alone.version) == (True, "")
    assert not describe_operators([pod("a", ready=False)])[0].active
