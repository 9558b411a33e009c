"""What holds for every size that follows load, whatever the load, the history and the readings."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.api.llmdeployment import Scaling
from modelyard.core.demand import DemandMemory, DemandPolicy, estimate_demand, observe
from modelyard.core.plan import Size
from modelyard.core.reasons import Code
from modelyard.core.replicas import WANTED_PARTS, SizeInput, SizeMemory, SizePolicy, decide_size
from modelyard.core.scaling.headroom import PENDING
from tests.property.strategies import NOW, inputs, memories, rates

POLICY = SizePolicy()
DEMAND = DemandPolicy()
TICK = 2.0
"""Seconds between two decisions: the operator's default."""
EACH = 10.0
"""Requests per second and replica."""

# How long an example takes depends on the machine's other work, and says nothing about the decision.
unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
loads = st.lists(st.tuples(st.integers(1, 90), st.none() | st.floats(0.0, 300.0)), min_size=1, max_size=12)
"""Stretches: how many ticks, and requests per second; None: no reading comes."""
starts = st.sampled_from([10.0, 37.0, 120.0, 300.0])


@dataclass
class Run:
    """One deployment whose decisions are carried out: replicas serve one start time after they were asked for."""

    start_time: float
    scaling: Scaling = field(default_factory=lambda: Scaling(min=1, max=40))
    now: float = NOW
    total: float = 0.0
    current: int = 1
    due: list[float] = field(default_factory=list)
    """When the replicas that start will serve."""
    demand: DemandMemory = field(default_factory=DemandMemory)
    memory: SizeMemory = field(default_factory=lambda: SizeMemory(since=NOW))

    def look(self) -> SizeInput:
        self.due = [time for time in self.due if time > self.now]
        return SizeInput(
            scaling=self.scaling,
            current=self.current,
            serving=self.current - len(self.due),
            active=0,
            capacity=EACH,
            demand=estimate_demand(self.demand, self.now, DEMAND),
            start_time=self.start_time,
        )

    def step(self, rate: float | None) -> Size:
        self.now += TICK
        if rate is not None:
            self.total += rate * TICK
            self.demand = observe(self.demand, self.now, self.total, DEMAND)
        size, self.memory = decide_size(self.look(), self.memory, self.now, POLICY)
        self.apply(size)
        return size

    def apply(self, size: Size) -> None:
        more = size.replicas - self.current
        self.due += [self.now + self.start_time] * max(more, 0)
        # Those that start are the first to go.
        self.due = self.due[: max(len(self.due) + min(more, 0), 0)]
        self.current = size.replicas


@unhurried
@given(loads, starts)
def test_nothing_shrinks_within_one_start_time_after_growth(
    load: list[tuple[int, float | None]], start_time: float
):
    run = Run(start_time)
    grown = NOW
    for ticks, rate in load:
        for _ in range(ticks):
            before = run.current
            size = run.step(rate)
            assert run.scaling.min <= size.replicas <= run.scaling.max
            if size.replicas < before:
                assert run.now - grown >= start_time
            if size.replicas > before:
                grown = run.now


@unhurried
@given(loads, starts)
def test_growth_is_never_delayed(load: list[tuple[int, float | None]], start_time: float):
    """What the forecast needs one start from now is asked for at once, whatever was decided before."""
    run = Run(start_time)
    for ticks, rate in load:
        for _ in range(ticks):
            size = run.step(rate)
            if "needed" in size.numbers:
                assert size.replicas >= min(size.numbers["needed"] / EACH - 1e-6, run.scaling.max)


@unhurried
@given(loads, starts, st.integers(1, 200))
def test_missing_or_stale_readings_take_nothing_away(
    load: list[tuple[int, float | None]], start_time: float, silence: int
):
    run = Run(start_time)
    for ticks, rate in load:
        for _ in range(ticks):
            run.step(rate)
    for tick in range(silence):
        before = run.current
        size = run.step(None)
        if tick * TICK > DEMAND.stale_after:
            assert (size.replicas, size.reason.code, size.known) == (before, Code.NO_DATA, False)


@unhurried
@given(loads, starts)
def test_the_plan_applied_gives_no_action(load: list[tuple[int, float | None]], start_time: float):
    run = Run(start_time)
    for ticks, rate in load:
        for _ in range(ticks):
            run.step(rate)
            again, memory = decide_size(run.look(), run.memory, run.now, POLICY)
            assert again.replicas == run.current
            # The same question has the same answer, and teaches nothing new.
            assert decide_size(run.look(), memory, run.now, POLICY) == (again, memory)


