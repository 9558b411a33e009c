"""The report of a simulation as a folder: the page, the plots and the files say the same."""

import base64
import csv
import json
from html.parser import HTMLParser

import pytest

from modelyard.cli.simulatemodel import SimulationReport
from modelyard.cli.simulatereport import write_report
from modelyard.cli.simulatewords import HEADERS, TOTAL_HEADERS, clock
from tests.unit.cli.simulating import SMALL, chat, simulate
from tests.unit.cli.test_simulate_golden import read

PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """What stands on a page: tables by class, images, and every address."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tables, self.images, self.addresses, self.open, self.tags = {}, [], [], [], set()
        self.text = ""
        self.cell = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]
        if tag == "img":
            self.images.append(values["src"])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = []
            self.tables.setdefault(values["class"], []).append(self.rows)
        elif tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.cell = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in {"td", "th"}:
            self.rows[-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        self.text += data
        if self.cell is not None:
            self.cell += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real run's report, and what was printed as JSON."""
    base = tmp_path_factory.mktemp("simulate")
    options = (
        "--synthetic",
        SMALL,
        "--policy",
        "modelyard",
        "--policy",
        "keda-queue",
        "--report",
        base / "out",
    )
    result = simulate(base, [chat("a"), chat("b")], *options, "-o", "json")
    assert result.exit_code == 0, result.output
    return base / "out", json.loads(result.stdout)


def test_the_figures_are_those_that_are_printed(folder):
    out, printed = folder
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == printed


def test_the_page_has_the_figures_of_the_json(folder):
    out, printed = folder
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert len(page.tables["runs"]) == len(printed["deployments"])
    for (header, *rows), deployment in zip(page.tables["runs"], printed["deployments"], strict=True):
        assert tuple(header) == HEADERS
        for cells, run in zip(rows, deployment["runs"], strict=True):
            shown = dict(zip(header, cells, strict=True))
            assert shown["POLICY"] == run["policy"]
            assert float(shown["ATTAINED"].removesuffix("%")) == pytest.approx(
                run["attainment"] * 100, abs=0.01
            )
            assert int(shown["REFUSED"].replace(",", "")) == run["refused"]
            assert float(shown["USD"]) == float(run["cost"]["total"])
            assert float(shown["USD/H"]) == float(run["cost"]["perHour"])
            assert float(shown["USD/1M TOKENS"]) == float(run["cost"]["perMillionTokens"])
            assert int(shown["COLD STARTS"].replace(",", "")) == run["coldStarts"]
            assert float(shown["REPLICA-HOURS"].replace(",", "")) == pytest.approx(
                run["replicaHours"], abs=0.006
            )
            assert int(shown["PEAK"]) == run["peakReplicas"]
    (header, *rows) = page.tables["totals"][0]
    assert tuple(header) == TOTAL_HEADERS
    assert [float(row[header.index("USD")]) for row in rows] == [
        float(total["cost"]["total"]) for total in printed["totals"]
    ]


def test_every_decision_is_on_the_page_and_in_the_csv(folder):
    out, printed = folder
    wanted = [
        (f"{deployment['namespace']}/{deployment['name']}", run["policy"], item)
        for deployment in printed["deployments"]
        for run in deployment["runs"]
        for item in run.get("decisions", ())
    ]
    assert wanted
    with (out / "decisions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [
        (
            row["deployment"],
            row["policy"],
            float(row["time"]),
            int(row["from"]),
            int(row["to"]),
            row["reason"],
        )
        for row in rows
    ] == [
        (key, policy, item["time"], item["fromReplicas"], item["toReplicas"], item.get("reason", ""))
        for key, policy, item in wanted
    ]
    assert all(row["sentence"] for row in rows)
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    shown = [row for table in page.tables["decisions"] for row in table[1:]]
    assert [row[:2] for row in shown] == [
        [clock(item["time"]), f"{item['fromReplicas']} -> {item['toReplicas']}"] for _, _, item in wanted
    ]


def test_the_page_needs_nothing_else(folder):
    out, _ = folder
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert page.addresses == page.images
    assert "script" not in page.tags
    plots = sorted(path.read_bytes() for path in out.glob("*.png"))
    inside = sorted(base64.b64decode(image.removeprefix("data:image/png;base64,")) for image in page.images)
    assert inside == plots
    assert len(plots) == 4
    assert all(plot.startswith(PNG) for plot in plots)


def test_the_same_report_is_the_same_bytes(tmp_path):
    written = write_report(read(), tmp_path)
    before = {path.name: path.read_bytes() for path in written}
    assert len(before) == len(written) >= 4
    assert {path.name: path.read_bytes() for path in write_report(read(), tmp_path)} == before


def test_what_others_wrote_is_never_markup(tmp_path):
    hostile = "<script>alert(1)</script>$title ${x}"
    report = read()
    first = report.deployments[0].model_copy(update={"notes": (hostile,), "name": hostile})
    report = report.model_copy(update={"deployments": (first,), "notes": (hostile,)})
    write_report(report, tmp_path)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.text.count(hostile) >= 3
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("message", ["=1+1", "@sum(a)", "+1", "-1"])
def test_a_spreadsheet_takes_no_sentence_for_a_formula(tmp_path, message):
    report = read()
    run = report.deployments[0].runs[0]
    decision = run.decisions[0].model_copy(update={"message": message})
    run = run.model_copy(update={"decisions": (decision,)})
    first = report.deployments[0].model_copy(update={"runs": (run,)})
    write_report(report.model_copy(update={"deployments": (first,)}), tmp_path)
    (row,) = csv.DictReader((tmp_path / "decisions.csv").read_text(encoding="utf-8").splitlines())
    assert row["sentence"] == f"'{message}"


def test_a_report_without_runs_has_a_page(tmp_path):
    report = read()
    refused = [item for item in report.deployments if not item.runs]
    assert refused
    write_report(
        SimulationReport(
            outcome="DoesNotFit", exit_code=3, seed=0, speed=1.0, deployments=tuple(refused), totals=()
        ),
        tmp_path,
    )
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert refused[0].refusal in page.text
    assert page.images == []


def test_a_folder_that_cannot_be_made_is_told_before_the_run(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = simulate(tmp_path, [chat()], "--synthetic", SMALL, "--report", tmp_path / "file" / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--report" in result.stderr
