"""How many replicas: the simple rule, behind the interface that a better one will fill.

Capacity follows offered load, bounded by min and max replicas. It grows at once and shrinks only to the highest
capacity wanted over the last window. Unknown demand never changes the size. Which variants give that capacity is the
placement's question; the number of replicas here is that of the variant that most replicas run on.
The step between one replica and none has its own rule: it follows use, not load.
"""

import math
from dataclasses import dataclass, replace

from modelyard.api.llmdeployment import Scaling
from modelyard.api.quantities import parse_duration
from modelyard.core.demand import Demand
from modelyard.core.plan import Size
from modelyard.core.reasons import Code, Reason


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
    """A capacity that demand asked for, at one moment."""

    time: float
    capacity: float
    """Requests per second."""


@dataclass(frozen=True, slots=True)
class SizeMemory:
    """What the rule remembers of one deployment between decisions."""

    since: float
    """Unix time from which its history is known; no window may reach behind it."""
    wanted: tuple[Wanted, ...] = ()
    """Oldest first; times rise and capacities fall: only the maxima that a later scale-down may have to respect."""
    active_at: float = 0.0
    """Unix time of the last sign of use: an arrival, a wake signal, a request being answered or waiting."""
    slept_at: float | None = None
    """Unix time of the decision to sleep; only a request after it wakes."""


@dataclass(frozen=True, slots=True)
class SizeInput:
    """What the rule looks at."""

    scaling: Scaling
    current: int | None
    """Replicas as written in the child Deployments; None before there is one."""
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
    held: float | None = None
    """Requests per second that the present replicas answer, where they are not all of that capacity."""
    largest: float | None = None
    """Requests per second of the largest replica that there may be, where it is not of that capacity."""

    @property
    def present(self) -> float:
        """Requests per second that the present replicas answer."""
        return (self.current or 0) * self.capacity if self.held is None else self.held


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
        return Size(held, Reason(Code.NO_DATA, message), known=False, capacity=data.present), memory
    size, memory = _follow_load(data, data.demand, memory, now, policy)
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


def _count(capacity: float, each: float) -> int:
    """Return the replicas that answer so much.

    The subtraction keeps a quotient such as 3.0000000000000004 from asking for one replica more.
    """
    return math.ceil(capacity / each - 1e-9)


def _follow_load(
    data: SizeInput, demand: Demand, memory: SizeMemory, now: float, policy: SizePolicy
) -> tuple[Size, SizeMemory]:
    """Decide from offered load: up at once, down to the highest capacity wanted within the window.

    Never below one: whether the last replica goes is `_consider_sleep`'s question.
    """
    low, high, each = max(data.scaling.min, 1), data.scaling.max, data.capacity
    needed = _count(demand.rate / policy.utilization, each)
    most = high * max(data.largest or each, each)
    target = min(max(demand.rate / policy.utilization, low * each), most)
    horizon = now - policy.down_window
    later = tuple(item for item in memory.wanted if item.capacity > target and item.time >= horizon)
    memory = replace(memory, wanted=(*later, Wanted(now, target)))
    bound = f", max is {high}" if needed > high else f", min is {low}" if needed < low else ""
    load = f"{demand.rate:.2f} requests/s at {each:.2f} a replica, {policy.utilization:.0%} used,"
    sentence = f"{load} need {needed}{bound}"
    present = min(data.present, most)
    if target < present:
        recent = max(item.capacity for item in memory.wanted)
        if horizon < memory.since:
            recent = max(recent, present)
        recent = min(recent, present)
        if _count(recent, each) > _count(target, each):
            count = _count(recent, each)
            sentence += f"; stays at {count} until that has held for {policy.down_window:.0f} s"
            return Size(count, Reason(Code.STABILIZING, sentence), capacity=recent), memory
        target = max(target, recent)
    code = Code.AT_MAXIMUM if needed > high else Code.AT_MINIMUM if needed < low else Code.OFFERED_LOAD
    return Size(_count(target, each), Reason(code, sentence), capacity=target), memory


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
