"""Which stretches of a long load are played request by request: chosen by rule, not by hand."""

from dataclasses import dataclass

import numpy as np

from modelyard.simulator.scenario import Floats

SLICE = 6 * 3600.0
"""Seconds. Slices begin at multiples of this."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of a load and the rule that chose it."""

    rule: str
    start: float
    """Seconds."""
    end: float


def choose_slices(rate: Floats, window: float, length: float = SLICE) -> tuple[Slice, ...]:
    """Return four different stretches of a load given as mean rates per window.

    Candidates begin at multiples of `length`, are whole, and have no window without load. In this order, the earliest
    of equals, each among those that are left: "highest" mean; "steepest", the highest ratio of a window to the one
    before it, both inside; "lowest" mean; "median", the mean closest to the median of all candidates' means.
    Raises ValueError if the length is no multiple of the window, two at least, or there are fewer than four candidates.
    """
    size = round(length / window)
    if size < 2 or not np.isclose(size * window, length):
        raise ValueError(f"a slice of {length} s is no multiple of a window of {window} s")
    table = rate[: len(rate) // size * size].reshape(-1, size)
    numbers = np.flatnonzero((table > 0).all(axis=1))
    if len(numbers) < 4:
        raise ValueError(f"{len(numbers)} slices of {length} s without a gap are too few for four")
    means = table[numbers].mean(axis=1)
    ratios = (table[numbers, 1:] / table[numbers, :-1]).max(axis=1)
    merits = {
        "highest": means,
        "steepest": ratios,
        "lowest": -means,
        "median": -np.abs(means - np.median(means)),
    }
    chosen: list[Slice] = []
    left = np.ones(len(numbers), dtype=np.bool_)
    for rule, merit in merits.items():
        best = int(np.argmax(np.where(left, merit, -np.inf)))
        left[best] = False
        start = float(numbers[best] * length)
        chosen.append(Slice(rule, start, start + length))
    return tuple(chosen)
