"""The step-time model against public measurements: `python -m benchmarks.step_time [--write]`."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.step_time.calibrate import build_table, leave_one_pair_out, write_table
from benchmarks.step_time.crosscheck import checks, relative
from benchmarks.step_time.fitting import Prediction, predict_row
from benchmarks.step_time.rows import Measurements, Row, held_out, held_out_group, measurements
from modelyard.catalog.calibration import CalibrationTable, calibration_table

Scored = Sequence[tuple[Row, Prediction]]

GROUPINGS: dict[str, Callable[[Row], str]] = {
    "split": lambda row: "pair held out" if held_out_group(row) else "rows of fitted pairs",
    "GPU": lambda row: row.system,
    "model": lambda row: row.model.split("/")[-1],
    "engine": lambda row: row.engine,
    "engine and campaign": lambda row: f"{row.engine} ({row.campaign})",
    "precision": lambda row: row.precision,
}


def score(rows: Iterable[Row], table: CalibrationTable) -> list[tuple[Row, Prediction]]:
    """Predict rows with the table's own coefficients."""
    entries = {(entry.engine, entry.generation): entry for entry in table.calibrations}
    return [(row, predict_row(row, entries[row.engine, row.generation])) for row in rows]


def median_errors(scored: Scored) -> tuple[float, float]:
    """Median absolute relative errors: between tokens, to the first token."""
    return (
        statistics.median(
            abs(seen.inter_token_latency / row.inter_token_latency - 1) for row, seen in scored
        ),
        statistics.median(
            abs(seen.time_to_first_token / row.time_to_first_token - 1) for row, seen in scored
        ),
    )


def main(
    write: Annotated[bool, typer.Option(help="Fit again and rewrite catalog/calibration.yaml.")] = False,
) -> None:
    """Report how well the model predicts what it was not fitted to."""
    console, data = Console(width=118), measurements()
    if write:
        write_table(build_table(data.rows))
        calibration_table.cache_clear()
    _report_rows(console, data)
    unfitted = score([row for row in data.rows if held_out(row)], calibration_table())
    for name, key in GROUPINGS.items():
        _report_errors(console, f"Held-out rows by {name}: median absolute relative error", unfitted, key)
    pairs = leave_one_pair_out(data.rows)
    title = "Each pair predicted from all other pairs"
    _report_errors(console, title, pairs, lambda row: f"{row.group}, {row.engine}")
    _report_errors(console, f"{title}, by engine", pairs, lambda row: row.engine)
    _report_errors(
        console, f"{title}, by engine and campaign", pairs, lambda row: f"{row.engine} ({row.campaign})"
    )
    _report_checks(console)


def _report_rows(console: Console, data: Measurements) -> None:
    fitted = sum(not held_out(row) for row in data.rows)
    console.print(
        f"{data.total} rows: {len(data.rows)} configurations used ({fitted} fitted, "
        f"{len(data.rows) - fitted} held out), "
        f"{data.repeated} repetitions merged by their median, {sum(data.excluded.values())} left out:"
    )
    for reason, count in data.excluded.most_common():
        console.print(f"  {count:4d} {reason}")


def _report_errors(console: Console, title: str, scored: Scored, key: Callable[[Row], str]) -> None:
    groups = defaultdict[str, list[tuple[Row, Prediction]]](list)
    for row, seen in scored:
        groups[key(row)].append((row, seen))
    table = Table("", "rows", "between tokens", "to first token", title=title, title_justify="left")
    for name, group in [*sorted(groups.items()), ("all", list(scored))]:
        latency, first = median_errors(group)
        table.add_row(name, str(len(group)), f"{latency:.1%}", f"{first:.1%}")
    console.print(table)


def _report_checks(console: Console) -> None:
    table = Table(
        "figure", "from", "published", "predicted", "+-", "off", title="Published figures (ms between tokens)",
        title_justify="left",
    )  # fmt: skip
    found = checks()
    for check in found:
        table.add_row(
            check.name,
            "measured pair" if check.measured else check.origin,
            f"{check.published * 1e3:.1f}",
            f"{check.predicted * 1e3:.1f}",
            f"{check.uncertainty:.0%}",
            f"{check.deviations:.1f} sd",
        )
    console.print(table)
    unmeasured = [check for check in found if not check.measured]
    for name, group in (("as published", unmeasured), ("relative to their source", relative(found))):
        for bound in (1.0, 2.0):
            inside = sum(check.deviations <= bound for check in group)
            console.print(f"{name}: {inside} of {len(group)} within {bound:.0f} standard deviations")


if __name__ == "__main__":
    typer.run(main)
