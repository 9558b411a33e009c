"""Writes the report: a page with plots, and the same figures as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from dev.demo.plots import plot_cost, plot_latency, plot_load, plot_replicas
from dev.demo.result import Cost, DemoResult, find_problems, peak_replicas, replica_steps, total_cost
from dev.demo.settings import CHAT_MODEL, CHAT_PROMPT, TRAFFIC_MODEL
from dev.demo.steps import Step
from dev.loadgen import Percentiles, write_records

_PAGE = Path(__file__).with_name("report.html")
"""The page, with `$name` where figures go (string.Template)."""


def summary_rows(result: DemoResult) -> list[tuple[str, str]]:
    """Return the summary as pairs of name and value, for the terminal and the page alike."""
    cost = demo_cost(result)
    traffic = result.traffic
    return [
        ("requests sent", f"{result.sent:,}"),
        ("answered", f"{result.answered:,}"),
        ("lost", f"{result.lost:,}"),
        ("held for a sleeping model", f"{result.held:,}"),
        (f"replicas of {TRAFFIC_MODEL}", _describe_replicas(result)),
        ("time to first token", _describe(traffic.time_to_first_token_ms)),
        ("time per further token", _describe(traffic.inter_token_ms)),
        ("tokens", f"{traffic.prompt_tokens:,} prompt, {traffic.output_tokens:,} answer"),
        ("cost", _describe_cost(cost)),
        ("lateness of the load generator", _describe(traffic.lateness_ms)),
    ]


def print_result(result: DemoResult, problems: Sequence[str], page: Path, console: Console) -> None:
    """Print the verdict, the summary, how long each step took, and where the report is."""
    for title, rows in (("Summary", summary_rows(result)), ("Steps", _step_rows(result.steps))):
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in rows:
            table.add_row(name, value)
        console.print(table)
    for problem in problems:
        console.print(f"[bold red]✗[/] {escape_markup(problem)}")
    if not problems:
        console.print("[bold green]✓ All went as promised: no request was lost.[/]")
    console.print(f"Report: {page}", markup=False, soft_wrap=True)


def demo_cost(result: DemoResult) -> Cost:
    """Return what the observed time cost."""
    tokens = result.traffic.prompt_tokens + result.traffic.output_tokens
    return total_cost(result.samples, tokens)


def write_report(result: DemoResult) -> Path:
    """Write everything to the settings' report folder and return the page's path."""
    folder = result.settings.report
    folder.mkdir(parents=True, exist_ok=True)
    plot_load(folder / "load.png", result.samples, result.records, result.traffic_began_s, TRAFFIC_MODEL)
    plot_replicas(folder / "replicas.png", result.samples)
    plot_latency(folder / "latency.png", result.records, result.traffic_began_s)
    plot_cost(folder / "cost.png", result.samples)
    write_records(result.records, folder / "requests.jsonl")
    (folder / "report.json").write_text(json.dumps(_as_json(result), indent=2) + "\n", encoding="utf-8")
    page = folder / "index.html"
    page.write_text(_render_page(result), encoding="utf-8")
    return page


def _render_page(result: DemoResult) -> str:
    problems = find_problems(result, TRAFFIC_MODEL)
    held = "held" if result.chat_held else "answered"
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        verdict=escape("; ".join(problems) if problems else "All went as promised: no request was lost."),
        time=escape(result.settings.describe_time()),
        summary=_rows(summary_rows(result)),
        chat=escape(
            f"{CHAT_MODEL} was asked while it had no replica; the request was {held} and took "
            f"{result.chat.wait_s:.1f} s."
        ),
        prompt=escape(CHAT_PROMPT),
        answer=escape(result.chat.text),
        steps=_rows(_step_rows(result.steps)),
    )


def _as_json(result: DemoResult) -> dict[str, object]:
    cost = demo_cost(result)
    return {
        "problems": find_problems(result, TRAFFIC_MODEL),
        "time": result.settings.describe_time(),
        "sent": result.sent,
        "answered": result.answered,
        "lost": result.lost,
        "held": result.held,
        "chat": asdict(result.chat),
        "traffic": asdict(result.traffic),
        "peakReplicas": peak_replicas(result.samples, TRAFFIC_MODEL),
        "cost": {"usd": cost.usd, "usdPerMillionTokens": cost.usd_per_million_tokens},
        "steps": [asdict(step) for step in result.steps],
        "samples": [asdict(sample) for sample in result.samples],
    }


def _rows(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in pairs)


def _step_rows(steps: Sequence[Step]) -> list[tuple[str, str]]:
    return [(step.name, f"{step.seconds:.1f} s") for step in steps]


def _describe(latency: Percentiles | None) -> str:
    if latency is None:
        return "-"
    return f"p50 {latency.p50:,.0f} ms, p90 {latency.p90:,.0f} ms, p99 {latency.p99:,.0f} ms"


def _describe_replicas(result: DemoResult) -> str:
    changes = replica_steps(result.samples, TRAFFIC_MODEL)
    return " → ".join(f"{replicas} ({at_s:.0f} s)" for at_s, replicas in changes)


def _describe_cost(cost: Cost) -> str:
    per_million = cost.usd_per_million_tokens
    unit = "" if per_million is None else f", {per_million:.3f} $ per million tokens"
    return f"{cost.usd:.3f} ${unit} (prices of examples/, played time)"
