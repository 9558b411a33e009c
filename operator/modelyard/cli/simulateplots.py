"""Plots of a simulation as PNG images. The same report gives the same bytes."""

import io
from collections.abc import Sequence
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modelyard.cli.simulatemodel import PolicyRun, SimulatedDeployment

RESOLUTION: Final = 110
"""Dots per inch: 1,100 pixels across, wide enough for a laptop's screen."""
_HOUR: Final = 3600.0


def plot_over_time(deployment: SimulatedDeployment) -> bytes:
    """Return load, replicas and attainment over time, one below the other, every policy in its own colour."""
    figure = Figure(figsize=(10, 7.5), dpi=RESOLUTION, layout="constrained")
    load, replicas, attained = figure.subplots(3, 1, sharex=True)
    series = deployment.runs[0].series
    load.fill_between(_hours(series.time), series.requests_per_second, step="post", color="0.6", linewidth=0)
    load.set_ylabel("requests/s")
    load.set_ylim(bottom=0)
    for place, run in enumerate(deployment.runs):
        hours, colour = _hours(run.series.time), f"C{place % 10}"
        replicas.plot(hours, run.series.ready, drawstyle="steps-post", color=colour, label=run.policy)
        replicas.plot(
            hours, run.series.wanted, drawstyle="steps-post", color=colour, linestyle=":", linewidth=0.9
        )
        known = [
            (hour, share) for hour, share in zip(hours, run.series.attained, strict=True) if share is not None
        ]
        attained.plot(
            [hour for hour, _ in known],
            [share * 100 for _, share in known],
            color=colour,
            linewidth=0.9,
            label=run.policy,
        )
    replicas.set_ylabel("replicas serving\n(dotted: most wanted)")
    replicas.set_ylim(bottom=0)
    replicas.yaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = replicas.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    attained.set_ylabel("attained, %")
    attained.set_ylim(-2, 102)
    attained.set_xlabel("hours from the start")
    _finish((load, replicas, attained))
    load.set_title(_plain(deployment.key), fontsize=11, parse_math=False)
    return _render(figure)


def plot_frontier(deployment: SimulatedDeployment) -> bytes | None:
    """Return attainment against cost, one point for each policy; None where there is nothing to compare."""
    points = [(run, _spent(run)) for run in deployment.runs]
    if len(points) < 2:
        return None
    figure = Figure(figsize=(10, 4.5), dpi=RESOLUTION, layout="constrained")
    axes = figure.subplots()
    for place, (run, spent) in enumerate(points):
        axes.scatter([spent], [run.attainment * 100], color=f"C{place % 10}", label=run.policy)
    priced = all(run.cost is not None for run, _ in points)
    axes.set_xlabel("US dollars" if priced else "replica-hours")
    axes.set_xlim(left=0)
    axes.set_ylabel("attained, %")
    axes.legend(fontsize=8, loc="best")
    _finish((axes,))
    return _render(figure)


def _spent(run: PolicyRun) -> float:
    return float(run.cost.total) if run.cost is not None else run.replica_hours


def _hours(times: Sequence[float]) -> list[float]:
    return [time / _HOUR for time in times]


def _plain(text: str) -> str:
    """Return text that the bundled font can show: names come from whoever wrote the files."""
    return text.encode("ascii", "replace").decode("ascii")


def _finish(axes: Sequence[Any]) -> None:
    for item in axes:
        item.grid(visible=True, alpha=0.3)
        item.spines[["top", "right"]].set_visible(False)


def _render(figure: Figure) -> bytes:
    page = io.BytesIO()
    # By default the release of matplotlib is written into the image.
    FigureCanvasAgg(figure)
    figure.savefig(page, format="png", metadata={"Software": None})
    return page.getvalue()
