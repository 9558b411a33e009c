"""The simulator against the scheduler of the stand-in for vLLM, on the same arrivals: two programs, one behaviour.

The stand-in's scheduler is driven here in simulated time, one step after the other, with cache blocks of one token. It
then differs from the simulator's engine in nothing but rounding, so that every single time agrees, unless a request
comes so near to a step's end that rounding decides which step it gets into.
"""

import numpy as np
import pytest

from dev.standin.profiles import PROFILES, Profile
from dev.standin.scheduler import FinishReason, Limits, Scheduler, Sequence
from modelyard.core.perf.step import StepTime
from modelyard.simulator.records import PREEMPTIONS, Records
from modelyard.simulator.run import Simulation
from modelyard.simulator.scenario import Arrivals
from tests.unit.simulator.play import Script, make_scenario, make_step, random_arrivals


def step_time(profile: Profile) -> StepTime:
    """The stand-in reads the context without the token that it computes; the simulator reads it too."""
    return make_step(
        fixed=profile.alpha_ms / 1e3,
        per_sequence=(profile.beta_ms - profile.gamma_ms) / 1e3,
        per_context_token=profile.gamma_ms / 1e3,
        prefill_token=profile.delta_ms / 1e3,
    )


def drive(profile: Profile, limits: Limits, arrivals: Arrivals):
    """Let the stand-in's scheduler answer the arrivals; return first and last token's times, and preemptions."""
    scheduler, sequences, now, come = Scheduler(limits), [], 0.0, 0
    while come < len(arrivals) or scheduler.has_work:
        if not scheduler.has_work:
            now = max(now, float(arrivals.time[come]))
        while come < len(arrivals) and arrivals.time[come] <= now:
            prompt, output = int(arrivals.input_tokens[come]), int(arrivals.output_tokens[come])
            sequences.append(
                Sequence(prompt, output, output, FinishReason.LENGTH, float(arrivals.time[come]))
            )
            scheduler.add(sequences[-1])
            come += 1
        step = scheduler.plan(now)
        now += profile.step_seconds(step.work)
        scheduler.complete(step, now)
    first = np.array([sequence.first_token_at for sequence in sequences])
    last = np.array([sequence.last_token_at for sequence in sequences])
    return first, last, scheduler.preemptions


def simulate(profile: Profile, limits: Limits, arrivals: Arrivals) -> tuple[Records, int]:
    scenario = make_scenario(
        arrivals,
        step_time(profile),
        cache_tokens=limits.kv_cache_tokens,
        max_sequences=limits.max_num_seqs,
        max_batched_tokens=limits.max_num_batched_tokens,
    )
    simulation = Simulation(scenario, Script([1]))
    simulation.play()
    return simulation.fleet.requests, int(simulation.fleet.meters.counter[PREEMPTIONS])


def limits(profile: Profile, **changes: int) -> Limits:
    values = {
        "kv_cache_tokens": profile.kv_cache_tokens,
        "max_num_seqs": profile.max_num_seqs,
        "max_num_batched_tokens": profile.max_num_batched_tokens,
        "block_size": 1,
    }
    return Limits(**(values | changes))


@pytest.mark.parametrize(
    ("name", "rate", "changes"),
    [
        ("h100-8b", 5.0, {}),
        ("h100-8b", 26.0, {}),
        ("h100-8b", 35.0, {}),
        ("h100-8b", 20.0, {"max_num_seqs": 16}),
        ("l4-8b", 3.0, {}),
        ("l4-8b", 3.0, {"max_num_batched_tokens": 300}),
    ],
    ids=str,
)
def test_every_time_agrees(name, rate, changes):
    profile = PROFILES[name]
    arrivals = random_arrivals(rate, 60.0, seed=11)
    first, last, preemptions = drive(profile, limits(profile, **changes), arrivals)
    requests, preempted = simulate(profile, limits(profile, **changes), arrivals)
    # 35 requests a second are more than this engine answers: the cache fills up.
    assert preempted == preemptions
    assert (preemptions > 0) == (rate == 35.0)
    assert np.max(np.abs(requests["first"] - first)) < 2e-3
    assert np.max(np.abs(requests["done"] - last)) < 2e-3


@pytest.mark.parametrize("tokens", [31_000, 40_000])
def test_distributions_agree_where_sequences_are_preempted_often(tokens):
    """A time that differs by rounding may preempt another sequence, so only distributions can agree."""
    profile = PROFILES["l4-8b-bf16"]
    few = limits(profile, kv_cache_tokens=tokens)
    arrivals = random_arrivals(1.5, 1200.0, seed=12, inputs=600, outputs=250)
    first, last, preemptions = drive(profile, few, arrivals)
    requests, preempted = simulate(profile, few, arrivals)
    assert preemptions > 20
    assert preempted == pytest.approx(preemptions, rel=0.05)
    for mine, theirs in ((requests["first"], first), (requests["done"], last)):
        shares = (0.1, 0.5, 0.9, 0.99)
        expected = np.quantile(theirs - arrivals.time, shares)
        assert np.quantile(mine - arrivals.time, shares) == pytest.approx(expected, rel=0.02)


def test_blocks_of_sixteen_tokens_matter_little():
    """vLLM's cache is given out in blocks of 16 tokens, the simulator's token by token.

    The cache is full now and then here: means agree to a few parts in a thousand. Where it always is, so that the queue
    grows or all but grows, waits differ by up to a third.
    """
    profile = PROFILES["l4-8b-bf16"]
    arrivals = random_arrivals(0.8, 2400.0, seed=13, inputs=600, outputs=250)
    first, last, preemptions = drive(profile, limits(profile, block_size=16), arrivals)
    requests, preempted = simulate(profile, limits(profile), arrivals)
    assert min(preemptions, preempted) > 0
    assert np.mean(requests["first"] - arrivals.time) == pytest.approx(
        np.mean(first - arrivals.time), rel=0.01
    )
    assert np.mean(requests["done"] - arrivals.time) == pytest.approx(np.mean(last - arrivals.time), rel=0.01)
