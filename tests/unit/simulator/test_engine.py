"""One replica's engine, step by step, against arithmetic done by hand."""

import numpy as np
import pytest

from modelyard.core.perf.step import FirstToken
from modelyard.simulator.lists import seconds_of, steps_until
from modelyard.simulator.records import COMPLETED, GENERATED, PREEMPTIONS, PROMPT_TOKENS, REFUSED, speed
from modelyard.simulator.run import Simulation
from modelyard.simulator.scenario import Engine
from tests.unit.simulator.play import LLAMA_8B, NO_FRONT_END, Script, make_arrivals, make_scenario, make_step


def play(times, inputs, outputs, step, *, cached=0, **changes):
    arrivals = make_arrivals(times, inputs, outputs, cached=cached)
    simulation = Simulation(make_scenario(arrivals, step, **changes), Script([1]))
    outcome = simulation.play()
    return simulation.fleet.requests, simulation.fleet.meters.counter, outcome


def test_one_request_takes_its_prompt_and_a_step_for_each_token():
    step = make_step(fixed=0.01, per_sequence=0.001, per_context_token=1e-5, prefill_token=1e-4)
    requests, _, _ = play([1.0], 100, 5, step)
    # The first step computes the prompt and gives a token; each further one reads the context so far.
    first = 1.0 + 0.01 + 0.001 + 100 * 1e-4
    later = sum(0.01 + 0.001 + 1e-5 * (100 + done) for done in range(1, 5))
    assert requests["first"][0] == pytest.approx(first)
    assert requests["done"][0] == pytest.approx(first + later)


def test_a_newcomer_starts_with_the_next_step_and_its_prompt_delays_the_others():
    step = make_step(fixed=0.01, prefill_token=1e-3)
    requests, _, _ = play([0.0, 0.025], [1, 50], [10, 2], step)
    # The first sequence's steps end at 0.011, 0.021, 0.031; the one after carries the prompt of the second.
    assert requests["first"][0] == pytest.approx(0.011)
    assert requests["first"][1] == pytest.approx(0.031 + 0.01 + 0.05)
    assert requests["done"][1] == pytest.approx(0.031 + 0.06 + 0.01)
    assert requests["done"][0] == pytest.approx(0.001 + 0.01 * 10 + 0.05)


def test_long_prompts_are_computed_in_chunks_with_what_decoding_leaves_of_the_budget():
    step = make_step(fixed=0.01, prefill_token=1e-3, prefill_token_squared=1e-6)
    requests, counter, _ = play(
        [0.0, 0.001], [1, 250], [20, 2], step, max_batched_tokens=101, max_sequences=8
    )
    # 100 tokens, 100 and 50, with attention to what was computed before.
    took = 3 * 0.01 + 250 * 1e-3 + 250**2 * 1e-6
    start = 0.01 + 1e-3 + 1e-6
    assert requests["first"][1] == pytest.approx(start + took)
    assert counter[PROMPT_TOKENS] == 251


def test_cached_tokens_are_neither_computed_nor_held():
    step = make_step(fixed=0.01, prefill_token=1e-3, prefill_token_squared=1e-6)
    requests, counter, _ = play([0.0], 100, 2, step, cached=60)
    assert requests["first"][0] == pytest.approx(0.01 + 40e-3 + (100**2 - 60**2) * 1e-6)
    assert counter[PROMPT_TOKENS] == 40
    # At least one token is computed, whatever is cached.
    requests, counter, _ = play([0.0], 100, 2, step, cached=100)
    assert counter[PROMPT_TOKENS] == 1


def test_places_in_the_batch_are_given_in_order():
    requests, _, _ = play(
        [0.0, 0.001, 0.002, 0.003], 1, [10, 2, 2, 2], make_step(fixed=0.01), max_sequences=2
    )
    assert list(requests["first"]) == pytest.approx([0.01, 0.02, 0.04, 0.06])


