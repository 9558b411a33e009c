"""The records that the compiled simulation works on: requests, replicas, the speed of their engine, and meters.

Structured arrays, since a request's or a replica's figures are read together and compiled code takes them as they are.
Requests stand in lists by their indices: `next` and `previous` of a request belong to the one list that it is in.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelyard.core.perf.step import StepTime
from modelyard.simulator.compiled import compiled
from modelyard.simulator.scenario import Arrivals, Engine, Floats, Integers

Records = NDArray[Any]
Record = Any
"""One element of a structured array: a reference, as compiled code sees it."""

NONE = -1
"""No request, no replica."""

# States of a request.
EXPECTED = 0
"""Has not come yet."""
HELD = 1
"""Waits at the gateway because no replica serves."""
RECEIVED = 2
"""In the engine's front end: received, read, not yet in its queue."""
QUEUED = 3
PREFILLING = 4
DECODING = 5
COMPLETED = 6
REFUSED = 7
"""Longer than the engine takes, broken off while it was answered, or still unanswered at the end."""
ABANDONED = 8

# States of a replica.
FREE = 0
SERVING = 1
DRAINING = 2

REQUEST = np.dtype(
    [
        ("arrival", np.float64),  # seconds, when the client first asked
        ("asked", np.float64),  # seconds, when it asked last
        ("eligible", np.float64),  # seconds, when the engine's scheduler may take it
        (
            "expected",
            np.float64,
        ),  # seconds from then to its first token, if it need not queue; NaN if it had to
        ("first", np.float64),  # seconds, first token of the latest ask; NaN before
        ("done", np.float64),  # seconds, last token; NaN before
        ("input", np.int32),
        ("output", np.int32),
        ("cached", np.int32),  # tokens of the prompt that the prefix cache has
        ("generated", np.int32),  # tokens kept over a preemption
        ("computed", np.int32),  # tokens of the prompt computed so far, cached ones included
        ("finish", np.int32),  # the replica's step after which the last token is there
        ("replica", np.int32),
        ("next", np.int32),
        ("previous", np.int32),
        ("state", np.int8),
        ("asks", np.int8),  # times that the client asked
    ],
    align=True,
)

REPLICA = np.dtype(
    [
        ("gone_at", np.float64),  # seconds, when a draining one had answered its last request
        ("run_start", np.float64),  # seconds, when the current run of equal steps began
        ("run_end", np.float64),
        ("run_first", np.float64),  # seconds of the run's first step
        ("run_growth", np.float64),  # seconds by which each step is longer than the one before
        ("context", np.float64),  # tokens that attention reads, over the decoding sequences
        ("context_growth", np.float64),  # by which that grows with each step
        ("prompts", np.float64),  # seconds of prefill for each step to come, were the batch to stay as it is
        ("prompts_squared", np.float64),  # the same of the squares of the prompts' seconds
        ("prefill", np.float64),  # seconds to prefill the prompts of the running sequences, in all
        (
            "expected",
            np.float64,
        ),  # seconds that recent requests were expected to take from scheduler to first token
        ("observed", np.float64),  # seconds that they took
        ("held", np.int64),  # tokens in the cache when the run ends, without those that decoding adds in it
        ("step", np.int32),  # steps done when the run began
        ("run_steps", np.int32),  # 0: idle
        ("running", np.int32),
        ("decoding", np.int32),
        ("partial", np.int32),  # the request whose prompt is computed in part
        ("fresh", np.int32),  # the first of those that get their first token after this step
        ("heap", np.int32),  # entries of its heap of decoding sequences
        ("state", np.int8),
    ],
    align=True,
)

# Levels: how many there are now, over all replicas, with their time integral.
RUNNING, QUEUED_LEVEL, HELD_LEVEL, BUSY, LIVE = range(5)
LEVELS = 5

# Counters since the beginning.
(
    ASKS,
    ASKED_INPUT,
    ASKED_OUTPUT,
    COMPLETIONS,
    COMPLETED_INPUT,
    COMPLETED_OUTPUT,
    GENERATED,
    INTERVALS,
    PREEMPTIONS,
    STEPS,
    PROMPT_TOKENS,
    FIRST_TOKENS,
    LATE_FIRST_TOKENS,
    SLOW_ANSWERS,
) = range(14)
COUNTERS = 14

