"""The best replicas of one deployment by itself, at given prices of inventory and budgets.

A branch and bound over bundles: one replica on demand, or spot replicas in so many zones, one in each, of which one
may be lost. It ends at a gap or a node limit and says what it has proven: the placement of the fleet chooses among its
answers, and adds its bounds up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.core.placement.packing import Shelf
from modelyard.core.placement.terms import (
    BASE_PENALTY,
    EXPOSURE_SHARE,
    REPLICA_PENALTY,
    Counts,
    Option,
    Terms,
    price_shortage,
)

NODE_LIMIT = 500
"""Nodes for one deployment; a node takes a few microseconds."""
GAP = 0.003
"""Relative distance at which a branch is given up: well below that of the placement."""
KEPT = 4
"""Answers of one search that are kept: the best and those that led to it."""
ROUNDING = 1e-9

Prices = Mapping[tuple[str, int], float]
"""What a replica of an option on a shelf costs beside its own price, US dollars per hour."""


@dataclass(frozen=True, slots=True)
class Priced:
    """What a search found."""

    counts: tuple[Counts, ...]
    """Best last."""
    bound: float
    """No replicas of this deployment cost less at these prices, US dollars per hour."""


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Replicas of an option that are taken together."""

    option: Option
    replicas: int
    price: float
    """US dollars per hour, of all."""
    load: float
    """Requests per second; replicas where only their number counts."""
    safe: float
    """What is left of it if a zone is lost."""
    least: float
    """Price less what the removal of as many replicas would be charged, US dollars per hour."""
    most: int
    """Replicas of the option."""

    @property
    def rate(self) -> float:
        """US dollars per hour for a unit of safe capacity, at best."""
        return max(0.0, self.least) / self.safe if self.safe > 0 else math.inf

    @property
    def blended_rate(self) -> float:
        """US dollars per hour for a unit of capacity, weighted as the penalties are, at best."""
        return max(0.0, self.least) / _blend(self.load, self.safe)

    def cost(self, bundles: int, before: int) -> float:
        """Return the price of bundles, with the change of the switching charge, beside replicas already chosen."""
        after = before + bundles * self.replicas
        if not self.option.removal and not self.option.addition:
            return self.price * bundles
        return self.price * bundles + _switching(self.option, after) - _switching(self.option, before)


def _switching(option: Option, count: int) -> float:
    return option.removal * max(0, option.current - count) + option.addition * max(0, count - option.current)


def _blend(load: float, safe: float) -> float:
    return (load + EXPOSURE_SHARE * safe) / (1 + EXPOSURE_SHARE)


@dataclass(slots=True)
class _Node:
    """A partial answer: bundles and how many of each. Never changed; not frozen, as that is slower to make."""

    chosen: tuple[tuple[int, int], ...] = ()
    load: float = 0.0
    safe: float = 0.0
    on_demand: int = 0
    spot: int = 0
    cost: float = 0.0
    """With what the removal of everything that is not decided yet is charged, US dollars per hour."""


