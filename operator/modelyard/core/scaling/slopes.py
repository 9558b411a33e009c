"""What each slope of a forecast is worth: by how much the load has followed the changes that it foretold.

Two slopes are measured, one over minutes and one over a quarter of that. The weights are those with the least squared
error of all forecasts whose time has come, errors in both directions alike, and stay near what is assumed until there
have been some (ridge regression: Hoerl and Kennard, Technometrics 12, 1970). Noise foretells changes that do not come,
and loses its weight; a load that swings as fast as replicas start is followed by the short slope alone.
"""

from dataclasses import dataclass

LEAST = 1e-12
"""Mean square, in requests per second squared, below which nothing was foretold: changes of a millionth of one."""

Slopes = tuple[float, float]
"""Of the long slope and of the short one: their weights, or the changes that they foretell."""


@dataclass(frozen=True, slots=True)
class SlopePolicy:
    """How slopes earn their weights."""

    assumed: Slopes = (0.5, 0.0)
    """Weights before anything was seen: half of the slope over minutes, which is at most half wrong on a ramp and in
    noise alike; nothing of the short one, which noise moves most."""
    prior: float = 300.0
    """Seconds of observation that the assumed weights count for: less than three starts of 120 s, so that a first ramp
    of a quarter of an hour is learned before it ends."""
    highest: float = 2.0
    """Largest weight. A steady ramp earns the long slope 1.4 over a start of 120 s, since damping takes the rest."""


@dataclass(frozen=True, slots=True)
class SlopeRecord:
    """Weighted means over all forecasts whose time has come, in requests per second, squared."""

    foretold: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Products of the foretold changes: long by long, long by short, short by short."""
    followed: Slopes = (0.0, 0.0)
    """Products of the foretold changes and the one that came."""

    def take_in(self, foretold: Slopes, came: float, share: float) -> "SlopeRecord":
        """Return the record with one more change. `share`: its weight, 0 to 1."""
        long, short = foretold
        squares = (long * long, long * short, short * short)
        first, second, third = (
            old + share * (new - old) for old, new in zip(self.foretold, squares, strict=True)
        )
        products = (
            self.followed[0] + share * (long * came - self.followed[0]),
            self.followed[1] + share * (short * came - self.followed[1]),
        )
        return SlopeRecord((first, second, third), products)

    def convert(self, factor: float) -> "SlopeRecord":
        """Return the record in requests of another size, of which one of the present size is worth so many."""
        first, second, third = (value * factor**2 for value in self.foretold)
        return SlopeRecord(
            (first, second, third), (self.followed[0] * factor**2, self.followed[1] * factor**2)
        )

    def weights(self, observed: float, policy: SlopePolicy) -> Slopes:
        """Return the weights. `observed`: seconds of forecasts that the record is made of."""
        long, both, short = self.foretold
        if long + short < LEAST or observed <= 0.0:
            return policy.assumed
        # The assumption counts as so many seconds in which each slope foretold as much as both did on average.
        ridge = policy.prior / observed * (long + short) / 2
        long, short = long + ridge, short + ridge
        by_long, by_short = (
            value + ridge * assumed for value, assumed in zip(self.followed, policy.assumed, strict=True)
        )
        determinant = long * short - both * both
        first = (by_long * short - by_short * both) / determinant
        second = (by_short * long - by_long * both) / determinant
        if second < 0.0:
            # A slope that the load goes against is no slope to bet against: the other one alone.
            first, second = by_long / long, 0.0
        elif first < 0.0:
            first, second = 0.0, by_short / short
        return _bound(first, policy), _bound(second, policy)


def _bound(weight: float, policy: SlopePolicy) -> float:
    return min(max(weight, 0.0), policy.highest)
