"""The capacity that a deployment should have, from its offered load."""

import math
from dataclasses import dataclass, field, replace

from modelyard.core.demand import Demand, Sample
from modelyard.core.scaling.attainment import (
    MissPolicy,
    advance_backlog,
    capacity_for,
    highest_utilization,
    missed_share,
)
from modelyard.core.scaling.forecast import Forecast, ForecastPolicy, advance, begin
from modelyard.core.scaling.headroom import Headroom, HeadroomPolicy, Queue, control, follow, learn
from modelyard.core.scaling.proof import Fleet, is_enough, project_backlog
from modelyard.core.scaling.recurrence import Recurrence, RecurrencePolicy
from modelyard.core.snapshot import ServiceReading

DRAIN_TIME = 60.0
"""Seconds, after a start time, within which requests that wait are to be worked off."""

SERVICE_TIME = 8.0
"""Seconds that a request takes at a replica's capacity where that is not known: 200 tokens at 40 ms."""

SHORTEST_BIN = 4.0
"""Seconds. Two readings of the gateway's counters."""
FEWEST_SERVED = 4.0
"""Requests that a fleet must be able to answer in a bin before its misses count: with fewer, one request that comes a
little early is an overload. Four leave a quarter of the capacity to chance, about as much as is planned for bursts."""
POINTS = 5
"""Moments of one start time that are looked at."""
BURST = 2.7
"""Service times over which arrivals are averaged before they count as a burst: a batch follows its arrivals with the
time constant T of a service, and a request's latency is the mean over its own. White noise of density s that passes
both has the variance s / (e T), as if it were averaged over e T."""
LONGEST_COUNT = 60.0
"""Seconds that a count of misses may stand for, and after which it is out of date: four readings of the engines'
pages."""
LEEWAY = 0.5
"""Standard errors of the level by which a size that falls stays above what is needed. Of Azure's conversation trace of
2023, with 120 s starts, an hour has 15 starts without, 11 with this and 9 with a whole one, which costs 0.3 % more on
ServeGen's m-large; this costs 0.1 %."""
LONGEST_BIN = 30.0
"""Seconds. A quarter of a usual start time: a burst that lasts longer shows in the level."""


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """How offered load becomes capacity."""

    forecast: ForecastPolicy = field(default_factory=ForecastPolicy)
    headroom: HeadroomPolicy = field(default_factory=HeadroomPolicy)
    misses: MissPolicy = field(default_factory=MissPolicy)
    recurrence: RecurrencePolicy = field(default_factory=RecurrencePolicy)
    drain_time: float = DRAIN_TIME

    @property
    def utilization(self) -> float:
        """Share of the capacity that a load without bursts or errors may use."""
        return highest_utilization(self.headroom.missed, self.misses)


