"""Solves the program with HiGHS, the same way every time: one thread, one seed, no clock.

If everything can be placed, one run answers. Else the penalties are settled first, the highest priority first, and
then the cheapest placement with those penalties is looked for: in one weighted sum, money would drown in them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from modelyard.core.placement.problem import PlacementPolicy
from modelyard.core.placement.program import Model

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


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The optimum with fractions allowed."""

    objective: float
    """US dollars per hour."""
    duals: NDArray[np.float64]
    """By row: what one more of its upper limit would save."""


class _Quiet(highspy.Highs):
    """HiGHS without output. Its constructor sets up callbacks, which prints a banner unless output is off before."""

    def enableCallbacks(self) -> None:  # noqa: N802
        """Set up callbacks, silently."""
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()  # type: ignore[no-untyped-call]


class Search:
    """One program, solved again and again with more constraints."""

    def __init__(self, model: Model, policy: PlacementPolicy, *, exact: bool) -> None:
        self._model = model
        self._money = np.array(model.money, dtype=np.float64)
        self._penalty = np.array(model.penalty, dtype=np.float64)
        self._exact = exact
        self._gap = 0.0 if exact else policy.gap
        self._highs = _Quiet()  # type: ignore[no-untyped-call]
        for name, value in {
            "threads": 1,
            "random_seed": SEED,
            "mip_rel_gap": self._gap,
            "mip_abs_gap": 1e-9 if exact else 1e-6,
            "mip_max_nodes": 2**31 - 1 if exact else policy.node_limit,
        }.items():
            self._highs.setOptionValue(name, value)
        self._highs.passModel(_program(model, self._money + self._penalty))

    def relax(self) -> Relaxed:
        """Solve with fractions allowed. Not to be mixed with `search`.

        Raises:
            SolverError: no optimum was found.

        """
        count = len(self._money)
        kind = np.full(count, highspy.HighsVarType.kContinuous)
        self._highs.changeColsIntegrality(count, np.arange(count, dtype=np.int32), kind)
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise SolverError(self._highs.modelStatusToString(self._highs.getModelStatus()))
        duals = np.maximum(0.0, -np.array(self._highs.getSolution().row_dual, dtype=np.float64))
        return Relaxed(float(self._highs.getInfo().objective_function_value), duals)

    def minimum(self) -> float:
        """Return a lower bound on the sum of money and penalties, US dollars per hour: exactly, if exact.

        Raises:
            SolverError: no placement was found.

        """
        return self._run(self._money + self._penalty, None).bound

    def search(self, start: Mapping[int, float] | None = None) -> Found:
        """Return the best placement found, from one that is known.

        Raises:
            SolverError: none was.

        """
        found = self._run(self._money + self._penalty, start)
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
                # What is within the gap counts as equal, lest a trifle of one priority costs the next one a lot.
                if float(weights @ values) > FREE_OF_PENALTY:
                    values = self._run(weights, dict(enumerate(values))).values
                self._limit(weights, float(weights @ values) * (1 + self._gap))
        last = self._run(self._money, dict(enumerate(values)))
        return Found(last.values, found.bound, complete and last.complete)

    def bound_below(self, columns: Sequence[int], values: Sequence[float], bound: float) -> None:
        """Add what is known: this sum is not below a bound."""
        self._add_row(columns, values, bound, highspy.kHighsInf)

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

    def _run(self, objective: NDArray[np.float64], start: Mapping[int, float] | None) -> Found:
        count = len(objective)
        index = np.arange(count, dtype=np.int32)
        self._highs.changeColsCost(count, index, objective)
        if start is not None:
            known = np.array(list(start), dtype=np.int32)
            self._highs.setSolution(len(known), known, np.array(list(start.values()), dtype=np.float64))
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
