"""Writes the calibration table: fitted coefficients, and those carried over to what nobody measured."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from benchmarks.step_time.fitting import Prediction, fit_all, predict_row
from benchmarks.step_time.rows import Row, held_out
from modelyard.catalog import calibration as catalogue
from modelyard.catalog.calibration import Calibration, CalibrationTable, Coefficients

TABLE = Path(catalogue.__file__).with_name("calibration.yaml")
DATE = "2026-11-24"
SOURCE = "https://github.com/ai-dynamo/aiconfigurator, silicon_sample.csv, commit 095f58a, Apache-2.0"
COMMAND = "python -m benchmarks.step_time --write"
GENERATIONS = {
    "hopper": ("H100", "H200", "H800", "H20", "GH200"),
    "blackwell": ("B200", "B300", "GB200", "GB300"),
    "ampere": ("A100", "A800", "A10", "A30", "A40"),
    "ada": ("L4",),
}
COVERED, SCORE = 0.90, 1.645
"""Share of the errors that lie within so many stated standard deviations, as those of a normal distribution do. The
errors have heavier tails than that: a deviation taken from their middle would promise too much."""

# Share of peak FLOP/s in prefill and decode: H100 0.45 and 0.30, A100 0.38 and 0.18, L40S 0.32 and 0.08
# (https://github.com/inference-sim/inference-sim, its table of hardware).
CARRIED = {
    "ampere": (0.45 / 0.38, 0.30 / 0.18, "A100"),
    "ada": (0.45 / 0.32, 0.30 / 0.08, "L40S"),
    "any": (0.45 / 0.32, 0.30 / 0.08, "L40S"),
}

LLAMA_CPP = Calibration(
    engine="LlamaCpp",
    generation="any",
    coefficients=Coefficients(
        read=1.3,
        cache=2.0,
        compute=1.0,
        layer=0.0,
        exchange_layer=2e-5,
        expert_layer=2e-5,
        step=0.0,
        sequence=5e-5,
        prefill=1.7,
        prefill_quantized=1.7,
        exchange=2.0,
        first_base=0.01,
        first_prompt=1.0,
        first_queue=0.5,
        first_step=1.0,
        first_sequence=0.0,
    ),
    uncertainty=0.4,
    first_token_uncertainty=0.6,
    measured=False,
    source=(
        "read and prefill: github.com/ggml-org/llama.cpp pull request 4766 (7B on an RTX 4090: f16 61 tokens/s is "
        "1.22, Q8_0 98 tokens/s 1.43 times the time to read; prompts 1.1 and 1.6 times that to multiply) and issue 34 "
        "(7B Q4 on an i9-13900K with DDR5-6400: 1.46); the rest are assumptions, so the uncertainty is wide"
    ),
)


def build_table(rows: Sequence[Row]) -> CalibrationTable:
    """Fit to the rows that are not held out; uncertainties from pairs of model and GPU left out in turn."""
    fitted = fit_all([row for row in rows if not held_out(row)], SOURCE)
    unseen = leave_one_pair_out(rows)
    table = [
        entry.model_copy(
            update=_uncertainty([(row, seen) for row, seen in unseen if (row.engine, row.generation) == key])
        )
        for key, entry in fitted.items()
    ]
    table += _carried_over(table, rows)
    table.append(LLAMA_CPP)
    return CalibrationTable(
        source=SOURCE, command=COMMAND, date=DATE, generations=GENERATIONS, calibrations=tuple(table)
    )


def leave_one_pair_out(rows: Sequence[Row]) -> list[tuple[Row, Prediction]]:
    """Predict the rows of each pair of model and GPU from all other pairs, where those cover its engine."""
    result: list[tuple[Row, Prediction]] = []
    for pair in sorted({row.group for row in rows}):
        fitted = fit_all([row for row in rows if row.group != pair], SOURCE)
        for row in rows:
            calibration = fitted.get((row.engine, row.generation))
            if row.group == pair and calibration is not None:
                result.append((row, predict_row(row, calibration)))
    return result


def write_table(table: CalibrationTable) -> None:
    """Write the table into the package."""
    head = (
        "# Coefficients of the step-time model, by engine and generation of accelerators: see catalog/calibration.py.\n"
        f"# Written by `{table.command}`; do not edit.\n"
    )
    body = yaml.safe_dump(table.model_dump(mode="json"), sort_keys=False, width=118)
    TABLE.write_text(head + body, encoding="utf-8")


def _uncertainty(pairs: Sequence[tuple[Row, Prediction]]) -> dict[str, float]:
    """Return the standard deviations of the logarithm of predicted over measured."""
    return {
        "uncertainty": _deviation(seen.inter_token_latency / row.inter_token_latency for row, seen in pairs),
        "first_token_uncertainty": _deviation(
            seen.time_to_first_token / row.time_to_first_token for row, seen in pairs
        ),
    }


def _deviation(ratios: Iterable[float]) -> float:
    errors = sorted(abs(math.log(ratio)) for ratio in ratios)
    return round(errors[math.ceil(COVERED * len(errors)) - 1] / SCORE, 2)


def _carried_over(table: Sequence[Calibration], rows: Sequence[Row]) -> list[Calibration]:
    """Carry vLLM on Hopper over to generations that nobody measured.

    The uncertainty is that of predicting Blackwell from Hopper and Hopper from Blackwell, and at least that of a pair
    that was not measured.
    """
    known = {entry.generation: entry for entry in table if entry.engine == "vLLM"}
    hopper, other = known["hopper"], {"hopper": known["blackwell"], "blackwell": known["hopper"]}
    across = _uncertainty(
        [(row, predict_row(row, other[row.generation])) for row in rows if row.engine == "vLLM"]
    )
    wide = {
        name: round(math.hypot(across[name], max(getattr(entry, name) for entry in known.values())), 2)
        for name in across
    }
    return [
        Calibration(
            engine="vLLM",
            generation=generation,
            coefficients=hopper.coefficients.model_copy(
                update={
                    "prefill": round(hopper.coefficients.prefill * prefill, 3),
                    "prefill_quantized": round(hopper.coefficients.prefill_quantized * prefill, 3),
                    "compute": round(hopper.coefficients.compute * decode, 3),
                }
            ),
            measured=False,
            source=f"vLLM on hopper, with the efficiency of {gpu} in github.com/inference-sim/inference-sim",
            **wide,
        )
        for generation, (prefill, decode, gpu) in CARRIED.items()
    ]
