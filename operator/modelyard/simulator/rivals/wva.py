"""The Workload Variant Autoscaler of llm-d: saturation V1, and V2 on tokens. The P90 path is in `eppsaturation.py`.

Sources: llm-d/llm-d-autoscaling (formerly llm-d-workload-variant-autoscaler): internal/saturationv1/analyzer.go,
internal/engines/analyzers/saturation_v2/analyzer.go, internal/engines/saturation/engine_v2.go (thresholds),
internal/engines/pipeline/analyzer_helpers.go (whole replicas), internal/collector/registration/saturation.go (1-minute
maxima, 5-minute means), config/base/manager (15 s and the figures below), config/samples/hpa/annotations/hpa.yaml.

There is one variant here, so choosing the cheapest or dearest falls away, as do roles (prefill, decode). The signals
say nothing of single replicas: load counts as spread evenly over those that are ready. The count goes through the
sample's HPA behaviour without the HPA's tolerance of 10 %: with it, one replica more than ten would never be written.
"""

from collections import deque
from dataclasses import dataclass

from modelyard.core.load import LoadShape
from modelyard.simulator.rivals.common import PublishedRule, Window, round_down, round_up
from modelyard.simulator.rivals.hpa import Behaviour, Limit, Normalizer
from modelyard.simulator.scenario import Engine, Scenario, Signals

INTERVAL = 15.0
"""Seconds between two decisions (GLOBAL_OPT_INTERVAL)."""

SATURATION_WINDOW = 60.0
"""Seconds over which the highest cache usage and queue count."""

SHAPE_WINDOW = 300.0
"""Seconds over which the mean request is measured."""

HISTORY = 10
"""Observed capacities that are averaged, for each class of answers (RollingAverageWindowSize)."""

SHORT_ANSWER, MEDIUM_ANSWER = 100, 500
"""Output tokens below which an answer is short, and medium."""

ACTUATION = Behaviour(0.0, 0.0, (Limit("pods", 10, 15),), (Limit("pods", 10, 15),))
"""Of the sample HPA."""

SAFE_REMOVAL = 2
"""Unsaturated replicas without which none is removed (MinNonSaturatedReplicasForScaleDown)."""


@dataclass(frozen=True, slots=True)
class WvaV1Settings:
    """When a replica is saturated, and how much must be spare on average."""

    cache_threshold: float = 0.80
    """Share of the cache."""
    queue_threshold: float = 5.0
    """Requests that wait in the replica."""
    cache_spare: float = 0.1
    queue_spare: float = 3.0


@dataclass(frozen=True, slots=True)
class WvaV2Settings:
    """When a replica is saturated, and between which utilisations nothing changes."""

    cache_threshold: float = 0.80
    queue_threshold: float = 5.0
    scale_up: float = 0.85
    scale_down: float = 0.70


class WvaV1(PublishedRule):
    """One replica more when too little is spare, one fewer when enough would remain; nothing while one starts."""

    def __init__(self, name: str, scenario: Scenario, settings: WvaV1Settings) -> None:
        super().__init__(name, INTERVAL, scenario, to_zero=False)
        self._settings = settings
        self._cache = Window(SATURATION_WINDOW)
        self._queue = Window(SATURATION_WINDOW)
        self._normalizer = Normalizer(self.minimum, self.maximum, ACTUATION)

    def desired(self, signals: Signals, replicas: int) -> int:
        """Decide on the last minute's maxima."""
        if signals.ready > 0:
            self._cache.add(signals.time, signals.cache_usage)
            self._queue.add(signals.time, _engine_queue(signals))
        step = 0 if signals.pending > 0 or signals.ready != replicas else self._step(replicas)
        return self._normalizer.apply(signals.time, replicas, replicas + step)

    def _step(self, replicas: int) -> int:
        settings = self._settings
        cache, queue = self._cache.largest, self._queue.largest
        saturated = cache >= settings.cache_threshold or queue >= settings.queue_threshold
        if saturated or self._short(cache, queue):
            return 1
        if replicas < SAFE_REMOVAL:
            return 0
        more = replicas / (replicas - 1)
        return 0 if self._short(cache * more, queue * more) else -1

    def _short(self, cache: float, queue: float) -> bool:
        """Whether too little is spare at that load."""
        settings = self._settings
        return (
            settings.cache_threshold - cache < settings.cache_spare
            or settings.queue_threshold - queue < settings.queue_spare
        )


