"""Adds replicas to one deployment, one best step after the other, and takes away those not needed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.core.placement.packing import Room, Shelf
from modelyard.core.placement.terms import Counts, Option, Terms, peak, price_shortage

UNLIMITED = 1_000_000_000
"""Replicas."""
ROUNDING = 1e-9


@dataclass(slots=True)
class Stock:
    """What is left to use."""

    shelves: Sequence[Shelf] | None
    rooms: list[Room]
    """By shelf; empty where inventory limits nothing."""

    def copy(self) -> "Stock":
        """Return an independent copy."""
        return Stock(self.shelves, [room.copy() for room in self.rooms])

    def fits(self, option: Option) -> int:
        """Return how many more replicas fit."""
        if self.shelves is None:
            return UNLIMITED
        return sum(self.rooms[shelf].fits(option.size) for shelf in option.shelves)

    def place(self, option: Option, count: int, placed: dict[int, int]) -> int:
        """Place up to `count` more replicas, spot ones evenly over zones; return how many were placed."""
        if self.shelves is None:
            placed[0] = placed.get(0, 0) + count
            return count
        if not option.spot:
            done = 0
            for shelf in option.shelves:
                done += self._take(option, shelf, count - done, placed)
            return done
        for done in range(count):
            zones: dict[str, int] = {}
            for shelf in option.shelves:
                zone = self.shelves[shelf].zone
                zones[zone] = zones.get(zone, 0) + placed.get(shelf, 0)
            ordered = sorted(option.shelves, key=lambda shelf: (zones[self.shelves[shelf].zone], shelf))  # type: ignore[index]
            if not any(self._take(option, shelf, 1, placed) for shelf in ordered):
                return done
        return count

    def _take(self, option: Option, shelf: int, count: int, placed: dict[int, int]) -> int:
        taken = self.rooms[shelf].take(option.size, count)
        if taken:
            placed[shelf] = placed.get(shelf, 0) + taken
        return taken


@dataclass(frozen=True, slots=True)
class Tally:
    """What a deployment's replicas add up to."""

    load: float
    safe: float
    on_demand: int
    spot: int
    counts: dict[str, int]
    peaks: dict[str, int]


def tally(terms: Terms, counts: Counts, shelves: Sequence[Shelf] | None) -> Tally:
    """Add up a deployment's replicas."""
    load = safe = 0.0
    on_demand = spot = 0
    by_option: dict[str, int] = {}
    peaks: dict[str, int] = {}
    for option in terms.options:
        placed = counts.get(option.name)
        if not placed:
            continue
        count = sum(placed.values())
        by_option[option.name] = count
        load += option.capacity * count
        if option.spot:
            peaks[option.name] = peak(placed, shelves)
            spot += count
            safe += option.capacity * (count - peaks[option.name])
        else:
            on_demand += count
            safe += option.capacity * count
    return Tally(load, safe, on_demand, spot, by_option, peaks)


@dataclass(frozen=True, slots=True)
class _Step:
    rate: float
    """Penalty that it takes away, per dollar."""
    option: Option
    count: int


def fill(terms: Terms, counts: Counts, stock: Stock, purse: float) -> float:
    """Add replicas while that lowers the objective; return what is left of the purse (US dollars per hour)."""
    spent = sum(option.cost * sum(counts.get(option.name, {}).values()) for option in terms.options)
    exhausted: set[str] = set()
    while True:
        now = tally(terms, counts, stock.shelves)
        penalty = price_shortage(terms, now.load, now.safe, now.on_demand, now.spot)
        if penalty <= ROUNDING:
            break
        step = _best_step(terms, now, penalty, stock, purse - spent, exhausted)
        if step is None:
            break
        done = stock.place(step.option, step.count, counts.setdefault(step.option.name, {}))
        spent += done * step.option.cost
        if done < step.count:
            exhausted.add(step.option.name)
    return purse - spent