INTERVAL_BINS_PER_E = 200
"""Bins of the histogram of the time between tokens, for each factor of e: quantiles are exact to 0.25 %."""
INTERVAL_SMALLEST = 1e-6
"""Seconds of its first bin."""
INTERVAL_BINS = 4000
"""Up to 1e-6 * e^20 = 485 seconds."""


class Speed(NamedTuple):
    """The engine's step-time model and limits, as numbers. Seconds, tokens."""

    decode: Floats
    """Seconds of a decode step by running sequences, without reading their context."""
    context: float
    """Seconds for each token of context that a step reads."""
    prefill_fixed: float
    prefill_token: float
    prefill_squared: float
    stages: float
    """Prompts that are worked on at the same time."""
    windowed_share: float
    window: float
    first_base: float
    first_prompt: float
    first_queue: float
    first_step: float
    first_sequence: float
    cache_tokens: int
    longest: int
    """Of one request, prompt and answer."""
    max_sequences: int
    max_batched_tokens: int
    late_after: float
    """Seconds to the first token beyond which the engine counts it as late."""
    slow_after: float
    """Mean seconds between the tokens of an answer beyond which it counts as slow."""


class Meters(NamedTuple):
    """What has been counted."""

    level: Floats
    moment: Floats
    """Sum of each change times the seconds since the last look: levels times time less this is the time integral."""
    since: Floats
    """One element: seconds, the last look."""
    counter: NDArray[np.int64]
    interval_seconds: Floats
    """One element: seconds between tokens, summed over `INTERVALS`."""
    intervals: NDArray[np.int64]
    """Histogram of the time between tokens since the last look."""
    first: Floats
    """Seconds to first token of those that came since the last look: as many as `first_count` says."""
    first_count: NDArray[np.int64]
    chance: NDArray[np.uint64]
    """State of the random choice between replicas with equally few requests."""
    ask_request: NDArray[np.int32]
    """Asks whose client waits for a first token, in order; empty where clients wait for ever."""
    ask_time: Floats
    ask_count: NDArray[np.int64]
    """One element: asks so far."""


class Fleet(NamedTuple):
    """All that a run changes."""

    requests: Records
    replicas: Records
    due: Floats
    """Seconds, when each replica next has something to do; infinite: never, as it is."""
    active: NDArray[np.int32]
    """Requests that the gateway has sent to each and that are not answered: what it balances by."""
    heap_finish: NDArray[np.int32]
    """For each replica a binary heap of the steps after which its decoding sequences end."""
    heap_request: NDArray[np.int32]
    live: NDArray[np.int32]
    """Replicas that serve or drain: the first `bounds[1]`; those that serve come first."""
    bounds: NDArray[np.int64]
    """Numbers: that serve; that serve or drain; the next request to arrive; the next ask to time out."""
    lists: NDArray[np.int32]
    """Head and tail of each list of each replica; the last row's first list is that of the gateway."""
    meters: Meters


SERVING_COUNT, LIVE_COUNT, NEXT_ARRIVAL, NEXT_DEADLINE = range(4)

# Lists of a replica.
BATCH, QUEUE, FRONT = range(3)
"""Running sequences in the order of their admission; those that wait for it; those in the front end, by the time at
which they will be through it."""


def request_records(arrivals: Arrivals) -> Records:
    """Make the records of a trace's requests: at least one input and one output token each."""
    requests = np.zeros(len(arrivals), REQUEST)
    _fill(requests, arrivals.time, arrivals.input_tokens, arrivals.output_tokens, arrivals.cached_tokens)
    return requests


@compiled
def _fill(requests: Records, time: Floats, inputs: Integers, outputs: Integers, cached: Integers) -> None:
    """Fill in records that are all zero, one by one: column by column they go through memory ten times."""
    for index in range(len(requests)):
        request = requests[index]
        request["arrival"] = request["asked"] = time[index]
        request["first"] = request["done"] = np.nan
        request["input"] = max(inputs[index], 1)
        request["output"] = max(outputs[index], 1)
        # At least one token of each prompt is computed, as the first answer follows from it.
        request["cached"] = min(max(cached[index], 0), request["input"] - 1)
        request["replica"] = request["next"] = request["previous"] = NONE


