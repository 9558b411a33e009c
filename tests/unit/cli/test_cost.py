"""`modelyard cost`: the ledger of a cluster as a table, data and CSV, against files to read and review.

`MODELYARD_UPDATE_GOLDEN=1 pytest tests/unit/cli/test_cost.py` writes them anew.
"""

import csv
import io
import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from modelyard.cli import cost
from modelyard.cli.main import app
from modelyard.core.ledger.archive import DAY, OPEN_NAME, archive_name
from modelyard.core.ledger.book import Ledger, OpenHour, SettledHour
from modelyard.core.ledger.codec import Archive, encode_archive, encode_ledger
from modelyard.core.ledger.settle import Charged, Held, settle
from modelyard.core.ledger.usage import Use, spend_key
from modelyard.core.spend import HOUR
from modelyard.render.ledger import build_ledger
from tests.unit.cli.clusterstub import serve_lists

FOLDER = Path(__file__).parent / "costs"
UPDATE = os.environ.get("MODELYARD_UPDATE_GOLDEN") == "1"
NAMESPACE = "modelyard-system"
NOW = 1_800_001_800.0
"""2027-01-15, half past eight."""
T = 1_800_000_000

BLUE = spend_key("blue", "chat/assistant@route", "chat/llama-3-1-8b")
RED = spend_key("red", "chat/assistant@route", "chat/llama-3-1-8b")
SPILL = spend_key("red", "chat/assistant@route", "provider:acme/large")
UNPRICED = spend_key("", "search/rank", "provider:nobody/rank-1")


def busy(factor):
    uses = {
        BLUE: Charged(Use(120 * factor, 96_000 * factor, 24_000 * factor, 30_000 * factor)),
        RED: Charged(Use(30 * factor, 21_000 * factor, 0, 6_000 * factor, factor, 700 * factor, 90 * factor)),
        SPILL: Charged(Use(4 * factor, 3_000 * factor, 0, 900 * factor), 0.0132 * factor),
    }
    return uses, {"chat/llama-3-1-8b": Held(2.0, 1.6, 0.0, 400.0 * factor), "lab/falcon": Held(1.0, 0.8)}


