"""A report in every format, as files to read and review. The figures are those of simulations/report.json, so that the
files change with the words only.

`MODELYARD_UPDATE_GOLDEN=1 pytest tests/unit/cli/test_simulate_golden.py` writes them anew.
"""

import json
import os
from pathlib import Path

import pytest
import yaml

from modelyard.cli.planformat import PlanFormat
from modelyard.cli.simulateformat import LARGEST_COMMENT, MOST_DECISIONS, format_simulation
from modelyard.cli.simulatemodel import Decision, SimulationReport

FOLDER = Path(__file__).parent / "simulations"
UPDATE = os.environ.get("MODELYARD_UPDATE_GOLDEN") == "1"


def read() -> SimulationReport:
    return SimulationReport.model_validate_json((FOLDER / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("output", "name"), [("table", "table.txt"), ("yaml", "simulation.yaml"), ("markdown", "simulation.md")]
)
def test_the_report_equals_the_golden_file(output, name):
    path, text = FOLDER / "output" / name, format_simulation(read(), PlanFormat(output))
    if UPDATE:
        path.write_text(f"{text.rstrip()}\n", encoding="utf-8")
    assert text.rstrip().splitlines() == path.read_text(encoding="utf-8").splitlines()


def test_json_is_what_was_read():
    text = (FOLDER / "report.json").read_text(encoding="utf-8")
    assert json.loads(format_simulation(read(), PlanFormat.JSON)) == json.loads(text)
    assert yaml.safe_load(format_simulation(read(), PlanFormat.YAML)) == json.loads(text)


def test_the_terminal_has_no_part_in_it(monkeypatch):
    plain = format_simulation(read(), PlanFormat.TABLE)
    for name, value in {"COLUMNS": "40", "TERM": "xterm-256color", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert format_simulation(read(), PlanFormat.TABLE) == plain


def many(count: int, message: str = "why") -> SimulationReport:
    report = read()
    first, *others = report.deployments
    decisions = tuple(
        Decision(time=float(place), from_replicas=1, to_replicas=2, reason="OfferedLoad", message=message)
        for place in range(count)
    )
    run = first.runs[0].model_copy(update={"decisions": decisions})
    first = first.model_copy(update={"runs": (run,)})
    return report.model_copy(update={"deployments": (first, *others)})


def test_of_many_decisions_the_newest_are_shown():
    table = format_simulation(many(MOST_DECISIONS + 3), PlanFormat.TABLE)
    assert table.count("OfferedLoad  why") == MOST_DECISIONS
    assert "3 earlier ones" in table


def test_nothing_of_others_is_markup_and_the_comment_stays_short():
    hostile = "<img src=x onerror=alert(1)> @team [a](http://b) | c"
    text = format_simulation(many(10, hostile), PlanFormat.MARKDOWN)
    assert "<img" not in text
    assert "@team" not in text
    assert "](http" not in text
    long = many(MOST_DECISIONS, hostile * 100)
    long = long.model_copy(update={"deployments": long.deployments * 5})
    text = format_simulation(long, PlanFormat.MARKDOWN)
    assert len(text) <= LARGEST_COMMENT + 200
    assert "more parts do not fit here" in text
