"""From a deployment and the variant chosen for it to a scenario, and a run that keeps its decisions."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import bisect

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.api.quantities import parse_duration
from modelyard.core.choice import find_objective
from modelyard.core.load import LoadShape
from modelyard.core.load import Objective as LoadObjective
from modelyard.core.perf.predict import sustainable
from modelyard.core.perf.step import StepTime
from modelyard.core.plan import Size
from modelyard.core.report.settle import StatedLoad
from modelyard.core.scaling.schedules import bounds_at
from modelyard.core.variants import Variant
from modelyard.simulator.loadstats import PEAK_WINDOW, peak_rate
from modelyard.simulator.modelyard import EPOCH, ModelyardPolicy
from modelyard.simulator.rivals.catalogue import RIVALS, rival
from modelyard.simulator.rivals.common import mean_shape
from modelyard.simulator.run import run
from modelyard.simulator.scenario import (
    Arrivals,
    Disturbances,
    Engine,
    Objective,
    Outcome,
    ScalingPolicy,
    Scenario,
    Signals,
    StartTime,
)
from modelyard.simulator.wrapper import PolicyWrapper

OWN = "modelyard"
"""The policy that is the cluster's own decision."""
POLICIES: tuple[str, ...] = (OWN, *(known.name for known in RIVALS))

SPEED_UNKNOWN = "SpeedUnknown"
"""Reason of a deployment whose engine cannot be simulated."""

LARGEST_CORRECTION = 10.0
"""Times that the step-time model is slowed down or sped up at most to meet a declared capacity. The model's error is a
few tenths: ten times is a declaration of something else, such as another unit or another length of requests."""

Watch = Callable[[float], None]
"""Is told the time of the run, seconds, as it proceeds."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What does not follow from the manifests."""

    seed: int = 0
    start_time: float | None = None
    """Median seconds that a start takes; None: what the decision assumes of the variant."""
    disturbances: Disturbances = field(default_factory=Disturbances)
    """What goes wrong on the way."""
    image_pull: float = 0.0
    """Seconds that a node takes to pull the engine's image, where it has not had a replica yet."""
    utilization: float = 0.8
    """Share of a replica's capacity that is planned with: for the replicas at the start."""
    room: int | None = None
    """Replicas that the nodes have room for; None: not known."""
    begins: float = EPOCH
    """Unix time at which the traffic begins: schedules follow it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A deployment as it is simulated."""

    deployment: LLMDeployment
    variant: Variant
    scenario: Scenario
    """Its price is 0 where that of the variant is not known."""
    notes: tuple[str, ...] = ()
    begins: float = EPOCH
    """Unix time of the run's second 0."""


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that changed the size."""

    time: float
    """Seconds from the start."""
    before: int
    after: int
    reason: str = ""
    """Reason code; empty for a policy that gives none."""
    message: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What it was worked out from, by name, where the policy says so."""


@dataclass(frozen=True, slots=True)
class Played:
    """What came of one policy on one subject."""

    outcome: Outcome
    changes: tuple[Change, ...]


def plan_load(arrivals: Arrivals) -> StatedLoad:
    """Return the load for which the variant is chosen: the trace's mean request at its peak rate."""
    return StatedLoad(mean_shape(arrivals), peak_rate(arrivals) * 60, "File")


def build_subject(
    deployment: LLMDeployment, variant: Variant, arrivals: Arrivals, options: RunOptions
) -> Subject | Refusal:
    """Return the scenario of a deployment on one variant, or why it cannot be simulated."""
    engine = _build_engine(deployment, variant)
    if isinstance(engine, Refusal):
        return engine
    notes = [*_notes(deployment, variant, options), *_too_long(engine, arrivals)]
    if variant.speed is None:
        engine, note = _match_declared(
            engine, variant.capacity, mean_shape(arrivals), find_objective(deployment)
        )
        notes.append(note)
    minimum, maximum = _bounds(deployment)
    first = _first_bounds(deployment, options.begins)
    wanted = find_objective(deployment)
    scenario = Scenario(
        name=deployment.key,
        arrivals=arrivals,
        engine=engine,
        capacity=variant.capacity,
        minimum=minimum,
        maximum=maximum,
        initial=_initial(arrivals, variant.capacity * options.utilization, *first),
        start=StartTime(
            median=variant.start_time if options.start_time is None else options.start_time,
            provision=_provisioning(variant, maximum, options.room),
            image_pull=options.image_pull,
        ),
        drain=float(parse_duration(deployment.spec.rollout.drain_timeout)),
        price=float(variant.price or 0),
        objective=Objective(wanted.time_to_first_token, 0.0, wanted.inter_token_latency),
        disturbances=options.disturbances,
        seed=options.seed,
    )
    return Subject(deployment, variant, scenario, tuple(notes), options.begins)


