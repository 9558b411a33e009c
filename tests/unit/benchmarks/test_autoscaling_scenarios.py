from pathlib import Path

import pytest

from benchmarks.autoscaling.scenarios import FOLDER, QUICK, SLICES, load_case, load_cases, quick_cases

GOOD = """
title: A step
load: {kind: step, before: 1, at: 30, duration: 90}
start: 30
bars: {overshoot: 1}
default: {seeds: 1, steps: 1, rounds: 0, trials: 0}
full: {seeds: 2, rivals: 3, rival_seeds: 2, steps: 2, rounds: 1, trials: 2}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "a-step.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_scenario_of_the_benchmark_is_read():
    assert set(load_cases()) == {path.stem for path in FOLDER.iterdir()} >= {
        "m-large-2", "m-large-10", "m-large-50", "m-large-10-start-37", "m-large-10-start-300",
        "azure-conversation", "step", "sinusoid",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["m-large-10", "m-large-50", "azure-conversation"])
def test_what_must_be_shown_is_a_bar(name):
    case = load_cases()[name]
    assert (case.bars.attainment, case.bars.to_clairvoyant, case.start) == (0.99, 1.15, 120)
    goal = case.objective
    assert (goal.first_token_base, goal.first_token_per_input_token, goal.inter_token) == (1.0, 0.0005, 0.04)


def test_the_14_days_are_played_at_both_scales_that_must_be_shown():
    assert {"m-large-10", "m-large-50"} <= {name for name, case in load_cases().items() if case.default.days}


def test_m_large_is_played_in_four_slices_and_the_others_whole():
    cases = load_cases()
    assert cases["m-large-50"].parts == SLICES
    assert cases["step"].parts == cases["azure-conversation"].parts == ("whole",)


def test_a_good_file_says_what_it_says(tmp_path):
    case = load_case(write(tmp_path, GOOD))
    assert (case.name, case.load.at, case.bars.overshoot, case.bars.attainment) == ("a-step", 30, 1, None)
    assert case.effort(full=False).rivals is None
    assert case.effort(full=True).rivals == 3


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("start: 30", "start: 30\nbegin: 3", "begin"),
        ("before: 1", "befor: 1", "befor"),
        ("overshoot: 1", "undershoot: 1", "undershoot"),
        ("rounds: 0", "round: 0", "round"),
        ("kind: step", "kind: stairs", "kind"),
        ("seeds: 1, ", "seeds: 0, ", "seeds"),
        ("start: 30", "start: soon", "start"),
    ],
)
def test_what_is_unknown_or_wrong_is_refused_by_name(tmp_path, old, new, named):
    assert old in GOOD
    with pytest.raises(ValueError, match=rf"a-step\.yaml(.|\n)*{named}"):
        load_case(write(tmp_path, GOOD.replace(old, new, 1)))


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a-step\.yaml"):
        load_case(write(tmp_path, "- a list"))


def test_a_smoke_run_has_every_kind_of_load_but_little_of_it():
    quick = quick_cases()
    assert set(quick) == set(QUICK)
    assert {case.load.kind for case in quick.values()} == {"servegen", "azure", "step"}
    assert all(
        case.load.limit and case.load.limit <= 1200 and case.default.seeds == 1 for case in quick.values()
    )
    assert any(case.default.days for case in quick.values())
    assert quick["m-large-2"].parts == SLICES[:1]