class WvaV2(PublishedRule):
    """Tokens held and waiting against what a replica can hold: as many replicas at once as that takes.

    A replica's capacity is the smaller of its memory and of what it was seen to hold with a queue. Requests at the
    gateway count with their mean lengths; their bytes and the prefix cache's hits are not among the signals.
    """

    def __init__(self, name: str, scenario: Scenario, settings: WvaV2Settings) -> None:
        super().__init__(name, INTERVAL, scenario, to_zero=False)
        self._settings = settings
        self._engine = scenario.engine
        self._cache = Window(SATURATION_WINDOW)
        self._queue = Window(SATURATION_WINDOW)
        self._shape = CompletedShape()
        self._observed: dict[str, deque[float]] = {}
        self._normalizer = Normalizer(self.minimum, self.maximum, ACTUATION)

    def desired(self, signals: Signals, replicas: int) -> int:
        """Size for the demand of the last minute."""
        shape = self._shape.add(signals)
        held = queue = 0.0
        if signals.ready > 0:
            self._cache.add(signals.time, signals.cache_usage)
            self._queue.add(signals.time, _engine_queue(signals))
            held, queue = self._cache.largest * self._engine.cache_tokens, self._queue.largest
        capacity = self._capacity(shape, held, queue)
        request = shape.input_tokens + shape.output_tokens
        demand = signals.ready * (held + queue * request) + signals.gateway_waiting * request
        step = self._step(demand, capacity, signals.ready, replicas)
        return self._normalizer.apply(signals.time, replicas, replicas + step)

    def _step(self, demand: float, capacity: float, ready: int, replicas: int) -> int:
        required = demand / self._settings.scale_up - replicas * capacity
        if required > 0:
            return round_up(required / capacity)
        spare = ready * capacity - demand / self._settings.scale_down
        return -min(max(0, round_down(spare / capacity)), max(0, replicas - 1))

    def _capacity(self, shape: LoadShape, held: float, queue: float) -> float:
        memory = self._engine.cache_tokens * self._settings.cache_threshold
        return max(1.0, min(memory, self._computed(shape, held, queue, memory)))

    def _computed(self, shape: LoadShape, held: float, queue: float, memory: float) -> float:
        """Return the tokens at which computing limits: seen now, seen before, or estimated."""
        observed = self._observed.setdefault(_answers(shape.output_tokens), deque(maxlen=HISTORY))
        if queue >= self._settings.queue_threshold and held > 0:
            observed.append(held)
            return held
        if observed:
            return sum(observed) / len(observed)
        return derived_capacity(self._engine, shape) or memory


class CompletedShape:
    """The mean request of the last five minutes that had one, at completion; no tokens before the first."""

    def __init__(self) -> None:
        self._shape = LoadShape(0.0, 0.0)
        self._count, self._input, self._output = (Window(SHAPE_WINDOW) for _ in range(3))

    def add(self, signals: Signals) -> LoadShape:
        """Add what was completed since the last look, and return the mean."""
        self._count.add(signals.time, signals.completions)
        self._input.add(signals.time, signals.completed_input_tokens)
        self._output.add(signals.time, signals.completed_output_tokens)
        if self._count.total > 0:
            self._shape = LoadShape(
                self._input.total / self._count.total, self._output.total / self._count.total
            )
        return self._shape


def derived_capacity(engine: Engine, shape: LoadShape) -> float:
    """Return V2's estimate from the engine's arguments: sequences in the steady state, times what each holds."""
    if shape.output_tokens <= 0:
        return 0.0
    share = shape.output_tokens / (shape.input_tokens + shape.output_tokens)
    sequences = min(engine.max_batched_tokens * share, engine.max_sequences)
    return sequences * (shape.input_tokens + shape.output_tokens / 2)


def _engine_queue(signals: Signals) -> float:
    """Return the requests that wait in each ready replica."""
    return max(0.0, signals.waiting - signals.gateway_waiting) / signals.ready


def _answers(output_tokens: float) -> str:
    if output_tokens < SHORT_ANSWER:
        return "short"
    return "medium" if output_tokens < MEDIUM_ANSWER else "long"
