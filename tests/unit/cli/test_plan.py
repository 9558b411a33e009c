"""`modelyard plan`: options, exit codes, and that it says what the cluster decides."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import API_VERSION, Refusal, wire
from modelyard.api.modelprofile import ModelProfile
from modelyard.cli.gather import PlanOptions, build_question
from modelyard.cli.main import app
from modelyard.cli.manifests import Manifest, Reading, read_files
from modelyard.core.decide import decide
from modelyard.core.report.build import build_report
from modelyard.core.report.model import PlanReport
from modelyard.core.report.settle import recall, without_backlog
from modelyard.core.report.steady import find_capacity, find_rate
from modelyard.core.scaling.rule import LoadPolicy
from modelyard.runtime import hub
from tests.apiserver.manifests import BASES, PROFILE
from tests.unit.cli.planning import first, manifest, report, run, write
from tests.unit.render.strategies import workloads

POLICY = LoadPolicy()
EXAMPLES = Path(__file__).parents[3] / "examples"

LARGE = manifest(
    "large", classes=[{"class": "l4", "count": 1}], source="hf://meta-llama/Llama-3.3-70B-Instruct"
)
INVALID = manifest("invalid", model={"contextLength": 1})


def test_the_readme_shows_what_the_command_prints() -> None:
    """Lines of its example; what `...` leaves out of one is not compared."""
    page = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    (block,) = (part for part in page.split("```") if part.startswith("\nDEPLOYMENT "))
    files = [("-f", str(EXAMPLES / name)) for name in ("llama-3.1-8b.yaml", "accelerator-classes.yaml")]
    result = CliRunner().invoke(app, ["plan", "--offline", *(word for pair in files for word in pair)])
    printed = result.stdout.splitlines()
    shown = [line.split("...")[0].rstrip() for line in block.strip().splitlines() if line != "..."]
    assert len(shown) > 10
    assert [line for line in shown if not any(other.startswith(line) for other in printed)] == []


@pytest.mark.parametrize(
    ("manifests", "options", "code", "outcome"),
    [
        ([manifest()], (), 0, "Ok"),
        ([manifest()], ("--budget", "19.32"), 0, "Ok"),
        ([manifest()], ("--budget", "$19.31"), 4, "OverBudget"),
        ([LARGE], (), 3, "DoesNotFit"),
        ([manifest(), LARGE], ("--budget", "1"), 3, "DoesNotFit"),
        ([INVALID], (), 2, "Invalid"),
        ([INVALID, manifest(), LARGE], ("--budget", "1"), 2, "Invalid"),
        ([], (), 0, "Ok"),
    ],
)
def test_the_exit_code_is_that_of_the_worst(tmp_path, manifests, options, code, outcome) -> None:
    result = run(tmp_path, manifests, "-o", "json", *options)
    found = json.loads(result.stdout)
    assert (result.exit_code, found["exitCode"], found["outcome"]) == (code, code, outcome)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "much"), "--budget"),
        (("--budget", "-1"), "--budget"),
        (("--budget", "nan"), "--budget"),
        (("--against", "nowhere.yaml"), "--against"),
        (("--load", "nowhere.csv"), "--load"),
    ],
)
def test_a_bad_option_is_named(tmp_path, options, said) -> None:
    result = run(tmp_path, [manifest()], *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_file_that_is_not_there_is_a_problem(tmp_path) -> None:
    result = CliRunner().invoke(app, ["plan", "-f", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml: Error: cannot be read: No such file" in result.stderr


def test_help_teaches_exit_codes_and_examples() -> None:
    shown = CliRunner().invoke(app, ["plan", "--help"], env={"COLUMNS": "120", "NO_COLOR": "1"}).output
    for line in ("modelyard plan -f manifests/ --against live --budget 500", "3  a deployment does not fit"):
        assert line in shown


def test_a_process_writes_the_report_and_nothing_else_to_standard_output(tmp_path) -> None:
    # Two classes to choose from, so that the solver runs, which is fond of printing.
    path = write(tmp_path, "a.yaml", yaml.safe_dump(manifest(classes=("l4", "h100"), scaling={"max": 9})))
    command = [sys.executable, "-m", "modelyard.cli", "plan", "-f", str(path), "--offline", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "Ok")


def test_the_same_files_give_the_same_report(tmp_path) -> None:
    fleet = [manifest(name, classes=("l4", "h100", "a100-80gb"), scaling={"max": 9}) for name in "cab"]
    texts = {run(tmp_path, order, "-o", "json").stdout for order in (fleet, fleet[::-1])}
    assert len(texts) == 1


def test_it_says_what_the_cluster_decides(tmp_path) -> None:
    fleet = [
        manifest("a", classes=("l4", "h100"), scaling={"max": 9}, load={"requestsPerMinute": 700}),
        manifest("b", classes=("l4", "a100-80gb"), scaling={"min": 2, "max": 9}),
        manifest("c", classes=("h100",), replicas=3),
    ]
    path = write(tmp_path, "fleet.yaml", yaml.safe_dump_all(fleet))
    question = build_question(read_files([path]), PlanOptions(offline=True))
    found = build_report(question)
    policy = without_backlog(question.context.policy)
    memory = recall(question.loads, question.now, policy)
    plan, _ = decide(question.snapshot, memory, question.now, policy)
    for item in found.deployments:
        decided = plan.deployments[item.key]
        assert item.replicas == decided.replicas
        assert [(row.class_name, row.count, row.replicas) for row in item.variants] == [
            (row.variant.accelerator.metadata.name, row.variant.count, row.wanted)
            for row in decided.placement.variants
        ]
        assert item.reason == decided.placement.message


def test_a_model_that_sleeps_has_the_size_that_its_load_needs(tmp_path) -> None:
    option = {"class": "l4", "count": 1, "requestsPerMinute": 60}
    for smallest in (0, 1):
        item = manifest(
            classes=[option], scaling={"min": smallest, "max": 9}, load={"requestsPerMinute": 240}
        )
        # 4 requests a second at 1 a replica.
        assert first(tmp_path, item)["replicas"] == math.ceil(find_capacity(4.0, None, POLICY))


def test_without_a_load_the_smallest_size_is_planned_and_said(tmp_path) -> None:
    found = first(tmp_path, manifest(scaling={"min": 2, "max": 9}))
    assert (found["replicas"], found["load"]["source"]) == (2, "None")
    assert any("no load is stated" in note for note in found["notes"])
    assert "perMillionTokens" not in found["cost"]


def test_no_traffic_and_no_minimum_costs_nothing(tmp_path) -> None:
    found = first(tmp_path, manifest(scaling={"min": 0, "max": 9}, load={"requestsPerMinute": 0}))
    assert (found["replicas"], found["cost"]["perDay"]) == (0, "0.00")


def test_a_load_above_the_bounds_is_told(tmp_path) -> None:
    option = {"class": "l4", "count": 1, "requestsPerMinute": 60}
    found = first(tmp_path, manifest(classes=[option], scaling={"max": 2}, load={"requestsPerMinute": 240}))
    assert (found["replicas"], found["size"]["reason"]) == (2, "AtMaximum")
    assert any("answer 120 of 240 requests a minute" in note for note in found["notes"])


def test_an_outside_autoscaler_and_advice_are_told(tmp_path) -> None:
    option = {"class": "l4", "count": 1, "requestsPerMinute": 60}
    load = {"requestsPerMinute": 240}
    external = manifest(classes=[option], scaling={"max": 9, "actuator": "External"}, load=load)
    found = first(tmp_path, external)
    needed = math.ceil(find_capacity(4.0, None, POLICY))
    assert found["replicas"] == needed
    assert any("actuator is External" in note for note in found["notes"])
    advised = first(tmp_path, manifest(classes=[option], scaling={"max": 9, "mode": "Advise"}, load=load))
    assert advised["replicas"] == 1
    assert any(f"it would be {needed}" in note for note in advised["notes"])


def test_a_suspended_deployment_costs_nothing(tmp_path) -> None:
    found = first(tmp_path, manifest(replicas=4, suspend=True))
    assert (found["replicas"], found["cost"]["perHour"]) == (0, "0.0000")


def test_hosted_prices_of_the_same_model_are_the_cheapest_and_the_dearest(tmp_path) -> None:
    found = first(tmp_path, manifest())["comparisons"]
    same = [item for item in found if item["kind"] == "SameModel"]
    assert [item["note"] for item in same] == ["cheapest", "dearest"]
    assert float(same[0]["perMillionTokens"]) < float(same[1]["perMillionTokens"])
    assert all(item["source"] and item["date"] for item in found)


def test_fixed_replicas_pay_from_one_volume_on_and_on_their_own_variant(tmp_path) -> None:
    found = first(tmp_path, manifest(classes=("l4", "h100"), replicas=2))
    crossings = [item["breakEven"] for item in found["comparisons"] if "breakEven" in item]
    assert crossings
    assert {(item["runsOn"], item["crossings"]) for item in crossings} == {("1 x l4", 1)}


def test_classes_come_from_the_files_then_from_the_catalogue(tmp_path) -> None:
    own = {"apiVersion": API_VERSION, "kind": "AcceleratorClass", "metadata": {"name": "l4"}}
    own["spec"] = {"resourceName": "nvidia.com/gpu", "memory": "24Gi", "price": {"onDemand": "0.5"}}
    assert report(tmp_path, [manifest(), own])["totals"]["perDay"] == "12.00"
    found = report(tmp_path, [manifest()])
    assert found["totals"]["perDay"] == "19.32"
    assert any("AcceleratorClass l4 is in no file" in note for note in found["notes"])


def test_a_class_that_is_defined_nowhere_makes_fit_unknown(tmp_path) -> None:
    result = run(tmp_path, [manifest(classes=("mystery",))], "-o", "json")
    (found,) = json.loads(result.stdout)["deployments"]
    assert (result.exit_code, found["fit"]["verdict"]) == (0, "Unknown")
    assert "AcceleratorClass" in found["fit"]["message"]
    assert json.loads(result.stdout)["totals"]["unpriced"] == ["team/a"]


def test_without_any_class_the_whole_catalogue_is_considered(tmp_path) -> None:
    found = report(tmp_path, [manifest(classes=())])
    assert found["deployments"][0]["fit"]["verdict"] == "Fits"
    assert any("every accelerator of the catalogue" in note for note in found["notes"])


def test_an_unknown_model_is_unknown_offline_and_read_from_the_hub_otherwise(tmp_path, monkeypatch) -> None:
    asked = []

    def read(source: str, **_: Any) -> ModelProfile | Refusal:
        asked.append(source)
        if source.endswith("gated"):
            return Refusal("ModelGated", "it is gated")
        return ModelProfile.model_validate(PROFILE)

    monkeypatch.setattr(hub, "read_profile", read)
    fleet = [manifest("a", source="hf://some/tune"), manifest("b", source="hf://some/gated"), manifest("c")]
    offline = report(tmp_path, fleet)
    assert [item["fit"]["verdict"] for item in offline["deployments"]] == ["Unknown", "Unknown", "Fits"]
    assert "model.profile" in offline["deployments"][0]["fit"]["message"]
    assert (asked, offline["exitCode"]) == ([], 0)
    online = report(tmp_path, fleet, hub=True)
    assert [item["fit"]["verdict"] for item in online["deployments"]] == ["Fits", "Unknown", "Fits"]
    assert "it is gated" in online["deployments"][1]["fit"]["message"]
    assert sorted(asked) == ["hf://some/gated", "hf://some/tune"]


def test_a_profile_in_the_spec_needs_no_hub(tmp_path) -> None:
    found = first(tmp_path, manifest(source="pvc://weights", model={"profile": PROFILE}))
    assert found["fit"]["verdict"] == "Fits"
    assert found["fit"]["memory"]["weights"] > 8_030_261_248 * 2 * 0.99


def test_a_refusal_of_the_builder_counts_as_in_the_cluster(tmp_path) -> None:
    item = manifest(engine={"name": "vLLM", "version": "0.0.1"})
    result = run(tmp_path, [item], "-o", "json")
    (found,) = json.loads(result.stdout)["deployments"]
    assert (result.exit_code, found["fit"]["verdict"], found["fit"]["reason"]) == (
        3,
        "Refused",
        "UnknownEngineVersion",
    )


def test_the_worked_example_of_the_documentation(tmp_path) -> None:
    """Each figure is worked out by hand in docs/plan.md."""
    load = write(tmp_path, "load.csv", "deployment,requestsPerMinute\nllama-3-1-8b,600\n")
    files = ["-f", EXAMPLES / "llama-3.1-8b.yaml", "-f", EXAMPLES / "accelerator-classes.yaml"]
    arguments = ["plan", *files, "--load", load, "--offline", "-o", "json"]
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    (found,) = json.loads(result.stdout)["deployments"]
    assert found["replicas"] == 5
    rate = 600 / 60
    level = rate + math.sqrt(rate / (2 * 30))
    deviation = math.sqrt(level / 21.6 + 0.1**2 * 0.5 / 6.5 * level**2)
    capacity = find_capacity(rate, None, POLICY)
    assert [round(value, 2) for value in (level, deviation, capacity)] == [10.41, 0.75, 12.47]
    exponent = (level / capacity - 1) / 0.04 + (deviation / capacity / 0.04) ** 2 / 2
    assert 0.1 * math.exp(exponent) == pytest.approx(0.005, rel=0.01)
    for figure in (
        f"{level:.2f} +- {deviation:.2f}",
        "0.50% may miss",
        "steady 10.00",
        "67% of the capacity",
    ):
        assert figure in found["size"]["message"]
    assert find_rate(3.0, None, POLICY) * 60 == pytest.approx(122.4, abs=0.1)
    assert found["cost"] == {"perHour": "4.0240", "perDay": "96.58", "perMillionTokens": "0.0818"}
    mini = next(item for item in found["comparisons"] if item["model"] == "gpt-5-mini")
    assert (mini["perMillionTokens"], mini["perDay"], mini["cheaper"]) == ("0.5203", "614.09", "Deployment")
    assert mini["breakEven"] == {
        "requestsPerMinute": 18.87,
        "tokensPerDay": 37122143,
        "runsOn": "1 x l4",
        "crossings": 1,
        "alwaysFromRequestsPerMinute": 18.87,
    }


def plan_objects(*objects: LLMDeployment | AcceleratorClass) -> PlanReport:
    reading = Reading(manifests=[Manifest("generated", item) for item in objects])
    return build_report(build_question(reading, PlanOptions(offline=True)))


@pytest.mark.parametrize("base", [*BASES["LLMDeployment"]], ids=lambda base: base["metadata"]["name"])
def test_every_base_of_the_api_has_a_plan(base: dict[str, Any]) -> None:
    classes = [AcceleratorClass.model_validate(item) for item in BASES["AcceleratorClass"]]
    found = plan_objects(LLMDeployment.model_validate(base), *classes)
    assert len(found.deployments) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads(), st.none() | st.integers(0, 100_000), st.booleans())
def test_no_valid_manifest_breaks_it(workload: Any, rate: int | None, scaled: bool) -> None:
    data = wire(workload.deployment)
    if scaled:
        data["spec"] |= {"scaling": {"min": 0, "max": 50}, "replicas": None}
    if rate is not None:
        data["spec"]["load"] = {"requestsPerMinute": rate}
    found = plan_objects(LLMDeployment.model_validate(data), workload.accelerator)
    (deployment,) = found.deployments
    assert deployment.key == workload.deployment.key
    json.dumps(wire(found))
