"""The placement problem as a mixed-integer linear program, in the arrays that HiGHS takes.

Columns: whole replicas of each option and shelf; shares of the load that are unserved or exposed to the loss of a
zone; missing replicas of the minimum and of the on-demand base; replicas more or fewer than now; for shelves whose
replica sizes do not divide each other, the nodes that are packed in each possible way.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelyard.core.placement.packing import (
    MAX_PATTERN_NODE,
    Room,
    Shelf,
    divides,
    list_patterns,
)
from modelyard.core.placement.problem import Budget
from modelyard.core.placement.terms import (
    BASE_PENALTY,
    EXPOSURE_SHARE,
    REPLICA_PENALTY,
    Option,
    Terms,
)

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
    offset: float = 0.0
    replicas: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)
    """Column of each (key, option) and shelf."""
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

    def add_row(self, entries: Sequence[Entry], lower: float = -INFINITY, upper: float = INFINITY) -> None:
        """Add a constraint."""
        for column, value in entries:
            if abs(value) > SMALLEST_COEFFICIENT:
                self.columns.append(column)
                self.values.append(value)
        self.starts.append(len(self.columns))
        self.row_lower.append(lower)
        self.row_upper.append(upper)


def build_model(terms: Sequence[Terms], shelves: Sequence[Shelf] | None, budgets: Sequence[Budget]) -> Model:
    """Return the program of all deployments."""
    model = Model()
    fits: dict[tuple[int, int], int] = {}
    if shelves is not None:
        rooms = [Room(shelf.free) for shelf in shelves]
        sizes = {option.size for each in terms for option in each.options}
        fits = {(i, size): room.fits(size) for i, room in enumerate(rooms) for size in sizes}
    for each in terms:
        _add_replicas(model, each, fits if shelves is not None else None)
        _add_needs(model, each, shelves)
        _add_switching(model, each)
    if shelves is not None:
        _add_inventory(model, terms, shelves)
    for budget in sorted(budgets, key=lambda each: each.name):
        _add_budget(model, terms, budget)
    return model


def _add_replicas(model: Model, terms: Terms, fits: dict[tuple[int, int], int] | None) -> None:
    everything: list[Entry] = []
    for option in terms.options:
        columns: dict[int, int] = {}
        for shelf in option.shelves:
            most = option.most if fits is None else min(option.most, fits[shelf, option.size])
            if most > 0:
                columns[shelf] = model.add_column(money=option.price, upper=most, whole=True)
        model.replicas[terms.key, option.name] = columns
        entries = [(column, 1.0) for column in columns.values()]
        if sum(model.upper[column] for column in columns.values()) > option.most:
            model.add_row(entries, upper=option.most)
        everything += entries
    if sum(model.upper[column] for column, _ in everything) > terms.maximum:
        model.add_row(everything, upper=terms.maximum)


def _add_needs(model: Model, terms: Terms, shelves: Sequence[Shelf] | None) -> None:
    """Add load, exposure, minimum and on-demand base, each with what is missing of it."""
    on_demand = [option for option in terms.options if not option.spot]
    spot = [option for option in terms.options if option.spot]

    def missing(penalty: float, upper: float) -> int:
        column = model.add_column(penalty=penalty, upper=upper)
        model.priorities[column] = terms.priority
        return column

    def total(options: Sequence[Option], *, share: bool) -> list[Entry]:
        return [
            (column, option.capacity / terms.capacity if share else 1.0)
            for option in options
            for column in model.replicas[terms.key, option.name].values()
        ]

    if terms.capacity > 0:
        unserved = missing(terms.load_penalty, 1.0)
        model.add_row([*total(terms.options, share=True), (unserved, 1.0)], lower=1.0)
    if terms.capacity > 0 and spot:
        exposed = missing(terms.load_penalty * EXPOSURE_SHARE, 1.0)
        row = [*total(terms.options, share=True), (exposed, 1.0)]
        for option in spot:
            lost = _add_lost_zone(model, model.replicas[terms.key, option.name], shelves)
            row.append((lost, -option.capacity / terms.capacity))
        model.add_row(row, lower=1.0)
    if terms.minimum > 0:
        absent = missing(REPLICA_PENALTY * terms.dearest, float(terms.minimum))
        model.add_row([*total(terms.options, share=False), (absent, 1.0)], lower=float(terms.minimum))
    if terms.base > 0 and spot:
        any_spot = model.add_column(upper=1.0, whole=True)
        absent = missing(BASE_PENALTY * terms.dearest, float(terms.base))
        base = float(terms.base)
        model.add_row([*total(on_demand, share=False), (absent, 1.0), (any_spot, -base)], lower=0.0)
        model.add_row([*total(spot, share=False), (any_spot, -float(terms.maximum))], upper=0.0)


def _add_lost_zone(model: Model, columns: dict[int, int], shelves: Sequence[Shelf] | None) -> int:
    """Return a column of at least the replicas in any one zone."""
    lost = model.add_column()
    zones: dict[str, list[Entry]] = {}
    for shelf, column in columns.items():
        zones.setdefault(shelves[shelf].zone if shelves is not None else "", []).append((column, -1.0))
    for entries in zones.values():
        model.add_row([(lost, 1.0), *entries], lower=0.0)
    return lost


def _add_switching(model: Model, terms: Terms) -> None:
    for option in terms.options:
        entries = [(column, 1.0) for column in model.replicas[terms.key, option.name].values()]
        if option.current > 0 and option.removal > 0:
            fewer = model.add_column(money=option.removal, upper=option.current)
            model.add_row([*entries, (fewer, 1.0)], lower=option.current)
        if option.addition > 0 and entries:
            more = model.add_column(money=option.addition)
            model.add_row([*entries, (more, -1.0)], upper=option.current)


def _add_inventory(model: Model, terms: Sequence[Terms], shelves: Sequence[Shelf]) -> None:
    users: dict[int, dict[int, list[int]]] = {}
    for each in terms:
        for option in each.options:
            for shelf, column in model.replicas[each.key, option.name].items():
                users.setdefault(shelf, {}).setdefault(option.size, []).append(column)
    for shelf, by_size in sorted(users.items()):
        nodes = Counter(shelves[shelf].free)
        if divides(list(by_size)) or max(nodes) > MAX_PATTERN_NODE:
            _add_blocks(model, nodes, by_size)
        else:
            _add_patterns(model, nodes, by_size)


def _add_blocks(model: Model, nodes: Counter[int], by_size: dict[int, list[int]]) -> None:
    """For each size, count nodes in blocks of it: a larger replica takes as many whole blocks as fit into it.

    Necessary for any sizes; enough, too, if each size divides the next larger one.
    """
    for size in sorted(by_size):
        entries = [
            (column, float(larger // size))
            for larger, columns in sorted(by_size.items())
            if larger >= size
            for column in columns
        ]
        blocks = sum(count * (free // size) for free, count in nodes.items())
        if sum(model.upper[column] * value for column, value in entries) > blocks:
            model.add_row(entries, upper=blocks)


def _add_patterns(model: Model, nodes: Counter[int], by_size: dict[int, list[int]]) -> None:
    """Choose for each node one of the ways in which it can be packed."""
    sizes = sorted(by_size, reverse=True)
    supply: dict[int, list[Entry]] = {size: [] for size in sizes}
    for free, count in sorted(nodes.items()):
        chosen: list[Entry] = []
        for pattern in list_patterns(free, sizes):
            column = model.add_column(upper=count, whole=True)
            chosen.append((column, 1.0))
            for size, number in zip(sizes, pattern, strict=True):
                supply[size].append((column, -float(number)))
        model.add_row(chosen, upper=count)
    for size in sizes:
        model.add_row([*((column, 1.0) for column in by_size[size]), *supply[size]], upper=0.0)


def _add_budget(model: Model, terms: Sequence[Terms], budget: Budget) -> None:
    entries = [
        (column, option.cost)
        for each in terms
        if each.key in budget.keys
        for option in each.options
        for column in model.replicas[each.key, option.name].values()
    ]
    limit = max(0.0, budget.per_hour)
    if sum(model.upper[column] * cost for column, cost in entries) > limit:
        # Relative to the budget, so that the solver's tolerance is.
        scale = limit or 1.0
        model.add_row([(column, cost / scale) for column, cost in entries], upper=limit / scale)
