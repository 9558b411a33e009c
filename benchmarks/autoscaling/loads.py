"""What a scenario's name stands for: the engine, the requests, the flow of 14 days."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.autoscaling.scenarios import WHOLE, Case, Goal, Load
from dev.traces.azure import CONVERSATION_2023
from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.catalog.accelerators import find_hardware
from modelyard.catalog.models import find_model
from modelyard.catalog.quantization import FORMATS
from modelyard.core.choice import list_variants
from modelyard.core.fit import Fit, MemorySettings, Parallelism, check_fit
from modelyard.core.load import LoadShape
from modelyard.core.load import Objective as MeanObjective
from modelyard.core.perf.predict import Capacity, sustainable
from modelyard.core.perf.prior import prior
from modelyard.core.snapshot import Snapshot
from modelyard.core.state import Policy
from modelyard.core.variants import Variant
from modelyard.simulator.arrivals import draw_lengths, dynamo_sinusoid, llmd_step
from modelyard.simulator.fluidload import FluidLoad, scale_fluid
from modelyard.simulator.loadstats import PEAK_WINDOW, peak_rate
from modelyard.simulator.scenario import Arrivals, Engine, Objective, Scenario, StartTime
from modelyard.simulator.servegen import (
    INPUT_CV,
    INPUT_LIMIT,
    OUTPUT_CV,
    OUTPUT_LIMIT,
    WINDOW,
    ServeGenTrace,
    generate,
    load_servegen,
    to_flow,
)
from modelyard.simulator.slices import Slice, choose_slices
from modelyard.simulator.traceformats import read_trace
from modelyard.simulator.transforms import scale_rate, scale_to_peak, slice_time

TRACES = Path(__file__).parent.parent / "data" / "traces"
SERVEGEN_FILES = (TRACES / "m-large-10min.csv.gz", TRACES / "m-large-clients.csv.gz")
DATA = (*SERVEGEN_FILES, CONVERSATION_2023)
"""Files that results depend on."""
MODEL, ACCELERATOR, WEIGHTS = "meta-llama/Llama-3.1-8B-Instruct", "H100-SXM", "fp8"
INITIAL_UTILISATION = 0.7
"""Share of capacity at which the replicas that serve at the beginning carry the load of the first minutes."""
FIRST_MINUTES = 600.0
"""Seconds."""
MOST = 2.0
"""Times the replicas that the busiest minute needs that every policy may have at most: as a team sets `maxReplicas`,
which knows its peak and leaves room. Rules that run away are held there."""
BUSIEST = 60.0
"""Seconds of the busiest minute."""
_SAMPLE_PER_WINDOW = 100
"""Requests of a mean window of ten minutes in the sample that stands for the 14 days."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The engine that every replica runs, and its price."""

    engine: Engine
    price: float
    """US dollars an hour."""
    fit: Fit

    def capacity(self, inputs: float, outputs: float, goal: Goal, *, planned: bool = False) -> Capacity:
        """Return what one replica answers within the objective at a mean request.

        The engine of the simulation is the model itself, so its speed is certain: no margin for the model's error
        is in it, unless `planned`, as the operator would plan before it has seen the engine.
        """
        step = self.engine.step
        if not planned:
            step = replace(step, uncertainty=0.0, first_token_uncertainty=0.0)
        first = goal.first_token_base + goal.first_token_per_input_token * inputs
        return sustainable(
            step,
            LoadShape(inputs, outputs),
            MeanObjective(first, goal.inter_token),
            self.engine.cache_tokens,
            self.engine.max_sequences,
        )


@lru_cache(maxsize=1)
def fleet() -> Fleet:
    """Return Llama-3.1-8B in FP8 on one H100 under vLLM with its defaults."""
    model, hardware = find_model(MODEL), find_hardware(ACCELERATOR)
    assert model is not None
    assert hardware is not None
    assert hardware.on_demand is not None
    settings = MemorySettings(weights=FORMATS[WEIGHTS])
    fit = check_fit(model.profile, settings, hardware, Parallelism())
    assert isinstance(fit, Fit), fit
    step = prior(model.profile, settings.weights, hardware, Parallelism(), "auto", settings.engine)
    assert step is not None
    engine = Engine(step, fit.cache_tokens, fit.settings.max_sequences or 256)
    return Fleet(engine, float(hardware.on_demand), fit)