def play(subject: Subject, policy: str, watch: Watch | None = None) -> Played:
    """Run a subject under a policy of POLICIES; the same subject and policy give the same."""
    recorder = Recorder(make_policy(policy, subject), subject.scenario, watch)
    return Played(run(subject.scenario, recorder), tuple(recorder.changes))


def make_policy(name: str, subject: Subject) -> ScalingPolicy:
    """Return a new policy with its documented settings; our own follows the spec's objective, idleAfter and schedules.

    Raises KeyError for a name that is not in POLICIES.
    """
    if name != OWN:
        return rival(name).policy(subject.scenario)
    return ModelyardPolicy(
        subject.scenario,
        scaling=subject.deployment.spec.scaling,
        begins=subject.begins,
        subject=(subject.deployment, subject.variant),
    )


class Recorder(PolicyWrapper):
    """A policy that does what another does, and keeps what it changed and why."""

    def __init__(self, policy: ScalingPolicy, scenario: Scenario, watch: Watch | None = None) -> None:
        super().__init__(policy)
        self._scenario = scenario
        self._watch = watch
        self._wanted = scenario.initial
        self.changes: list[Change] = []

    def decide(self, signals: Signals) -> int:
        """Return what the policy wants."""
        wanted = super().decide(signals)
        bounded = max(self._scenario.minimum, min(self._scenario.maximum, wanted))
        if bounded != self._wanted and signals.time <= self._scenario.arrivals.duration:
            message = str(getattr(self._policy, "message", None) or describe_signals(signals))
            size = getattr(self._policy, "size", None)
            numbers = dict(size.numbers) if isinstance(size, Size) else {}
            self.changes.append(Change(signals.time, self._wanted, bounded, self.reason, message, numbers))
        self._wanted = bounded
        if self._watch is not None:
            self._watch(min(signals.time, self._scenario.arrivals.duration))
        return wanted


def describe_signals(signals: Signals) -> str:
    """Return in a line what a policy saw that does not say itself why it decides as it does."""
    rate = signals.arrivals / signals.elapsed if signals.elapsed > 0 else 0.0
    seen = (
        f"{rate:.2f} requests/s came, {signals.running:.0f} run, {signals.waiting:.0f} wait, {signals.ready} serve, "
        f"{signals.pending} start, cache {signals.cache_usage:.0%}, busy {signals.busy:.0%}"
    )
    return seen if signals.known else f"no reading; the last one: {seen}"


def answered_tokens(outcome: Outcome, arrivals: Arrivals) -> float:
    """Return input and output tokens of the requests that were answered, taken at the trace's mean request."""
    total = float(np.sum(arrivals.input_tokens) + np.sum(arrivals.output_tokens))
    return total * outcome.completed / outcome.requests if outcome.requests else 0.0


def _build_engine(deployment: LLMDeployment, variant: Variant) -> Engine | Refusal:
    fit, step = variant.fit, variant.prior
    if fit is None:
        source = deployment.spec.model.source
        return Refusal(
            SPEED_UNKNOWN,
            f"{variant.label}: the speed of {source} on it is not known, so that it cannot be simulated: set "
            "model.profile in the spec, or memory, memoryBandwidth and throughput in its AcceleratorClass",
        )
    if step is None:
        name = variant.accelerator.metadata.name
        return Refusal(
            SPEED_UNKNOWN,
            f"{variant.label}: memoryBandwidth and throughput of class {name} are not known, so that it cannot be "
            "simulated: set them in its AcceleratorClass",
        )
    engine = Engine(step, fit.cache_tokens, context_length=fit.context_length)
    tokens = fit.settings.max_batched_tokens or engine.max_batched_tokens
    sequences = min(fit.settings.max_sequences or engine.max_sequences, tokens)
    return replace(engine, max_sequences=sequences, max_batched_tokens=tokens)


