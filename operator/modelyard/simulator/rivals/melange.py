"""Melange: a static size from the load of each class of requests.

Sources: https://arxiv.org/abs/2404.14527 and tyler-griggs/melange-release melange/solver.py: a request's load is 1 over
the rate that one GPU answers of its size within the objective of the time per token; the loads on a GPU type sum to at
most its count; the mix that costs least is an integer program.

With one variant the program has one column: its solution is the sum of the loads, rounded up, whatever the slices. It
has no time axis, so the rate is an input: the mean of the trace (documented), or its peak. It assumes that the router
sends requests as the program says. Output lengths are those of the trace: it is sized for a known distribution.
"""

from dataclasses import dataclass

import numpy as np

from modelyard.core.load import LoadShape
from modelyard.simulator.rivals.common import best_rate, round_up
from modelyard.simulator.rivals.static import Basis, Static, mean_rate, peak_rate
from modelyard.simulator.scenario import Scenario


@dataclass(frozen=True, slots=True)
class MelangeSettings:
    """The rate that is sized for."""

    basis: Basis = "mean"
    overprovision: float = 1.0
    """Times that rate."""


def melange(name: str, scenario: Scenario, settings: MelangeSettings) -> Static:
    """Return the fixed size."""
    rate = mean_rate(scenario.arrivals) if settings.basis == "mean" else peak_rate(scenario.arrivals)
    return Static(name, scenario, round_up(rate * settings.overprovision * load_per_request(scenario)))


def load_per_request(scenario: Scenario) -> float:
    """Return the mean load of the trace's requests, in replicas per request and second.

    Classes are powers of two of input and output tokens; each is profiled at its mean request. The first token has no
    objective in Melange.
    """
    arrivals = scenario.arrivals
    if not len(arrivals):
        return 0.0
    # One number for each class, ordered as its two are; requests stay in their order within a class.
    inputs_class, outputs_class = (
        np.floor(np.log2(np.maximum(tokens, 1))).astype(np.int16)
        for tokens in (arrivals.input_tokens, arrivals.output_tokens)
    )
    member = inputs_class * np.int16(64) + outputs_class
    order = np.argsort(member, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(member[order])) + 1)
    load = 0.0
    for chosen in classes:
        inputs = float(np.mean(arrivals.input_tokens[chosen]))
        cached = float(np.mean(arrivals.cached_tokens[chosen])) / max(inputs, 1.0)
        shape = LoadShape(inputs, float(np.mean(arrivals.output_tokens[chosen])), cached)
        rate = best_rate(scenario.engine, shape, np.inf, scenario.objective.inter_token)
        load += len(chosen) / rate
    return load / len(arrivals)
