"""docs/models-and-gpus.md: an introduction, the tables, and the figures that are missed."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from benchmarks.models_and_gpus.compare import OBJECTIVE, SHAPE, Comparison, Row
from benchmarks.models_and_gpus.pairs import Figure, Quantity
from modelyard.core.fit import DoesNotFit, Fit
from modelyard.core.memory import GIB
from modelyard.core.perf.predict import Performance

PAGE = Path(__file__).parent.parent.parent / "docs" / "models-and-gpus.md"

_LABELS: Mapping[Quantity, tuple[str, str]] = {
    "verdict": ("verdict", ""),
    "weights": ("weights of one GPU", " GiB"),
    "cacheTokens": ("tokens in the cache", ""),
    "interTokenLatency": ("between tokens", " ms"),
    "timeToFirstToken": ("to first token", " ms"),
    "requestLatency": ("whole request", " s"),
}
"""What a quantity is called, and its unit."""

_INTRODUCTION = """\
# Models and GPUs

What Modelyard works out before anything runs, for {pairs} well-known pairs of model and GPU: whether the model fits, in
how much memory, how fast it is and what it costs. Each is compared with a public figure where a trustworthy one was
found.

**{with_figures} of the {pairs} pairs have a public figure, {figures} in all; for {without} none was found. {inside} of
the {figures} are within the tolerance. The {outside} that are not are listed at the end, with the likely reason.**

This page is written by `python -m benchmarks.models_and_gpus --write` from `benchmarks/data/models-and-gpus.yaml`; a
test fails when it is out of date. Nothing was fitted to the figures below. Those marked "held out" are measurements
that the calibration did not see, though it saw others of the same pair.

How to read the tables:

- The engine is vLLM with its defaults; it takes 92 % of a GPU's memory. Where no context is asked for, the longest that
  fits is taken. TP is tensor, PP pipeline parallelism.
- Of a pair that is refused, speed and price are those after the first remedy that the refusal names, behind the arrow.
- The load is the default: prompts of {input:.0f} and answers of {output:.0f} tokens, {first:g} s to the first token and
  {between:.0f} ms between tokens as the objective. Times are expected ones (medians) of means over a request. "At the
  objective" is the largest batch at which the times, planned one standard deviation above the expected, still keep it;
  the requests per minute are the planned ones, without a margin for the randomness of arrivals.
- \u00b1 is one standard deviation of the time between tokens. "Calibrated" is fitted to measurements of this kind of
  GPU; "roofline" is carried over from other kinds, so less certain.
- Prices are the catalogue's, on demand; an `AcceleratorClass` overrides them. Dollars per million tokens count those of
  prompts and answers alike, at full use: a replica that is half idle costs twice as much a token.
"""

_COMPARED = """\
## Compared with public figures

Ours is worked out under the conditions of each figure, not under those above. A verdict must be the same; for other
figures, ours may differ from the public one by at most the tolerance. The last column says by how many of its stated
standard deviations a time is off.

The error is not even: {shorter} of the {times} times between tokens are shorter here than published. Most of those
figures are of older engines than the calibration, or of GPUs that it did not see. The
tolerances were chosen with these figures in view: they say what is reached, not what was promised.

