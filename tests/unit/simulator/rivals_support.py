"""A scenario and signals with numbers that can be worked out by hand."""

from dataclasses import replace

import numpy as np

from modelyard.core.perf.step import FirstToken, StepTime
from modelyard.simulator.scenario import Arrivals, Engine, Scenario, Signals

# With prompts and answers of 100 tokens: 1 ms of prefill, 10 ms + 0.11 ms for each sequence between two tokens, and
# 1.001 s + 11 ms for each sequence from arrival to the end.
STEP = StepTime(
    fixed=0.010,
    experts=0.0,
    expert_share=0.0,
    per_sequence=0.0001,
    per_context_token=0.0,
    prefill_fixed=0.0,
    prefill_token=0.00001,
    prefill_token_squared=0.0,
    first_token=FirstToken(base=0.0, prompt=1.0, queue=0.0, step=1.0, sequence=0.0),
    uncertainty=0.1,
    first_token_uncertainty=0.1,
    origin="calibrated",
)


def arrivals(times, duration, input_tokens=100, output_tokens=100):
    times = np.asarray(times, dtype=float)
    return Arrivals(
        time=times,
        input_tokens=np.full(len(times), input_tokens),
        output_tokens=np.full(len(times), output_tokens),
        cached_tokens=np.zeros(len(times), dtype=int),
        duration=float(duration),
    )


def scenario(**changes):
    """10 requests/s for ten minutes; a replica gives 10/s with 11.25 running."""
    base = Scenario(
        name="test",
        arrivals=arrivals(np.arange(6000) / 10, 600),
        engine=Engine(STEP, cache_tokens=100_000, max_sequences=256, max_batched_tokens=8192),
        capacity=10.0,
        minimum=1,
        maximum=100,
        initial=1,
    )
    return replace(base, **changes)


def signals(time=0.0, **changes):
    """An idle replica."""
    base = Signals(
        time=time,
        elapsed=15.0,
        ready=1,
        pending=0,
        arrivals=0,
        arrived_input_tokens=0,
        arrived_output_tokens=0,
        completions=0,
        completed_input_tokens=0,
        completed_output_tokens=0,
        running=0.0,
        waiting=0.0,
        gateway_waiting=0.0,
        cache_usage=0.0,
        cache_usage_max=0.0,
        tokens_held=0.0,
        mean_running=0.0,
        mean_waiting=0.0,
        busy=0.0,
        first_token_p90=None,
        inter_token_p90=None,
        inter_token_mean=None,
        first_token_mean=None,
    )
    return replace(base, **changes)
