"""How a fleet answers a load that is taken as a flow, and which share of it attains the objective.

What is unfinished grows by what comes and shrinks by what a replica answers at its batch, after the engine's
step-time model. How many of the requests of a moment attain the objective follows from the latency between tokens that
the flow has then, by a curve measured in request-level runs: it holds what a flow cannot know, the spread of single
requests around it. Bursts are drawn with the variance and the correlation that request-level arrivals have.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from modelyard.simulator.fluidlevels import Levels, MixedLoad, Pace, measure_mix, pace
from modelyard.simulator.fluidload import FLUID_STEP, FluidLoad, to_fluid
from modelyard.simulator.loadstats import PEAK_WINDOW, count_per_window
from modelyard.simulator.scenario import Arrivals, Engine, Floats, Integers, Objective, Outcome

_KNOTS = 40
"""Points of a curve of attainment for each of two spacings: shares apart, and misses a factor apart."""
_FEWEST_MISSES = 1e-4
"""Share of misses above which a curve of attainment is drawn in full."""
_LOST = 1.5
"""Latency over the objective's from which a fleet cannot carry its load."""
_RECOVERED = 0.9
"""Share of requests that attain from which a fleet carries its load again."""
_HOPELESS = 3.0
"""Latency over the objective's at which no request attains."""


def levels_seen(load: FluidLoad, speed: Pace, replicas: Integers) -> Floats:
    """Return the unfinished requests at the replica that requests of each step come to, with so many replicas."""
    result = np.empty(len(load))
    levels = Levels(0)
    for at in range(len(load)):
        more = int(replicas[at]) - levels.replicas
        if more > 0:
            levels.add(more)
        for _ in levels.leave(max(-more, 0)):
            levels.forget(0)
        result[at] = levels.advance(
            load.rate[at], speed.base[at], speed.slope[at], speed.output[at], speed.limit[at], load.step
        )[0]
    return result


@dataclass(frozen=True, slots=True)
class AttainmentCurve:
    """Share of requests that attain, by the latency of a slow request in the flow over the objective's.

    The latency between tokens (`Pace.slow_latency`). So one curve holds for loads of short answers, whose latencies
    spread widely, and of long ones.
    """

    ratio: Floats
    """Rising."""
    share: Floats
    """Falling."""

    def __call__(self, ratio: Floats | float) -> Floats:
        """Return the share at some ratios; below the first and above the last that of those."""
        share: Floats = np.interp(np.atleast_1d(ratio), self.ratio, self.share)
        return share


def fit_curve(
    engine: Engine, objective: Objective, runs: Iterable[tuple[FluidLoad, Outcome]]
) -> AttainmentCurve:
    """Fit the curve to request-level runs: each with its load in steps of ten seconds, the samples of an outcome.

    The falling curve that is nearest to the samples' shares, weighed by their requests (isotonic regression). Once a
    fleet cannot carry its load, samples do not count until it does again, in the run and in the flow: small errors add
    up to a backlog that ends earlier in one than in the other, and a sample would be held against another's load.
    Raises ValueError without any sample.
    """
    ratios, shares, weights = [], [], []
    for load, outcome in runs:
        steps = min(len(load), len(outcome.time))
        part = _first_steps(load, steps)
        speed = pace(engine, part)
        seen_level = levels_seen(part, speed, outcome.ready[:steps])
        ratio, share = speed.slow_latency(seen_level) / objective.inter_token, outcome.attained_share[:steps]
        seen = (part.rate > 0) & np.isfinite(ratio) & ~np.isnan(share)
        seen[seen] = _comparable(ratio[seen], share[seen])
        ratios.append(ratio[seen])
        shares.append(share[seen])
        weights.append(part.rate[seen])
    if not any(len(part) for part in ratios):
        raise ValueError("no request-level run has a sample to fit the curve to")
    # Samples of a load that is far too high need not be among those that count.
    ratios, shares, weights = [*ratios, np.array([_HOPELESS])], [*shares, np.zeros(1)], [*weights, np.ones(1)]
    ratio, share, weight = (np.concatenate(parts) for parts in (ratios, shares, weights))
    order = np.argsort(ratio, kind="stable")
    fitted = isotonic_regression(share[order], weights=weight[order], increasing=False).x
    # Near the target a small change of latency counts; there the misses are close, further down the shares.
    missed = np.concatenate([np.geomspace(_FEWEST_MISSES, 1.0, _KNOTS), np.linspace(0.0, 1.0, _KNOTS)])
    knots = np.unique(
        np.append(np.searchsorted(1 - fitted, missed), [0, len(order) - 1]).clip(0, len(order) - 1)
    )
    return AttainmentCurve(ratio[order][knots], fitted[knots])


