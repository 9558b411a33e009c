"""What holds for every model of speed, load and reading."""

import math
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from modelyard.core.load import LoadShape, Objective
from modelyard.core.perf.learning import (
    FLOOR,
    LARGEST_FACTOR,
    LARGEST_STEP,
    Observation,
    learned,
    observe,
    remember,
)
from modelyard.core.perf.predict import predict, sustainable
from modelyard.core.perf.step import FirstToken, StepTime


def times(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def steps(draw):
    return StepTime(
        fixed=draw(times(1e-3, 0.1)),
        experts=draw(times(0, 0.1)),
        expert_share=draw(st.sampled_from([0.0, 1 / 32, 1 / 16, 1 / 4])),
        per_sequence=draw(times(0, 1e-3)),
        per_context_token=draw(times(0, 1e-6)),
        prefill_fixed=draw(times(0, 0.05)),
        prefill_token=draw(times(1e-6, 1e-3)),
        prefill_token_squared=draw(times(0, 1e-8)),
        first_token=FirstToken(
            base=draw(times(0.02, 0.1)),
            prompt=draw(times(1, 3)),
            queue=draw(times(0, 1)),
            step=draw(times(0, 3)),
            sequence=draw(times(0, 1e-2)),
        ),
        uncertainty=draw(times(0.06, 0.6)),
        first_token_uncertainty=draw(times(0.06, 0.6)),
        origin="calibrated",
    )


shapes = st.builds(LoadShape, times(1, 100_000), times(1, 10_000), times(0, 1))
objectives = st.builds(Objective, times(0.01, 30), times(0.001, 1))
cache_sizes = times(0, 1e7)
sequence_limits = st.integers(0, 1024)


@given(steps(), shapes, times(1, 500), times(1, 500))
def test_a_larger_batch_is_slower_for_each_and_answers_more_in_all(step, shape, one, other):
    small, large = sorted((one, other))
    fast, slow = predict(step, shape, small), predict(step, shape, large)
    assert fast.inter_token_latency <= slow.inter_token_latency * (1 + 1e-12)
    assert fast.time_to_first_token <= slow.time_to_first_token * (1 + 1e-12)
    # With queued prefills the rate has a limit that it may only approach.
    assert fast.requests_per_second <= slow.requests_per_second * (1 + 1e-9)


@given(steps(), shapes, objectives, cache_sizes, sequence_limits)
def test_capacity_keeps_memory_engine_and_objective(step, shape, objective, cache_tokens, max_sequences):
    capacity = sustainable(step, shape, objective, cache_tokens, max_sequences)
    assert 0 <= capacity.batch <= max_sequences
    assert capacity.feasible == (capacity.requests_per_second > 0)
    if capacity.feasible:
        assert capacity.planned.inter_token_latency <= objective.inter_token_latency
        assert capacity.planned.time_to_first_token <= objective.time_to_first_token
        held = shape.input_tokens * (1 - shape.cached_share) + shape.output_tokens / 2
        assert capacity.batch * held <= cache_tokens * (1 + 1e-9)
    assert capacity.explain()


@given(
    steps(), shapes, objectives, cache_sizes, sequence_limits, times(1, 3), times(1, 3), times(1, 3), times(1, 3)
)  # fmt: skip
def test_more_room_and_looser_objectives_never_give_less(
    step, shape, objective, cache_tokens, max_sequences, latency, first, room, slots
):
    less = sustainable(step, shape, objective, cache_tokens, max_sequences)
    looser = Objective(objective.time_to_first_token * first, objective.inter_token_latency * latency)
    more = sustainable(step, shape, looser, cache_tokens * room, int(max_sequences * slots))
    assert more.batch >= less.batch
    assert more.requests_per_second >= less.requests_per_second * (1 - 1e-9)


@given(steps(), shapes, objectives, cache_sizes, sequence_limits, times(1, 3))
def test_a_wider_uncertainty_never_gives_more(step, shape, objective, cache_tokens, max_sequences, wider):
    unsure = replace(
        step,
        uncertainty=step.uncertainty * wider,
        first_token_uncertainty=step.first_token_uncertainty * wider,
    )
    sure = sustainable(step, shape, objective, cache_tokens, max_sequences)
    careful = sustainable(unsure, shape, objective, cache_tokens, max_sequences)
    assert careful.batch <= sure.batch
    assert careful.requests_per_second <= sure.requests_per_second * (1 + 1e-9)


any_number = st.floats(allow_nan=True, allow_infinity=True)
odd = st.one_of(any_number, times(1e-6, 1e3))
observations = st.builds(
    Observation,
    time=times(0, 200),
    warm_seconds=st.one_of(any_number, st.just(500.0)),
    batch=odd,
    inter_token_latency=odd,
    time_to_first_token=st.one_of(st.none(), odd),
    input_tokens=odd,
    output_tokens=odd,
    cached_share=st.one_of(any_number, times(0, 1)),
    restarts=st.sampled_from([0, 0, 0, 1]),
)


@given(steps(), st.lists(observations, max_size=30))
def test_learning_is_bounded_whatever_it_is_fed(step, fed):
    memory = remember(step)
    for observation in fed:
        before = memory
        memory = observe(memory, observation, 200.0)
        for old, new in (
            (before.inter_token, memory.inter_token),
            (before.first_token, memory.first_token),
        ):
            assert new.value * (1 + 1e-12) >= 1 / LARGEST_FACTOR
            assert new.value <= LARGEST_FACTOR * (1 + 1e-12)
            assert new.variance > 0
            if memory.resets == before.resets:
                assert abs(new.logarithm - old.logarithm) <= LARGEST_STEP * (1 + 1e-9)
        if memory.refusal:
            assert memory == replace(before, refusal=memory.refusal)
    after = learned(step, memory)
    assert FLOOR <= after.uncertainty <= step.uncertainty
    assert math.isfinite(after.inter_token_latency(LoadShape(), 8))


@given(steps(), times(0.3, 3.5), st.lists(times(1, 100), min_size=60, max_size=60))
def test_learning_converges_to_a_scaled_truth_within_sixty_readings(step, truth, batches):
    shape, memory = LoadShape(), remember(step)
    for number, batch in enumerate(batches):
        latency = step.inter_token_latency(shape, batch)
        assume(math.isfinite(latency))
        first = step.time_to_first_token(shape, batch)
        observation = Observation(
            30.0 * number, 500.0, batch, truth * latency, truth * first,
            shape.input_tokens, shape.output_tokens,
        )  # fmt: skip
        memory = observe(memory, observation, observation.time)
    assert abs(math.log(memory.inter_token.value / truth)) < 0.1
    assert abs(math.log(memory.first_token.value / truth)) < 0.1
