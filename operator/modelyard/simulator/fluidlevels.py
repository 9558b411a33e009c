"""How fast replicas work on a load that is taken as a flow.

What is unfinished at a replica grows by what comes and shrinks by what it answers at its batch, after the engine's
step-time model. Each request goes to the replica that has the fewest and stays there, as behind the gateway.
"""

import math
from dataclasses import dataclass

import numpy as np

from modelyard.core.load import LoadShape
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.fluidsteps import advance_fleet, look_at, play_until, unfinished_at
from modelyard.simulator.loadstats import PEAK_WINDOW
from modelyard.simulator.scenario import Arrivals, Engine, Floats

_LARGE_BATCH = 128.0
"""The latency between tokens is taken as linear from a batch of 1 to this; only experts make it bend."""
_SLOW = 6.0
"""Standard deviations by which a slow request is slower than the mean one: two of an answer that has a ninth of the
mean tokens, and so three times the deviation; a thirteenth of ServeGen's answers are shorter (`servegen.OUTPUT_CV`).
On four slices of m-large one curve of attainment fits better with it than with less."""
_ROOM = 16
"""Groups that there is room for at first."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What the spread of lengths adds to the work of the mean request. The default: all requests are alike."""

    held: float = 1.0
    """Tokens that a running sequence holds, over those of the mean request: long answers run for longer, so more of
    what runs at a moment is long."""
    square: float = 0.0
    """Variance of the prompts' lengths over the square of their mean: attention within a prompt grows with its square.
    Prompts from the cache count less by what is cached."""
    cached: float = 0.0
    """Share of the prompt tokens that the prefix cache has."""
    moments: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Means of the second, third and fourth power of a prompt's length, over those powers of its mean."""


def measure_mix(arrivals: Arrivals) -> Mix:
    """Measure the spread of lengths within ten minutes, on average. Without any request it is the default.

    Means that change over the day are no spread: a flow follows them.
    """
    if not len(arrivals):
        return Mix()
    edges = np.unique(np.searchsorted(arrivals.time, np.arange(0.0, arrivals.duration, PEAK_WINDOW)))
    parts = [
        _moments(*tokens)
        for tokens in zip(
            *(
                np.split(values.astype(np.float64), edges[edges > 0])
                for values in (arrivals.input_tokens, arrivals.output_tokens, arrivals.cached_tokens)
            ),
            strict=True,
        )
        if len(tokens[0])
    ]
    weights = [part[0] for part in parts]
    held, square, cached, second, third, fourth = np.average(
        [part[1:] for part in parts], axis=0, weights=weights
    )
    return Mix(float(held), float(square), float(cached), (float(second), float(third), float(fourth)))


def _moments(inputs: Floats, outputs: Floats, cached: Floats) -> tuple[float, ...]:
    """Return the number of requests and the figures of a `Mix`."""
    mean_input, mean_output = max(float(inputs.mean()), 1.0), max(float(outputs.mean()), 1.0)
    relative, kept = inputs / mean_input, cached / mean_input
    return (
        float(len(inputs)),
        float(((inputs + outputs / 2) * outputs).mean()) / mean_output / (mean_input + mean_output / 2),
        float((relative**2 - kept**2).mean()) - 1.0 + float(kept.mean()) ** 2,
        float(kept.mean()),
        *(float((relative**power).mean()) for power in (2, 3, 4)),
    )


@dataclass(frozen=True, slots=True)
class MixedLoad(FluidLoad):
    """A flow that knows the spread of its requests."""

    mix: Mix = Mix()


def mix_of(load: FluidLoad, arrivals: Arrivals) -> Mix:
    """Return the spread of a flow's requests; of a flow that does not know it that of a sample of them."""
    return load.mix if isinstance(load, MixedLoad) else measure_mix(arrivals)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one replica works in each step of a load. All arrays have the same length."""

    base: Floats
    """Seconds between tokens at a batch of 0 (extrapolated)."""
    slope: Floats
    """Seconds between tokens for each running sequence."""
    first_base: Floats
    """Seconds to the first token of a request that does not wait for a place, at a batch of 0 (extrapolated)."""
    first_slope: Floats
    output: Floats
    """Mean tokens of an answer: a sequence is in the batch for so many steps."""
    held: Floats
    """Mean tokens that a running sequence holds."""
    limit: Floats
    """Sequences that run at once."""
    spread: Floats
    """Seconds between tokens by which requests differ at a batch of 1, one standard deviation: each meets the prompts
    of others by chance. It grows with the square root of the batch."""

    def latency(self, level: Floats) -> Floats:
        """Return the seconds between tokens in each step; what waits for a place counts as if it ran."""
        return self.base + self.slope * level

    def slow_latency(self, level: Floats) -> Floats:
        """Return the same for a slow request: a short answer that met many prompts."""
        return self.latency(level) + _SLOW * self.spread * np.sqrt(level)

    def slow_latency_at(self, number: int, level: float) -> float:
        """Return that of one step."""
        latency = self.base[number] + self.slope[number] * level
        return float(latency + _SLOW * self.spread[number] * math.sqrt(level))


def pace(engine: Engine, load: FluidLoad, mix: Mix | None = None) -> Pace:
    """Return how fast one replica of an engine works on the requests of a load.

    `mix`: the spread of their lengths; None: what the load knows of it, or else none.
    """
    if mix is None:
        mix = load.mix if isinstance(load, MixedLoad) else Mix()
    shapes, place = np.unique(
        np.column_stack([load.input_tokens, load.output_tokens]), axis=0, return_inverse=True
    )
    table = np.array([_pace_of(engine, float(inputs), float(outputs), mix) for inputs, outputs in shapes])
    return Pace(*np.ascontiguousarray(table[place.ravel()].T))


def _pace_of(engine: Engine, inputs: float, outputs: float, mix: Mix) -> tuple[float, ...]:
    step, answer = engine.step, max(outputs, 1.0)
    shape = LoadShape(inputs, outputs, min(max(mix.cached, 0.0), 1.0))
    held = mix.held * (inputs + outputs / 2)
    prefill = step.prefill_token_squared * mix.square * inputs**2

    def latency(batch: float) -> float:
        """Return the step-time model's latency between tokens, its context and prefill those of the spread."""
        longer = step.decode(batch, held) - step.decode(batch, inputs + outputs / 2)
        more = longer + batch / answer / step.parallel_prefill * prefill
        return step.inter_token_latency(shape, batch) + step.inter_token_factor * more

    alone = latency(1.0)
    slope = (latency(_LARGE_BATCH) - alone) / (_LARGE_BATCH - 1.0)
    first = step.time_to_first_token(shape, 1.0)
    first_slope = (step.time_to_first_token(shape, _LARGE_BATCH) - first) / (_LARGE_BATCH - 1.0)
    limit = min(float(engine.max_sequences), max(1.0, engine.cache_tokens / held))
    base, first_base = alone - slope, first - first_slope
    # Others' prompts come to a sequence by chance, about as many as there are sequences while it runs.
    new = inputs * (1 - shape.cached_share)
    fixed, linear, squared = step.prefill_fixed, step.prefill_token * new, step.prefill_token_squared * new**2
    second, third, fourth = mix.moments
    power = (
        fixed**2 + 2 * fixed * (linear + squared * second)
        + linear**2 * second + 2 * linear * squared * third + squared**2 * fourth
    )  # fmt: skip
    each = math.sqrt(power) / answer / step.parallel_prefill
    return base, slope, first_base, first_slope, answer, held, limit, step.inter_token_factor * each