def test_a_full_cache_preempts_the_newest_which_computes_its_answer_again():
    step = make_step(fixed=0.01, prefill_token=1e-3)
    requests, counter, _ = play([0.0, 0.0], 40, 30, step, cache_tokens=100)
    assert counter[PREEMPTIONS] == 1
    assert counter[GENERATED] == 60
    # The second's prompt is computed in the second step, after which they hold 41 and 40 tokens; 9 steps later there is
    # no room for another two. The second has 10 tokens of its answer then. It comes back when the first has its 30, and
    # computes 40 + 10 tokens again.
    assert requests["done"][0] == pytest.approx(0.08 + 0.01 * 30)
    assert counter[PROMPT_TOKENS] == 80 + 50
    assert requests["done"][1] == pytest.approx(0.08 + 0.01 * 30 + 0.05 + 0.01 * 20)
    assert requests["first"][1] == pytest.approx(0.1)


def test_a_request_waits_until_the_cache_has_room_for_its_prompt():
    requests, counter, _ = play([0.0, 0.001], [80, 30], [10, 2], make_step(fixed=0.01), cache_tokens=100)
    assert counter[PREEMPTIONS] == 0
    assert requests["first"][1] == pytest.approx(0.11)


def test_what_never_fits_is_refused_at_once():
    requests, _, outcome = play([0.0, 0.0], [101, 50], 50, make_step(), cache_tokens=150)
    assert list(requests["state"]) == [REFUSED, COMPLETED]
    assert (outcome.refused, outcome.completed) == (1, 1)


def test_runs_of_many_steps_change_nothing():
    """The same load with each step on its own: an arrival in every step ends all runs."""
    times = np.array([0.0, 0.01, 0.5])
    requests, _, _ = play(times, [200, 3000, 50], [400, 300, 200], LLAMA_8B)
    # Requests that are refused on arrival take nothing, but 2,000 more events do not change when steps end.
    noise = np.linspace(0, 6, 2_000)
    everything = np.concatenate([times, noise])
    order = np.argsort(everything, kind="stable")
    inputs = np.concatenate([[200, 3000, 50], np.full(2_000, 10**6)])[order]
    outputs = np.concatenate([[400, 300, 200], np.full(2_000, 10)])[order]
    other, _, _ = play(everything[order], inputs, outputs, LLAMA_8B)
    kept = other[other["state"] == COMPLETED]
    for column in ("first", "done"):
        assert list(kept[column]) == pytest.approx(list(requests[column]), abs=1e-9)


def test_the_front_end_is_what_the_law_has_beyond_the_steps():
    law = FirstToken(base=0.1, prompt=2.0, queue=0.0, step=3.0, sequence=0.0)
    step = make_step(fixed=0.01, prefill_token=1e-3, first_token=law)
    requests, _, _ = play([0.0, 100.0], 50, 10, step)
    # Alone: base, twice the prompt, and three steps, each with a tenth of the prompt as the model has it.
    expected = 0.1 + 2 * 0.05 + 3 * (0.01 + 0.005)
    assert list(requests["first"] - requests["arrival"]) == pytest.approx([expected] * 2)
    requests, _, _ = play([0.0], 50, 10, make_step(fixed=0.01, prefill_token=1e-3, first_token=NO_FRONT_END))
    assert requests["first"][0] == pytest.approx(0.06)


def test_the_engine_must_be_able_to_work():
    with pytest.raises(ValueError, match="max_sequences"):
        speed(Engine(make_step(), cache_tokens=100, max_sequences=0))
    with pytest.raises(ValueError, match="max_batched_tokens"):
        speed(Engine(make_step(), cache_tokens=100, max_sequences=64, max_batched_tokens=32))


@pytest.mark.parametrize("growth", [0.0, 1e-12, 1e-7, 1e-3])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_steps_until_inverts_seconds_of(growth, steps):
    end = seconds_of(0.01, growth, steps)
    assert steps_until(0.01, growth, end) == steps
    assert steps_until(0.01, growth, end + 1e-6) == steps + 1
    assert steps_until(0.01, growth, max(end - 1e-6, 0.0)) == steps
