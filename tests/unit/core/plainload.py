"""A load policy whose arithmetic is plain, for tests of what follows from a size."""

import math

from modelyard.core.scaling.attainment import MissPolicy
from modelyard.core.scaling.forecast import ForecastPolicy
from modelyard.core.scaling.headroom import HeadroomPolicy
from modelyard.core.scaling.rule import LoadPolicy

PLAIN_LOAD = LoadPolicy(
    forecast=ForecastPolicy(fast=0.1, slow=0.2, significance=1e20, dispersion=1e-30),
    headroom=HeadroomPolicy(deviation=1e-15, prior=1e30, missed=0.001, lowest=0.001, highest=0.001),
    misses=MissPolicy(at_capacity=0.1, spread=0.2 / math.log(100.0)),
    drain_time=math.inf,
)
"""The newest rate, without bursts, errors or a term for what waits. A thousandth of the requests is missed at a
utilisation of 0.8, which is what is planned with, whatever is missed."""
