"""Least absolute relative deviations with HiGHS: a linear program, so the same rows give the same coefficients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import numpy.typing as npt

from benchmarks.step_time.rows import Row
from modelyard.catalog.calibration import Calibration, Coefficients
from modelyard.core.perf.prior import DECODE_TERMS, decode_terms, step_time

Array = npt.NDArray[np.float64]

FIRST_TERMS = ("first_base", "first_prompt", "first_queue", "first_step", "first_sequence")
FLOORS = {
    "read": 1.05,
    "cache": 1.0,
    "compute": 1.0,
    "prefill": 1.0,
    "prefill_quantized": 1.0,
    "exchange": 1.0,
    "first_prompt": 1.0,
}
"""Times the work at peak, at least: nothing is faster than the hardware. That no kernel gets more than 95 % of the
stated bandwidth is our assumption."""
SHRINKAGE = 0.02
"""Share: what it costs to move a term by its mean share, away from the fit to all engines. It decides between terms
that the rows of one engine on one generation cannot tell apart."""
UNKNOWN = 1.0
"""Uncertainty while fitting, before the errors are known."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one row."""

    inter_token_latency: float
    time_to_first_token: float


def least_absolute(terms: Array, target: Array, floors: Array, centre: Array) -> Array:
    """Minimise the sum of |terms @ x - target| plus the shrinkage of |x - centre|, over x >= floors.

    Every row must already be divided by what it measures. Columns of the program: how far each term lies above and
    below its centre, then how far each row lies above and below its target.
    """
    rows, columns = terms.shape
    scale = np.abs(terms).mean(axis=0)
    # A term that no row has keeps its centre.
    cost = SHRINKAGE * rows * np.where(scale > 0, scale, 1.0)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = 2 * (columns + rows), rows
    model.col_cost_ = np.concatenate([cost, cost, np.ones(2 * rows)])
    model.col_lower_ = np.zeros(2 * (columns + rows))
    endless = np.full(2 * rows, highspy.kHighsInf)
    model.col_upper_ = np.concatenate([np.full(columns, highspy.kHighsInf), centre - floors, endless])
    model.row_lower_ = model.row_upper_ = target - terms @ centre
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kColwise
    order, dense = np.arange(rows), 2 * columns
    matrix.start_ = np.concatenate([np.arange(dense) * rows, dense * rows + np.arange(2 * rows + 1)])
    matrix.index_ = np.concatenate([np.tile(order, dense), order, order])
    matrix.value_ = np.concatenate([terms.T.ravel(), -terms.T.ravel(), np.ones(rows), -np.ones(rows)])
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.passModel(model)
    solver.run()
    found = np.asarray(solver.getSolution().col_value[:dense])
    return np.asarray(centre + found[:columns] - found[columns:], dtype=np.float64)


def fit(rows: Sequence[Row], engine: str, generation: str, source: str, centre: Coefficients) -> Calibration:
    """Fit one engine on one generation: first the latency between tokens, then the time to first token."""
    steps = np.array([decode_terms(row.work, row.shape, row.batch) for row in rows])
    measured = np.array([row.inter_token_latency for row in rows])
    decode = least_absolute(
        steps / measured[:, None], np.ones(len(rows)), _floors(DECODE_TERMS), _values(centre, DECODE_TERMS)
    )
    values = dict(zip(DECODE_TERMS, decode, strict=True)) | dict.fromkeys(FIRST_TERMS, 0.0)
    bare = _calibration(values, engine, generation, source)
    # A request that waits for room in the cache measures the queue, not the engine.
    admitted = [row for row in rows if row.batch == row.concurrency]
    terms, target = [], []
    for row in admitted:
        step = step_time(row.work, bare)
        latency = step.inter_token_latency(row.shape, row.batch)
        prompt, others = step.prefill(row.shape.input_tokens), row.batch - 1
        wait = _slot_wait(row, latency)
        terms.append(np.array([1.0, prompt, prompt * others, latency, others]) / row.time_to_first_token)
        target.append(1 - wait / row.time_to_first_token)
    first = least_absolute(
        np.array(terms), np.array(target), _floors(FIRST_TERMS), _values(centre, FIRST_TERMS)
    )
    return _calibration(values | dict(zip(FIRST_TERMS, first, strict=True)), engine, generation, source)


def fit_all(rows: Sequence[Row], source: str) -> dict[tuple[str, str], Calibration]:
    """Fit all engines and generations: to all rows together, then each around that."""
    floors = {name: FLOORS.get(name, 0.0) for name in (*DECODE_TERMS, *FIRST_TERMS)}
    common = fit(rows, "any", "any", source, Coefficients(**floors)).coefficients
    return {
        (engine, generation): fit(
            [row for row in rows if (row.engine, row.generation) == (engine, generation)],
            engine, generation, source, common,
        )
        for engine, generation in sorted({(row.engine, row.generation) for row in rows})
    }  # fmt: skip


def predict_row(row: Row, calibration: Calibration) -> Prediction:
    """Predict a row as it was measured: a fixed number of open requests, whether they run or queue."""
    step = step_time(row.work, calibration)
    latency = step.inter_token_latency(row.shape, row.batch)
    first = step.time_to_first_token(row.shape, row.batch) + _slot_wait(row, latency)
    if row.batch < row.concurrency:
        # Little's law: open requests = rate * (time to first token + the rest).
        rest = row.shape.output_tokens * latency
        first = max(first, row.concurrency * (first + rest) / row.batch - rest)
    return Prediction(latency, first)


def _slot_wait(row: Row, latency: float) -> float:
    return row.shape.output_tokens * latency / row.batch if row.slot_wait else 0.0


def _values(coefficients: Coefficients, names: Sequence[str]) -> Array:
    return np.array([getattr(coefficients, name) for name in names])


def _floors(names: Sequence[str]) -> Array:
    return np.array([FLOORS.get(name, 0.0) for name in names])


def _calibration(values: dict[str, float], engine: str, generation: str, source: str) -> Calibration:
    # Four significant digits: more would only differ between machines.
    rounded = {name: float(f"{max(0.0, value):.4g}") for name, value in values.items()}
    return Calibration(
        engine=engine,
        generation=generation,
        coefficients=Coefficients(**rounded),
        uncertainty=UNKNOWN,
        first_token_uncertainty=UNKNOWN,
        measured=True,
        source=source,
    )
