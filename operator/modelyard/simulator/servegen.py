"""ServeGen's production traffic: arrivals per client from its inter-arrival laws, and the same load as a flow.

github.com/alibaba/ServeGen (commit f891d11, Apache-2.0; arXiv 2505.09999) gives, for each client and window of ten
minutes, the rate, the measured coefficient of variation (CV) of the gaps, and a fitted law with (shape, scale): its
`construct.py` draws Gamma gaps with a=shape and Weibull gaps with c=shape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import gammaln

from modelyard.simulator.arrivals import draw_lengths
from modelyard.simulator.fluidload import FLUID_STEP, FluidLoad, fill_gaps
from modelyard.simulator.scenario import Arrivals, Floats, Integers
from modelyard.simulator.tracefiles import Row, TraceError, read_rows

WINDOW = 600.0
"""Seconds of one row of ServeGen."""
INPUT_CV = 1.06
"""CV of the input tokens of all clients together within six hours: median over the 56 stretches of six hours of
m-large, clients weighted by their rate, of the 147 of 162 clients whose length distributions
(`data/language/m-large/chunk-*-dataset.json`, commit f891d11) could be had; a tenth of the stretches lies below 0.76, a
tenth above 1.42. Azure's conversation trace of 2023 has 0.96."""
OUTPUT_CV = 1.56
"""The same for output tokens: 0.95 to 2.34. Azure's conversation trace of 2023 has 0.77."""
INPUT_LIMIT = 30_712
"""Tokens. The longest prompt in those distributions."""
OUTPUT_LIMIT = 9_307
"""Tokens. The longest answer in those distributions."""

Gaps = Literal["law", "measured"]


@dataclass(frozen=True, slots=True)
class ClientWindows:
    """What each client did in each window in which it was active, by window. All arrays have the same length."""

    client: Integers
    window: Integers
    """Number of the window, from 0."""
    rate: Floats
    """Requests per second."""
    cv: Floats
    """Measured standard deviation over mean of the gaps."""
    weibull: np.ndarray
    """Whether the fitted law is Weibull; otherwise it is Gamma."""
    shape: Floats


@dataclass(frozen=True, slots=True)
class ServeGenTrace:
    """One model of ServeGen, in windows of ten minutes."""

    name: str
    rate: Floats
    """Requests per second in each window."""
    input_mean: Floats
    """Mean tokens of a prompt in each window, over the clients whose lengths are known."""
    output_mean: Floats
    clients: ClientWindows

    @property
    def duration(self) -> float:
        """Seconds."""
        return WINDOW * len(self.rate)

    @property
    def peak(self) -> float:
        """Requests per second: the highest mean over one window of ten minutes."""
        return float(self.rate.max())


def load_servegen(windows: Path, clients: Path, name: str = "servegen") -> ServeGenTrace:
    """Read the table of windows and the table of clients (benchmarks/data/traces/README.md names their columns).

    Raises TraceError that names the line and the column.
    """
    table = _columns(windows, ("t_s", "rate_rps", "mean_input_tokens", "mean_output_tokens"))
    if not np.array_equal(table["t_s"], WINDOW * np.arange(len(table["t_s"]))):
        raise TraceError(f"{windows}, column t_s: windows must follow each other every {WINDOW:g} s from 0")
    rows = _columns(clients, ("client", "t_s", "rate_rps", "iat_cv", "iat_dist", "p1"))
    window = rows["t_s"] / WINDOW
    if np.any(window != np.rint(window)) or np.any(window >= len(table["t_s"])):
        raise TraceError(f"{clients}, column t_s: a time is no window of {windows}")
    order = np.argsort(window, kind="stable")
    return ServeGenTrace(
        name=name,
        rate=table["rate_rps"],
        input_mean=fill_gaps(_positive(table["mean_input_tokens"])),
        output_mean=fill_gaps(_positive(table["mean_output_tokens"])),
        clients=ClientWindows(
            client=rows["client"][order].astype(np.int64),
            window=window[order].astype(np.int64),
            rate=rows["rate_rps"][order],
            cv=rows["iat_cv"][order],
            weibull=rows["iat_dist"][order] == 1,
            shape=rows["p1"][order],
        ),
    )


