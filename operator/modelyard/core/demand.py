"""Offered load of each deployment, from the gateway's cumulative arrival counters.

Arrivals are counted before any hold or queue, so load that cannot be served yet is seen. Completions and
in-flight concurrency are not demand: both shrink exactly when replicas are missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelyard.core.budget.rules import divide
from modelyard.core.routing import Route, WeightedTarget, rule_name
from modelyard.core.snapshot import GatewayReading


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests offered so far, at one moment."""

    time: float
    total: float


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a route's requests that goes to one deployment."""

    route: str
    """`Route.name`, or `rule_name` of one of its rules."""
    part: float
    """From 0 to 1."""


@dataclass(frozen=True, slots=True)
class DemandMemory:
    """What demand remembers of one deployment between decisions."""

    samples: tuple[Sample, ...] = ()
    """Oldest first, spanning the long window and one sample more."""
    last_arrival: float | None = None
    """Unix time of the newest reading that showed a new arrival."""
    shares: tuple[Share, ...] = ()
    """The routes that the samples were taken from."""


@dataclass(frozen=True, slots=True)
class DemandPolicy:
    """How arrivals become a rate."""

    short_window: float = 15.0
    """Seconds. Long enough to hold tens of requests at 3/s, short against a cold start of 100 s and more."""
    long_window: float = 60.0
    """Seconds. The stable window of Knative's autoscaler."""
    stale_after: float = 30.0
    """Seconds without a reading after which demand is unknown: several read intervals, so that one lost read
    changes nothing."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Offered load of one deployment."""

    rate: float
    """Requests per second: the higher of the short and the long window."""
    last_arrival: float | None
    """Unix time of the newest arrival known."""
    samples: tuple[Sample, ...] = ()
    """The readings behind it, oldest first."""

    @property
    def time(self) -> float:
        """Unix time of the newest reading; 0 without any."""
        return self.samples[-1].time if self.samples else 0.0


def observe(memory: DemandMemory, time: float, total: float, policy: DemandPolicy) -> DemandMemory:
    """Return the memory with one more cumulative value.

    A value below the last one starts the history again, because a rate across it would be wrong.
    """
    samples = memory.samples
    if samples and time <= samples[-1].time:
        return memory
    last_arrival = memory.last_arrival
    if samples and total < samples[-1].total:
        samples = ()
    elif samples and total > samples[-1].total:
        last_arrival = time
    horizon = time - policy.long_window
    kept = [sample for sample in samples if sample.time >= horizon]
    older = [sample for sample in samples if sample.time < horizon]
    return replace(
        memory, samples=(*older[-1:], *kept, Sample(time=time, total=total)), last_arrival=last_arrival
    )


def estimate_demand(memory: DemandMemory, now: float, policy: DemandPolicy) -> Demand | None:
    """Return the offered load, or None where it is not known (no reading, or only old ones)."""
    if len(memory.samples) < 2 or now - memory.samples[-1].time > policy.stale_after:
        return None
    return Demand(
        rate=max(
            _rate(memory.samples, policy.short_window),
            _rate(memory.samples, policy.long_window),
        ),
        last_arrival=memory.last_arrival,
        samples=memory.samples,
    )


def _rate(samples: tuple[Sample, ...], window: float) -> float:
    newest = samples[-1]
    start = next(sample for sample in samples if sample.time >= newest.time - window)
    if start is newest:
        start = samples[-2]
    return (newest.total - start.total) / (newest.time - start.time)


def observe_share(
    memory: DemandMemory, time: float, total: float, shares: tuple[Share, ...], policy: DemandPolicy
) -> DemandMemory:
    """Return the memory with one more cumulative value that was summed from these shares.

    Other shares than before (a route came or went, a weight changed) start the history again: the value then
    moves by requests that nobody sent.
    """
    if shares != memory.shares:
        memory = replace(memory, samples=(), shares=shares)
    return observe(memory, time, total, policy)


def wanted_weights(targets: tuple[WeightedTarget, ...], *, priority: bool) -> dict[str, int]:
    """Return the share of the requests that each of these upstreams should have, by key, on the scale of weights."""
    if priority:
        return {target.upstream: 1 for target in [item for item in targets if item.used][:1]}
    return {target.upstream: target.weight if target.wanted is None else target.wanted for target in targets}


def wanted_parts(targets: tuple[WeightedTarget, ...], *, priority: bool) -> dict[str, float]:
    """Return the part of the requests that each of these upstreams should have, by key; 0 to 1."""
    wanted = wanted_weights(targets, priority=priority)
    total = sum(wanted.values())
    return {upstream: weight / total for upstream, weight in wanted.items()} if total else {}


def find_shares(routes: tuple[Route, ...], deployments: Mapping[str, object]) -> dict[str, tuple[Share, ...]]:
    """Return what every deployment should get of each route: by the route's weights, or all if it goes first.

    What a rule takes is counted by itself. An adapter (`namespace/name:adapter`) counts for its deployment. What a
    deployment answers because another target failed is not foreseen. What goes elsewhere while its replicas are
    missing counts: they are to come for it.
    """
    shares: dict[str, list[Share]] = {key: [] for key in deployments}
    for whole in routes:
        # Of tenants whom budgets treat otherwise nothing is known beforehand: they count as everybody else.
        route, _ = divide(whole)
        ruled = ((rule_name(route.name, number), rule.targets) for number, rule in enumerate(route.rules))
        for name, listed in (*ruled, (route.name, route.targets)):
            for upstream, part in wanted_parts(listed, priority=route.priority).items():
                deployment = upstream.partition(":")[0]
                if part and deployment in shares:
                    shares[deployment].append(Share(name, part))
    return {key: tuple(found) for key, found in shares.items()}


def split_arrivals(reading: GatewayReading, shares: Mapping[str, tuple[Share, ...]]) -> dict[str, float]:
    """Return the cumulative requests offered to every deployment."""
    return {
        key: sum(reading.arrivals.get(share.route, 0.0) * share.part for share in found)
        for key, found in shares.items()
    }
