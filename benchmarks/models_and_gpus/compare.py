"""What the operator works out for a pair, and for a public figure under the figure's own conditions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from benchmarks.models_and_gpus.pairs import Document, Figure, Pair, Quantity, Verdict
from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.models import find_model
from modelyard.catalog.quantization import FORMATS
from modelyard.core.cost import cost_per_million
from modelyard.core.fit import DoesNotFit, Fit, MemorySettings, Parallelism, check_fit, parallelisms
from modelyard.core.load import LoadShape, Objective
from modelyard.core.memory import GIB
from modelyard.core.perf.predict import Capacity, Performance, largest_capacity, predict
from modelyard.core.perf.prior import prior
from modelyard.core.perf.step import StepTime

SHAPE, OBJECTIVE = LoadShape(), Objective()
"""The operator's defaults: the load and the objective where none are stated."""

SPEEDS: tuple[Quantity, ...] = ("interTokenLatency", "timeToFirstToken", "requestLatency")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure, and what is worked out under its conditions."""

    figure: Figure
    ours: float | Verdict
    ratio: float | None
    """Ours divided by theirs; None: a verdict."""
    inside: bool
    """Within the tolerance; of a verdict: the same."""
    deviations: float | None
    """Of a time: by how many of its stated standard deviations it is off."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What a replica gives at its full use."""

    step: StepTime
    single: Performance
    """One request at a time, expected."""
    capacity: Capacity
    hourly: Decimal | None
    """US dollars; None: the catalogue has no price."""

    @property
    def per_million(self) -> Decimal | None:
        """US dollars per million tokens, those of prompts and answers alike."""
        tokens = SHAPE.input_tokens + SHAPE.output_tokens
        return cost_per_million(self.hourly, self.capacity.requests_per_second * tokens)


@dataclass(frozen=True, slots=True)
class Row:
    """A pair worked out."""

    pair: Pair
    name: str
    hardware: Hardware
    answer: Fit | DoesNotFit
    chosen: Fit
    """What speed and price are of: the answer, or what its first remedy leads to."""
    speed: Speed
    comparisons: tuple[Comparison, ...]

    @property
    def verdict(self) -> Verdict:
        """What is worked out, to be compared with what is expected."""
        return "fits" if isinstance(self.answer, Fit) else "refused"


def work_out(document: Document) -> list[Row]:
    """Work out every pair, in the order of the file."""
    return [_work_out(pair, document.tolerances) for pair in document.pairs]


def _work_out(pair: Pair, tolerances: Mapping[Quantity, float]) -> Row:
    model, hardware = find_model(pair.model), find_hardware(pair.accelerator)
    assert model is not None, pair.model
    assert hardware is not None, pair.accelerator
    way = parallelisms(model.profile, pair.count)[0]
    settings = MemorySettings(weights=FORMATS[pair.weights], context_length=pair.context)
    answer = check_fit(model.profile, settings, hardware, way)
    chosen: Fit | DoesNotFit = answer
    if isinstance(answer, DoesNotFit):
        remedy = answer.remedies[0]
        chosen = check_fit(model.profile, remedy.settings, hardware, remedy.parallelism)
    assert isinstance(chosen, Fit), pair
    return Row(
        pair=pair,
        name=model.name if model.name != "DeepSeek-V3" else "DeepSeek-R1",
        hardware=hardware,
        answer=answer,
        chosen=chosen,
        speed=_speed(chosen, hardware),
        comparisons=tuple(
            _compare(figure, model.profile, settings, hardware, way, tolerances) for figure in pair.figures
        ),
    )


def _step(profile: ModelProfile, settings: MemorySettings, hardware: Hardware, way: Parallelism) -> StepTime:
    cache = "fp8" if settings.key_bits == FORMATS["fp8"].bits else "auto"
    step = prior(profile, settings.weights, hardware, way, cache, settings.engine)
    assert step is not None
    return step


def _speed(fit: Fit, hardware: Hardware) -> Speed:
    step = _step(fit.profile, fit.settings, hardware, fit.parallelism)
    most = fit.settings.max_sequences or 1
    price = hardware.on_demand
    return Speed(
        step=step,
        single=predict(step, SHAPE, 1),
        capacity=largest_capacity(step, SHAPE, OBJECTIVE, fit.requests_held(SHAPE), most, fit.context_length),
        hourly=None if price is None else price * fit.parallelism.accelerators,
    )


def _compare(
    figure: Figure,
    profile: ModelProfile,
    settings: MemorySettings,
    hardware: Hardware,
    way: Parallelism,
    tolerances: Mapping[Quantity, float],
) -> Comparison:
    """Work the figure out under its own conditions."""
    if figure.quantity in SPEEDS:
        step = _step(profile, settings, hardware, way)
        ours: float | Verdict = _time(figure, step)
    else:
        step = None
        if figure.fit is not None:
            settings = replace(
                settings,
                context_length=figure.fit.context,
                memory_share=figure.fit.memory_share or settings.memory_share,
                max_batched_tokens=figure.fit.max_batched_tokens,
                cuda_graphs=figure.fit.cuda_graphs,
            )
        ours = _memory(figure, check_fit(profile, settings, hardware, way))
    if isinstance(ours, str) or isinstance(figure.value, str):
        return Comparison(figure, ours, None, ours == figure.value, None)
    ratio = ours / figure.value
    inside = abs(ratio - 1) <= tolerances[figure.quantity]
    return Comparison(figure, ours, ratio, inside, _deviations(figure, step, ratio))


def _memory(figure: Figure, answer: Fit | DoesNotFit) -> float | Verdict:
    if figure.quantity == "weights":
        return answer.weights / GIB
    if figure.quantity == "cacheTokens":
        return float(answer.cache_tokens) if isinstance(answer, Fit) else 0.0
    return "fits" if isinstance(answer, Fit) else "refused"


def _time(figure: Figure, step: StepTime) -> float:
    """Return milliseconds; of a whole request, seconds."""
    assert figure.load is not None, figure
    shape = LoadShape(figure.load.input, figure.load.output)
    found = predict(step, shape, figure.load.batch)
    if figure.quantity == "requestLatency":
        return found.time_to_first_token + (shape.output_tokens - 1) * found.inter_token_latency
    first = figure.quantity == "timeToFirstToken"
    return 1e3 * (found.time_to_first_token if first else found.inter_token_latency)


def _deviations(figure: Figure, step: StepTime | None, ratio: float) -> float | None:
    if step is None:
        return None
    first = figure.quantity == "timeToFirstToken"
    return abs(math.log(ratio)) / (step.first_token_uncertainty if first else step.uncertainty)
