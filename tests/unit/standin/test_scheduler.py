"""Continuous batching: order, budgets, KV blocks and preemption."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.standin.scheduler import FinishReason, Limits, Scheduler, Sequence


def sequence(prompt: int, output: int) -> Sequence:
    return Sequence(prompt, output, output, FinishReason.LENGTH, arrival=0.0)


def run(scheduler: Scheduler, steps: int = 1) -> None:
    for index in range(steps):
        scheduler.complete(scheduler.plan(float(index)), float(index + 1))


def test_prompt_and_first_token_take_one_step_then_one_token_each() -> None:
    scheduler = Scheduler(Limits(1000, 8, 512))
    one = sequence(100, 3)
    scheduler.add(one)
    first = scheduler.plan(0.0)
    assert (first.work.sequences, first.work.prefill_tokens, first.work.context_tokens) == (1, 100, 0)
    assert scheduler.complete(first, 1.0).first_tokens == [one]
    second = scheduler.plan(1.0)
    assert (second.work.sequences, second.work.prefill_tokens, second.work.context_tokens) == (1, 0, 100)
    assert scheduler.complete(second, 3.5).intervals == [2.5]
    result = scheduler.complete(scheduler.plan(3.5), 4.0)
    assert result.finished == [one]
    assert one.finished is FinishReason.LENGTH
    assert not scheduler.has_work
    assert scheduler.kv_cache_usage == 0


def test_long_prompts_are_computed_in_chunks_while_others_decode() -> None:
    scheduler = Scheduler(Limits(1000, 8, 100))
    short, long = sequence(10, 50), sequence(250, 1)
    scheduler.add(short)
    run(scheduler)
    scheduler.add(long)
    prefills = []
    while long.finished is None:
        step = scheduler.plan(0.0)
        prefills.append(step.work.prefill_tokens)
        scheduler.complete(step, 0.0)
    assert prefills == [99, 99, 52]
    assert short.generated == 1 + len(prefills)


def test_sequence_slots_limit_the_batch_and_the_queue_is_in_order() -> None:
    scheduler = Scheduler(Limits(1000, 2, 512))
    sequences = [sequence(10, 2) for _ in range(5)]
    for entry in sequences:
        scheduler.add(entry)
    run(scheduler)
    assert scheduler.running == sequences[:2]
    assert list(scheduler.waiting) == sequences[2:]
    run(scheduler, 2)
    assert scheduler.running == sequences[2:4]


def test_a_full_cache_preempts_the_newest_which_recomputes() -> None:
    scheduler = Scheduler(Limits(64, 8, 512))
    old, new = sequence(31, 30), sequence(31, 5)
    scheduler.add(old)
    scheduler.add(new)
    run(scheduler, 2)
    assert scheduler.kv_cache_usage == 1.0
    assert new.generated == 2
    run(scheduler)
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [new]
    assert (new.preemptions, new.computed, new.generated) == (1, 0, 2)
    run(scheduler, old.output_tokens - old.generated)
    assert old.finished is FinishReason.LENGTH
    step = scheduler.plan(0.0)
    assert step.work.prefill_tokens == 33
    scheduler.complete(step, 0.0)
    run(scheduler, 2)
    assert not scheduler.has_work
    assert (new.generated, scheduler.preemptions) == (5, 1)


def test_a_sequence_beyond_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="KV cache"):
        Scheduler(Limits(64, 8, 512)).add(sequence(60, 5))


def test_an_abort_frees_its_place_even_within_a_step() -> None:
    scheduler = Scheduler(Limits(1000, 8, 512))
    gone, kept, queued = sequence(10, 5), sequence(10, 5), sequence(10, 5)
    scheduler.add(gone)
    scheduler.add(kept)
    step = scheduler.plan(0.0)
    assert scheduler.abort(gone)
    assert not scheduler.abort(gone)
    result = scheduler.complete(step, 1.0)
    assert result.first_tokens == [kept]
    assert gone.generated == 0
    assert scheduler.free_blocks == scheduler.limits.blocks - kept.blocks
    scheduler.add(queued)
    scheduler.abort(queued)
    assert not scheduler.waiting


@given(
    requests=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=20),
    tokens=st.integers(100, 300),
    slots=st.integers(1, 8),
    budget=st.integers(1, 200),
    aborts=st.sets(st.integers(0, 19)),
)
def test_tokens_and_blocks_are_conserved(
    requests: list[tuple[int, int]], tokens: int, slots: int, budget: int, aborts: set[int]
) -> None:
    limits = Limits(tokens + 16, slots, budget)
    scheduler = Scheduler(limits)
    sequences = [sequence(prompt, output) for prompt, output in requests]
    for entry in sequences:
        scheduler.add(entry)
    generated = steps = 0
    while scheduler.has_work:
        step = scheduler.plan(0.0)
        assert sum(chunk for _, chunk in step.chunks) <= budget
        assert len(scheduler.running) <= slots
        if steps == 3:
            for index in aborts & set(range(len(sequences))):
                scheduler.abort(sequences[index])
        result = scheduler.complete(step, 0.0)
        generated += result.generated
        held = sum(entry.blocks for entry in scheduler.running)
        assert scheduler.free_blocks == limits.blocks - held >= 0
        assert all(entry.blocks == 0 for entry in scheduler.waiting)
        assert all(entry.computed <= entry.blocks * limits.block_size for entry in scheduler.running)
        steps += 1
        assert steps < 20_000, "the scheduler makes no progress"
    assert generated == sum(entry.generated for entry in sequences)
    assert scheduler.preemptions == sum(entry.preemptions for entry in sequences)
    for entry in sequences:
        if entry.finished is not FinishReason.ABORT:
            assert entry.generated == entry.output_tokens
