"""One replica's engine: continuous batching as in vLLM's scheduler (https://docs.vllm.ai), step by step.

Each step computes one token of every decoding sequence, and prompts in chunks with what is left of the step's budget of
tokens. Waiting requests are admitted in order while there are places in the batch and room in the cache for the chunk.
When the cache has no room for the next tokens, the newest sequence is preempted: it loses what it holds, goes back to
the head of the queue, and computes its prompt and its answer so far again.

Between two events the batch stays as it is, so all steps up to the next one are taken at once (a run): they get longer
by the same time each, since every sequence's context grows by a token. Nothing is approximated by that.

What is approximated, with the effect measured by the tests against the stand-in's scheduler, which does without:

- The cache is given out token by token, not in blocks of 16: means differ by less than 1 % while it is full now and
  then, and by up to a third in the waits of an engine whose cache is always full.
- Requests are in the front end before the scheduler has them (`front_end_seconds`), as long as it takes for the mean
  time to first token to be that of the model's law; without such a law nothing is added, and all times agree.
- The prefix cache has what the trace says, on whichever replica, and what it has takes no room.
- A windowed context grows evenly from what it is at the answer's start to what it is at its end.
"""

import math

import numpy as np

from modelyard.simulator.compiled import compiled
from modelyard.simulator.lists import (
    append,
    heap_push,
    heap_remove,
    heap_take,
    insert_after,
    remove,
    seconds_of,
    steps_until,
)
from modelyard.simulator.records import (
    BATCH,
    BUSY,
    COMPLETED,
    COMPLETED_INPUT,
    COMPLETED_OUTPUT,
    COMPLETIONS,
    DECODING,
    DRAINING,
    FIRST_TOKENS,
    FRONT,
    GENERATED,
    INTERVAL_BINS,
    INTERVAL_BINS_PER_E,
    INTERVAL_SMALLEST,
    INTERVALS,
    LATE_FIRST_TOKENS,
    LIVE,
    NONE,
    PREEMPTIONS,
    PREFILLING,
    PROMPT_TOKENS,
    QUEUE,
    QUEUED,
    QUEUED_LEVEL,
    RECEIVED,
    RUNNING,
    SLOW_ANSWERS,
    STEPS,
    Fleet,
    Meters,
    Speed,
)
from modelyard.simulator.timing import (
    attended,
    chunk_seconds,
    context_growth,
    front_end_seconds,
    learn_expected,
    prompt_seconds,
)


@compiled
def shift(meters: Meters, level: int, change: float, now: float) -> None:
    """Change how many there are of something. Changes need not come in the order of their times."""
    meters.level[level] += change
    meters.moment[level] += change * (now - meters.since[0])


@compiled
def receive(fleet: Fleet, speed: Speed, slot: int, index: int, now: float) -> None:
    """Hand a request to a replica's front end."""
    request, requests = fleet.requests[index], fleet.requests
    request["state"] = RECEIVED
    request["replica"] = slot
    request["generated"] = 0
    request["eligible"] = now + front_end_seconds(fleet, speed, slot, index)
    fleet.active[slot] += 1
    before = fleet.lists[slot, FRONT, 1]
    while before != NONE and requests[before]["eligible"] > request["eligible"]:
        before = requests[before]["previous"]
    insert_after(fleet, slot, FRONT, before, index)
    interrupt(fleet, slot, request["eligible"])


@compiled
def interrupt(fleet: Fleet, slot: int, when: float) -> None:
    """End a replica's run with the first step that ends at or after a time: there may be another batch then."""
    replica = fleet.replicas[slot]
    if replica["run_steps"] == 0:
        fleet.due[slot] = min(fleet.due[slot], when)
    elif when < replica["run_end"] and replica["run_steps"] > 1:
        first, growth = replica["run_first"], replica["run_growth"]
        steps = min(replica["run_steps"], steps_until(first, growth, when - replica["run_start"]))
        replica["run_steps"] = steps
        replica["run_end"] = replica["run_start"] + seconds_of(first, growth, steps)
        fleet.due[slot] = replica["run_end"]