@unhurried
@given(loads, starts)
def test_memory_stays_small(load: list[tuple[int, float | None]], start_time: float):
    run = Run(start_time)
    for ticks, rate in load:
        for _ in range(ticks):
            run.step(rate)
            assert len(run.memory.wanted) <= WANTED_PARTS + 2
            assert len(run.memory.load.headroom.pending) <= PENDING + 1


@unhurried
@given(loads, starts, rates, rates)
def test_more_load_never_means_less_capacity(
    load: list[tuple[int, float | None]], start_time: float, one: float, other: float
):
    """With the same history, the newest rate decides."""
    run = Run(start_time)
    for ticks, rate in load:
        for _ in range(ticks):
            run.step(rate)
    data = run.look()
    if data.demand is None:
        return
    capacities = []
    for rate in sorted((one, other)):
        fresh = replace(run.memory, load=replace(run.memory.load, forecast=None, counted=None))
        demand = replace(data.demand, rate=rate, samples=())
        capacities.append(decide_size(replace(data, demand=demand), fresh, run.now, POLICY)[0].capacity)
    assert capacities == sorted(capacities)


def test_a_steady_load_seldom_has_a_size_that_goes_up_again_soon_after_it_went_down():
    """An hour each of Poisson arrivals: a replica that comes back within one start left and started for nothing."""
    turns = 0
    for rate in range(4, 40, 2):
        chance, run = np.random.default_rng(1), Run(37.0)
        fallen = -math.inf
        for count in chance.poisson(rate * TICK, int(3600 / TICK)):
            before = run.current
            size = run.step(float(count) / TICK)
            turns += size.replicas > before and run.now - fallen < run.start_time
            fallen = run.now if size.replicas < before else fallen
    assert turns <= 12


def play(load: list[tuple[int, float | None]], start_time: float, times: float = 1.0) -> list[int]:
    """Return the replicas after each tick of a load, whose rates are multiplied, without a maximum that it reaches."""
    run = Run(start_time, scaling=Scaling(min=1, max=1000))
    return [
        run.step(None if rate is None else rate * times).replicas
        for ticks, rate in load
        for _ in range(ticks)
    ]


@unhurried
@given(st.integers(1, 200), starts, st.floats(0.0, 5000.0), st.floats(0.0, 5000.0))
def test_a_higher_constant_load_never_has_fewer_replicas_at_any_moment(
    ticks: int, start_time: float, one: float, other: float
):
    less, more = (play([(ticks, rate)], start_time) for rate in sorted((one, other)))
    assert all(small <= large for small, large in zip(less, more, strict=True))


def nearly_as_many(less: int, more: int) -> bool:
    """Say whether the size for more load is not smaller than that for less, but by what a forecast may make of it.

    Where whole histories differ, so does what was learned from them: a rise that chance cannot explain is a jump, and
    believed as it is; a smaller one may be chance, or the beginning of a ramp, and its slope is extended. So for some
    seconds the smaller rise may ask for a replica or a seventh more. With the same memory nothing of this is left
    (`test_more_load_never_means_less_capacity`).
    """
    return more >= less - max(1, less // 7)


@unhurried
@given(loads, starts, st.floats(1.0, 20.0))
def test_a_load_that_is_higher_by_a_factor_throughout_has_no_fewer_replicas(
    load: list[tuple[int, float | None]], start_time: float, factor: float
):
    for less, more in zip(play(load, start_time), play(load, start_time, factor), strict=True):
        assert nearly_as_many(less, more)


@unhurried
@given(loads, starts, st.integers(1, 120), st.floats(0.0, 300.0), st.floats(0.0, 300.0))
def test_a_higher_jump_after_the_same_history_has_no_fewer_replicas(
    load: list[tuple[int, float | None]], start_time: float, ticks: int, one: float, other: float
):
    less, more = (play([*load, (ticks, rate)], start_time) for rate in sorted((one, other)))
    assert all(nearly_as_many(small, large) for small, large in zip(less, more, strict=True))


@unhurried
@given(inputs(low=1, known=True), memories())
def test_a_lowered_maximum_acts_at_once(data: SizeInput, memory: SizeMemory):
    size, _ = decide_size(data, memory, NOW, POLICY)
    assert size.replicas <= data.scaling.max
