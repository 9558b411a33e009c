"""How many replicas: capacity follows offered load, within bounds, and the last replica follows use.

Capacity grows as soon as the forecast with its headroom asks for more, and shrinks by proof (`core.scaling`).
Unknown demand never changes the size. Which variants give that capacity is the placement's question; the number of
replicas here is that of the variant that most replicas run on. The step between one replica and none has its own rule:
it follows use, not load.
"""

import math
from dataclasses import dataclass, field, replace

from modelyard.api.quantities import parse_duration
from modelyard.api.scaling import Scaling
from modelyard.core.demand import Demand
from modelyard.core.load import LoadShape
from modelyard.core.plan import Size
from modelyard.core.reasons import Code, Reason
from modelyard.core.scaling.idle import GapMemory, keep_time, observe_gap
from modelyard.core.scaling.rule import FleetView, LoadMemory, LoadPolicy, Need, assess, convert, observe_load
from modelyard.core.scaling.schedules import Bounds, explain_bounds
from modelyard.core.scaling.starts import StartMemory
from modelyard.core.scaling.work import WorkMemory
from modelyard.core.snapshot import Asked, ServiceReading
from modelyard.core.variants import DEFAULT_START_TIME

EQUAL = 1e-9
"""Relative difference of capacities that binary fractions may make."""

IDLE_AT_ONCE = 10.0
"""Seconds without use after which a budget lets a deployment sleep: the least that `idleAfter` may be, and a few
readings of the gateway's counters."""

LATE_STARTS = 2.0
"""Start times after which a replica that does not serve is late: nothing more is expected of it."""

WANTED_PARTS = 32
"""Parts of the window in which one maximum each is kept."""


@dataclass(frozen=True, slots=True)
class SizePolicy:
    """How load becomes a size."""

    load: LoadPolicy = field(default_factory=LoadPolicy)
    down_window: float = 0.0
    """Seconds that a smaller size must have been enough before it is taken; never less than one start time, after which
    keeping a replica has cost as much as starting it again."""

    @property
    def utilization(self) -> float:
        """Share of a replica's capacity that is planned with."""
        return self.load.utilization


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
    raised_at: float | None = None
    """Unix time of the newest growth."""
    load: LoadMemory = field(default_factory=LoadMemory)
    starts: StartMemory = field(default_factory=StartMemory)
    work: WorkMemory = field(default_factory=WorkMemory)
    usual: LoadShape | None = None
    """Size of the requests that loads are counted in; None: nothing was decided yet."""
    gaps: GapMemory = field(default_factory=GapMemory)
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
    bounds: Bounds | None = None
    """Where the bounds of `scaling` come from; None: from the spec itself."""
    service: ServiceReading | None = None
    """How well requests were served; None: engines do not tell."""
    slept_by: str = ""
    """Names of the budgets that let it sleep as soon as it is idle; empty: none does."""
    sleeps: bool | None = None
    """Whether it may sleep outside of schedules; None: as `scaling` says."""
    start_time: float = DEFAULT_START_TIME
    """Seconds from a new pod to its first answer."""
    service_time: float | None = None
    """Seconds that a request takes at capacity; None: not known."""
    waiting: float | None = None
    """Requests seen waiting; None: not known."""
    asked: Asked = field(default_factory=Asked)
    """What routes ask for."""
    work: float = 1.0
    """Work of a present request, in requests of the size that the capacity stands for."""
    rescale: float = 1.0
    """Requests of that size that one of the size of the decision before is worth: what is remembered is converted."""

    @property
    def present(self) -> float:
        """Requests per second that the present replicas answer."""
        return (self.current or 0) * self.capacity if self.held is None else self.held

    @property
    def floor(self) -> int:
        """Replicas that routes ask for, within the bounds."""
        return min(self.asked.replicas, self.scaling.max)

    @property
    def most(self) -> float:
        """Requests per second that `max` replicas answer at most."""
        return self.scaling.max * max(self.largest or self.capacity, self.capacity)


