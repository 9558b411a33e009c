"""The placement problem as a choice of one column, a whole set of replicas, for each deployment.

Deployments have nothing to do with each other but for inventory and budgets. So each is solved by itself, at prices
of those; the program then chooses among the answers under the real limits, and its dual values are the next prices
(column generation, or Dantzig-Wolfe decomposition). The prices also give a bound (the Lagrangian one) that is far
better than that of the relaxed compact program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modelyard.core.placement.milp import Search
from modelyard.core.placement.packing import Shelf
from modelyard.core.placement.pricing import price_alone
from modelyard.core.placement.problem import Budget, PlacementPolicy
from modelyard.core.placement.program import Model, Uses, add_budget, add_inventory
from modelyard.core.placement.terms import Counts, Score, Terms, evaluate

ROUNDS = 16
"""Most changes of prices; the bound hardly moves after."""
EXACT_ROUNDS = 80
"""The same where the optimum is to be proven: a good bound saves minutes there."""
ENOUGH = 0.5
"""Distance of the relaxed answer to the bound that ends the search for prices, in gaps of the placement."""
PATIENCE = 2
"""Rounds in a row without a new set that end it."""
EXACT_PATIENCE = 8


@dataclass(frozen=True, slots=True)
class Market:
    """What the deployments share."""

    shelves: Sequence[Shelf] | None
    budgets: Sequence[Budget]
    fits: Mapping[tuple[int, int], int]
    """How many replicas of a size a shelf can hold, by (shelf, size)."""


@dataclass(frozen=True, slots=True)
class _Prices:
    """What inventory and budgets are worth."""

    extra: Mapping[str, Mapping[tuple[str, int], float]]
    """Of an option's replica on a shelf, by deployment, US dollars per hour."""
    worth: float
    """Of all that there is, US dollars per hour."""

    def mixed(self, other: "_Prices") -> "_Prices":
        """Return the mean of both; prices and worth go together, so that it gives a bound, too."""
        extra = {
            key: {
                place: (price + self.extra.get(key, {}).get(place, 0.0)) / 2
                for place, price in prices.items()
            }
            for key, prices in other.extra.items()
        }
        return _Prices(extra, (self.worth + other.worth) / 2)


@dataclass(slots=True)
class Columns:
    """Sets of replicas that deployments may choose from."""

    terms: Sequence[Terms]
    market: Market
    sets: dict[str, list[Counts]] = field(default_factory=dict)
    """By deployment."""
    scores: dict[str, list[Score]] = field(default_factory=dict)
    """Of the sets."""
    seen: set[tuple[object, ...]] = field(default_factory=set)
    bound: float = 0.0
    """No placement has a lower objective, US dollars per hour."""
    prices: Mapping[str, Mapping[tuple[str, int], float]] = field(default_factory=dict)
    """Those that the bound comes from, by deployment: of an option's replica on a shelf."""
    worth: float = 0.0
    """Of all that is shared, at these prices, US dollars per hour."""

    def add(self, terms: Terms, counts: Counts) -> bool:
        """Add a set; return whether it is new."""
        kept = {
            name: {i: n for i, n in sorted(placed.items()) if n} for name, placed in sorted(counts.items())
        }
        kept = {name: placed for name, placed in kept.items() if placed}
        mark = (terms.key, *((name, *placed.items()) for name, placed in kept.items()))
        if mark in self.seen:
            return False
        self.seen.add(mark)
        self.sets.setdefault(terms.key, []).append(kept)
        self.scores.setdefault(terms.key, []).append(evaluate(terms, kept, self.market.shelves))
        return True

    def generate(self, policy: PlacementPolicy, *, exact: bool = False) -> None:
        """Add sets at changing prices until the bound is met or nothing new is found."""
        best = _Prices({}, 0.0)
        tried = best
        stale = 0
        enough = 0.0 if exact else ENOUGH * policy.gap
        for _ in range(EXACT_ROUNDS if exact else ROUNDS):
            fresh, bound = False, -tried.worth
            for each in self.terms:
                prices = tried.extra.get(each.key, {})
                priced = price_alone(each, prices, self.market.shelves, self.market.fits)
                bound += priced.bound
                for counts in priced.counts:
                    fresh |= self.add(each, counts)
            if bound > self.bound:
                self.bound, best = bound, tried
            model = self.build()
            relaxed = Search(model, policy, exact=False).relax()
            if relaxed.objective - self.bound <= enough * relaxed.objective:
                break
            current = self._prices(model, relaxed.duals)
            stale = 0 if fresh else stale + 1
            if stale == (EXACT_PATIENCE if exact else PATIENCE):
                break
            # Dual values jump about; half-way to the best ones is where the good sets are. Without new ones there,
            # go all the way.
            tried = best.mixed(current) if fresh else current
        self.prices, self.worth = best.extra, best.worth

    def _prices(self, model: Model, duals: NDArray[np.float64]) -> "_Prices":
        extra: dict[str, dict[tuple[str, int], float]] = {}
        for each in self.terms:
            dollar = sum(
                float(duals[row]) * scale
                for budget in self.market.budgets
                if each.key in budget.keys and budget.name in model.budgets
                for row, scale in [model.budgets[budget.name]]
            )
            extra[each.key] = {
                (option.name, shelf): dollar * option.cost
                + sum(float(duals[row]) * n for row, n in model.charges.get((shelf, option.size), ()))
                for option in each.options
                for shelf in option.shelves
            }
        # The first rows choose one set for each deployment: their prices are in the bounds of those.
        shared = slice(len(self.terms), None)
        return _Prices(extra, float(duals[shared] @ np.array(model.row_upper)[shared]))

    def build(self) -> Model:
        """Return the program: its first columns are the sets, deployment by deployment."""
        model = Model()
        uses: Uses = {}
        costs: dict[str, list[tuple[int, float]]] = {}
        for each in self.terms:
            options = {option.name: option for option in each.options}
            entries = []
            for counts, score in zip(self.sets[each.key], self.scores[each.key], strict=True):
                column = model.add_column(money=score.money, penalty=score.penalty, upper=1.0, whole=True)
                model.priorities[column] = each.priority
                entries.append((column, 1.0))
                costs.setdefault(each.key, []).append((column, score.cost))
                for name, placed in counts.items():
                    for shelf, count in placed.items():
                        by_size = uses.setdefault(shelf, {})
                        by_size.setdefault(options[name].size, []).append((column, float(count)))
            model.add_row(entries, lower=1.0, upper=1.0)
        if self.market.shelves is not None:
            add_inventory(model, uses, self.market.shelves)
        for budget in self.market.budgets:
            entries = [entry for key in sorted(budget.keys) for entry in costs.get(key, ())]
            add_budget(model, budget, entries)
        return model

    def read(self, values: NDArray[np.float64]) -> dict[str, Counts]:
        """Return the sets that were chosen."""
        chosen: dict[str, Counts] = {}
        column = 0
        for each in self.terms:
            sets = self.sets[each.key]
            best = int(np.argmax(values[column : column + len(sets)]))
            chosen[each.key] = {name: dict(placed) for name, placed in sets[best].items()}
            column += len(sets)
        return chosen
