"""Whole reports as files to read and review.

`MODELYARD_UPDATE_GOLDEN=1 pytest tests/unit/cli/test_plan_golden.py` writes them anew.
"""

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from modelyard.cli.main import app

FOLDER = Path(__file__).parent / "plans"
UPDATE = os.environ.get("MODELYARD_UPDATE_GOLDEN") == "1"
OPTIONS = ["-f", "fleet.yaml", "--against", "inventory.yaml", "--offline", "--budget", "50"]


def report(monkeypatch: pytest.MonkeyPatch, output: str) -> str:
    monkeypatch.chdir(FOLDER)
    return CliRunner().invoke(app, ["plan", *OPTIONS, "-o", output]).stdout


@pytest.mark.parametrize(
    ("output", "name"),
    [("table", "table.txt"), ("json", "plan.json"), ("yaml", "plan.yaml"), ("markdown", "plan.md")],
)
def test_the_report_equals_the_golden_file(monkeypatch: pytest.MonkeyPatch, output: str, name: str) -> None:
    path = FOLDER / "output" / name
    text = report(monkeypatch, output)
    if UPDATE:
        path.write_text(text, encoding="utf-8")
    assert text.splitlines() == path.read_text(encoding="utf-8").splitlines()


def test_json_and_yaml_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(report(monkeypatch, "json")) == yaml.safe_load(report(monkeypatch, "yaml"))


def test_the_terminal_has_no_part_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = report(monkeypatch, "table")
    for name, value in {"COLUMNS": "40", "TERM": "xterm-256color", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert report(monkeypatch, "table") == plain
