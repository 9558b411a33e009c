"""`modelyard explain llmroute`: where requests go, what each target costs, and why the others were not chosen."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from modelyard.api.meta import API_VERSION
from modelyard.cli.main import app
from tests.unit.cli import test_explain

PATH = "/apis/modelyard.dev/v1alpha1/namespaces/team/llmroutes/chat"
TIME = "2026-01-01T10:00:00Z"
CHOICE = {
    "target": "team/llama",
    "since": TIME,
    "reason": "FleetCheaper",
    "message": "goes to team/llama; 180 requests/min of 1155 + 211 tokens",
    "breakEvenPerMinute": "60.3",
    "numbers": {"inputTokens": "1155", "requestsPerSecond": "3"},
    "costs": [
        {"target": "team/llama", "perHour": "0.8", "perMillionTokens": "0.0542", "replicas": 1},
        {"target": "provider:acme/large", "perHour": "2.3868", "perMillionTokens": "0.1618"},
        {
            "target": "provider:acme/tiny",
            "reason": "QualityTooLow",
            "message": "model tiny of LLMProvider acme has quality 0.3, and minQuality is 0.7",
        },
    ],
    "crossings": [
        {"requestsPerMinute": "60.3", "before": "provider:acme/large", "after": "team/llama"},
        {"requestsPerMinute": "280", "before": "team/llama", "after": "provider:acme/large"},
    ],
}
SPILLING = {
    "type": "Spilling",
    "status": "False",
    "reason": "Room",
    "message": "serving replicas have room",
    "lastTransitionTime": TIME,
}
GOLDEN = """\
team/chat: model gpt, policy LowestCost, 3 targets

goes to    team/llama since 2026-01-01T10:00:00Z
reason     FleetCheaper: goes to team/llama; 180 requests/min of 1155 + 211 tokens
numbers
  input tokens         1155
  requests per second  3

targets
  team/llama           $0.8/h     $0.0542 per million tokens  1 replica  chosen
  provider:acme/large  $2.3868/h  $0.1618 per million tokens             not chosen: $1.5868/h more
  provider:acme/tiny                                                     not allowed: QualityTooLow: model tiny \
of LLMProvider acme has quality 0.3, and minQuality is 0.7

cheapest   provider:acme/large up to the first of these loads
  60.3 requests/min  team/llama
  280 requests/min   provider:acme/large
spill      0 % of the requests go elsewhere, because replicas are missing

conditions
  Spilling  False  Room  since 2026-01-01T10:00:00Z  serving replicas have room
"""


def route(choice=CHOICE, *, generation=2, **spec):
    targets = [
        {"deployment": "llama", "quality": "0.8"},
        *({"provider": "acme", "model": model} for model in ("large", "tiny")),
    ]
    status = {"observedGeneration": 2, "spillPercent": 0, "conditions": [SPILLING]}
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMRoute",
        "metadata": {
            "name": "chat",
            "namespace": "team",
            "uid": "u",
            "resourceVersion": "1",
            "generation": generation,
        },
        "spec": {"model": "gpt", "policy": "LowestCost", "targets": targets, **spec},
        "status": status if choice is None else {**status, "choice": choice},
    }


@pytest.fixture
def explain(tmp_path, monkeypatch):
    monkeypatch.setattr(test_explain, "PATH", PATH)

    def run(body, *options, kind="llmroute", name="team/chat"):
        with test_explain.serve(tmp_path, body) as (kubeconfig, _):
            arguments = ["explain", kind, name, "--kubeconfig", str(kubeconfig), *options]
            return CliRunner().invoke(app, arguments)

    return run


def test_the_whole_text(explain):
    result = explain(route())
    assert (result.exit_code, result.stdout) == (0, GOLDEN)


@pytest.mark.parametrize("kind", ["llmr", "LLMRoute", "llmroutes"])
def test_every_name_of_the_kind(explain, kind):
    assert explain(route(), "-n", "team", kind=kind, name="chat").stdout == GOLDEN


def test_json_and_yaml_have_what_the_status_has(explain):
    report = json.loads(explain(route(), "-o", "json").stdout)
    assert report == yaml.safe_load(explain(route(), "-o", "yaml").stdout)
    assert report["choice"] == CHOICE
    assert report["spillPercent"] == 0


@pytest.mark.parametrize(
    ("reason", "hourly", "told"),
    [
        ("Stabilizing", "0.5", "not chosen yet: $0.3/h less, but not for long enough"),
        ("NoData", "0.5", "nothing changes while the counters are not known"),
        ("FleetCheaper", "0.8", "it costs the same"),
    ],
)
def test_why_a_target_that_costs_no_more_was_not_chosen(explain, reason, hourly, told):
    own, large, tiny = CHOICE["costs"]
    costs = [own, {**large, "perHour": hourly}, tiny]
    assert told in explain(route({**CHOICE, "reason": reason, "costs": costs})).stdout


def test_before_the_first_decision_and_of_other_policies(explain):
    assert "no decision yet" in explain(route(None)).stdout
    assert "as policy Priority says" in explain(route(None, policy="Priority")).stdout
    assert "has not been decided about yet" in explain(route(generation=3)).stdout


def test_control_characters_do_not_reach_the_terminal(explain):
    result = explain(route({**CHOICE, "message": "a\x1b[2Jb\nc"}))
    assert "\x1b" not in result.stdout


def test_a_route_that_does_not_exist(explain):
    result = explain(route(), name="team/gone")
    assert result.exit_code == 1
    assert "no LLMRoute gone in namespace team" in result.stderr