def _best_step(
    terms: Terms, now: Tally, penalty: float, stock: Stock, purse: float, exhausted: set[str]
) -> _Step | None:
    best: _Step | None = None
    for option in terms.options:
        if option.name in exhausted:
            continue
        count = now.counts.get(option.name, 0)
        room = min(
            terms.maximum - now.on_demand - now.spot,
            terms.maximum if option.ceiling is None else option.ceiling - count,
            UNLIMITED if option.cost <= 0 else int(min(purse / option.cost * (1 + ROUNDING), UNLIMITED)),
        )
        room = min(room, stock.fits(option)) if room > 0 else 0
        zones = len({stock.shelves[i].zone for i in option.shelves}) if stock.shelves and option.spot else 1
        for more in range(1, min(zones, room) + 1):
            step = _rate(terms, now, penalty, option, more, zones)
            if step.rate > 1 and (best is None or step.rate > best.rate * (1 + ROUNDING)):
                bulk = _bulk(terms, now, option, more)
                best = _Step(step.rate, option, min(room, bulk * more))
    return best


def _rate(terms: Terms, now: Tally, penalty: float, option: Option, more: int, zones: int) -> _Step:
    count = now.counts.get(option.name, 0)
    on_demand, spot, safe = now.on_demand, now.spot, now.safe + option.capacity * more
    if option.spot:
        before = now.peaks.get(option.name, 0)
        safe -= option.capacity * (max(before, math.ceil((count + more) / zones)) - before)
        spot += more
    else:
        on_demand += more
    after = price_shortage(terms, now.load + option.capacity * more, safe, on_demand, spot)
    # A replica that runs is paid already, less what its removal would be charged.
    price = option.price - option.removal if count < option.current else option.price + option.addition
    return _Step((penalty - after) / (more * price), option, more)


def _bulk(terms: Terms, now: Tally, option: Option, more: int) -> int:
    """Return how often a step can be taken at once without going beyond what is needed."""
    gain = option.capacity * (more if not option.spot else max(1, more - 1))
    missing = terms.capacity - min(now.load, now.safe)
    if option.spot and more == 1:
        missing = terms.capacity - now.load
    times = int(min(missing / gain, UNLIMITED)) if gain > 0 and missing > 0 else 0
    if missing <= ROUNDING * terms.capacity:
        times = (terms.minimum - now.on_demand - now.spot) // more
    if option.current > now.counts.get(option.name, 0):
        times = min(times, (option.current - now.counts.get(option.name, 0)) // more)
    return max(1, times)


def trim(terms: Terms, counts: Counts, shelves: Sequence[Shelf] | None) -> bool:
    """Take replicas away that are not needed, the dearest per capacity first; return whether there were any."""
    changed = False
    order = sorted(
        terms.options, key=lambda o: (-o.price / o.capacity if o.capacity > 0 else -math.inf, o.name)
    )
    for option in order:
        placed = counts.get(option.name, {})
        while placed:
            now = tally(terms, counts, shelves)
            penalty = price_shortage(terms, now.load, now.safe, now.on_demand, now.spot)
            count = _spare(terms, now, option)
            shelf = max(placed, key=lambda each: (placed[each], each))
            count = min(count, placed[shelf])
            _remove(placed, shelf, count)
            after = tally(terms, counts, shelves)
            if (
                price_shortage(terms, after.load, after.safe, after.on_demand, after.spot)
                > penalty + ROUNDING
            ):
                placed[shelf] = placed.get(shelf, 0) + count
                break
            changed = True
        if not placed:
            counts.pop(option.name, None)
    return changed


def _spare(terms: Terms, now: Tally, option: Option) -> int:
    """Return how many replicas are surely not needed, or 1 to try."""
    spare = now.on_demand + now.spot - terms.minimum
    if option.spot:
        spare = 1
    elif now.spot:
        spare = min(spare, now.on_demand - terms.base)
    if option.capacity > 0 and terms.capacity > 0:
        spare = min(spare, int(min((min(now.load, now.safe) - terms.capacity) / option.capacity, UNLIMITED)))
    return max(1, spare)


def _remove(placed: dict[int, int], shelf: int, count: int) -> None:
    placed[shelf] -= count
    if placed[shelf] == 0:
        del placed[shelf]