def ledger_objects():
    """Hours of yesterday and today, an hour that has no object yet, one that is open, and an old day."""
    quiet = {"chat/llama-3-1-8b": Held(1.0, 0.8, 0.0, 200.0)}
    open_uses = {**busy(1)[0], UNPRICED: Charged(Use(7, 800), unpriced=True)}
    ledger = Ledger(
        NOW - 6,
        {},
        OpenHour(T, open_uses, quiet),
        (SettledHour(T - HOUR, settle(*busy(2))),),
    )
    archives = [
        Archive(T - HOUR, HOUR, settle(*busy(2))),
        Archive(T - 2 * HOUR, HOUR, settle(*busy(1))),
        Archive(T - DAY, HOUR, settle({}, quiet)),
        Archive(T - T % DAY - 40 * DAY, DAY, settle(*busy(9))),
    ]
    bodies = [build_ledger(OPEN_NAME, NAMESPACE, "Open", encode_ledger(ledger), "8")]
    for archive in archives:
        part = "Hour" if archive.seconds == HOUR else "Day"
        name = archive_name(archive.start, archive.seconds)
        bodies.append(build_ledger(name, NAMESPACE, part, encode_archive(archive)))
    return bodies


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command against an API server that has these objects."""
    monkeypatch.setattr(cost.time, "time", lambda: NOW)

    def call(*options, objects=None, status=None):
        bodies = ledger_objects() if objects is None else objects
        with serve_lists(tmp_path, {"configmaps": status or bodies}) as (config, seen):
            result = CliRunner().invoke(app, ["cost", "--kubeconfig", str(config), *options])
        assert all(line.startswith("GET ") for line in seen), "it only reads"
        return result

    return call


CASES = {
    "tenant.txt": ["--by", "tenant", "--since", "24h"],
    "route.txt": ["--by", "route", "--since", "2027-01-14"],
    "deployment.txt": ["--by", "deployment"],
    "deployment-marginal.txt": ["--by", "deployment", "--basis", "marginal"],
    "namespace.txt": ["--by", "namespace", "--since", "60d"],
    "tenant.json": ["-o", "json"],
    "tenant.yaml": ["-o", "yaml"],
    "tenant.csv": ["-o", "csv"],
    "deployment.csv": ["--by", "deployment", "-o", "csv", "--since", "2027-01-15T07:00:00Z", "--until", "1h"],
}


@pytest.mark.parametrize("name", CASES)
def test_the_report_equals_the_golden_file(run, name):
    result = run(*CASES[name])
    assert result.exit_code == 0, result.output
    path = FOLDER / "output" / name
    if UPDATE:
        path.write_text(result.stdout, encoding="utf-8")
    assert result.stdout.splitlines() == path.read_text(encoding="utf-8").splitlines()


def test_json_and_yaml_say_the_same(run):
    assert json.loads(run("-o", "json").stdout) == yaml.safe_load(run("-o", "yaml").stdout)


@pytest.mark.parametrize("basis", ["allocation", "marginal"])
def test_every_view_adds_up_to_the_same(run, basis):
    totals = [
        json.loads(run("--by", by, "--basis", basis, "-o", "json").stdout)["total"]
        for by in ("tenant", "route", "deployment", "namespace")
    ]
    assert totals == totals[:1] * 4
    assert totals[0]["requests"] == 4 * 154 + 7
    charges = list(csv.DictReader(io.StringIO(run("--basis", basis, "-o", "csv").stdout)))
    known = sum(float(row["BilledCost"]) for row in charges if row["BilledCost"])
    assert known == pytest.approx(totals[0]["dollars"], abs=1e-5)


def test_what_has_no_price_is_never_zero(run):
    rows = {row["name"]: row for row in json.loads(run("--by", "deployment", "-o", "json").stdout)["rows"]}
    assert rows["provider:nobody/rank-1"]["dollars"] is None
    charges = {
        row["ResourceId"]: row
        for row in csv.DictReader(io.StringIO(run("--by", "deployment", "-o", "csv").stdout))
    }
    assert charges["provider:nobody/rank-1"]["BilledCost"] == ""
    assert charges["provider:nobody/rank-1"]["x_Complete"] == "false"
    assert "not known" in run("--by", "deployment").stdout


def test_an_empty_ledger(run):
    result = run(objects=[])
    assert result.exit_code == 0
    assert "Nothing is written" in result.stdout
    assert json.loads(run("-o", "json", objects=[]).stdout)["rows"] == []
    assert len(run("-o", "csv", objects=[]).stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--since", "yesterday"], "7d"),
        (["--since", "2027-13-01"], "7d"),
        (["--since", "1h", "--until", "2h"], "later than --since"),
        (["--by", "team"], "tenant"),
        (["--basis", "list"], "marginal"),
    ],
)
def test_a_wrong_option_says_what_is_right(run, options, said):
    result = run(*options)
    assert result.exit_code == 2
    assert said in result.output


def test_a_ledger_that_cannot_be_read(run):
    result = run(status=403)
    assert result.exit_code == 1
    assert NAMESPACE in result.output
    newer = {"metadata": {"name": OPEN_NAME}, "data": {"ledger.json": '{"version": 9}'}}
    result = run(objects=[newer])
    assert result.exit_code == 1
    assert "upgrade" in result.output


def test_the_help_teaches(run):
    text = CliRunner().invoke(app, ["cost", "--help"], env={"COLUMNS": "120"}).stdout
    for word in ("allocation", "marginal", "FOCUS", "estimated", "not known", "--since", "docs/cost.md"):
        assert word.lower() in text.lower()