@dataclass(slots=True)
class _Search:
    terms: Terms
    bundles: Sequence[_Bundle]
    need: float
    rates: Sequence[float]
    """Lowest rate of this and later bundles, or of the penalty."""
    blended_rates: Sequence[float]
    cheapest: float
    """Least that one replica for the minimum or the base, or its lack, costs."""
    best: float = math.inf
    pruned: float = math.inf
    """The lowest bound of what was not searched."""
    nodes: int = 0
    found: list[tuple[tuple[int, int], ...]] = field(default_factory=list)

    def visit(self, node: _Node, first: int) -> None:
        """Search below a node, among bundles from `first` on."""
        self.nodes += 1
        load, safe = (node.load, node.safe) if self.terms.capacity > 0 else (0.0, 0.0)
        value = node.cost + price_shortage(self.terms, load, safe, node.on_demand, node.spot)
        if value < self.best:
            self.best = value
            self.found.append(node.chosen)
        lack = self._lack(node)
        if node.safe >= self.need * (1 - ROUNDING) and not lack:
            self.pruned = min(self.pruned, node.cost)
            return
        for index in range(first, len(self.bundles)):
            bound = max(self._bounds(node, index))
            if bound >= self.best * (1 - GAP) or self.nodes >= NODE_LIMIT:
                self.pruned = min(self.pruned, bound)
                return
            self._take(node, index, lack)
        self.pruned = min(self.pruned, max(self._bounds(node, len(self.bundles))))

    def _take(self, node: _Node, index: int, lack: int) -> None:
        """Search with at least one of a bundle."""
        bundle = self.bundles[index]
        before = 0
        if bundle.option.spot:
            # Others of the option are bundles over fewer or more zones.
            for i, n in node.chosen:
                if self.bundles[i].option is bundle.option:
                    before += n * self.bundles[i].replicas
        for count in range(self._most(node, bundle, before, lack), 0, -1):
            spot = count * bundle.replicas if bundle.option.spot else 0
            child = _Node(
                (*node.chosen, (index, count)),
                node.load + count * bundle.load,
                node.safe + count * bundle.safe,
                node.on_demand + count * bundle.replicas - spot,
                node.spot + spot,
                node.cost + bundle.cost(count, before),
            )
            bounds = self._bounds(child, index + 1)
            enough = self.best * (1 - GAP)
            if max(bounds) < enough and self.nodes < NODE_LIMIT:
                self.visit(child, index + 1)
                continue
            self.pruned = min(self.pruned, max(bounds))
            if bounds[0] >= enough and bundle.option.current == 0 and child.safe < self.need:
                # Fewer of the cheapest are only dearer.
                return

    def _most(self, node: _Node, bundle: _Bundle, before: int, lack: int) -> int:
        """Return how many bundles can be of use."""
        missing = self.need - node.safe if bundle.safe > 0 else self.need - node.load
        gain = bundle.safe if bundle.safe > 0 else bundle.load
        top = math.ceil(min(max(0.0, missing) / gain * (1 - ROUNDING), bundle.most))
        if not bundle.option.spot:
            top = max(top, self.terms.base - node.on_demand)
        room = min(bundle.most - before, self.terms.maximum - node.on_demand - node.spot)
        return max(0, min(max(top, lack), room // bundle.replicas))

    def _bounds(self, node: _Node, index: int) -> tuple[float, float]:
        """Return what any answer with bundles from `index` on costs at the least.

        By safe capacity, and by all that is penalised.
        """
        missing = max(0.0, self.need - node.safe)
        blended = _blend(max(0.0, self.need - node.load), missing)
        return (
            node.cost + missing * self.rates[index],
            node.cost + max(blended * self.blended_rates[index], self._lack(node) * self.cheapest),
        )

    def _lack(self, node: _Node) -> int:
        """Return how many replicas must be added for the minimum and the on-demand base at the least."""
        base = self.terms.base - node.on_demand if node.spot else 0
        return max(0, self.terms.minimum - node.on_demand - node.spot, base)


def price_alone(
    terms: Terms,
    prices: Prices,
    shelves: Sequence[Shelf] | None,
    fits: Mapping[tuple[int, int], int],
) -> Priced:
    """Return the best replicas of one deployment; `fits` says how many of a size a shelf can hold."""
    by_load = terms.capacity > 0
    need = terms.capacity if by_load else float(terms.minimum)
    bundles = [
        bundle
        for option in terms.options
        for bundle in _bundle(option, prices, shelves, fits, by_load=by_load)
    ]
    bundles.sort(key=lambda b: (b.rate, b.blended_rate, b.option.name))
    if by_load:
        has_spot = any(option.spot for option in terms.options)
        penalty = terms.load_penalty / need * (EXPOSURE_SHARE if has_spot else 1.0)
        blended = terms.load_penalty / need * (1 + EXPOSURE_SHARE if has_spot else 1.0)
    else:
        penalty = blended = REPLICA_PENALTY * terms.scale
    search = _Search(
        terms=terms,
        bundles=bundles,
        need=need,
        rates=_suffix_minimum([b.rate for b in bundles], penalty),
        blended_rates=_suffix_minimum([b.blended_rate for b in bundles], blended),
        cheapest=min([max(0.0, b.least) / b.replicas for b in bundles] + [BASE_PENALTY * terms.scale]),
    )
    search.visit(_Node(cost=sum(option.removal * option.current for option in terms.options)), 0)
    answers = tuple(_split(bundles, chosen, prices, shelves, fits) for chosen in search.found[-KEPT:])
    return Priced(answers, min(search.pruned, search.best))


def _suffix_minimum(values: Sequence[float], last: float) -> list[float]:
    result = [last]
    for value in reversed(values):
        result.append(min(result[-1], value))
    return result[::-1]


def _bundle(
    option: Option,
    prices: Prices,
    shelves: Sequence[Shelf] | None,
    fits: Mapping[tuple[int, int], int],
    *,
    by_load: bool,
) -> list[_Bundle]:
    usable = [i for i in option.shelves if shelves is None or fits[i, option.size] > 0]
    most = option.most if shelves is None else min(option.most, sum(fits[i, option.size] for i in usable))
    gain = option.capacity if by_load else 1.0
    if most <= 0 or gain <= 0:
        return []
    zones: dict[str, float] = {}
    for i in usable:
        zone = shelves[i].zone if shelves is not None and option.spot else ""
        zones[zone] = min(zones.get(zone, math.inf), prices.get((option.name, i), 0.0))
    spread = option.spot and by_load
    least = -option.removal if option.current else option.addition
    result = []
    extra = 0.0
    for count, price in enumerate(sorted(zones.values()), start=1):
        extra += price
        total = count * option.price + extra
        safe = gain * (count - 1 if spread else count)
        result.append(_Bundle(option, count, total, gain * count, safe, total + count * least, most))
        if not spread:
            break
    return result


def _split(
    bundles: Sequence[_Bundle],
    chosen: Sequence[tuple[int, int]],
    prices: Prices,
    shelves: Sequence[Shelf] | None,
    fits: Mapping[tuple[int, int], int],
) -> Counts:
    """Put replicas on shelves: each bundle on the cheapest ones, in different zones, that have room."""
    result: Counts = {}
    for index, count in chosen:
        bundle = bundles[index]
        option = bundle.option
        placed = result.setdefault(option.name, {})
        if shelves is None:
            placed[0] = placed.get(0, 0) + count * bundle.replicas
            continue
        order = sorted(option.shelves, key=lambda i: (prices.get((option.name, i), 0.0), i))
        if not option.spot:
            left = count
            for i in order:
                more = min(left, fits[i, option.size] - placed.get(i, 0))
                placed[i] = placed.get(i, 0) + more
                left -= more
            continue
        for _ in range(count):
            zones: set[str] = set()
            open_ = [i for i in order if placed.get(i, 0) < fits[i, option.size]]
            for i in open_:
                if shelves[i].zone not in zones and len(zones) < bundle.replicas:
                    zones.add(shelves[i].zone)
                    placed[i] = placed.get(i, 0) + 1
    return result