@lru_cache(maxsize=1)
def subject() -> tuple[LLMDeployment, Variant]:
    """Return the deployment that every scenario is about, and the variant that it runs as.

    Raises ValueError where the operator would run it otherwise than `fleet` does.
    """
    accelerator = AcceleratorClass.model_validate(
        {
            "metadata": {"name": ACCELERATOR.lower()},
            "spec": {"resourceName": "nvidia.com/gpu", "price": {"onDemand": f"{fleet().price:.6f}"}},
        }
    )
    deployment = LLMDeployment.model_validate(
        {
            "metadata": {"name": "model", "namespace": "benchmark"},
            "spec": {
                "model": {"source": f"hf://{MODEL}", "quantization": WEIGHTS},
                "engine": {"name": "vLLM"},
                "placement": {"accelerators": [{"class": accelerator.metadata.name, "count": 1}]},
            },
        }
    )
    snapshot = Snapshot(accelerators={accelerator.metadata.name: accelerator})
    found = list_variants(deployment, snapshot, LoadShape(), Policy().variants)
    assert not isinstance(found, Refusal), found.message
    (variant,) = found.variants
    assert variant.fit is not None
    if (variant.prior, variant.fit.cache_tokens) != (fleet().engine.step, fleet().engine.cache_tokens):
        raise ValueError(f"the operator takes {variant.label} for another engine than the simulated one")
    return deployment, variant


@lru_cache(maxsize=1)
def servegen() -> ServeGenTrace:
    """Return 14 days of m-large."""
    return load_servegen(*SERVEGEN_FILES, name="m-large")


@lru_cache(maxsize=1)
def slices() -> tuple[Slice, ...]:
    """Return the four stretches of six hours."""
    return choose_slices(servegen().rate, WINDOW)


def servegen_shape() -> tuple[float, float]:
    """Return the mean tokens of m-large's prompts and answers over the 14 days."""
    trace = servegen()
    inputs = np.average(trace.input_mean, weights=trace.rate)
    return float(inputs), float(np.average(trace.output_mean, weights=trace.rate))


def servegen_factor(load: Load, goal: Goal) -> float:
    """Return by what m-large's rate is multiplied so that its peak needs so many replicas."""
    assert load.replicas is not None
    capacity = fleet().capacity(*servegen_shape(), goal).requests_per_second
    return load.replicas * capacity / servegen().peak


@lru_cache(maxsize=1)
def arrivals_of(load: Load, goal: Goal, part: str, seed: int) -> Arrivals:
    """Return the requests of a part of a load. The last answer is kept: the large ones take seconds to make."""
    arrivals = _whole(load, goal, part, seed)
    return arrivals if load.limit is None else slice_time(arrivals, 0.0, min(load.limit, arrivals.duration))


def _whole(load: Load, goal: Goal, part: str, seed: int) -> Arrivals:
    if load.kind == "servegen":
        chosen = _slice(part)
        windows = math.ceil(min(load.limit or math.inf, chosen.end - chosen.start) / WINDOW)
        whole = generate(servegen(), chosen.start, chosen.start + windows * WINDOW, seed)
        return scale_rate(whole, servegen_factor(load, goal), np.random.default_rng([seed, 5]))
    if load.kind == "azure":
        return scale_to_peak(_azure(), _azure_peak(load, goal), seed)
    if load.kind == "step":
        return llmd_step(seed, before=load.before, at=load.at, duration=load.duration)
    return dynamo_sinusoid(seed, load.duration)


def expected_requests(case: Case, part: str) -> float:
    """Return about how many requests a part has, without making them."""
    load = case.load
    if load.kind == "servegen":
        chosen = _slice(part)
        windows = servegen().rate[round(chosen.start / WINDOW) : round(chosen.end / WINDOW)]
        length = chosen.end - chosen.start
        requests = float(windows.mean()) * length * servegen_factor(load, case.objective)
    elif load.kind == "azure":
        length = _azure().duration
        requests = len(_azure()) * _azure_peak(load, case.objective) / peak_rate(_azure(), PEAK_WINDOW)
    else:
        return float(len(arrivals_of(load, case.objective, part, 0)))
    return requests * min(1.0, (load.limit or length) / length)


def expected_seconds(case: Case, part: str) -> float:
    """Return the seconds that a part lasts."""
    load = case.load
    if load.kind == "servegen":
        length = _slice(part).end - _slice(part).start
    else:
        length = _azure().duration if load.kind == "azure" else load.duration
    return min(length, load.limit or length)


def build_scenario(case: Case, part: str, seed: int) -> Scenario:
    """Return what is played. A replica's capacity is that at the mean request of this part."""
    arrivals = arrivals_of(case.load, case.objective, part, seed)
    shape = float(arrivals.input_tokens.mean()), float(arrivals.output_tokens.mean())
    capacity = fleet().capacity(*shape, case.objective).requests_per_second
    made = case.load.kind in ("step", "sinusoid")
    return _scenario(
        case, part, arrivals, capacity, seed, initial=1 if made else _initial(arrivals, case.objective)
    )


@lru_cache(maxsize=16)
def busiest(load: Load, goal: Goal) -> float:
    """Return the replicas that a load's minute with the most work needs, by the requests that come in it.

    Of a trace it is looked for in all of it, whatever is played of it: it is one deployment. Of a made load, that of
    its first seed stands for all. ServeGen's rates are those of ten minutes.
    """
    windows = (
        _trace_windows(load, goal) if load.kind == "servegen" else _windows(_whole(load, goal, WHOLE, 0))
    )
    return max(
        rate / fleet().capacity(inputs, outputs, goal).requests_per_second
        for rate, inputs, outputs in windows
    )


