"""The verdict and the figures of the demo's summary, and the report they are written to."""

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dev.demo.chat import ChatAnswer
from dev.demo.observer import ModelView, Sample
from dev.demo.report import print_result, summary_rows, write_report
from dev.demo.result import DemoResult, find_problems, peak_replicas, replica_steps, total_cost
from dev.demo.settings import TRAFFIC_MODEL, DemoSettings
from dev.demo.steps import Step
from dev.demo.table import build_lines, build_table
from dev.loadgen import RequestRecord, summarise

REPLICAS = [1, 1, 3, 6, 6, 2, 1]


def view(ready: int) -> ModelView:
    return ModelView(
        deployment="llama-3-1-8b",
        model=TRAFFIC_MODEL,
        desired=ready,
        ready=ready,
        state="Ready",
        reason="OfferedLoad",
        message="12.00 requests/s at 3.00 a replica need 5",
        requests_per_s=12.0,
        tokens_per_s=16_400.0,
        usd_per_hour=0.8048 * ready,
        usd_per_million_tokens=0.082 if ready > 1 else None,
    )


def record(index: int, error: str | None = None) -> RequestRecord:
    return RequestRecord(
        index,
        scheduled_s=float(index),
        prompt_tokens=1000,
        output_tokens=200,
        sent_s=index + 0.001,
        headers_s=index + 0.01,
        first_byte_s=index + 0.5,
        done_s=index + 20.0,
        status=200,
        counted_prompt_tokens=1000,
        counted_output_tokens=200,
        error=error,
    )


@pytest.fixture
def result(tmp_path: Path) -> DemoResult:
    records = [record(index) for index in range(20)]
    return DemoResult(
        settings=DemoSettings(folder=tmp_path / "run", report=tmp_path / "report"),
        chat=ChatAnswer(200, "To rest <& dream>.", 4.2, 6),
        chat_held=True,
        traffic=summarise(records),
        records=records,
        traffic_began_s=1.0,
        samples=[Sample(float(index), (view(ready),)) for index, ready in enumerate(REPLICAS)],
        returned=True,
        steps=[Step("Apply examples/", 0.4, "4 objects")],
    )


def test_a_good_run_has_no_problems_and_counts_the_chat_request(result: DemoResult) -> None:
    assert find_problems(result, TRAFFIC_MODEL) == []
    assert (result.sent, result.answered, result.lost, result.held) == (21, 21, 0, 1)


def test_replicas_over_time_are_their_changes(result: DemoResult) -> None:
    assert replica_steps(result.samples, TRAFFIC_MODEL) == [(0.0, 1), (2.0, 3), (3.0, 6), (5.0, 2), (6.0, 1)]
    assert peak_replicas(result.samples, TRAFFIC_MODEL) == 6
    assert peak_replicas(result.samples, "unknown") == 0


def test_cost_is_price_by_time(result: DemoResult) -> None:
    cost = total_cost(result.samples, 1_000_000)
    # One second at each size but the last, which holds until after the end.
    assert cost.usd == pytest.approx(0.8048 * sum(REPLICAS[:-1]) / 3600)
    assert cost.usd_per_million_tokens == pytest.approx(cost.usd)
    assert total_cost(result.samples, 0).usd_per_million_tokens is None
    assert total_cost([], 10).usd == 0


def test_each_broken_promise_is_named(result: DemoResult) -> None:
    lossy = [record(0, error="HTTP 503: busy"), *result.records[1:]]
    low = [Sample(sample.at_s, (view(4),)) for sample in result.samples]
    cases = [
        (replace(result, traffic=summarise(lossy)), r"1 requests of the trace were lost: 1 x HTTP 503: busy"),
        (
            replace(result, chat=replace(result.chat, error="HTTP 404")),
            r"chat request was not answered: HTTP 404",
        ),
        (replace(result, chat_held=False), r"awake already"),
        (replace(result, samples=low), r"reached 4 replicas instead of 5 to 7"),
        (replace(result, returned=False), r"not back at its minimum"),
    ]
    for broken, reason in cases:
        (problem,) = find_problems(broken, TRAFFIC_MODEL)
        assert re.search(reason, problem)


def test_on_somebodys_cluster_only_lost_requests_are_a_fault(result: DemoResult, tmp_path: Path) -> None:
    foreign = replace(result.settings, kubeconfig=tmp_path / "kubeconfig")
    assert find_problems(replace(result, settings=foreign, samples=[], returned=False), TRAFFIC_MODEL) == []


def test_the_report_is_a_page_with_its_plots_and_the_figures_as_json(result: DemoResult) -> None:
    page = write_report(result)
    html = page.read_text()
    images = re.findall(r'src="([^"]+)"', html)
    assert len(images) == 4
    for image in images:
        assert (page.parent / image).read_bytes().startswith(b"\x89PNG")
    assert "To rest &lt;&amp; dream&gt;." in html
    for name, _ in summary_rows(result):
        assert name in html
    data = json.loads((page.parent / "report.json").read_text())
    assert (data["sent"], data["lost"], data["held"], data["peakReplicas"]) == (21, 0, 1, 6)
    assert data["problems"] == []
    assert len(data["samples"]) == len(REPLICAS)
    assert len((page.parent / "requests.jsonl").read_text().splitlines()) == 20


def test_a_second_report_replaces_the_first(result: DemoResult) -> None:
    write_report(result)
    write_report(replace(result, chat=replace(result.chat, text="Another answer.")))
    assert "Another answer." in (result.settings.report / "index.html").read_text()


def test_the_summary_says_how_long_each_step_took(result: DemoResult) -> None:
    console = Console(file=StringIO(), width=200)
    print_result(result, ["something [odd]"], Path("report/index.html"), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"Apply examples/ +│ 0.4 s", text)
    assert "something [odd]" in text
    assert "1 (0 s) → 3 (2 s) → 6 (3 s)" in text


def test_table_and_lines_show_every_figure(result: DemoResult) -> None:
    sample = result.samples[3]
    console = Console(file=StringIO(), width=200)
    console.print(build_table(sample, "20 sent"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in (TRAFFIC_MODEL, "6 of 6", "Ready", "need 5", "12.0", "16,400", "4.83", "0.08", "20 sent"):
        assert shown in text
    (line,) = build_lines(sample)
    assert line.startswith(
        "llama-3.1-8b: 6 of 6 replicas, Ready (OfferedLoad), 12.0 requests/s, 16,400 tokens/s"
    )


@pytest.mark.parametrize(("minutes", "speed", "share"), [(4.0, 2.5, 1.0), (2.0, 5.0, 0.5), (1.0, 10.0, 0.25)])
def test_a_faster_run_keeps_the_rate_and_says_what_is_scaled(
    minutes: float, speed: float, share: float
) -> None:
    settings = DemoSettings(folder=Path("run"), report=Path("report"), minutes=minutes)
    assert (settings.speed, settings.scale_rate) == (speed, share)
    assert settings.engine_start_s == pytest.approx(60 / speed)
    sentence = settings.describe_time()
    assert f"{speed:g} times as fast" in sentence
    assert f"{60 / speed:.0f} s" in sentence


def test_somebodys_cluster_is_not_said_to_run_stand_ins(tmp_path: Path) -> None:
    settings = DemoSettings(folder=Path("run"), report=Path("report"), kubeconfig=tmp_path / "kubeconfig")
    assert "stand-in" not in settings.describe_time()