@compiled
def advance(fleet: Fleet, speed: Speed, slot: int, until: float) -> None:
    """Let a replica do everything that is due up to a time."""
    while fleet.due[slot] <= until:
        now = fleet.due[slot]
        if fleet.replicas[slot]["run_steps"] > 0:
            _end_run(fleet, speed, slot, now)
        _begin_run(fleet, speed, slot, now)


@compiled
def settle(fleet: Fleet, slot: int, now: float) -> None:
    """Move to the queue what has passed the front end."""
    index = fleet.lists[slot, FRONT, 0]
    while index != NONE and fleet.requests[index]["eligible"] <= now:
        remove(fleet, slot, FRONT, index)
        append(fleet, slot, QUEUE, index)
        fleet.requests[index]["state"] = QUEUED
        shift(fleet.meters, QUEUED_LEVEL, 1.0, fleet.requests[index]["eligible"])
        index = fleet.lists[slot, FRONT, 0]


@compiled
def drop(fleet: Fleet, speed: Speed, slot: int, index: int, now: float) -> None:
    """Take an unanswered request from a replica, wherever it is there."""
    request, replica = fleet.requests[index], fleet.replicas[slot]
    state = request["state"]
    if state == RECEIVED:
        remove(fleet, slot, FRONT, index)
    elif state == QUEUED:
        remove(fleet, slot, QUEUE, index)
        shift(fleet.meters, QUEUED_LEVEL, -1.0, now)
    else:
        if state == DECODING:
            heap_remove(fleet, slot, index)
        if replica["fresh"] == index:
            replica["fresh"] = request["next"]
        if replica["partial"] == index:
            replica["partial"] = NONE
        _leave_batch(fleet, speed, slot, index, now)
    fleet.active[slot] -= 1
    interrupt(fleet, slot, now)


@compiled
def note_gone(fleet: Fleet, slot: int, now: float) -> None:
    """See whether a leaving replica has answered all its requests."""
    replica = fleet.replicas[slot]
    if replica["state"] == DRAINING and fleet.active[slot] == 0 and replica["gone_at"] == math.inf:
        replica["gone_at"] = now
        shift(fleet.meters, LIVE, -1.0, now)
        if replica["run_end"] != math.inf:
            # The last one was given up in the middle of a step.
            shift(fleet.meters, BUSY, -1.0, now)
            replica["run_end"] = math.inf
            replica["run_steps"] = 0
            fleet.due[slot] = math.inf


@compiled
def _end_run(fleet: Fleet, speed: Speed, slot: int, now: float) -> None:
    replica, requests, counter = fleet.replicas[slot], fleet.requests, fleet.meters.counter
    steps, decoding = replica["run_steps"], replica["decoding"]
    step = replica["step"] + steps
    replica["step"] = step
    replica["run_steps"] = 0
    replica["held"] += decoding * steps
    replica["context"] += replica["context_growth"] * steps
    counter[STEPS] += steps
    if decoding > 0:
        _count_intervals(fleet.meters, (now - replica["run_start"]) / steps, decoding * steps)
    index = replica["fresh"]
    replica["fresh"] = NONE
    while index != NONE and index != replica["partial"]:
        after = requests[index]["next"]
        _first_token(fleet, speed, slot, index, now)
        index = after
    while replica["heap"] > 0 and fleet.heap_finish[slot, 0] <= step:
        _complete(fleet, speed, slot, heap_take(fleet, slot, 0), now)
    note_gone(fleet, slot, now)


@compiled
def _count_intervals(meters: Meters, seconds: float, tokens: int) -> None:
    meters.counter[GENERATED] += tokens
    meters.counter[INTERVALS] += tokens
    meters.interval_seconds[0] += seconds * tokens
    place = int(math.log(max(seconds, INTERVAL_SMALLEST) / INTERVAL_SMALLEST) * INTERVAL_BINS_PER_E)
    meters.intervals[min(place, INTERVAL_BINS - 1)] += tokens


