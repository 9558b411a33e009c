"""The arrivals of a simulation: a recorded trace or a synthetic one, for each deployment."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelyard.cli.manifests import InputError
from modelyard.core.load import LoadShape
from modelyard.simulator.arrivals import Lengths, bursts, poisson, sinusoid, step
from modelyard.simulator.scenario import Arrivals
from modelyard.simulator.tracefiles import TraceError, read_rows
from modelyard.simulator.traceformats import MAX_DURATION, MAX_REQUESTS, read_trace
from modelyard.simulator.transforms import scale_rate

DEPLOYMENT_COLUMN: Final = "deployment"
INPUT_CV: Final = 0.96
OUTPUT_CV: Final = 0.77
"""Standard deviation over mean of the tokens of synthetic requests, unless told otherwise: those of Azure's
conversation trace of 2023 (https://github.com/Azure/AzurePublicDataset, 19,366 requests)."""
HIGHEST_SPEED: Final = 10_000.0

EARLIEST_DATE: Final = 946_684_800.0
"""Unix time, 1 January 2000: no traffic of a language model is older. Smaller numbers count from the trace's start."""

_HOUR: Final = 3600.0
_TIME_UNITS: Final = {"hours": _HOUR, "minutes": 60.0, "seconds": 1.0}
_COMMON: Final = frozenset({*_TIME_UNITS, "input", "output", "input-cv", "output-cv"})


@dataclass(frozen=True, slots=True)
class Synthetic:
    """A synthetic load, as `--synthetic` says it."""

    kind: str
    values: Mapping[str, float]

    def build(self, shape: LoadShape, seed: int) -> Arrivals:
        """Return the arrivals; `shape` gives the mean request where the option does not.

        Raises InputError for values that cannot be.
        """
        values = self.values
        duration = sum(values.get(unit, 0.0) * seconds for unit, seconds in _TIME_UNITS.items()) or _HOUR
        try:
            lengths = Lengths(
                values.get("input", shape.input_tokens),
                values.get("output", shape.output_tokens),
                values.get("input-cv", INPUT_CV),
                values.get("output-cv", OUTPUT_CV),
            )
            return _KINDS[self.kind].build(values, duration, lengths, seed)
        except ValueError as error:
            raise InputError(f"--synthetic {self.kind}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Kind:
    needed: tuple[str, ...]
    build: Callable[[Mapping[str, float], float, Lengths, int], Arrivals]


_KINDS: Final[Mapping[str, _Kind]] = {
    "poisson": _Kind(("rate",), lambda v, span, lengths, seed: poisson(v["rate"], span, lengths, seed)),
    "step": _Kind(
        ("before", "after", "at"),
        lambda v, span, lengths, seed: step(v["before"], v["after"], v["at"], span, lengths, seed),
    ),
    "sinusoid": _Kind(
        ("low", "high", "period"),
        lambda v, span, lengths, seed: sinusoid(v["low"], v["high"], v["period"], span, lengths, seed),
    ),
    "bursts": _Kind(
        ("rate", "cv"), lambda v, span, lengths, seed: bursts(v["rate"], v["cv"], span, lengths, seed)
    ),
}


def parse_synthetic(text: str) -> Synthetic:
    """Read `poisson:rate=5,hours=1`. Raises InputError that says what is wrong and what is known."""
    kind, _, rest = text.partition(":")
    known = _KINDS.get(kind)
    if known is None:
        raise InputError(f"--synthetic: {kind!r} is none of {', '.join(_KINDS)}")
    values: dict[str, float] = {}
    for part in filter(None, rest.split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in _COMMON and name not in known.needed:
            names = ", ".join((*known.needed, *sorted(_COMMON)))
            raise InputError(f"--synthetic {kind}: {name!r} is none of {names}")
        try:
            values[name] = float(value)
        except ValueError as error:
            raise InputError(f"--synthetic {kind}: {name}={value!r} is no number") from error
        if not 0 <= values[name] < np.inf:
            raise InputError(f"--synthetic {kind}: {name}={value} must be 0 or more, and finite")
    missing = [name for name in known.needed if name not in values]
    if missing:
        example = ",".join(f"{name}=1" for name in known.needed)
        raise InputError(
            f"--synthetic {kind}: {', '.join(missing)} is missing: write {kind}:{example},hours=1"
        )
    _check_size(kind, values)
    return Synthetic(kind, values)


def parse_speed(text: str) -> float:
    """Read `2x`. Raises InputError for anything else."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)x?", text.strip())
    speed = float(match[1]) if match else 0.0
    if not 0 < speed <= HIGHEST_SPEED:
        raise InputError(
            f"--speed: {text!r} is no speed: write it like 2x or 0.5x, up to {HIGHEST_SPEED:.0f}x"
        )
    return speed


def read_arrivals(path: Path) -> Mapping[str | None, Arrivals]:
    """Return the arrivals of a file: by deployment where it has such a column, else all under None.

    The column is read in Modelyard's own format only, and all deployments share the trace's beginning and end.
    Raises InputError that names file, line and column.
    """
    try:
        arrivals = read_trace(path)
        labels = _read_labels(path)
    except TraceError as error:
        raise InputError(f"--trace: {error}") from error
    if labels is None:
        return {None: arrivals}
    return {
        str(name): _select(arrivals, np.flatnonzero(labels == name), f"{arrivals.name}:{name}")
        for name in np.unique(labels)
    }


def find_beginning(path: Path) -> float | None:
    """Return the Unix time of a trace's first request; None where its times are no dates.

    For a trace that `read_arrivals` has taken before.
    """
    first = None
    for _, row in read_rows(path):
        moment = _find_moment(row)
        if moment is None:
            return None
        first = moment if first is None else min(first, moment)
    return first


def change_speed(arrivals: Arrivals, speed: float, seed: int) -> Arrivals:
    """Return the arrivals at `speed` times their rate, with the shape that they have.

    Raises InputError for more requests than can be simulated.
    """
    if speed == 1.0:
        return arrivals
    if len(arrivals) * speed > MAX_REQUESTS:
        raise InputError(f"--speed: {len(arrivals)} requests at {speed:g}x are more than {MAX_REQUESTS}")
    return scale_rate(arrivals, speed, seed)


def _check_size(kind: str, values: Mapping[str, float]) -> None:
    span = sum(values.get(unit, 0.0) * seconds for unit, seconds in _TIME_UNITS.items()) or _HOUR
    rate = max(values.get(name, 0.0) for name in ("rate", "before", "after", "high"))
    if span > MAX_DURATION or span * rate > MAX_REQUESTS:
        raise InputError(
            f"--synthetic {kind}: at most a year and {MAX_REQUESTS} requests: lower the rate or the hours"
        )


def _read_labels(path: Path) -> np.ndarray | None:
    """Return the deployment of each request in the order of time; None without such a column."""
    labels: list[str] = []
    times: list[float] = []
    for number, row in read_rows(path):
        if DEPLOYMENT_COLUMN not in row:
            if labels:
                raise TraceError(f"{path}, line {number}: column {DEPLOYMENT_COLUMN} is missing")
            return None
        label = row[DEPLOYMENT_COLUMN]
        if not isinstance(label, str) or not label.strip():
            raise TraceError(f"{path}, line {number}, column {DEPLOYMENT_COLUMN}: {label!r} is no name")
        if "input_tokens" not in row:
            raise TraceError(
                f"{path}, line {number}: column {DEPLOYMENT_COLUMN} is read beside time or timestamp, input_tokens and "
                "output_tokens only"
            )
        labels.append(label.strip())
        times.append(_seconds(row))
    return np.array(labels)[np.argsort(times, kind="stable")]


def _seconds(row: Mapping[str, Any]) -> float:
    """Return the time of a row that `read_trace` has taken before."""
    value = row["time"] if "time" in row else row["timestamp"]
    try:
        return float(value)
    except ValueError:
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _find_moment(row: Mapping[str, Any]) -> float | None:
    """Return the Unix time of a row of any known trace; None where its time is no date.

    Of numbers only `timestamp` in Modelyard's own format is one.
    """
    name = next(name for name in ("time", "timestamp", "TIMESTAMP", "Timestamp") if name in row)
    try:
        number = float(row[name])
    except ValueError:
        moment = datetime.fromisoformat(row[name].strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    dated = name == "timestamp" and "input_tokens" in row and number >= EARLIEST_DATE
    return number if dated else None


def _select(arrivals: Arrivals, chosen: np.ndarray, name: str) -> Arrivals:
    return replace(
        arrivals,
        time=arrivals.time[chosen],
        input_tokens=arrivals.input_tokens[chosen],
        output_tokens=arrivals.output_tokens[chosen],
        cached_tokens=arrivals.cached_tokens[chosen],
        name=name,
    )
