"""A mixed-integer linear program, in the arrays that HiGHS takes, and the constraints that all programs here share."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.core.placement.packing import MAX_PATTERN_NODE, Shelf, divides, list_patterns
from modelyard.core.placement.problem import Budget

INFINITY = math.inf
SMALLEST_COEFFICIENT = 1e-9
"""HiGHS drops matrix entries at or below this (its option small_matrix_value)."""

Entry = tuple[int, float]
"""Column and coefficient."""


@dataclass(slots=True)
class Model:
    """Columns and rows; `money` and `penalty` are the two parts of the objective."""

    money: list[float] = field(default_factory=list)
    penalty: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    """Whether the column must be a whole number."""
    starts: list[int] = field(default_factory=lambda: [0])
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    charges: dict[tuple[int, int], list[Entry]] = field(default_factory=dict)
    """Rows, and coefficients in them, of a replica on a shelf that needs so many accelerators."""
    budgets: dict[str, Entry] = field(default_factory=dict)
    """Row of each budget, and the coefficient of a dollar in it."""
    priorities: dict[int, int] = field(default_factory=dict)
    """Priority of the deployment that a column with a penalty belongs to."""

    def add_column(
        self, *, money: float = 0.0, penalty: float = 0.0, upper: float = INFINITY, whole: bool = False
    ) -> int:
        """Return the index of a new column, which is at least 0."""
        self.money.append(money)
        self.penalty.append(penalty)
        self.upper.append(upper)
        self.whole.append(whole)
        return len(self.money) - 1

    def add_row(self, entries: Sequence[Entry], lower: float = -INFINITY, upper: float = INFINITY) -> int:
        """Return the index of a new constraint; entries of one column add up."""
        total: dict[int, float] = {}
        for column, value in entries:
            total[column] = total.get(column, 0.0) + value
        for column, value in total.items():
            if abs(value) > SMALLEST_COEFFICIENT:
                self.columns.append(column)
                self.values.append(value)
        self.starts.append(len(self.columns))
        self.row_lower.append(lower)
        self.row_upper.append(upper)
        return len(self.row_upper) - 1


Uses = dict[int, dict[int, list[Entry]]]
"""Replicas on a shelf that need so many accelerators: columns, and replicas in each."""


def add_inventory(model: Model, uses: Uses, shelves: Sequence[Shelf]) -> None:
    """Limit the replicas on every shelf to those that fit."""
    for shelf, by_size in sorted(uses.items()):
        nodes = Counter(shelves[shelf].free)
        if divides(list(by_size)) or max(nodes, default=0) > MAX_PATTERN_NODE:
            _add_blocks(model, shelf, nodes, by_size)
        else:
            _add_patterns(model, shelf, nodes, by_size)


def _add_blocks(
    model: Model, shelf: int, nodes: Mapping[int, int], by_size: Mapping[int, list[Entry]]
) -> None:
    """For each size, count nodes in blocks of it: a larger replica takes as many whole blocks as fit into it.

    Necessary for any sizes; enough, too, if each size divides the next larger one.
    """
    for size in sorted(by_size):
        blocks = {larger: float(larger // size) for larger in by_size if larger >= size}
        entries = [(column, n * each) for larger, each in blocks.items() for column, n in by_size[larger]]
        supply = sum(count * (free // size) for free, count in nodes.items())
        if sum(model.upper[column] * value for column, value in entries) > supply:
            row = model.add_row(entries, upper=supply)
            for larger, each in blocks.items():
                model.charges.setdefault((shelf, larger), []).append((row, each))


def _add_patterns(
    model: Model, shelf: int, nodes: Mapping[int, int], by_size: Mapping[int, list[Entry]]
) -> None:
    """Choose for each node one of the ways in which it can be packed."""
    sizes = sorted(by_size, reverse=True)
    supply: dict[int, list[Entry]] = {size: [] for size in sizes}
    for free, count in sorted(nodes.items()):
        chosen: list[Entry] = []
        for pattern in list_patterns(free, sizes):
            # Bounded by the row alone, whose dual value is then that of a node.
            column = model.add_column(whole=True)
            chosen.append((column, 1.0))
            for size, number in zip(sizes, pattern, strict=True):
                supply[size].append((column, -float(number)))
        model.add_row(chosen, upper=count)
    for size in sizes:
        row = model.add_row([*by_size[size], *supply[size]], upper=0.0)
        model.charges.setdefault((shelf, size), []).append((row, 1.0))


def add_budget(model: Model, budget: Budget, entries: Sequence[Entry]) -> None:
    """Limit what columns cost: `entries` are their costs in US dollars per hour."""
    limit = max(0.0, budget.per_hour)
    if sum(model.upper[column] * cost for column, cost in entries) > limit:
        # Relative to the budget, as the solver's tolerance is absolute.
        scale = limit or 1.0
        row = model.add_row([(column, cost / scale) for column, cost in entries], upper=limit / scale)
        model.budgets[budget.name] = (row, 1 / scale)