@compiled
def _first_token(fleet: Fleet, speed: Speed, slot: int, index: int, now: float) -> None:
    """Let a sequence whose prompt is computed give a token: its first, or after a preemption the next one."""
    replica, request, meters = fleet.replicas[slot], fleet.requests[index], fleet.meters
    request["generated"] += 1
    meters.counter[GENERATED] += 1
    if math.isnan(request["first"]):
        request["first"] = now
        learn_expected(fleet, slot, index, now)
        meters.first[meters.first_count[0]] = now - request["asked"]
        meters.first_count[0] += 1
        meters.counter[FIRST_TOKENS] += 1
        if now - request["asked"] > speed.late_after:
            meters.counter[LATE_FIRST_TOKENS] += 1
    left = request["output"] - request["generated"]
    if left == 0:
        _complete(fleet, speed, slot, index, now)
        return
    request["state"] = DECODING
    request["finish"] = replica["step"] + left
    heap_push(fleet, slot, request["finish"], index)
    replica["decoding"] += 1
    replica["context"] += attended(speed, request["input"] + request["generated"])
    replica["context_growth"] += context_growth(speed, request)


@compiled
def _complete(fleet: Fleet, speed: Speed, slot: int, index: int, now: float) -> None:
    request, counter = fleet.requests[index], fleet.meters.counter
    _leave_batch(fleet, speed, slot, index, now)
    request["state"] = COMPLETED
    request["done"] = now
    counter[COMPLETIONS] += 1
    counter[COMPLETED_INPUT] += request["input"]
    counter[COMPLETED_OUTPUT] += request["output"]
    if request["output"] > 1 and now - request["first"] > speed.slow_after * (request["output"] - 1):
        counter[SLOW_ANSWERS] += 1
    fleet.active[slot] -= 1


@compiled
def _leave_batch(fleet: Fleet, speed: Speed, slot: int, index: int, now: float) -> None:
    replica, request = fleet.replicas[slot], fleet.requests[index]
    remove(fleet, slot, BATCH, index)
    shift(fleet.meters, RUNNING, -1.0, now)
    replica["running"] -= 1
    prompt = prompt_seconds(speed, request)
    replica["prefill"] -= prompt
    replica["prompts"] -= prompt / request["output"]
    replica["prompts_squared"] -= prompt * prompt / request["output"]
    replica["held"] -= request["computed"] - request["cached"]
    if request["state"] == DECODING:
        steps = request["output"] - request["generated"] - (request["finish"] - replica["step"])
        growth = context_growth(speed, request)
        replica["held"] -= steps
        replica["context"] -= attended(speed, request["input"] + request["generated"]) + growth * steps
        replica["context_growth"] -= growth
        replica["decoding"] -= 1
    if replica["decoding"] == 0:
        # Sums of floats that should be 0 may not be.
        replica["context"] = replica["context_growth"] = 0.0
    if replica["running"] == 0:
        replica["prefill"] = replica["prompts"] = replica["prompts_squared"] = 0.0


@compiled
def _preempt_newest(fleet: Fleet, speed: Speed, slot: int, now: float) -> None:
    replica, index = fleet.replicas[slot], fleet.lists[slot, BATCH, 1]
    request = fleet.requests[index]
    _leave_batch(fleet, speed, slot, index, now)
    if request["state"] == DECODING:
        heap_remove(fleet, slot, index)
        request["generated"] = request["output"] - (request["finish"] - replica["step"])
    if replica["partial"] == index:
        replica["partial"] = NONE
    request["state"] = QUEUED
    insert_after(fleet, slot, QUEUE, NONE, index)
    shift(fleet.meters, QUEUED_LEVEL, 1.0, now)
    fleet.meters.counter[PREEMPTIONS] += 1


@compiled
def _admit(fleet: Fleet, speed: Speed, slot: int, index: int, now: float) -> None:
    replica, request = fleet.replicas[slot], fleet.requests[index]
    remove(fleet, slot, QUEUE, index)
    append(fleet, slot, BATCH, index)
    shift(fleet.meters, QUEUED_LEVEL, -1.0, now)
    shift(fleet.meters, RUNNING, 1.0, now)
    if request["eligible"] < replica["run_start"]:
        # It was there before the last run began, but there was no place for it.
        request["expected"] = np.nan
    request["state"] = PREFILLING
    request["computed"] = request["cached"]
    prompt = prompt_seconds(speed, request)
    replica["running"] += 1
    replica["prefill"] += prompt
    replica["prompts"] += prompt / request["output"]
    replica["prompts_squared"] += prompt * prompt / request["output"]