def _comparable(ratio: Floats, share: Floats) -> NDArray[np.bool_]:
    """Say which samples count: those from a recovery on up to the first that the fleet cannot carry."""
    counts = np.empty(len(ratio), dtype=np.bool_)
    carried = True
    for number in range(len(ratio)):
        lost = ratio[number] > _LOST or share[number] < 0.5
        carried = carried or bool(ratio[number] < 1.0 and share[number] >= _RECOVERED)
        counts[number] = carried
        carried = carried and not lost
    return counts


@dataclass(frozen=True, slots=True)
class Bursts:
    """How the rate of ten seconds spreads around the mean of its ten minutes, beyond what Poisson arrivals show."""

    cv: float
    """Standard deviation over mean."""
    correlation: float
    """Between one step of ten seconds and the next."""

    def factors(self, count: int, seed: int) -> Floats:
        """Return factors of mean 1 for the rates of so many steps: log-normal, autoregressive."""
        if self.cv == 0:
            return np.ones(count)
        variance = math.log1p(self.cv**2)
        noise = np.random.default_rng([seed, 3]).standard_normal(count) * math.sqrt(1 - self.correlation**2)
        level = np.empty(count)
        level[0] = noise[0] / math.sqrt(1 - self.correlation**2)
        for number in range(1, count):
            level[number] = self.correlation * level[number - 1] + noise[number]
        return np.exp(math.sqrt(variance) * level - variance / 2)


def measure_bursts(arrivals: Arrivals) -> Bursts:
    """Measure bursts on request-level arrivals; stretches of ten minutes count by their requests.

    Raises ValueError for a trace that is shorter than ten minutes or empty.
    """
    per_stretch = round(PEAK_WINDOW / FLUID_STEP)
    counts = count_per_window(arrivals, FLUID_STEP)
    table = counts[: len(counts) // per_stretch * per_stretch].reshape(-1, per_stretch)
    if not table.any():
        raise ValueError(f"{arrivals.name or 'the trace'} has no requests in whole stretches of ten minutes")
    mean = table.mean(axis=1, keepdims=True)
    deviation = table - mean
    busy = mean[:, 0] > 0
    weight = mean[busy, 0]
    variance = np.average((table.var(axis=1, ddof=1)[busy] - weight) / weight**2, weights=weight)
    together = (deviation[:, 1:] * deviation[:, :-1]).mean(axis=1)[busy] / weight**2
    if variance <= 0:
        return Bursts(0.0, 0.0)
    correlation = float(np.average(together, weights=weight) / variance)
    return Bursts(float(math.sqrt(variance)), min(max(correlation, 0.0), 0.99))


def add_bursts(load: FluidLoad, bursts: Bursts, seed: int) -> FluidLoad:
    """Return the load with bursts and the chance of Poisson arrivals: whole requests in each step."""
    chance = np.random.default_rng([seed, 4])
    counts = chance.poisson(load.rate * bursts.factors(len(load), seed) * load.step)
    return replace(load, rate=counts / load.step)


def _first_steps(load: FluidLoad, steps: int) -> FluidLoad:
    return replace(
        load,
        rate=load.rate[:steps],
        input_tokens=load.input_tokens[:steps],
        output_tokens=load.output_tokens[:steps],
    )


def flow_of(arrivals: Arrivals) -> MixedLoad:
    """Return arrivals in steps of ten seconds, those of a last part of a step left out."""
    load = to_fluid(arrivals, FLUID_STEP)
    return MixedLoad(
        load.step, load.rate, load.input_tokens, load.output_tokens, load.name, measure_mix(arrivals)
    )
