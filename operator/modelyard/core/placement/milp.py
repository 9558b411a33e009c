"""Solves the program with HiGHS, the same way every time: one thread, one seed, no clock.

If everything can be placed, one run answers. Else the penalties are settled first, the highest priority first, and
then the cheapest placement with those penalties is looked for: in one weighted sum, money would drown in them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from modelyard.core.placement.model import Model
from modelyard.core.placement.problem import PlacementPolicy

SEED = 1
ROUNDING = 1e-6
"""Relative: HiGHS's default feasibility tolerance."""
FREE_OF_PENALTY = 1e-4
"""US dollars per hour: less is rounding. The smallest real penalty is that of a thousandth of a load, one price."""


class SolverError(Exception):
    """HiGHS found no placement."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a search ended."""

    values: NDArray[np.float64]
    """By column."""
    bound: float
    """No placement has a lower objective, US dollars per hour."""
    complete: bool
    """The search did not stop at the gap or node limit."""


class Search:
    """One program, solved again and again with more constraints."""

    def __init__(self, model: Model, policy: PlacementPolicy, *, exact: bool) -> None:
        self._model = model
        self._money = np.array(model.money, dtype=np.float64)
        self._penalty = np.array(model.penalty, dtype=np.float64)
        self._exact = exact
        self._gap = 0.0 if exact else policy.gap
        self._highs = highspy.Highs()  # type: ignore[no-untyped-call]
        for name, value in {
            "output_flag": False,
            "threads": 1,
            "random_seed": SEED,
            "mip_rel_gap": self._gap,
            "mip_abs_gap": 1e-9 if exact else 1e-6,
            "mip_max_nodes": 2**31 - 1 if exact else policy.node_limit,
        }.items():
            self._highs.setOptionValue(name, value)
        self._highs.passModel(_program(model, self._money + self._penalty))
        self._rows = 0

    def relax(self) -> float:
        """Return the optimum with fractions of replicas allowed: a bound, US dollars per hour."""
        count = len(self._money)
        kind = np.full(count, highspy.HighsVarType.kContinuous)
        self._highs.changeColsIntegrality(count, np.arange(count, dtype=np.int32), kind)
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise SolverError(self._highs.modelStatusToString(self._highs.getModelStatus()))
        return float(self._highs.getInfo().objective_function_value)

    def search(self) -> Found:
        """Return the best placement found.

        Raises:
            SolverError: none was.

        """
        found = self._run(self._money + self._penalty, None)
        penalty = float(self._penalty @ found.values)
        if penalty <= FREE_OF_PENALTY:
            return found
        values, complete = found.values, found.complete
        classes = sorted(set(self._model.priorities.values()), reverse=True)
        if self._exact and len(classes) == 1:
            return found
        if len(classes) == 1:
            self._limit(self._penalty, penalty)
        else:
            for priority in classes:
                columns = [c for c, p in self._model.priorities.items() if p == priority]
                weights = np.zeros_like(self._penalty)
                weights[columns] = self._penalty[columns]
                if float(weights @ values) > FREE_OF_PENALTY:
                    values = self._run(weights, values).values
                self._limit(weights, float(weights @ values))
        last = self._run(self._money, values)
        return Found(last.values, found.bound, complete and last.complete)

    def keep(self, replicas: Sequence[tuple[str, str, int]]) -> NDArray[np.float64] | None:
        """Return the best values with these numbers of replicas (key, option, count), or None if there are none.

        Later calls keep them, too, until `release`.
        """
        self._rows = int(self._highs.getNumRow())
        for key, option, count in replicas:
            columns = list(self._model.replicas[key, option].values())
            if not columns:
                if count:
                    return None
                continue
            self._add_row(columns, [1.0] * len(columns), float(count), float(count))
        try:
            return self._run(self._money + self._penalty, None).values
        except SolverError:
            return None

    def release(self) -> None:
        """Take back the constraints of the last `keep`."""
        rows = np.arange(self._rows, self._highs.getNumRow(), dtype=np.int32)
        self._highs.deleteRows(len(rows), rows)

    def money(self, values: NDArray[np.float64]) -> float:
        """Return prices and switching charge, US dollars per hour."""
        return float(self._money @ values)

    def penalty(self, values: NDArray[np.float64]) -> float:
        """Return the penalties, US dollars per hour."""
        return float(self._penalty @ values)

    def _limit(self, weights: NDArray[np.float64], value: float) -> None:
        """Keep a part of the objective at what it was brought to."""
        columns = np.flatnonzero(weights)
        if columns.size == 0:
            return
        # Scaled to 1, as the solver's tolerance is absolute.
        scale = float(weights[columns].max())
        limit = value / scale * (1 + ROUNDING) + ROUNDING
        self._add_row([int(c) for c in columns], [float(w) / scale for w in weights[columns]], 0.0, limit)

    def _add_row(self, columns: Collection[int], values: Sequence[float], lower: float, upper: float) -> None:
        index = np.array(columns, dtype=np.int32)
        self._highs.addRow(lower, upper, len(index), index, np.array(values, dtype=np.float64))

    def _run(self, objective: NDArray[np.float64], start: NDArray[np.float64] | None) -> Found:
        count = len(objective)
        index = np.arange(count, dtype=np.int32)
        self._highs.changeColsCost(count, index, objective)
        if start is not None:
            self._highs.setSolution(count, index, start)
        self._highs.run()
        info = self._highs.getInfo()
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            raise SolverError(self._highs.modelStatusToString(self._highs.getModelStatus()))
        values = np.array(self._highs.getSolution().col_value, dtype=np.float64)
        whole = np.array(self._model.whole)
        values[whole] = np.round(values[whole])
        complete = self._highs.getModelStatus() == highspy.HighsModelStatus.kOptimal and info.mip_gap <= 1e-6
        return Found(values, max(0.0, float(info.mip_dual_bound)), complete)


def _program(model: Model, objective: NDArray[np.float64]) -> highspy.HighsLp:
    program = highspy.HighsLp()
    program.num_col_ = len(model.money)
    program.num_row_ = len(model.row_lower)
    program.col_cost_ = objective
    program.col_lower_ = np.zeros(len(model.money))
    program.col_upper_ = np.array(model.upper, dtype=np.float64)
    program.row_lower_ = np.array(model.row_lower, dtype=np.float64)
    program.row_upper_ = np.array(model.row_upper, dtype=np.float64)
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    program.integrality_ = [kinds[whole] for whole in model.whole]
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = np.array(model.starts, dtype=np.int32)
    program.a_matrix_.index_ = np.array(model.columns, dtype=np.int32)
    program.a_matrix_.value_ = np.array(model.values, dtype=np.float64)
    return program