@compiled
def _compute(fleet: Fleet, speed: Speed, slot: int, index: int, budget: int) -> tuple[int, float]:
    """Compute what the budget lets of a prompt; return the tokens and the seconds."""
    replica, request = fleet.replicas[slot], fleet.requests[index]
    computed, whole = request["computed"], request["input"] + request["generated"]
    tokens = min(whole - computed, budget)
    seconds = chunk_seconds(speed, computed, tokens)
    if computed == request["cached"]:
        seconds += speed.prefill_fixed
    request["computed"] = computed + tokens
    replica["held"] += tokens
    fleet.meters.counter[PROMPT_TOKENS] += tokens
    if computed + tokens < whole:
        replica["partial"] = index
    else:
        replica["partial"] = NONE
        if replica["fresh"] == NONE:
            replica["fresh"] = index
    return tokens, seconds / speed.stages


@compiled
def _schedule_prompts(fleet: Fleet, speed: Speed, slot: int, now: float) -> tuple[bool, float]:
    """Make room for the next token of each sequence, then choose prompts.

    Return whether to choose anew after one step, and the seconds of the prompts. That is so after prompts, and after a
    preemption: nothing is admitted in the same step, but perhaps in the next.
    """
    replica, requests = fleet.replicas[slot], fleet.requests
    preempted = False
    while replica["held"] + replica["decoding"] > speed.cache_tokens:
        _preempt_newest(fleet, speed, slot, now)
        preempted = True
    budget = speed.max_batched_tokens - replica["decoding"]
    room = speed.cache_tokens - replica["held"] - replica["decoding"]
    total = 0.0
    once = preempted
    index = replica["partial"]
    if index != NONE:
        whole = requests[index]["input"] + requests[index]["generated"]
        if min(whole - requests[index]["computed"], budget) > room:
            # A prompt that is computed in part is always the newest sequence.
            _preempt_newest(fleet, speed, slot, now)
            return True, 0.0
        tokens, seconds = _compute(fleet, speed, slot, index, budget)
        budget, room, once, total = budget - tokens, room - tokens, True, seconds
    while not preempted and budget > 0 and replica["running"] < speed.max_sequences:
        index = fleet.lists[slot, QUEUE, 0]
        if index == NONE:
            break
        new = requests[index]["input"] + requests[index]["generated"] - requests[index]["cached"]
        if min(new, budget) > room:
            break
        _admit(fleet, speed, slot, index, now)
        tokens, seconds = _compute(fleet, speed, slot, index, budget)
        budget, room, once, total = budget - tokens, room - tokens, True, total + seconds
    return once, total


@compiled
def _begin_run(fleet: Fleet, speed: Speed, slot: int, now: float) -> None:
    """Choose the next steps."""
    replica = fleet.replicas[slot]
    was_busy = replica["run_end"] != math.inf
    settle(fleet, slot, now)
    once, seconds = _schedule_prompts(fleet, speed, slot, now)
    front = fleet.lists[slot, FRONT, 0]
    if replica["running"] == 0:
        replica["run_end"] = math.inf
        fleet.due[slot] = math.inf if front == NONE else fleet.requests[front]["eligible"]
        if was_busy:
            shift(fleet.meters, BUSY, -1.0, now)
        return
    if not was_busy:
        shift(fleet.meters, BUSY, 1.0, now)
    first = speed.decode[replica["running"]] + speed.context * replica["context"] + seconds
    growth = speed.context * replica["context_growth"]
    steps = 1
    if not once:
        steps = fleet.heap_finish[slot, 0] - replica["step"]
        steps = min(steps, (speed.cache_tokens - replica["held"]) // replica["decoding"])
        if front != NONE:
            steps = min(steps, steps_until(first, growth, fleet.requests[front]["eligible"] - now))
    replica["run_start"] = now
    replica["run_first"] = first
    replica["run_growth"] = growth
    replica["run_steps"] = steps
    replica["run_end"] = now + seconds_of(first, growth, steps)
    fleet.due[slot] = replica["run_end"]
