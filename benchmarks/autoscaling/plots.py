"""Cost against attainment, and replicas over time, as SVG."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.autoscaling.agenda import Results
from benchmarks.autoscaling.policies import CLAIRVOYANT, NAMES, OURS
from benchmarks.autoscaling.scenarios import Case
from benchmarks.autoscaling.summary import Line, Table, sweep_of
from modelyard.simulator.frontier import frontier

_COLOURS = {CLAIRVOYANT: "black", OURS: "tab:red"}
_LOWEST = 1e-4
"""Share of misses at which the axis ends."""
_DEAREST = 4.0
"""Times the clairvoyant's cost at which the axis ends; what costs more is drawn there with an arrow."""


def plot_frontier(case: Case, lines: Sequence[Line], results: Results, path: Path) -> None:
    """Draw every policy's cost and misses; a thin line joins the best settings of each, played as a flow."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    bar = next((line.cost for line in lines if line.policy == CLAIRVOYANT), None)
    end = _DEAREST * bar if bar else max(line.cost for line in lines)
    for name in NAMES:
        points = [point for point in frontier(sweep_of(case, results, name)) if point.cost <= end]
        if len(points) > 1:
            axes.plot(
                [point.cost for point in points],
                [max(1 - point.attainment, _LOWEST) for point in points],
                color=_COLOURS.get(name, "tab:gray"),
                linewidth=1.5 if name == OURS else 0.5,
                alpha=0.6,
            )
    for line in lines:
        misses, cost = max(1 - line.attainment, _LOWEST), min(line.cost, end)
        tuned = line.setting.startswith("tuned")
        colour = _COLOURS.get(line.policy, "tab:blue" if tuned else "tab:gray")
        shape = ">" if line.cost > end else "o" if line.level == "requests" else "x"
        axes.plot(cost, misses, shape, color=colour, markersize=8 if line.policy in _COLOURS else 4)
        axes.annotate(line.policy, (cost, misses), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.axhline(0.01, color="tab:green", linewidth=0.8)
    axes.set(
        xlabel=f"US dollars (ends at {_DEAREST:g} times the clairvoyant's)",
        ylabel="share of requests that miss the objective",
        title=case.title,
        yscale="log",
    )
    axes.invert_yaxis()
    _save(figure, path)


def plot_course(case: Case, results: Results, path: Path) -> None:
    """Draw the load and the replicas that serve, ours and the clairvoyant's, for each part of the first seed."""
    figure = Figure(figsize=(9, 2.4 * len(case.parts)), layout="constrained")
    table = Table.of(case, results)
    shown = {
        CLAIRVOYANT: table.clairvoyant("requests").get(0, {}),
        OURS: table.seeds("play", OURS).get(0, {}),
    }
    rows = figure.subplots(len(case.parts), squeeze=False)
    for axes, part in zip(rows[:, 0], case.parts, strict=True):
        for policy, parts in shown.items():
            if part in parts:
                ready = parts[part]["ready"]
                axes.step(range(len(ready)), ready, where="post", color=_COLOURS[policy], label=policy)
        result = shown[CLAIRVOYANT].get(part) or shown[OURS].get(part)
        if result is not None:
            load = [rate / result["capacity"] for rate in result["rate"]]
            axes.plot(load, color="tab:gray", linewidth=0.5, label="load")
            axes.legend(fontsize=7)
        axes.set(ylabel="replicas", title=part)
    rows[-1, 0].set(xlabel="minutes")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Text stays text, and the same figures give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "modelyard"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