def decide_size(
    data: SizeInput, memory: SizeMemory, now: float, policy: SizePolicy
) -> tuple[Size, SizeMemory]:
    """Return the number of replicas and the memory for the next decision."""
    sleeps = data.scaling.min == 0 if data.sleeps is None else data.sleeps
    gaps = observe_gap(memory.gaps, _asked_at(data)) if sleeps else GapMemory()
    memory = replace(memory, active_at=_last_use(data, memory, now), gaps=gaps)
    low, high = data.scaling.min, data.scaling.max
    if data.current is None and data.demand is None and data.woken_at is None:
        return Size(low, Reason(Code.INITIAL, f"starts at min {low}")), memory
    current = data.current if data.current is not None else low
    if current == 0:
        return _decide_wake(data, memory), memory
    if low == 0 and data.asked.released_at is not None:
        sentence = "sleeps: the requests of its routes go where they cost less, and nobody else asks for it"
        sleep = Size(0, Reason(Code.PROVIDER_CHEAPER, sentence))
        return sleep, replace(memory, slept_at=now, wanted=())
    if data.demand is None:
        held = min(max(current, low, data.floor), high)
        message = (
            f"stays at {held}: the gateway's counters are not known, and size never follows missing data"
        )
        capacity = min(max(data.present, data.floor * data.capacity), data.most)
        return Size(held, Reason(Code.NO_DATA, message), known=False, capacity=capacity), memory
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
    # Who gave up before a long start was over comes again, and is to be served then.
    patience = max(data.hold, LATE_STARTS * data.start_time)
    waited_for = bool(data.current) and not data.serving and now - asked < patience
    if data.active or waited_for:
        return now
    return max(memory.active_at, asked)


def _decide_wake(data: SizeInput, memory: SizeMemory) -> Size:
    """Decide for a deployment without replicas: only a request that came after it fell asleep wakes it."""
    low = data.scaling.min
    if data.floor > low:
        return Size(data.floor, _explain_asked(data), capacity=data.floor * data.capacity)
    if low > 0:
        source = explain_bounds(data.bounds) if data.bounds is not None else ""
        code = Code.SCHEDULED if source else Code.AT_MINIMUM
        return Size(low, Reason(code, f"grows to min {low} {source}".rstrip()))
    asleep_since = memory.since if memory.slept_at is None else memory.slept_at
    asked = _asked_at(data)
    if asked is not None and asked >= asleep_since:
        return Size(1, Reason(Code.WOKEN, "a request waits for it"))
    return Size(0, Reason(Code.SCALED_TO_ZERO, "sleeps: a request wakes it"))


def _explain_asked(data: SizeInput) -> Reason:
    return Reason(Code.FLEET_CHEAPER, f"routes ask for {data.floor}: their requests cost least here")


def _count(capacity: float, each: float) -> int:
    """Return the replicas that answer so much.

    The subtraction keeps a quotient such as 3.0000000000000004 from asking for one replica more.
    """
    return math.ceil(capacity / each - 1e-9)


def _follow_load(
    data: SizeInput, demand: Demand, memory: SizeMemory, now: float, policy: SizePolicy
) -> tuple[Size, SizeMemory]:
    """Decide from offered load: up at once, down by proof.

    Never below one: whether the last replica goes is `_consider_sleep`'s question.
    """
    low, high, each = max(data.scaling.min, 1), data.scaling.max, data.capacity
    most = data.most
    present = min(data.present, most)
    fleet = _view(data, memory, present, now)
    load = observe_load(convert(memory.load, data.rescale), demand, fleet, policy.load)
    need = assess(load, demand, fleet, each, policy.load)
    needed = min(max(need.capacity, low * each, data.floor * each), most)
    keep = min(max(need.keep, needed), most)
    raised_at = memory.raised_at
    if _count(needed, each) > _count(present, each):
        raised_at = now
    window = max(policy.down_window, data.start_time)
    memory = replace(
        memory,
        load=load,
        raised_at=raised_at,
        wanted=_remember(memory.wanted, Wanted(now, keep), now - window, window / WANTED_PARTS),
    )
    bound = f", max is {high}" if _count(need.capacity, each) > high else ""
    bound = f", min is {low}" if _count(need.capacity, each) < low else bound
    source = explain_bounds(data.bounds) if bound and data.bounds is not None else ""
    bound = f"{bound} {source}".rstrip()
    sentence = f"{_explain(need, each)}, need {_count(need.capacity, each)}{bound}"
    code = Code.AT_MAXIMUM if "max is" in bound else Code.AT_MINIMUM if bound else Code.OFFERED_LOAD
    code = Code.SCHEDULED if source else code
    if _count(need.capacity, each) < data.floor and data.floor > low:
        code, sentence = Code.FLEET_CHEAPER, f"{sentence}; {_explain_asked(data).message}"
    numbers = _numbers(need, data)
    target = max(needed, present)
    if needed <= present * (1 + EQUAL):
        target = min(max(item.capacity for item in memory.wanted), present)
        settled = max(memory.since, raised_at if raised_at is not None else memory.since)
        if now - settled < window or not need.proves(target, fleet.serving):
            target = present
        if _count(target, each) > _count(needed, each):
            code = Code.STABILIZING
            kept = _count(target, each)
            falls = kept < _count(present, each)
            sentence += (
                f"; falls to {kept}, which was needed within {window:.0f} s"
                if falls
                else f"; stays at {kept} until that is proven for {window:.0f} s"
            )
    budget = data.bounds.budget if data.bounds is not None else ""
    if budget and ("max is" in bound or (data.current or 0) > high):
        code = Code.BUDGET_LIMITED
        sentence += f"; max is lowered to {high} by budget {budget}"
    return Size(_count(target, each), Reason(code, sentence), capacity=target, numbers=numbers), memory