def _match_declared(
    engine: Engine, declared: float, shape: LoadShape, objective: LoadObjective
) -> tuple[Engine, str]:
    """Return the engine that answers the declared requests per second within the objective, and a note on it.

    The whole step-time model is slowed down or sped up: what one replica answers was measured, how it splits into
    steps was not.
    """

    def corrected(factor: float) -> StepTime:
        return engine.step.scaled(factor, factor, 0.0, 0.0)

    def excess(factor: float) -> float:
        step = corrected(factor)
        found = sustainable(step, shape, objective, engine.cache_tokens, engine.max_sequences)
        return found.requests_per_second - declared

    modelled = sustainable(engine.step, shape, objective, engine.cache_tokens, engine.max_sequences)
    told = (
        f"the step-time model, its error included, gives {modelled.requests_per_second * 60:.0f} requests a minute and "
        "replica"
    )
    low, high = 1 / LARGEST_CORRECTION, LARGEST_CORRECTION
    if excess(low) < 0 or excess(high) > 0:
        return engine, (
            f"{told}, too far from the declared {declared * 60:.0f} to be the same engine: the decision follows the "
            "declaration, the simulated engine the model; check requestsPerMinute"
        )
    factor = float(bisect(excess, low, high, xtol=1e-4))
    return replace(engine, step=corrected(factor)), (
        f"{told}: its steps are taken {factor:.2f} times as long, so that it answers the declared {declared * 60:.0f}"
    )


def _bounds(deployment: LLMDeployment) -> tuple[int, int]:
    """Return the widest bounds: what any of the schedules allows must be possible."""
    scaling = deployment.spec.scaling
    if scaling is not None:
        return scaling.lowest_min, scaling.highest_max
    fixed = deployment.spec.replicas or 0
    return fixed, fixed


def _first_bounds(deployment: LLMDeployment, begins: float) -> tuple[int, int]:
    """Return the bounds in force when the traffic begins."""
    scaling = deployment.spec.scaling
    if scaling is None:
        return _bounds(deployment)
    bounds = bounds_at(scaling, begins)
    return bounds.min, bounds.max


def _initial(arrivals: Arrivals, each: float, minimum: int, maximum: int) -> int:
    """Return the replicas that the load of the first minutes needs: the simulation begins in the midst of things."""
    first = min(PEAK_WINDOW, arrivals.duration)
    rate = float(np.searchsorted(arrivals.time, first)) / first
    return min(max(math.ceil(rate / each - 1e-9), minimum), maximum)


def _provisioning(variant: Variant, maximum: int, room: int | None) -> float:
    """Return the seconds that a new node takes, 0 where the nodes that there are suffice or no such time is stated."""
    stated = variant.accelerator.spec.provision_time
    if stated is None or (room is not None and room >= maximum):
        return 0.0
    return float(parse_duration(stated))


def _notes(deployment: LLMDeployment, variant: Variant, options: RunOptions) -> Iterator[str]:
    spec = deployment.spec
    if spec.suspend:
        yield ("suspend is true: simulated as if it were false")
    if spec.scaling is None:
        yield ("replicas is a fixed number: no policy changes it")
    elif spec.scaling.mode == "Advise":
        yield ("scaling.mode is Advise: simulated as if its advice were followed")
    elif spec.scaling.actuator == "External":
        yield ("scaling.actuator is External: simulated as if Modelyard set the size")
    if variant.spot or spec.placement.spot is not None:
        runs = "as if all of it were" if variant.spot else "as if none of it were"
        losses = "" if options.disturbances.spot_losses else "; --spot-loss says when replicas are taken away"
        yield (f"placement.spot is set: simulated {runs} spot capacity{losses}")
    if variant.price is None:
        name = variant.accelerator.metadata.name
        yield (f"the price of class {name} is not known: set spec.price in its AcceleratorClass")


def _too_long(engine: Engine, arrivals: Arrivals) -> Iterator[str]:
    """Yield a note if some requests are longer than the engine takes."""
    longest = min(engine.cache_tokens, engine.context_length or engine.cache_tokens)
    count = int(np.count_nonzero(arrivals.input_tokens + arrivals.output_tokens > longest))
    if count:
        yield (
            f"{count:,} of {len(arrivals):,} requests are refused: prompt and answer have more than the {longest:,} "
            "tokens that the engine takes; model.contextLength raises that where memory allows"
        )