@dataclass(frozen=True, slots=True)
class LoadMemory:
    """What is remembered of one deployment's load. Its size does not grow with time."""

    counted: Sample | None = None
    """Where the newest bin ends."""
    forecast: Forecast | None = None
    headroom: Headroom = field(default_factory=Headroom)
    recurrence: Recurrence = field(default_factory=Recurrence)
    backlog: float = 0.0
    """Requests that wait, by the balance of arrivals and capacity, in requests of the size that capacity stands for."""
    service: ServiceReading | None = None
    """How well requests were served until the newest bin's end."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """What there is to answer requests, in requests per second."""

    serving: float
    present: float
    """Starting replicas included."""
    lead: float
    """Seconds that a start takes."""
    service_time: float | None = None
    """Seconds that a request takes at capacity."""
    waiting: float | None = None
    """Requests seen waiting; None: not known."""
    work: float = 1.0
    """Work of a present request, in requests of the size that the capacity stands for."""
    service: ServiceReading | None = None
    """How well requests were served; None: not known."""
    each: float = 0.0
    """Of one replica."""
    tightens: bool = True
    """Whether misses count: not where the maximum holds the size, or replicas that were asked for do not come."""
    relaxes: bool = True
    """Whether their absence counts: not where the minimum holds the size."""


def observe_load(memory: LoadMemory, demand: Demand, fleet: FleetView, policy: LoadPolicy) -> LoadMemory:
    """Return the memory with the arrivals since the last bin taken in, as far as they fill a bin."""
    width = min(max(fleet.service_time or SERVICE_TIME, SHORTEST_BIN), LONGEST_BIN)
    if memory.counted not in demand.samples:
        # A new count, one that began again, or one with a hole: what came in between is not known.
        since = memory.counted.time if memory.counted is not None else 0.0
        first = next((sample for sample in demand.samples if sample.time >= since), None)
        memory = replace(memory, counted=first or memory.counted)
    for sample in demand.samples:
        counted = memory.counted
        if counted is not None and sample.time - counted.time >= width * (1 - 1e-6):
            memory = _close_bin(memory, counted, sample, fleet, policy)
    return memory


def _close_bin(
    memory: LoadMemory, start: Sample, end: Sample, fleet: FleetView, policy: LoadPolicy
) -> LoadMemory:
    seconds, arrivals = end.time - start.time, end.total - start.total
    before = memory.forecast or begin(start.time, arrivals / seconds, policy.forecast)
    # After a hole in the readings the forecast goes on from where they begin again.
    before = replace(before, time=start.time)
    after = advance(before, end.time, arrivals, policy.forecast)
    service = fleet.service
    if service is not None and end.time - service.time > LONGEST_COUNT:
        service = None
    queue = Queue(service.waiting * fleet.work, fleet.each) if service is not None else None
    lead, promised = fleet.lead, memory.headroom.promised(end.time, seconds, fleet.lead)
    recurrence = memory.recurrence.take_in(
        start.time,
        end.time,
        after.last * fleet.work,
        promised.plain if promised is not None else None,
        lead,
        policy.recurrence,
    )

    def foresee(plain: float, time: float) -> float:
        return recurrence.mix(plain, time, policy.recurrence)

    headroom = learn(
        memory.headroom, before, after, fleet.work, lead, policy.forecast, policy.headroom, queue, foresee
    )
    offered = arrivals * fleet.work + memory.backlog
    served = fleet.serving * seconds
    if service is not None:
        headroom = _follow_service(memory.service, headroom, fleet, policy)
    elif served >= FEWEST_SERVED:
        missed = missed_share(offered / served, policy.misses)
        if _counts(missed, headroom, fleet, policy):
            headroom = control(headroom, missed, seconds, policy.headroom)
    backlog = advance_backlog(memory.backlog, arrivals * fleet.work, fleet.serving, seconds)
    if fleet.waiting is not None:
        backlog = min(backlog, fleet.waiting)
    memory = replace(memory, service=fleet.service, recurrence=recurrence)
    return replace(memory, counted=end, forecast=after, headroom=headroom, backlog=backlog)


def _follow_service(
    before: ServiceReading | None, headroom: Headroom, fleet: FleetView, policy: LoadPolicy
) -> Headroom:
    """Return the headroom after what engines counted since the last reading that a bin took in."""
    after = fleet.service
    if before is None or after is None or after.time <= before.time:
        return headroom
    seconds = min(after.time - before.time, LONGEST_COUNT)
    requests, missed = after.requests - before.requests, after.missed - before.missed
    if requests <= 0 or missed < 0:
        return headroom
    share = min(missed / requests, 1.0)
    if not _counts(share, headroom, fleet, policy):
        return headroom
    return follow(headroom, share, seconds, policy.headroom)


def _counts(missed: float, headroom: Headroom, fleet: FleetView, policy: LoadPolicy) -> bool:
    """Say whether a share of missed requests says something about the headroom."""
    if missed <= policy.headroom.missed:
        return fleet.relaxes
    return fleet.tightens and not headroom.surges(fleet.lead)


def convert(memory: LoadMemory, factor: float) -> LoadMemory:
    """Return the memory in requests of another size, of which one of the present size is worth so many."""
    if factor == 1.0:
        return memory
    headroom = memory.headroom
    pending = tuple(item.convert(factor) for item in headroom.pending)
    return replace(
        memory,
        headroom=replace(
            headroom,
            pending=pending,
            error=headroom.error * factor**2,
            slopes=headroom.slopes.convert(factor),
            reversion=headroom.reversion.convert(factor),
            power=headroom.power * factor**2,
            leftover=headroom.leftover * factor,
        ),
        backlog=memory.backlog * factor,
        recurrence=memory.recurrence.convert(factor),
    )


@dataclass(frozen=True, slots=True)
class Need:
    """The capacity that is needed, and what it was worked out from. Rates are requests per second."""

    load: tuple[float, ...]
    """Expected at evenly spaced times from now to one start time from now."""
    profile: tuple[float, ...]
    """Capacity needed at those times."""
    deviation: float
    """Of the last of those loads."""
    allowed: float
    """Share of requests that may be missed."""
    waiting: float
    """Requests that wait now."""
    backlog: float
    """Requests that wait one start time from now."""
    capacity: float
    """Needed one start time from now."""
    keep: float
    """Needed at any moment until then, and LEEWAY more: a size that falls is to stand."""
    lead: float
    """Seconds that a start takes."""
    period: float = 0.0
    """Seconds after which the load recurs; 0: it does not."""

    def proves(self, remaining: float, serving: float) -> bool:
        """Say whether a fleet that keeps `remaining` requests per second, of `serving` now, is enough.

        Replicas that start are the first to go; those that are left of them serve half a start time from now.
        """
        kept = min(serving, remaining)
        fleet = Fleet(kept, remaining - kept, self.lead / 2)
        return is_enough(fleet, self.profile, self.load, self.waiting, self.lead)


def assess(memory: LoadMemory, demand: Demand, fleet: FleetView, each: float, policy: LoadPolicy) -> Need:
    """Return the capacity needed. `each`: requests per second of one replica, the most that a backlog may add."""
    headroom, lead = memory.headroom, fleet.lead
    state = memory.forecast
    if state is None:
        state = begin(demand.time, demand.rate, policy.forecast)
    width = min(max(fleet.service_time or SERVICE_TIME, SHORTEST_BIN), LONGEST_BIN)
    weights, reversion = headroom.weights(policy.headroom), headroom.weight_back(policy.headroom)
    allowed = policy.headroom.missed if headroom.allowed is None else headroom.allowed

    def expected(seconds: float) -> float:
        plain = state.ahead(seconds, policy.forecast, weights, reversion) * fleet.work
        # What is there now need not be foretold.
        return memory.recurrence.mix(plain, state.time + seconds, policy.recurrence) if seconds else plain

    def deviation(rate: float) -> float:
        return headroom.deviation(rate, state.dispersion * fleet.work, BURST * width, policy.headroom)

    times = [lead * number / (POINTS - 1) for number in range(POINTS)]
    load = tuple(expected(time) for time in times)
    profile = tuple(capacity_for(rate, deviation(rate), allowed, policy.misses) for rate in load)
    coming = Fleet(fleet.serving, max(fleet.present - fleet.serving, 0.0), lead / 2)
    backlog = project_backlog(coming, load, memory.backlog, lead)
    draining = min(load[-1] + backlog / policy.drain_time, profile[-1] + each) if backlog >= 1.0 else 0.0
    capacity = max(profile[-1], draining)
    # What is needed for a load at rest moves by this much, and with it a size that is near an edge: what leaves at one
    # moment would be asked for again at the next, and paid for while it drains and starts.
    noise = state.dispersion * fleet.work * max(load[0], 0.0) / (2 * policy.forecast.fast)
    return Need(
        load=load,
        profile=profile,
        deviation=deviation(load[-1]),
        allowed=allowed,
        waiting=memory.backlog,
        backlog=backlog,
        capacity=capacity,
        keep=max(capacity, *profile) + LEEWAY * math.sqrt(noise),
        lead=lead,
        period=memory.recurrence.period,
    )
