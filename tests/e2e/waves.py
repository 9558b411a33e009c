"""Recorded traffic that comes in waves, and the stand-in's engine as the simulator knows it."""

from dataclasses import replace

from dev.standin.profiles import Profile
from dev.traces.azure import CONVERSATION_2023
from modelyard.core.perf.step import FirstToken, StepTime
from modelyard.simulator.scenario import Arrivals, Engine
from modelyard.simulator.traceformats import read_trace
from modelyard.simulator.transforms import concatenate, scale_rate, slice_time, speed_up

SPEED = 6.0
"""The trace's ups and downs come this many times as fast as recorded."""

STRETCHES = (
    (0.0, 9.0, 0.15),
    (24.0, 33.0, 0.30),
    (47.0, 56.0, 0.12),
    (22.0, 31.0, 0.35),
    (48.0, 57.0, 0.12),
)
"""First and last minute of the trace, and the rate relative to the recorded one: each lasts 90 s as played, five of
the engine's starts, so that the fleet follows every one of them. About 0.6 and 2.2 requests/s in turn."""

LONGEST_PROMPT = 2000
"""Tokens. A prompt of the recorded 4,000 would hold up the others on its replica for 0.6 s."""
LONGEST_ANSWER = 64
"""Tokens. Answers of 2 s: short against a stretch, and little work for the machine."""

SEED = 1


def make_waves() -> Arrivals:
    """Return the requests: recorded moments and lengths, busy and quiet stretches of the trace in turn."""
    recorded = read_trace(CONVERSATION_2023)
    waves = concatenate(
        *(
            scale_rate(
                speed_up(slice_time(recorded, first * 60, last * 60), SPEED), rate / SPEED, SEED + number
            )
            for number, (first, last, rate) in enumerate(STRETCHES)
        ),
        name="waves of the Azure conversation trace",
    )
    return replace(
        waves,
        input_tokens=waves.input_tokens.clip(1, LONGEST_PROMPT),
        output_tokens=waves.output_tokens.clip(1, LONGEST_ANSWER),
    )


def simulated_engine(profile: Profile) -> Engine:
    """Return the engine that takes the steps of a stand-in's profile: it has no front end that takes time."""
    step = StepTime(
        fixed=profile.alpha_ms / 1e3,
        experts=0.0,
        expert_share=0.0,
        # The stand-in's step reads the context before the new token, the model's the one with it.
        per_sequence=(profile.beta_ms - profile.gamma_ms) / 1e3,
        per_context_token=profile.gamma_ms / 1e3,
        prefill_fixed=0.0,
        prefill_token=profile.delta_ms / 1e3,
        prefill_token_squared=0.0,
        first_token=FirstToken(base=0.0, prompt=0.0, queue=0.0, step=0.0, sequence=0.0),
        uncertainty=0.0,
        first_token_uncertainty=0.0,
        origin="roofline",
    )
    return Engine(step, profile.kv_cache_tokens, profile.max_num_seqs, profile.max_num_batched_tokens)