def _trace_windows(load: Load, goal: Goal) -> Iterator[tuple[float, float, float]]:
    """Yield requests per second and mean lengths of each ten minutes of all 14 days."""
    trace, factor = servegen(), servegen_factor(load, goal)
    for rate, inputs, outputs in zip(trace.rate, trace.input_mean, trace.output_mean, strict=True):
        yield float(rate) * factor, float(inputs), float(outputs)


def _windows(arrivals: Arrivals) -> Iterator[tuple[float, float, float]]:
    """Yield requests per second and mean lengths of each minute; the last takes a shorter rest with it."""
    starts = BUSIEST * np.arange(max(1, int(arrivals.duration / BUSIEST)))
    edges = np.append(starts, arrivals.duration)
    bounds = np.searchsorted(arrivals.time, edges)
    for first, last, seconds in zip(bounds[:-1], bounds[1:], np.diff(edges), strict=True):
        if last > first:
            inputs, outputs = arrivals.input_tokens[first:last], arrivals.output_tokens[first:last]
            yield float((last - first) / seconds), float(inputs.mean()), float(outputs.mean())


def build_days(case: Case, seed: int) -> tuple[Scenario, FluidLoad]:
    """Return the 14 days as a flow, and its scenario, whose requests are a sample of a few from every ten minutes."""
    load = scale_fluid(to_flow(servegen()), servegen_factor(case.load, case.objective))
    if case.load.limit is not None:
        steps = round(case.load.limit / load.step)
        load = replace(
            load,
            rate=load.rate[:steps],
            input_tokens=load.input_tokens[:steps],
            output_tokens=load.output_tokens[:steps],
        )
    capacity = fleet().capacity(*servegen_shape(), case.objective).requests_per_second
    first = fleet().capacity(float(load.input_tokens[0]), float(load.output_tokens[0]), case.objective)
    initial = _replicas_for(float(load.rate[0]), first.requests_per_second)
    return _scenario(case, "14 days", sample_days(seed), capacity, seed, initial=initial), load


def sample_days(seed: int) -> Arrivals:
    """Return a thin sample of the 14 days, for whoever looks at lengths: the rate is not m-large's."""
    trace, rng = servegen(), np.random.default_rng([seed, 6])
    counts = np.rint(trace.rate / trace.rate.mean() * _SAMPLE_PER_WINDOW).astype(np.int64)
    window = np.repeat(np.arange(len(counts)), counts)
    total = int(counts.sum())
    return Arrivals(
        time=np.sort(WINDOW * (window + rng.random(total))),
        input_tokens=draw_lengths(rng, trace.input_mean[window], INPUT_CV, total, INPUT_LIMIT),
        output_tokens=draw_lengths(rng, trace.output_mean[window], OUTPUT_CV, total, OUTPUT_LIMIT),
        cached_tokens=np.zeros(total, dtype=np.int64),
        duration=trace.duration,
        name=f"sample of {trace.name}",
    )


def _scenario(
    case: Case, part: str, arrivals: Arrivals, capacity: float, seed: int, *, initial: int
) -> Scenario:
    return Scenario(
        name=f"{case.name}/{part}",
        arrivals=arrivals,
        engine=fleet().engine,
        capacity=capacity,
        maximum=max(math.ceil(MOST * busiest(case.load, case.objective)), initial),
        initial=initial,
        start=StartTime(case.start),
        price=fleet().price,
        objective=Objective(**case.objective.model_dump()),
        seed=seed,
    )


def _initial(arrivals: Arrivals, goal: Goal) -> int:
    """Return the replicas for the first minutes, by the requests that come then: the mean of hours may be another."""
    first = min(FIRST_MINUTES, arrivals.duration)
    count = int(np.searchsorted(arrivals.time, first))
    if not count:
        return 1
    shape = float(arrivals.input_tokens[:count].mean()), float(arrivals.output_tokens[:count].mean())
    return _replicas_for(count / first, fleet().capacity(*shape, goal).requests_per_second)


def _replicas_for(rate: float, capacity: float) -> int:
    return max(1, math.ceil(rate / capacity / INITIAL_UTILISATION))


@lru_cache(maxsize=1)
def _azure() -> Arrivals:
    return read_trace(CONVERSATION_2023)


def _azure_peak(load: Load, goal: Goal) -> float:
    """Return the requests per second that so many replicas answer at the trace's mean request."""
    assert load.replicas is not None
    recorded = _azure()
    shape = float(recorded.input_tokens.mean()), float(recorded.output_tokens.mean())
    return load.replicas * fleet().capacity(*shape, goal).requests_per_second


def _slice(part: str) -> Slice:
    (chosen,) = (one for one in slices() if one.rule == part)
    return chosen
