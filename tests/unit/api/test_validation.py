"""The offline check, beyond the constraints of single fields."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.crd import KINDS
from modelyard.api.quantities import parse_duration, parse_quantity
from modelyard.api.validation import validate
from tests.apiserver.manifests import ABSENT, BASES, change_field, parse_path, smallest


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (None, ""),
        ([], ""),
        ({}, "kind"),
        ({"kind": "Pod", "apiVersion": "v1"}, "kind"),
        ({**smallest("LLMRoute"), "apiVersion": "modelyard.dev/v1"}, "apiVersion"),
        ({**smallest("LLMRoute"), "metadata": None}, "metadata.name"),
        ({**smallest("LLMRoute"), "metadata": "name"}, "metadata"),
        ({**smallest("LLMRoute"), "spec": None}, "spec"),
        ({**smallest("LLMRoute"), "spec": []}, "spec"),
    ],
)
def test_what_is_no_manifest_is_a_problem(manifest: object, field: str) -> None:
    assert [problem.field for problem in validate(manifest)] == [field]


@pytest.mark.parametrize("kind", KINDS)
def test_good_manifests_have_no_problem(kind: str) -> None:
    assert [validate(base) for base in BASES[kind]] == [[] for _ in BASES[kind]]


def test_all_problems_are_told_at_once() -> None:
    manifest = smallest("LLMDeployment")
    for path, value in {"spec.model.source": "x", "spec.replicas": "1", "spec.model.nane": "y"}.items():
        manifest = change_field(manifest, parse_path(path), value)
    found = {problem.field: problem.severity for problem in validate(manifest)}
    assert found == {"spec.model.source": "Error", "spec.replicas": "Error", "spec.model.nane": "Warning"}


def test_a_message_names_field_and_value() -> None:
    manifest = change_field(smallest("LLMDeployment"), parse_path("spec.replicas"), 2000)
    (problem,) = validate(manifest)
    assert str(problem) == "spec.replicas: Input should be less than or equal to 1000, not 2000"


@pytest.mark.parametrize(
    ("field", "value", "form"),
    [
        (
            "spec.model.source",
            "meta-llama/Llama",
            "hf://organisation/repository[:tag][@revision] or pvc://claim",
        ),
        ("spec.scaling.idleAfter", "10 min", "90s, 10m or 1h30m"),
        ("spec.scaling.slo.timeToFirstToken", "2000", "50ms or 2s"),
        ("spec.rollout.drainTimeout", "PT5M", "90s, 10m or 1h30m"),
    ],
)
def test_what_has_a_form_is_told_how_it_is_written(field: str, value: str, form: str) -> None:
    manifest = change_field(smallest("LLMDeployment"), parse_path("spec.replicas"), ABSENT)
    manifest = change_field(manifest, parse_path("spec.scaling"), {"max": 2})
    told = {
        problem.field: problem.message
        for problem in validate(change_field(manifest, parse_path(field), value))
    }
    assert told[field].startswith(f"Must be written like {form}")
    assert told[field].endswith(f', not "{value}"')


def test_a_pattern_without_a_form_is_shown() -> None:
    manifest = change_field(smallest("LLMDeployment"), parse_path("spec.model.quantization"), "f p 8")
    (problem,) = validate(manifest)
    assert "pattern" in problem.message


def test_a_long_value_is_cut_in_the_message() -> None:
    manifest = change_field(smallest("LLMDeployment"), parse_path("spec.model.source"), "x" * 1000)
    (problem,) = validate(manifest)
    assert len(problem.message) < 150


def test_rules_are_checked_only_once_the_fields_are_right() -> None:
    manifest = change_field(smallest("LLMDeployment"), parse_path("spec.replicas"), ABSENT)
    assert [problem.field for problem in validate(manifest)] == ["spec"]
    manifest = change_field(manifest, parse_path("spec.suspend"), "yes")
    assert [problem.field for problem in validate(manifest)] == ["spec.suspend"]


def test_python_names_of_fields_are_unknown_as_they_are_to_the_server() -> None:
    path = parse_path("spec.placement.accelerators.0")
    manifest = change_field(smallest("LLMDeployment"), path, {"class_name": "l4"})
    assert {problem.field: problem.severity for problem in validate(manifest)} == {
        "spec.placement.accelerators[0].class_name": "Warning",
        "spec.placement.accelerators[0].class": "Error",
    }


def test_a_date_that_yaml_made_of_a_name_does_not_break_the_check() -> None:
    manifest = change_field(
        smallest("LLMDeployment"), parse_path("spec.model.name"), datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert [problem.field for problem in validate(manifest)] == ["spec.model.name"]


@pytest.mark.parametrize("start", ["0 8 * * 5-1", "0 8 30 2 *"])
def test_a_schedule_that_no_day_matches_is_refused_offline_where_no_pattern_can_tell(start):
    manifest = change_field(BASES["LLMDeployment"][2], parse_path("spec.scaling.schedules.0.start"), start)
    (problem,) = validate(manifest)
    assert (problem.field, problem.severity) == ("spec.scaling.schedules[0].start", "Error")
    assert "that some day matches" in problem.message


def test_a_macro_is_told_what_to_write_instead():
    manifest = change_field(BASES["LLMDeployment"][2], parse_path("spec.scaling.schedules.0.start"), "@daily")
    (problem,) = validate(manifest)
    assert "as in 0 8 * * 1-5" in problem.message
    assert "macros such as @daily" in problem.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(kind=st.sampled_from(sorted(KINDS)), data=st.data(), value=JSON)
def test_any_manifest_gets_a_verdict(kind: str, data: st.DataObject, value: object) -> None:
    manifest = smallest(kind)
    field = data.draw(st.sampled_from(["metadata", "spec", *manifest["spec"]]))
    target = manifest if field in manifest else manifest["spec"]
    target[field] = value
    for problem in validate(manifest):
        assert problem.message


@given(st.integers(0, 99999), st.integers(0, 99999), st.integers(0, 9999999))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize("text", ["", "5", "1m\n", "1d", "-1m", "1.5h"])
def test_other_forms_of_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("1.5", "1.5"),
        ("2Ki", "2048"),
        ("80G", "80000000000"),
        ("1e3", "1000"),
        ("5u", "0.000005"),
    ],
)
def test_quantities_are_in_base_units(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1e100", "1e", "1Gi\n", "1 Gi", "Gi", "1GiB", "-1", "٣"])
def test_other_forms_of_quantities_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
