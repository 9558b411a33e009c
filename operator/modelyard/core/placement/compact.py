"""The placement problem as one program, with a column for the replicas of each option on each shelf.

It is exact, and what `exact` solves. Further columns: shares of the load that are unserved or exposed to the loss of
a zone; missing replicas of the minimum and of the on-demand base; replicas more or fewer than now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.core.placement.packing import Shelf
from modelyard.core.placement.problem import Budget
from modelyard.core.placement.program import Entry, Model, Uses, add_budget, add_inventory
from modelyard.core.placement.terms import BASE_PENALTY, EXPOSURE_SHARE, REPLICA_PENALTY, Option, Terms


@dataclass(slots=True)
class CompactModel(Model):
    """The program, and what its columns mean."""

    replicas: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)
    """Column of each (key, option) and shelf."""
    owned: dict[str, range] = field(default_factory=dict)
    """All columns of each deployment."""


def build_model(
    terms: Sequence[Terms],
    shelves: Sequence[Shelf] | None,
    budgets: Sequence[Budget],
    fits: Mapping[tuple[int, int], int],
    *,
    limited: bool = True,
) -> CompactModel:
    """Return the program of all deployments.

    `fits` says how many replicas of a size a shelf can hold; `limited` whether what deployments share is limited.
    """
    model = CompactModel()
    for each in terms:
        first = len(model.money)
        _add_replicas(model, each, fits if shelves is not None else None)
        _add_needs(model, each, shelves)
        _add_switching(model, each)
        model.owned[each.key] = range(first, len(model.money))
    if not limited:
        return model
    if shelves is not None:
        uses: Uses = {}
        for each in terms:
            for option in each.options:
                for shelf, column in model.replicas[each.key, option.name].items():
                    uses.setdefault(shelf, {}).setdefault(option.size, []).append((column, 1.0))
        add_inventory(model, uses, shelves)
    for budget in sorted(budgets, key=lambda each: each.name):
        entries = [
            (column, option.cost)
            for each in terms
            if each.key in budget.keys
            for option in each.options
            for column in model.replicas[each.key, option.name].values()
        ]
        add_budget(model, budget, entries)
    return model


def _add_replicas(model: CompactModel, terms: Terms, fits: Mapping[tuple[int, int], int] | None) -> None:
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


def _add_needs(model: CompactModel, terms: Terms, shelves: Sequence[Shelf] | None) -> None:
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
        absent = missing(REPLICA_PENALTY * terms.scale, float(terms.minimum))
        model.add_row([*total(terms.options, share=False), (absent, 1.0)], lower=float(terms.minimum))
    if terms.base > 0 and spot:
        any_spot = model.add_column(upper=1.0, whole=True)
        absent = missing(BASE_PENALTY * terms.scale, float(terms.base))
        base = float(terms.base)
        model.add_row([*total(on_demand, share=False), (absent, 1.0), (any_spot, -base)], lower=0.0)
        model.add_row([*total(spot, share=False), (any_spot, -float(terms.maximum))], upper=0.0)


def _add_lost_zone(model: CompactModel, columns: dict[int, int], shelves: Sequence[Shelf] | None) -> int:
    """Return a column of at least the replicas in any one zone."""
    lost = model.add_column()
    zones: dict[str, list[Entry]] = {}
    for shelf, column in columns.items():
        zones.setdefault(shelves[shelf].zone if shelves is not None else "", []).append((column, -1.0))
    for entries in zones.values():
        model.add_row([(lost, 1.0), *entries], lower=0.0)
    return lost


def _add_switching(model: CompactModel, terms: Terms) -> None:
    for option in terms.options:
        entries = [(column, 1.0) for column in model.replicas[terms.key, option.name].values()]
        if option.current > 0 and option.removal > 0:
            fewer = model.add_column(money=option.removal, upper=option.current)
            model.add_row([*entries, (fewer, 1.0)], lower=option.current)
        if option.addition > 0 and entries:
            more = model.add_column(money=option.addition)
            model.add_row([*entries, (more, -1.0)], upper=option.current)