def generate(trace: ServeGenTrace, start: float, end: float, seed: int, *, gaps: Gaps = "law") -> Arrivals:
    """Return requests from `start` until before `end` (seconds, whole windows), timed from `start`.

    Every client has in each window exactly the requests that ServeGen counted there; the shape of its gaps is the
    published one. A window is drawn from the seed and its own number, so that a slice is a part of the whole. For a
    fleet of another size change the rate afterwards (`transforms.scale_rate`).

    `gaps`: "law" takes the fitted shape. Of Gamma its CV is the measured one; of Weibull, a fifth of all rows, it is
    mostly lower (median 0.80 of it, and 0.34 in a tenth). "measured" takes for Weibull the shape that has the
    measured CV instead.

    Lengths are log-normal around the mean of the window with INPUT_CV and OUTPUT_CV, the same for all clients and
    independent of each other: a stand-in for the published distributions, which were not all to be had.
    Raises ValueError unless 0 <= start < end <= duration, in whole windows.
    """
    first, last = start / WINDOW, end / WINDOW
    if not (0 <= first < last <= len(trace.rate) and first.is_integer() and last.is_integer()):
        raise ValueError(f"from {start} to {end} s is no stretch of whole windows within {trace.duration} s")
    numbers = range(int(first), int(last))
    bounds = np.searchsorted(trace.clients.window, np.arange(int(first), int(last) + 1))
    shape = _shapes(trace.clients, gaps)
    times, inputs, outputs = [], [], []
    for position, number in enumerate(numbers):
        rng = np.random.default_rng([seed, number])
        rows = slice(bounds[position], bounds[position + 1])
        drawn = [
            draw_window(rng, round(rate * WINDOW), bool(weibull), k)
            for rate, weibull, k in zip(
                trace.clients.rate[rows], trace.clients.weibull[rows], shape[rows], strict=True
            )
        ]
        within = np.sort(np.concatenate(drawn)) if drawn else np.empty(0)
        times.append(position * WINDOW + within)
        inputs.append(draw_lengths(rng, trace.input_mean[number], INPUT_CV, len(within), INPUT_LIMIT))
        outputs.append(draw_lengths(rng, trace.output_mean[number], OUTPUT_CV, len(within), OUTPUT_LIMIT))
    time = np.concatenate(times)
    return Arrivals(
        time=time,
        input_tokens=np.concatenate(inputs),
        output_tokens=np.concatenate(outputs),
        cached_tokens=np.zeros(len(time), dtype=np.int64),
        duration=end - start,
        name=trace.name,
    )


def draw_window(rng: np.random.Generator, count: int, weibull: bool, shape: float) -> Floats:
    """Return `count` times within one window (seconds) whose gaps have this law.

    The gaps are laid on a circle as long as the window and turned by chance. So the count is exact, each moment of
    the window is as likely as any other, and the CV of the gaps, which does not change with their unit, is the law's.
    """
    gaps = rng.weibull(shape, count) if weibull else rng.standard_gamma(shape, count)
    reached = np.cumsum(gaps)
    # Gamma gaps of a very small shape can all be 0 in floating point: then all come in one instant.
    total = reached[-1] if count else 0.0
    turned = (reached / total if total > 0 else reached) + rng.random()
    return np.minimum((turned % 1.0) * WINDOW, np.nextafter(WINDOW, 0))


def to_flow(
    trace: ServeGenTrace, start: float = 0.0, end: float | None = None, step: float = FLUID_STEP
) -> FluidLoad:
    """Return the mean rate and lengths of each step: those of its window, as `generate` has them in expectation.

    Raises ValueError unless the step divides a window and the stretch consists of whole windows.
    """
    per_window = WINDOW / step
    first, last = start / WINDOW, (trace.duration if end is None else end) / WINDOW
    if not per_window.is_integer():
        raise ValueError(f"a step of {step} s does not divide a window of {WINDOW} s")
    if not (0 <= first < last <= len(trace.rate) and first.is_integer() and last.is_integer()):
        raise ValueError(f"from {start} to {end} s is no stretch of whole windows within {trace.duration} s")
    rows = slice(int(first), int(last))
    return FluidLoad(
        step=step,
        rate=np.repeat(trace.rate[rows], int(per_window)),
        input_tokens=np.repeat(trace.input_mean[rows], int(per_window)),
        output_tokens=np.repeat(trace.output_mean[rows], int(per_window)),
        name=trace.name,
    )


def weibull_cv(shape: float | Floats) -> Floats:
    """Return the coefficient of variation of Weibull gaps: sqrt(Gamma(1 + 2/k) / Gamma(1 + 1/k)^2 - 1)."""
    inverse = 1 / np.asarray(shape, dtype=np.float64)
    squared: Floats = np.expm1(gammaln(1 + 2 * inverse) - 2 * gammaln(1 + inverse))
    return np.sqrt(squared)


def _shapes(clients: ClientWindows, gaps: Gaps) -> Floats:
    if gaps == "law":
        return clients.shape
    # The CV falls with the shape; 0.1 to 50 spans CVs of 430 to 0.025, and the trace has at most 149.
    shapes = np.geomspace(0.1, 50.0, 4000)
    logs = np.interp(-np.log(clients.cv), -np.log(weibull_cv(shapes)), np.log(shapes))
    return np.where(clients.weibull, np.exp(logs), clients.shape)


def _positive(means: Floats) -> Floats:
    """Windows in which no client's lengths are known have a mean of 0 or none at all."""
    return np.where(means > 0, means, np.nan)


def _columns(path: Path, names: Sequence[str]) -> dict[str, Floats]:
    """Read columns of finite numbers that are not negative; the law becomes 1 for Weibull and 0 for Gamma."""
    values: dict[str, list[float]] = {name: [] for name in names}
    for number, row in read_rows(path):
        for name in names:
            values[name].append(_value(path, number, row, name))
    return {name: np.array(column, dtype=np.float64) for name, column in values.items()}


def _value(path: Path, number: int, row: Row, name: str) -> float:
    text = row.get(name)
    if text is None:
        raise TraceError(f"{path}, line {number}: column {name} is missing")
    if name == "iat_dist":
        if text not in ("G", "W"):
            raise TraceError(
                f"{path}, line {number}, column {name}: {text!r} is neither G (Gamma) nor W (Weibull)"
            )
        return float(text == "W")
    if not text and name.startswith("mean_"):
        return 0.0
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0) or (value == 0 and name in ("p1", "iat_cv")):
        raise TraceError(f"{path}, line {number}, column {name}: {text!r} is no valid number")
    return value
