"""What warm pods teach about a variant's speed: factors on the prior, for the latencies between and to first tokens.

Each factor's logarithm is estimated by a scalar Kalman filter with forgetting
(https://en.wikipedia.org/wiki/Recursive_least_squares_filter): readings that disagree more than their spread allows
are clipped, and widen the uncertainty, so that a lasting change is followed and a single outlier is not.
"""

import math
from dataclasses import dataclass, replace

from modelyard.core.load import LoadShape
from modelyard.core.perf.step import StepTime

WARM_UP = 120.0
"""Seconds after Ready before a pod's readings count: a new pod's first steps compile and capture graphs, and taught
another planner a capacity that led it to overshoot (https://github.com/ai-dynamo/dynamo/issues/12430)."""
STALE = 300.0
"""Seconds after which a reading that arrives late no longer counts."""
LARGEST_FACTOR = 4.0
"""A factor stays within 1/4 and 4: beyond that the prior's inputs are wrong, not its efficiencies."""
LARGEST_STEP = 0.1
"""Change of a factor's logarithm by one reading, at most: about 10 %."""
READING_DEVIATION = 0.15
"""Relative standard deviation of one reading: the latency's scatter from minute to minute. Our assumption; the median
residual of the calibration's fits is 7 %."""
FLOOR = 0.05
"""The uncertainty never falls below this, however many readings: the shape of the model has errors of its own."""
FORGETTING = 0.97
"""Weight that an old reading keeps with each new one: about the last 33 count."""
CLIP = 2.5
"""Standard deviations at which a reading's surprise is clipped."""
Bounds = tuple[float, float]
BATCHES: Bounds = (1.0, 1e5)
"""Running sequences that a reading may give: while fewer than one runs, latencies say nothing about a batch."""
LATENCIES: Bounds = (1e-6, 1e5)
"""Seconds that a reading may give."""
LENGTHS: Bounds = (1.0, 1e8)
"""Tokens that a reading may give."""
SHAPE_CHANGE = 0.20
"""Relative change of the mean input or output length at which learning starts again; the same figure as in llm-d's
Workload Variant Autoscaler (https://github.com/llm-d/llm-d-autoscaling)."""
SHAPE_WEIGHT = 0.3
"""Weight of the newest reading in the recent mean lengths: one odd reading is not a change of traffic."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one warm pod showed over one interval."""

    time: float
    """Seconds, when the interval ended, on the clock of `now`."""
    warm_seconds: float
    """Seconds since the pod became Ready, or since its engine last restarted."""
    batch: float
    """Mean number of running sequences."""
    inter_token_latency: float
    """Seconds, mean."""
    time_to_first_token: float | None
    """Seconds, mean; None where requests queued before they were admitted, or none came."""
    input_tokens: float
    output_tokens: float
    cached_share: float = 0.0
    restarts: int = 0
    """Of the engine, within the interval."""


@dataclass(frozen=True, slots=True)
class Factor:
    """The estimate of one factor's logarithm."""

    logarithm: float
    variance: float

    @property
    def value(self) -> float:
        """The factor."""
        return math.exp(self.logarithm)

    def after(self, ratio: float, prior_variance: float) -> "Factor":
        """Return the estimate after a reading that is `ratio` times the prior."""
        noise = READING_DEVIATION**2
        variance = min(prior_variance, self.variance / FORGETTING)
        spread = variance + noise
        bound = CLIP * math.sqrt(spread)
        surprise = min(bound, max(-bound, math.log(ratio) - self.logarithm))
        # What the spread does not explain is doubt about the estimate; it decays as readings agree again.
        variance = min(prior_variance, variance + max(0.0, surprise**2 - spread) / 4)
        gain = variance / (variance + noise)
        change = min(LARGEST_STEP, max(-LARGEST_STEP, gain * surprise))
        limit = math.log(LARGEST_FACTOR)
        logarithm = min(limit, max(-limit, self.logarithm + change))
        return Factor(logarithm, (1 - gain) * variance)

    def uncertainty(self, prior: float) -> float:
        """One standard deviation, between the floor and the prior's own."""
        return min(prior, max(FLOOR, math.sqrt(self.variance)))


@dataclass(frozen=True, slots=True)
class SpeedMemory:
    """What has been learned of one variant."""

    prior: StepTime
    inter_token: Factor
    first_token: Factor
    readings: int = 0
    """Accepted since the last reset."""
    first_token_readings: int = 0
    since: float | None = None
    """When the first of them was made."""
    last: float | None = None
    """When the last of them was made."""
    usual: LoadShape | None = None
    """Mean lengths of the readings since the reset."""
    recent: LoadShape | None = None
    """Mean lengths with more weight on the newest."""
    refusal: str = ""
    """Why the last reading was refused; empty: it was accepted."""
    resets: int = 0
    error: float | None = None
    """Mean relative distance of readings between tokens from what was learned before them, with more weight on the
    newest; None: there were none."""
    first_token_error: float | None = None
    """The same to the first token."""

    def explain(self) -> str:
        """Say in a sentence what was learned."""
        kind = "calibrated" if self.prior.origin == "calibrated" else "estimated"
        if not self.readings or self.since is None or self.last is None:
            return f"nothing learned yet: the {kind} step time, +-{self.prior.uncertainty:.0%}"
        return (
            f"learned from {self.readings} reading{'s' if self.readings > 1 else ''} over "
            f"{(self.last - self.since) / 60:.0f} min: {self.inter_token.value:.2f}x the {kind} step time, "
            f"+-{self.inter_token.uncertainty(self.prior.uncertainty):.0%}"
        )


