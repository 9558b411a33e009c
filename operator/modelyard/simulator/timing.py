"""How long a step, a prompt and the way to the scheduler take: the step-time model, compiled."""

import math

from modelyard.simulator.compiled import compiled
from modelyard.simulator.records import Fleet, Record, Speed

RECENT = 1 / 128
"""Weight of the newest request in what recent ones took to their first token."""


@compiled
def attended(speed: Speed, tokens: float) -> float:
    """Return the tokens that attention reads of a context, averaged over the layers."""
    if speed.windowed_share == 0.0:
        return tokens
    return (1 - speed.windowed_share) * tokens + speed.windowed_share * min(tokens, speed.window)


@compiled
def chunk_seconds(speed: Speed, computed: float, tokens: float) -> float:
    """Return the seconds of prefill for tokens of a prompt that follow those computed."""
    end = computed + tokens
    return speed.prefill_token * tokens + speed.prefill_squared * (end * end - computed * computed)


@compiled
def prompt_seconds(speed: Speed, request: Record) -> float:
    """Return the seconds of prefill for a whole prompt, less what the prefix cache has."""
    cached = request["cached"]
    return float(speed.prefill_fixed + chunk_seconds(speed, cached, request["input"] - cached))


@compiled
def context_growth(speed: Speed, request: Record) -> float:
    """Return by how many tokens a sequence's attended context grows with each step, on average."""
    if speed.windowed_share == 0.0:
        return 1.0
    start = request["input"] + request["generated"]
    end = request["input"] + request["output"]
    return float((attended(speed, end) - attended(speed, start)) / max(end - start, 1))


@compiled
def front_end_seconds(fleet: Fleet, speed: Speed, slot: int, index: int) -> float:
    """Return what a request takes before the scheduler may have it.

    The model's law of the time to first token, as measured, holds more than the scheduler's steps: reading the
    request, templates, streaming. What it holds beyond the expected wait for the running step and the step or steps
    that compute the prompt comes before them.
    """
    replica, request = fleet.replicas[slot], fleet.requests[index]
    running = replica["running"]
    prompt = prompt_seconds(speed, request)
    decode = speed.decode[min(running + 1, speed.max_sequences)] + speed.context * replica["context"]
    prompts = replica["prompts"] / speed.stages
    step = decode + prompts
    law = (
        speed.first_base
        + speed.first_prompt * prompt
        + speed.first_queue * replica["prefill"]
        + speed.first_step * (step + prompt / request["output"] / speed.stages)
        + speed.first_sequence * running
    )
    # Prompts come at random, so that the number of them in a step is of the Poisson law, and a request comes more
    # likely in a long step than in a short one: it waits E[step^2] / (2 E[step]) for its end. In truth they come in
    # bunches, as what was admitted together often ends together: hence the correction by what recent ones took.
    wait = 0.0
    if running > 0 and step > 0:
        wait = (step * step + replica["prompts_squared"] / speed.stages**2) / (2 * step)
        step = decode + prompts * 2 * wait / step
    chunks = (request["input"] - request["cached"] - 1) // max(speed.max_batched_tokens - running, 1)
    request["expected"] = wait + step + chunks * decode + prompt / speed.stages
    correction = replica["observed"] / replica["expected"] if replica["expected"] > 0 else 1.0
    return float(max(0.0, law - request["expected"] * correction))


@compiled
def learn_expected(fleet: Fleet, slot: int, index: int, now: float) -> None:
    """Compare what a request that did not queue took to its first token with what was expected."""
    replica, request = fleet.replicas[slot], fleet.requests[index]
    expected = request["expected"]
    if math.isnan(expected):
        return
    weight = RECENT if replica["expected"] > 0 else 1.0
    replica["expected"] += weight * (expected - replica["expected"])
    replica["observed"] += weight * (now - request["eligible"] - replica["observed"])