def speed(engine: Engine, late_after: float = math.inf, slow_after: float = math.inf) -> Speed:
    """Turn an engine into numbers.

    Raises ValueError for an engine that could not run one token of each sequence in a step.
    """
    if not 0 < engine.max_sequences <= engine.max_batched_tokens:
        raise ValueError(
            f"max_sequences ({engine.max_sequences}) must be above 0 and at most max_batched_tokens "
            f"({engine.max_batched_tokens})"
        )
    step, law = engine.step, engine.step.first_token
    batch = np.arange(engine.max_sequences + 1, dtype=np.float64)
    factor = step.inter_token_factor
    decode = factor * (_experts(step, batch) + step.fixed + batch * step.per_sequence)
    return Speed(
        decode=decode,
        context=factor * step.per_context_token,
        prefill_fixed=factor * step.prefill_fixed,
        prefill_token=factor * step.prefill_token,
        prefill_squared=factor * step.prefill_token_squared,
        stages=step.parallel_prefill,
        windowed_share=step.windowed_share,
        window=step.window,
        # The law's own times are those of the model before what was learned about the steps.
        first_base=step.first_token_factor * law.base,
        first_prompt=step.first_token_factor / factor * law.prompt,
        first_queue=step.first_token_factor / factor * law.queue,
        first_step=step.first_token_factor / factor * law.step,
        first_sequence=step.first_token_factor * law.sequence,
        cache_tokens=engine.cache_tokens,
        longest=min(engine.cache_tokens, engine.context_length or engine.cache_tokens),
        max_sequences=engine.max_sequences,
        max_batched_tokens=engine.max_batched_tokens,
        late_after=late_after,
        slow_after=slow_after,
    )


def make_fleet(requests: Records, current: Speed, slots: int, asks: int, impatient: bool, seed: int) -> Fleet:
    """Make a fleet without replicas.

    `asks`: how often a client asks at most; `impatient`: whether clients give up at all.
    """
    timed = len(requests) * asks if impatient else 0
    meters = Meters(
        level=np.zeros(LEVELS),
        moment=np.zeros(LEVELS),
        since=np.zeros(1),
        counter=np.zeros(COUNTERS, np.int64),
        interval_seconds=np.zeros(1),
        intervals=np.zeros(INTERVAL_BINS, np.int64),
        first=np.zeros(len(requests) * asks),
        first_count=np.zeros(1, np.int64),
        chance=np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1),
        ask_request=np.zeros(timed, np.int32),
        ask_time=np.zeros(timed),
        ask_count=np.zeros(1, np.int64),
    )
    return Fleet(
        requests=requests,
        replicas=_replica_records(slots),
        due=np.full(slots, np.inf),
        active=np.zeros(slots, np.int32),
        heap_finish=np.zeros((slots, current.max_sequences), np.int32),
        heap_request=np.zeros((slots, current.max_sequences), np.int32),
        live=np.zeros(slots, np.int32),
        bounds=np.zeros(4, np.int64),
        lists=np.full((slots + 1, 3, 2), NONE, np.int32),
        meters=meters,
    )


def grown(fleet: Fleet, slots: int) -> Fleet:
    """Return the same fleet with so many more places for replicas; the old one is not to be used any more."""
    more = np.full((slots, 3, 2), NONE, np.int32)
    empty = np.zeros((slots, fleet.heap_finish.shape[1]), np.int32)
    return fleet._replace(
        replicas=np.concatenate([fleet.replicas, _replica_records(slots)]),
        due=np.concatenate([fleet.due, np.full(slots, np.inf)]),
        active=np.concatenate([fleet.active, np.zeros(slots, np.int32)]),
        heap_finish=np.concatenate([fleet.heap_finish, empty]),
        heap_request=np.concatenate([fleet.heap_request, empty]),
        live=np.concatenate([fleet.live, np.zeros(slots, np.int32)]),
        # The gateway's row stays the last one.
        lists=np.concatenate([fleet.lists[:-1], more, fleet.lists[-1:]]),
    )


def _replica_records(slots: int) -> Records:
    replicas = np.zeros(slots, REPLICA)
    replicas["run_end"] = replicas["gone_at"] = np.inf
    replicas["partial"] = replicas["fresh"] = NONE
    return replicas


def _experts(step: StepTime, batch: Floats) -> Floats:
    return step.experts * (1 - (1 - step.expert_share) ** batch)