def _view(data: SizeInput, memory: SizeMemory, present: float, now: float) -> FleetView:
    """Return what there is to answer requests, as the load's part of the rule sees it."""
    current = data.current or 0
    part = min(data.serving / current, 1.0) if current else 0.0
    grown = memory.raised_at if memory.raised_at is not None else memory.since
    late = part < 1.0 and now - grown > LATE_STARTS * data.start_time
    return FleetView(
        serving=present * part,
        present=present,
        lead=data.start_time,
        service_time=data.service_time,
        waiting=0.0 if data.asked.relieved else data.waiting,
        work=data.work,
        service=data.service,
        each=data.capacity,
        tightens=not late and current < data.scaling.max,
        relaxes=current > max(data.scaling.min, 1),
    )


def _remember(wanted: tuple[Wanted, ...], newest: Wanted, horizon: float, apart: float) -> tuple[Wanted, ...]:
    """Return the maxima with one more. Of those in the same `apart` seconds the larger stays, at the later time."""
    kept = [item for item in wanted if item.time >= horizon and item.capacity > newest.capacity]
    if kept and kept[-1].time // apart == newest.time // apart:
        return (*kept[:-1], Wanted(newest.time, kept[-1].capacity))
    return (*kept, newest)


def _explain(need: Need, each: float) -> str:
    waits = f" and {need.backlog:.0f} waiting" if need.backlog >= 1 else ""
    recurs = f" (it recurs every {need.period / 60:.0f} min)" if need.period else ""
    return (
        f"{need.load[0]:.2f} requests/s, {need.load[-1]:.2f} +- {need.deviation:.2f} expected one start from now"
        f"{recurs}{waits}, of which {need.allowed:.2%} may miss, at {each:.2f} a replica"
    )


def _numbers(need: Need, data: SizeInput) -> dict[str, float]:
    return {
        "level": need.load[0],
        "forecast": need.load[-1],
        "deviation": need.deviation,
        "allowedMisses": need.allowed,
        "backlog": need.backlog,
        "needed": need.capacity,
        "keep": need.keep,
        "capacityPerReplica": data.capacity,
        "present": data.present,
        "startTime": data.start_time,
    }


def _consider_sleep(data: SizeInput, memory: SizeMemory, now: float, size: Size) -> tuple[Size, SizeMemory]:
    """Decide between the last replica and none."""
    if data.floor:
        return size, memory
    idle_after = keep_time(memory.gaps, data.start_time, parse_duration(data.scaling.idle_after))
    hurried = bool(data.slept_by) and idle_after > IDLE_AT_ONCE
    idle_after = IDLE_AT_ONCE if hurried else idle_after
    idle = now - memory.active_at
    if idle >= idle_after:
        by = f", as budget {data.slept_by} asks" if hurried else ""
        code = Code.BUDGET_LIMITED if hurried else Code.IDLE
        sleep = Size(0, Reason(code, f"sleeps: not used for {idle_after:.0f} s{by}"))
        return sleep, replace(memory, slept_at=now, wanted=())
    if data.demand is not None and data.demand.rate == 0 and size.replicas == data.current:
        return replace(
            size, reason=Reason(Code.STABILIZING, f"sleeps when not used for {idle_after:.0f} s")
        ), memory
    return size, memory
