"""The report's plots, each a PNG."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dev.demo.observer import Sample
from dev.demo.result import SECONDS_PER_HOUR
from dev.demo.settings import REPLICA_RATE
from dev.loadgen import RequestRecord

RATE_BIN_S = 5.0
"""Seconds over which arrivals are averaged in the plot."""

_SIZE_INCHES = (9.0, 3.4)
_DPI = 120


def plot_load(
    path: Path, samples: Sequence[Sample], records: Sequence[RequestRecord], began_s: float, model: str
) -> None:
    """Draw arrivals per second against what the ready replicas can answer."""
    figure, axes = _axes("requests/s")
    times, rates = _binned(records, began_s)
    axes.step(times, rates, where="post", label="arrivals")
    views = [(sample.at_s, view) for sample in samples if (view := sample.model(model))]
    axes.step(
        [at_s for at_s, _ in views],
        [REPLICA_RATE * view.ready for _, view in views],
        where="post",
        label=f"ready replicas at {REPLICA_RATE:g}/s each",
    )
    _save(figure, axes, path, f"Load on {model}")


def plot_replicas(path: Path, samples: Sequence[Sample]) -> None:
    """Draw wanted and ready replicas of every model."""
    figure, axes = _axes("replicas")
    for name in sorted({model.model for sample in samples for model in sample.models}):
        views = [(sample.at_s, view) for sample in samples if (view := sample.model(name))]
        times = [at_s for at_s, _ in views]
        (line,) = axes.step(times, [view.ready for _, view in views], where="post", label=f"{name}, ready")
        axes.step(
            times,
            [view.desired for _, view in views],
            where="post",
            linestyle=":",
            color=line.get_color(),
            label=f"{name}, wanted",
        )
    _save(figure, axes, path, "Replicas over time")


def plot_latency(path: Path, records: Sequence[RequestRecord], began_s: float) -> None:
    """Draw each request's time to first token."""
    figure, axes = _axes("s to first token")
    points = [
        (began_s + record.scheduled_s, record.time_to_first_token_s)
        for record in records
        if record.answered and record.time_to_first_token_s is not None
    ]
    axes.scatter([x for x, _ in points], [y for _, y in points], s=4, alpha=0.5, label="requests")
    axes.set_yscale("log")
    _save(figure, axes, path, "Time to first token")


def plot_cost(path: Path, samples: Sequence[Sample]) -> None:
    """Draw dollars per hour, and what has been spent so far."""
    figure, axes = _axes("$/h")
    times = [sample.at_s for sample in samples]
    rates = [sum(model.usd_per_hour for model in sample.models) for sample in samples]
    axes.step(times, rates, where="post", label="$/h, all models")
    spent = [0.0]
    for before, after, rate in zip(times, times[1:], rates, strict=False):
        spent.append(spent[-1] + rate * (after - before) / SECONDS_PER_HOUR)
    right = axes.twinx()
    right.plot(times, spent[: len(times)], color="tab:orange", label="$ so far")
    right.set_ylabel("$ so far")
    right.set_ylim(bottom=0)
    _save(figure, axes, path, "Cost")


def _axes(unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("seconds")
    axes.set_ylabel(unit)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _save(figure: Figure, axes: Axes, path: Path, title: str) -> None:
    axes.set_title(title, loc="left")
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)


def _binned(records: Sequence[RequestRecord], began_s: float) -> tuple[list[float], list[float]]:
    """Return the starts of the bins and the arrivals per second in each."""
    bins = int(max((record.scheduled_s for record in records), default=0.0) / RATE_BIN_S) + 1
    counts = [0] * bins
    for record in records:
        counts[int(record.scheduled_s / RATE_BIN_S)] += 1
    times = [began_s + index * RATE_BIN_S for index in range(bins + 1)]
    return times, [*(count / RATE_BIN_S for count in counts), 0.0]
