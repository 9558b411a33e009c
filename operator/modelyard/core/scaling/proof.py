"""A scale-down is proven: the fleet that would remain is played against the load that may come, as a fluid queue."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fleet:
    """What serves, and what will, in requests per second."""

    serving: float
    pending: float = 0.0
    """Of replicas that start."""
    arrives: float = 0.0
    """Seconds until they serve."""

    def served(self, seconds: float) -> float:
        """Return requests per second answered so many seconds from now."""
        return self.serving + (self.pending if seconds >= self.arrives else 0.0)


def project_backlog(fleet: Fleet, load: Sequence[float], backlog: float, lead: float) -> float:
    """Return the requests that wait `lead` seconds from now.

    `load`: requests per second at evenly spaced times, the first now and the last after `lead`.
    """
    step = lead / (len(load) - 1)
    for number in range(1, len(load)):
        offered = (load[number - 1] + load[number]) / 2
        backlog = max(backlog + (offered - fleet.served((number - 0.5) * step)) * step, 0.0)
    return backlog


def is_enough(
    fleet: Fleet, needed: Sequence[float], load: Sequence[float], backlog: float, lead: float
) -> bool:
    """Say whether a fleet has the capacity needed at every moment of one start time, and ends it without a backlog.

    `needed` and `load`: requests per second at evenly spaced times, the first now and the last after `lead`.
    """
    step = lead / (len(needed) - 1)
    enough = all(
        fleet.served(number * step) >= capacity * (1 - 1e-9) for number, capacity in enumerate(needed)
    )
    return enough and project_backlog(fleet, load, backlog, lead) < 1.0
