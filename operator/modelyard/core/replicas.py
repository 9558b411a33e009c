"""How many replicas: the simple rule, behind the interface that a better one will fill.

Replicas follow offered load over a replica's capacity, bounded by min and max. They grow at once and shrink only to
the highest size wanted over the last window. Unknown demand never changes the size.
The step between one replica and none has its own rule: it follows use, not load.
"""

import math
from dataclasses import dataclass, replace

from modelyard.api.llmdeployment import Scaling
from modelyard.api.quantities import parse_duration
from modelyard.core.demand import Demand
from modelyard.core.plan import Code, Reason, Size


@dataclass(frozen=True, slots=True)
class SizePolicy:
    """How load becomes a size."""

    utilization: float = 0.8
    """Share of a replica's capacity that is planned with. Queues grow without bound near 1 (M/M/1: waiting time
    goes with 1/(1 - utilization)); 0.8 is also the KV-cache saturation limit that llm-d uses."""
    down_window: float = 300.0
    """Seconds that a smaller size must have been enough before it is taken: the default of the Kubernetes HPA's
    scale-down stabilisation."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A size that demand asked for, at one moment."""

    time: float
    replicas: int


@dataclass(frozen=True, slots=True)
class SizeMemory:
    """What the rule remembers of one deployment between decisions."""

    since: float
    """Unix time from which its history is known; no window may reach behind it."""
    wanted: tuple[Wanted, ...] = ()
    """Oldest first; times rise and sizes fall: only the maxima that a later scale-down may have to respect."""
    active_at: float = 0.0
    """Unix time of the last sign of use: an arrival, a wake signal, a request being answered or waiting."""
    slept_at: float | None = None
    """Unix time of the decision to sleep; only a request after it wakes."""


@dataclass(frozen=True, slots=True)
class SizeInput:
    """What the rule looks at."""

    scaling: Scaling
    current: int | None
    """Replicas as written in the child Deployment; None before it exists."""
    serving: int
    """Pods that answer requests."""
    active: int
    """Requests being answered now."""
    capacity: float
    """Requests per second and replica."""
    demand: Demand | None
    """None: not known."""
    woken_at: float | None = None
    """Unix time of the newest wake signal."""
    hold: float = 600.0
    """Seconds that a request may wait for a pod."""


def decide_size(
    data: SizeInput, memory: SizeMemory, now: float, policy: SizePolicy
) -> tuple[Size, SizeMemory]:
    """Return the number of replicas and the memory for the next decision."""
    memory = replace(memory, active_at=_last_use(data, memory, now))
    low, high = data.scaling.min, data.scaling.max
    if data.current is None and data.demand is None and data.woken_at is None:
        return Size(low, Reason(Code.INITIAL, f"starts at min {low}")), memory
    current = data.current if data.current is not None else low
    if current == 0:
        return _decide_wake(data, memory), memory
    if data.demand is None:
        held = min(max(current, low), high)
        message = (
            f"stays at {held}: the gateway's counters are not known, and size never follows missing data"
        )
        return Size(held, Reason(Code.NO_DATA, message), known=False), memory
    size, memory = _follow_load(data, current, data.demand, memory, now, policy)
    if size.replicas == 1 and low == 0:
        return _consider_sleep(data, memory, now, size)
    return size, memory


def _asked_at(data: SizeInput) -> float | None:
    """Return the time of the newest request known."""
    arrived = data.demand.last_arrival if data.demand is not None else None
    return max((time for time in (arrived, data.woken_at) if time is not None), default=None)


def _last_use(data: SizeInput, memory: SizeMemory, now: float) -> float:
    """Return the time of the newest sign of use. The start of the history counts as one."""
    asked = max(memory.since, _asked_at(data) or memory.since)
    waited_for = bool(data.current) and not data.serving and now - asked < data.hold
    if data.active or waited_for:
        return now
    return max(memory.active_at, asked)


def _decide_wake(data: SizeInput, memory: SizeMemory) -> Size:
    """Decide for a deployment without replicas: only a request that came after it fell asleep wakes it."""
    low = data.scaling.min
    if low > 0:
        return Size(low, Reason(Code.AT_MINIMUM, f"grows to min {low}"))
    asleep_since = memory.since if memory.slept_at is None else memory.slept_at
    asked = _asked_at(data)
    if asked is not None and asked >= asleep_since:
        return Size(1, Reason(Code.WOKEN, "a request waits for it"))
    return Size(0, Reason(Code.SCALED_TO_ZERO, "sleeps: a request wakes it"))


def _follow_load(
    data: SizeInput, current: int, demand: Demand, memory: SizeMemory, now: float, policy: SizePolicy
) -> tuple[Size, SizeMemory]:
    """Decide from offered load: up at once, down to the highest size wanted within the window.

    Never below one: whether the last replica goes is `_consider_sleep`'s question.
    """
    low, high = max(data.scaling.min, 1), data.scaling.max
    # The subtraction keeps a quotient such as 3.0000000000000004 from asking for one replica more.
    needed = math.ceil(demand.rate / (data.capacity * policy.utilization) - 1e-9)
    target = min(max(needed, low), high)
    horizon = now - policy.down_window
    later = tuple(item for item in memory.wanted if item.replicas > target and item.time >= horizon)
    memory = replace(memory, wanted=(*later, Wanted(now, target)))
    bound = f", max is {high}" if needed > high else f", min is {low}" if needed < low else ""
    load = f"{demand.rate:.2f} requests/s at {data.capacity:.2f} a replica, {policy.utilization:.0%} used,"
    sentence = f"{load} need {needed}{bound}"
    if target < current:
        recent = max(item.replicas for item in memory.wanted)
        if horizon < memory.since:
            recent = max(recent, current)
        recent = min(recent, current, high)
        if recent > target:
            sentence += f"; stays at {recent} until that has held for {policy.down_window:.0f} s"
            return Size(recent, Reason(Code.STABILIZING, sentence)), memory
    code = Code.AT_MAXIMUM if needed > high else Code.AT_MINIMUM if needed < low else Code.OFFERED_LOAD
    return Size(target, Reason(code, sentence)), memory


def _consider_sleep(data: SizeInput, memory: SizeMemory, now: float, size: Size) -> tuple[Size, SizeMemory]:
    """Decide between the last replica and none."""
    idle_after = parse_duration(data.scaling.idle_after)
    idle = now - memory.active_at
    if idle >= idle_after:
        sleep = Size(0, Reason(Code.IDLE, f"sleeps: not used for {idle_after} s"))
        return sleep, replace(memory, slept_at=now, wanted=())
    if data.demand is not None and data.demand.rate == 0:
        return replace(
            size, reason=Reason(Code.STABILIZING, f"sleeps when not used for {idle_after} s")
        ), memory
    return size, memory