def remember(prior: StepTime) -> SpeedMemory:
    """Begin to learn about a variant."""
    return SpeedMemory(
        prior=prior,
        inter_token=Factor(0.0, prior.uncertainty**2),
        first_token=Factor(0.0, prior.first_token_uncertainty**2),
    )


def observe(memory: SpeedMemory, observation: Observation, now: float) -> SpeedMemory:
    """Take a reading into account, or say in `refusal` why not."""
    refusal = _refusal(memory, observation, now)
    if refusal:
        return replace(memory, refusal=refusal)
    shape = LoadShape(observation.input_tokens, observation.output_tokens, observation.cached_share)
    memory = _with_shape(memory, shape)
    prior = memory.prior
    expected = prior.inter_token_latency(shape, observation.batch)
    memory = replace(
        memory,
        inter_token=memory.inter_token.after(
            observation.inter_token_latency / expected, prior.uncertainty**2
        ),
        readings=memory.readings + 1,
        since=observation.time if memory.since is None else memory.since,
        last=observation.time,
        refusal="",
        error=_follow_error(memory.error, memory.inter_token, observation.inter_token_latency / expected),
    )
    if observation.time_to_first_token is None:
        return memory
    first = prior.time_to_first_token(shape, observation.batch)
    return replace(
        memory,
        first_token=memory.first_token.after(
            observation.time_to_first_token / first, prior.first_token_uncertainty**2
        ),
        first_token_readings=memory.first_token_readings + 1,
        first_token_error=_follow_error(
            memory.first_token_error, memory.first_token, observation.time_to_first_token / first
        ),
    )


def learned(step: StepTime, memory: SpeedMemory) -> StepTime:
    """Return the prior with what was learned; unchanged if nothing was, or if it was learned about another prior."""
    if memory.readings == 0 or memory.prior != step:
        return step
    return step.scaled(
        memory.inter_token.value,
        memory.first_token.value,
        memory.inter_token.uncertainty(step.uncertainty),
        memory.first_token.uncertainty(step.first_token_uncertainty),
    )


def _follow_error(error: float | None, known: Factor, ratio: float) -> float:
    """Return the mean error with a reading of `ratio` times the prior, which `known` had foretold."""
    distance = abs(ratio / known.value - 1)
    return distance if error is None else FORGETTING * error + (1 - FORGETTING) * distance


def _refusal(memory: SpeedMemory, observation: Observation, now: float) -> str:
    values: dict[str, tuple[float, Bounds]] = {
        "batch": (observation.batch, BATCHES),
        "inter-token latency": (observation.inter_token_latency, LATENCIES),
        "input tokens": (observation.input_tokens, LENGTHS),
        "output tokens": (observation.output_tokens, LENGTHS),
    }
    if observation.time_to_first_token is not None:
        values["time to first token"] = (observation.time_to_first_token, LATENCIES)
    for name, (value, (low, high)) in values.items():
        if not low <= value <= high:
            return f"{name} is not between {low:g} and {high:g}: {value}"
    if not 0 <= observation.cached_share <= 1:
        return f"cached share is not between 0 and 1: {observation.cached_share}"
    if observation.restarts > 0:
        return f"the engine restarted {observation.restarts} times within the interval"
    if not observation.warm_seconds >= WARM_UP:
        return f"the pod is warm for {observation.warm_seconds:.0f} s of {WARM_UP:.0f} s"
    if not 0 <= now - observation.time <= STALE:
        return f"the reading is {now - observation.time:.0f} s old, of {STALE:.0f} s at most"
    if memory.last is not None and observation.time < memory.last:
        return "an older reading than the last"
    return ""


def _with_shape(memory: SpeedMemory, shape: LoadShape) -> SpeedMemory:
    """Follow the mean lengths; begin again where they have moved."""
    if memory.usual is None or memory.recent is None:
        return replace(memory, usual=shape, recent=shape)
    recent = _mix(memory.recent, shape, SHAPE_WEIGHT)
    if _moved(memory.usual, recent):
        return replace(remember(memory.prior), usual=shape, recent=shape, resets=memory.resets + 1)
    return replace(memory, recent=recent, usual=_mix(memory.usual, shape, 1 / (memory.readings + 1)))


def _mix(old: LoadShape, new: LoadShape, weight: float) -> LoadShape:
    return LoadShape(
        (1 - weight) * old.input_tokens + weight * new.input_tokens,
        (1 - weight) * old.output_tokens + weight * new.output_tokens,
        (1 - weight) * old.cached_share + weight * new.cached_share,
    )


def _moved(usual: LoadShape, recent: LoadShape) -> bool:
    return any(
        abs(new / old - 1) > SHAPE_CHANGE
        for old, new in (
            (usual.input_tokens, recent.input_tokens),
            (usual.output_tokens, recent.output_tokens),
        )
    )