"""


def render(rows: Sequence[Row], tolerances: Mapping[Quantity, float]) -> str:
    """Return the page."""
    numbered = list(enumerate(rows, start=1))
    found = [comparison for row in rows for comparison in row.comparisons]
    inside = sum(comparison.inside for comparison in found)
    with_figures = sum(bool(row.comparisons) for row in rows)
    introduction = _INTRODUCTION.format(
        pairs=len(rows),
        with_figures=with_figures,
        without=len(rows) - with_figures,
        figures=len(found),
        inside=inside,
        outside=len(found) - inside,
        input=SHAPE.input_tokens,
        output=SHAPE.output_tokens,
        first=OBJECTIVE.time_to_first_token,
        between=OBJECTIVE.inter_token_latency * 1e3,
    )
    between = [
        item.ratio for item in found if item.ratio is not None and item.figure.quantity == "interTokenLatency"
    ]
    parts = [
        introduction,
        "## Verdict and memory\n",
        _table(
            ("", "model", "weights", "GPU", "context", "verdict", "weights, GiB per GPU", "cache, tokens"),
            (_memory_cells(number, row) for number, row in numbered),
        ),
        "## Speed and price\n",
        _table(
            (
                "",
                "model and GPU",
                "alone: between tokens, to first, tokens/s",
                "at the objective: batch, between tokens, to first, tokens/s",
                "requests/min",
                "\u00b1",
                "origin",
                "$/h",
                "$ per million tokens",
            ),
            (_speed_cells(number, row) for number, row in numbered),
        ),
        _COMPARED.format(shorter=sum(ratio < 1 for ratio in between), times=len(between))
        + _table(
            ("", "tolerance", "within", "median difference", "largest difference"),
            _reached_cells(found, tolerances),
        ),
        _table(
            ("", "model and GPU", "what", "ours", "public", "ratio", "", "conditions and source", "off"),
            (cells for number, row in numbered for cells in _figure_cells(number, row)),
        ),
        "## Figures outside the tolerance\n",
        "\n".join(_misses(numbered)) + "\n",
    ]
    return "\n".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _memory_cells(number: int, row: Row) -> tuple[str, ...]:
    answer, asked = row.answer, row.pair.context
    if isinstance(answer, DoesNotFit):
        remedies = "; or ".join(item.sentence for item in answer.remedies)
        verdict = f"**does not fit**: {answer.explain()}; {answer.missing / GIB:.1f} GiB too much. {remedies}"
        cache = "\u2013"
        context = f"{asked:,} asked" if asked else f"{answer.context_length:,} at the least"
    else:
        verdict, cache = "fits", f"{answer.cache_tokens:,}"
        context = f"{asked:,} asked" if asked else f"{answer.context_length:,}"
    weights = f"{answer.weights / GIB:.1f}"
    return (
        str(number),
        row.name,
        row.pair.weights,
        _gpus(row.hardware.name, answer),
        context,
        verdict,
        weights,
        cache,
    )


def _gpus(name: str, fit: Fit | DoesNotFit) -> str:
    """Name the GPUs, and how the model is spread over them."""
    way = fit.parallelism
    split = [f"{label}{size}" for label, size in (("TP", way.tensor), ("PP", way.pipeline)) if size > 1]
    return f"{way.accelerators} \u00d7 {name}" + (f" ({' '.join(split)})" if split else "")


def _speed_cells(number: int, row: Row) -> tuple[str, ...]:
    speed, capacity = row.speed, row.speed.capacity
    name = f"{row.name} {row.pair.weights}, {_gpus(row.hardware.name, row.answer)}"
    if row.chosen is not row.answer:
        name += f" \u2192 {_change(row)}"
    return (
        str(number),
        name,
        ", ".join(_times(speed.single)),
        ", ".join((str(capacity.batch), *_times(capacity.performance))),
        f"{capacity.requests_per_second * 60:.0f}",
        f"{speed.step.uncertainty:.0%}",
        speed.step.origin,
        _dollars(speed.hourly),
        _dollars(speed.per_million),
    )


def _change(row: Row) -> str:
    """Say in few words what the first remedy changes."""
    before, after = row.answer, row.chosen
    if after.parallelism != before.parallelism:
        return _gpus(row.hardware.name, after)
    if after.settings.weights != before.settings.weights:
        return after.settings.weights.name
    return f"context of {after.context_length:,}"


def _figure_cells(number: int, row: Row) -> Iterator[tuple[str, ...]]:
    name = f"{row.name} {row.pair.weights}, {_gpus(row.hardware.name, row.answer)}"
    if not row.comparisons:
        yield str(number), name, "\u2013", "", "none found", "", "", "", ""
    for item in row.comparisons:
        figure = item.figure
        origin = {"heldOut": "; held out", "fitted": "; fitted to", None: ""}[figure.measured]
        yield (
            str(number),
            name,
            _describe(figure),
            _value(figure.quantity, item.ours),
            _value(figure.quantity, figure.value),
            "" if item.ratio is None else f"{item.ratio:.2f}",
            "\u2713" if item.inside else "**outside**",
            f"{figure.conditions}{origin} ([{figure.date}]({figure.source}))",
            "" if item.deviations is None else f"{item.deviations:.1f}",
        )


def _describe(figure: Figure) -> str:
    """Name the quantity and the conditions that ours is worked out under."""
    label, load = _LABELS[figure.quantity][0], figure.load
    if load is not None:
        return f"{label}, batch {load.batch:g}, {load.input:g} + {load.output:g} tokens"
    if figure.quantity == "verdict" and figure.fit is not None:
        return f"{label} for a context of {figure.fit.context:,}"
    return label


def _value(quantity: Quantity, value: float | str) -> str:
    if isinstance(value, str):
        return value
    digits = {"cacheTokens": 0, "requestLatency": 2}.get(quantity, 1)
    return f"{value:,.{digits}f}{_LABELS[quantity][1]}"


def _reached_cells(
    found: Sequence[Comparison], tolerances: Mapping[Quantity, float]
) -> Iterator[tuple[str, ...]]:
    """Say for each quantity how near ours is to the public figures."""
    for quantity, (label, _) in _LABELS.items():
        group = [item for item in found if item.figure.quantity == quantity]
        within = f"{sum(item.inside for item in group)} of {len(group)}"
        differences = [abs(item.ratio - 1) for item in group if item.ratio is not None]
        if differences:
            limit, middle, largest = tolerances[quantity], statistics.median(differences), max(differences)
            yield label, f"{limit:.0%}", within, f"{middle:.0%}", f"{largest:.0%}"
        else:
            yield label, "the same", within, "", ""


def _misses(numbered: Sequence[tuple[int, Row]]) -> Iterator[str]:
    for number, row in numbered:
        for item in row.comparisons:
            if not item.inside:
                figure = item.figure
                ours, public = (_value(figure.quantity, value) for value in (item.ours, figure.value))
                yield f"- {number}, {row.name}, {_describe(figure)}: {ours}, public {public}. {figure.miss}."


def _times(performance: Performance) -> tuple[str, str, str]:
    return (
        _ms(performance.inter_token_latency),
        _ms(performance.time_to_first_token),
        f"{performance.output_tokens_per_second:,.0f}",
    )


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"


def _dollars(value: Decimal | None) -> str:
    return "no price" if value is None else f"{value:.2f}"
