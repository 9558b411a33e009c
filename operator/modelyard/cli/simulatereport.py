"""The report of a simulation as a folder: a page that needs nothing else, its plots, and the figures as files."""

import base64
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from modelyard.api.meta import wire
from modelyard.cli.manifests import InputError
from modelyard.cli.planwords import clean
from modelyard.cli.simulatemodel import SimulatedDeployment, SimulationReport
from modelyard.cli.simulateplots import plot_frontier, plot_over_time
from modelyard.cli.simulatewords import (
    HEADERS,
    TOTAL_HEADERS,
    describe_decision,
    describe_decisions,
    describe_outcome,
    describe_run,
    describe_total,
    explain_setting,
)

PAGE: Final = "index.html"
FIGURES: Final = "report.json"
DECISIONS: Final = "decisions.csv"
DECISION_COLUMNS: Final = ("deployment", "policy", "time", "from", "to", "reason", "sentence")

MOST_ROWS: Final = 2_000
"""Decisions of one run on the page: more make it slow to open, and decisions.csv has all."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins with one of these for a formula
(https://owasp.org/www-community/attacks/CSV_Injection)."""


def prepare_folder(folder: Path) -> None:
    """Make the folder. Raises InputError if that is not possible, before a long run is for nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--report: {folder}: {error.strerror}") from error


def write_report(report: SimulationReport, folder: Path) -> list[Path]:
    """Write all files and return their paths. Raises InputError for a folder that cannot be written to."""
    images = {place: list(_plot(place, item)) for place, item in enumerate(report.deployments)}
    contents: dict[str, bytes] = {
        PAGE: _build_page(report, images).encode(),
        FIGURES: (json.dumps(wire(report), indent=2, ensure_ascii=False) + "\n").encode(),
        DECISIONS: _build_decisions(report).encode(),
    }
    contents |= {name: image for plots in images.values() for name, image in plots}
    written = []
    try:
        for name, content in contents.items():
            path = folder / name
            path.write_bytes(content)
            written.append(path)
    except OSError as error:
        raise InputError(f"--report: {folder}: {error.strerror}") from error
    return written


def _plot(place: int, deployment: SimulatedDeployment) -> Iterator[tuple[str, bytes]]:
    if not deployment.runs:
        return
    # The number keeps apart what the same characters are left of.
    stem = f"{place + 1:02d}-{re.sub(r'[^a-z0-9-]+', '-', deployment.key.lower())[:100]}"
    yield f"{stem}.png", plot_over_time(deployment)
    frontier = plot_frontier(deployment)
    if frontier is not None:
        yield f"{stem}-cost.png", frontier


def _build_decisions(report: SimulationReport) -> str:
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(DECISION_COLUMNS)
    for deployment in report.deployments:
        for run in deployment.runs:
            for item in run.decisions:
                cells = (item.time, item.from_replicas, item.to_replicas)
                texts = (_cell(item.reason), _cell(item.message))
                writer.writerow((_cell(deployment.key), run.policy, *cells, *texts))
    return "".join(lines.parts)


class _Lines:
    """Keeps what a writer writes."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, text: str) -> int:
        self.parts.append(text)
        return len(text)


def _cell(text: str) -> str:
    shown = clean(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _build_page(report: SimulationReport, images: dict[int, list[tuple[str, bytes]]]) -> str:
    template = Template(
        files("modelyard.cli").joinpath("templates", "simulate.html").read_text(encoding="utf-8")
    )
    sections = ["\n".join(_section(item, images[place])) for place, item in enumerate(report.deployments)]
    totals = ""
    if report.totals:
        rows = [describe_total(total) for total in report.totals]
        totals = "\n".join(["<h2>All deployments</h2>", *_table("totals", TOTAL_HEADERS, rows)])
    return template.substitute(
        title=escape(
            f"Modelyard simulation: {', '.join(clean(item.key) for item in report.deployments[:5])}"
        ),
        outcome=escape(describe_outcome(report)),
        setting=escape(f"seed {report.seed}, {report.speed:g} times the recorded rate"),
        totals=totals,
        sections="\n".join(sections),
        notes="\n".join(f"<li>{escape(clean(note))}</li>" for note in report.notes),
    )


def _section(deployment: SimulatedDeployment, images: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    yield f"<section><h2>{escape(clean(deployment.key))}</h2>"
    yield "<dl>"
    for heading, sentence in explain_setting(deployment):
        yield f"<dt>{escape(heading)}</dt><dd>{escape(sentence)}</dd>"
    yield "</dl>"
    if deployment.runs:
        yield from _table("runs", HEADERS, [describe_run(run) for run in deployment.runs])
    for name, image in images:
        data = base64.b64encode(image).decode()
        yield f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'
    for run in deployment.runs:
        yield f"<details><summary>{escape(run.policy)}: {escape(describe_decisions(run))}</summary>"
        if len(run.decisions) > MOST_ROWS:
            yield f"<p>The first {MOST_ROWS:,}; {DECISIONS} has all.</p>"
        rows = [describe_decision(item) for item in run.decisions[:MOST_ROWS]]
        yield from _table("decisions", ("time", "replicas", "reason", "why"), rows)
        yield "</details>"
    yield "</section>"


def _table(name: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f'<table class="{name}"><thead><tr>'
    yield from (f"<th>{escape(header)}</th>" for header in headers)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody></table>"