class Levels:
    """The unfinished requests of every replica of a fleet. Replicas with equal levels are one group.

    A request stays where it was sent. So what waits at old replicas does not delay those that new ones get.
    """

    def __init__(self, replicas: int) -> None:
        self._level = np.zeros(_ROOM)
        self._count = np.zeros(_ROOM)
        self._serving = self._leaving = 0
        self.held = 0.0
        """Requests at the gateway while no replica serves."""
        if replicas:
            self.add(replicas)

    @property
    def replicas(self) -> int:
        """Those that serve."""
        return round(float(self._count[: self._serving].sum()))

    @property
    def unfinished(self) -> float:
        """Requests that run or wait, on leaving replicas and at the gateway too."""
        return unfinished_at(self._level, self._count, self.held)

    def look(self, limit: float) -> tuple[float, float, float]:
        """Return unfinished requests, those that run, and the unfinished ones of the fullest serving replica.

        Leaving replicas count, but for the last figure. `limit`: sequences that a replica runs at once.
        """
        return look_at(self._level, self._count, self._serving, self.held, limit)

    def add(self, replicas: int) -> None:
        """Let new replicas serve; they get what the gateway holds."""
        self._insert(self._serving, self.held / replicas, replicas)
        self._serving += 1
        self.held = 0.0

    def leave(self, replicas: int) -> list[tuple[float, int]]:
        """Give the newest replicas nothing new; return their levels and how many have it."""
        left: list[tuple[float, int]] = []
        while replicas and self._serving:
            last = self._serving - 1
            level, count = float(self._level[last]), min(replicas, round(float(self._count[last])))
            self._count[last] -= count
            if self._count[last] < 0.5:
                self._remove(last)
                self._serving -= 1
            self._insert(self._serving + self._leaving, level, count)
            self._leaving += 1
            left.append((level, count))
            replicas -= count
        return left

    def forget(self, number: int) -> float:
        """Replicas that left, the group of this number in the order in which they did, are gone.

        Return what they had not finished.
        """
        place = self._serving + number
        lost = float(self._level[place] * self._count[place])
        self._remove(place)
        self._leaving -= 1
        return lost

    def advance(
        self, rate: float, base: float, slope: float, output: float, limit: float, seconds: float
    ) -> tuple[float, float, float]:
        """Play some seconds: `advance_fleet`. While no replica serves the level is infinite, and what comes is held."""
        self._serving, self.held, seen, unfinished, running = advance_fleet(
            self._level, self._count, self._serving, self._leaving, self.held, rate, base, slope, output, limit,
            seconds,
        )  # fmt: skip
        return seen, unfinished, running

    def play(
        self, replicas: int, table: Floats, step: float, number: int, now: float, until: float, since: Floats,
        seen: Floats, newest: float,
    ) -> tuple[int, float, float]:  # fmt: skip
        """Play a load: `play_until`. Return the step, the time and the newest level."""
        number, now, self._serving, self.held, newest = play_until(
            self._level, self._count, self._serving, self._leaving, self.held, replicas, table, step, number, now,
            until, since, seen, newest,
        )  # fmt: skip
        return number, now, newest

    def _insert(self, place: int, level: float, count: int) -> None:
        if self._count[-1] > 0:
            room = np.zeros(len(self._level))
            self._level, self._count = np.append(self._level, room), np.append(self._count, room)
        for values, value in ((self._level, level), (self._count, float(count))):
            values[place + 1 :] = values[place:-1].copy()
            values[place] = value

    def _remove(self, place: int) -> None:
        for values in (self._level, self._count):
            values[place:-1] = values[place + 1 :].copy()
            values[-1] = 0.0
