"""What is simulated: requests, engines, times and objective. Plain values; `run.py` plays them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modelyard.core.perf.step import StepTime

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests, sorted by time. All arrays have the same length."""

    time: Floats
    """Seconds from the start."""
    input_tokens: Integers
    output_tokens: Integers
    cached_tokens: Integers
    """Input tokens that a prefix cache would have; 0 where the trace does not say."""
    duration: float
    """Seconds that the trace covers."""
    name: str = ""

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, slots=True)
class Engine:
    """One replica's engine."""

    step: StepTime
    cache_tokens: int
    """Tokens that all running sequences may hold."""
    max_sequences: int = 256
    max_batched_tokens: int = 8192
    """Tokens of one step, prefill chunks included."""
    context_length: int | None = None
    """Tokens of the longest request that it takes, prompt and answer; None: only the cache limits them."""


@dataclass(frozen=True, slots=True)
class StartTime:
    """Seconds from the decision to a replica that serves: log-normal around the median."""

    median: float = 120.0
    spread: float = 0.1
    """Standard deviation of the logarithm. 0: always the median."""
    provision: float = 0.0
    """Seconds that a new node takes before, where one is needed."""
    image_pull: float = 0.0
    """Seconds that a node takes to pull the engine's image before, where it has not had a replica yet."""

    @property
    def longest(self) -> float:
        """Seconds of a median start on a new node."""
        return self.median + self.provision + self.image_pull


@dataclass(frozen=True, slots=True)
class Objective:
    """When a request has been answered well. A request that is refused or abandoned has not."""

    first_token_base: float = 1.0
    """Seconds."""
    first_token_per_input_token: float = 0.0005
    """Seconds per prompt token."""
    inter_token: float = 0.040
    """Seconds, mean over the answer."""


@dataclass(frozen=True, slots=True)
class Disturbances:
    """What goes wrong on the way."""

    reading_delay: float = 0.0
    """Seconds by which what a policy sees is old."""
    lost_readings: tuple[tuple[float, float], ...] = ()
    """Intervals (start, end) in seconds in which no reading comes."""
    abandon_after: float | None = None
    """Seconds that a client waits for the first token; None: for ever."""
    retries: int = 0
    """Times that a client asks again after it gave up."""
    spot_losses: tuple[tuple[float, int], ...] = ()
    """Times in seconds, and how many replicas are taken away then at once."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One deployment of one variant under one load."""

    name: str
    arrivals: Arrivals
    engine: Engine
    capacity: float
    """Requests per second that one replica answers within the objective at the trace's mean request."""
    minimum: int = 1
    maximum: int = 1000
    initial: int = 1
    """Replicas that serve at time 0."""
    start: StartTime = field(default_factory=StartTime)
    drain: float = 120.0
    """Seconds that a leaving replica may finish its requests; it is billed until it is gone."""
    price: float = 1.0
    """US dollars per replica and hour."""
    objective: Objective = field(default_factory=Objective)
    disturbances: Disturbances = field(default_factory=Disturbances)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Signals:
    """What a policy may look at: what the gateway, the engines and the cluster show at one moment.

    Means and rates are over the time since the policy's last look, unless they say otherwise.
    """

    time: float
    """Seconds from the start."""
    elapsed: float
    """Seconds since the last look."""
    ready: int
    """Replicas that serve."""
    pending: int
    """Replicas that start."""
    arrivals: int
    """Requests that came since the last look, counted at the gateway before any queue."""
    arrived_input_tokens: int
    arrived_output_tokens: int
    """Output tokens of what came: only known later in reality; for policies whose rule assumes a perfect predictor."""
    completions: int
    completed_input_tokens: int
    completed_output_tokens: int
    running: float
    """Sequences that run now, over all replicas."""
    waiting: float
    """Requests that wait now, in engines and at the gateway."""
    gateway_waiting: float
    """Those of them that wait at the gateway because no replica serves."""
    cache_usage: float
    """Share of the cache in use now, mean over the replicas that serve, 0 to 1."""
    cache_usage_max: float
    tokens_held: float
    """Tokens that running sequences hold now, over all replicas."""
    mean_running: float
    """Time average of running sequences since the last look, over all replicas."""
    mean_waiting: float
    busy: float
    """Share of the time in which an engine ran a step: what GPU utilisation shows. Mean over replicas."""
    first_token_p90: float | None
    """Seconds, of the requests whose first token came since the last look; None: there was none."""
    inter_token_p90: float | None
    inter_token_mean: float | None
    first_token_mean: float | None
    missed: float | None = None
    """Of the completions since the last look, those outside the objective, as an engine's page tells; None: not known.

    A page counts first tokens that were later than the limit at the mean prompt, and answers that were slower than
    theirs, but not which answer was both.
    """
    known: bool = True
    """False: no reading came; every figure is that of the last one."""


class ScalingPolicy(Protocol):
    """A rule that decides how many replicas there should be. One object for one run: it may remember."""

    @property
    def name(self) -> str:
        """Name in reports."""

    @property
    def interval(self) -> float:
        """Seconds between two decisions."""

    def decide(self, signals: Signals) -> int:
        """Return the replicas wanted, starting ones included."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    policy: str
    scenario: str
    seed: int
    requests: int
    attained: int
    """Requests answered within the objective."""
    refused: int
    abandoned: int
    completed: int
    replica_seconds: float
    """Billed: from the decision to start a replica until it is gone."""
    cost: float
    """US dollars."""
    cold_starts: int
    reversals: int
    """Changes of direction within one start time."""
    time: Floats
    """Seconds, one sample per 10 s of the run."""
    ready: Integers
    """Replicas that serve, at those times."""
    wanted: Integers
    arrival_rate: Floats
    attained_share: Floats
    """Share of the requests that arrived in each sample and were answered within the objective; NaN without any."""
    first_token: Floats
    """Seconds, quantiles 0.5, 0.9, 0.95, 0.99 over all requests that got one."""
    inter_token: Floats
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Decisions by reason code, where the policy gives any."""

    @property
    def attainment(self) -> float:
        """Share of the requests that were answered within the objective; 1 without any."""
        return self.attained / self.requests if self.requests else 1.0
