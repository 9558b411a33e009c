"""What a load owes to where it has been: by how much it comes back to its mean over some minutes.

A load that swings is told apart from one that ramps by where it is: high above its mean it will fall, far below it will
rise, although both slopes say the opposite. With the slopes, the distance from a slow mean makes a forecast of three
terms, and a swing around a level is such a sum of its own past. Levels that hold for a while and noise also return on
average, but nobody knows when: there, the distance explains little of what slopes leave unexplained, and does not
count.
"""

from dataclasses import dataclass

LEAST = 1e-12
"""Mean square, in requests per second squared, below which nothing was foretold: changes of a millionth of one."""


@dataclass(frozen=True, slots=True)
class ReversionPolicy:
    """How the distance from the mean earns its weight."""

    prior: float = 300.0
    """Seconds of observation that a weight of 0 counts for, as for the slopes."""
    highest: float = 1.0
    """Largest weight: the load comes back to the mean, and not beyond."""
    least: float = 0.15
    """Share of the squared errors that must be explained for any weight. Errors over one start overlap, so an hour with
    starts of 120 s has 30 that are independent; a correlation by chance has the standard error 1 / sqrt(30), and two of
    them explain 0.13. In the first minutes chance explains more: one surge that passes looks like half a swing, and
    may be one. It costs little to take it for one, as nothing is foretold beyond the mean, which forgets in minutes."""
    clear: float = 0.25
    """The same for the whole weight. Swings of 10 to 20 minutes explain 0.26 to 0.54, levels that change every 5 or 10
    minutes 0.02 to 0.09."""


@dataclass(frozen=True, slots=True)
class ReversionRecord:
    """Weighted means over all forecasts whose time has come, in requests per second, squared."""

    foretold: float = 0.0
    """Of the squared return that was foretold."""
    followed: float = 0.0
    """Of the product with what slopes left unexplained."""
    unexplained: float = 0.0
    """Of the square of what slopes left unexplained."""

    def take_in(self, foretold: float, left: float, share: float) -> "ReversionRecord":
        """Return the record with one more return that was foretold, and what slopes left unexplained of the change.

        `share`: its weight, 0 to 1.
        """
        return ReversionRecord(
            self.foretold + share * (foretold * foretold - self.foretold),
            self.followed + share * (foretold * left - self.followed),
            self.unexplained + share * (left * left - self.unexplained),
        )

    def convert(self, factor: float) -> "ReversionRecord":
        """Return the record in requests of another size, of which one of the present size is worth so many."""
        square = factor * factor
        return ReversionRecord(self.foretold * square, self.followed * square, self.unexplained * square)

    def weight(self, observed: float, policy: ReversionPolicy) -> float:
        """Return the weight of the return. `observed`: seconds of forecasts that the record is made of."""
        if self.foretold < LEAST or self.unexplained < LEAST or self.followed <= 0.0 or observed <= 0.0:
            return 0.0
        explained = self.followed * self.followed / (self.foretold * self.unexplained)
        clarity = min(max((explained - policy.least) / (policy.clear - policy.least), 0.0), 1.0)
        slope = self.followed / self.foretold * observed / (observed + policy.prior)
        return clarity * min(slope, policy.highest)
