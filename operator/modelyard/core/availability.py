"""What can be had, as the pods show it: a variant whose pods stay Pending is used less, and tried again later.

Needed even where nodes and pods are read: a pod may lack CPU, memory or a volume, and other namespaces may not be
visible.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelyard.api.quantities import parse_duration
from modelyard.core.snapshot import Pod
from modelyard.core.variants import Variant


@dataclass(frozen=True, slots=True)
class AvailabilityPolicy:
    """How long to wait for capacity."""

    patience: float = 30.0
    """Seconds that a pod may be unschedulable before another variant is used; the class's `provisionTime` is added.
    Several rounds of the scheduler, whose backoff ends at 10 s (`podMaxBackoffSeconds` of kube-scheduler)."""
    retry: float = 300.0
    """Seconds until a variant is tried again after its first failure; doubled with each one in a row."""
    longest_retry: float = 3600.0
    """Seconds. Limit of the doubling."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """A variant that could not be had."""

    ceiling: int
    """Replicas that could: those that have a node."""
    retry_at: float
    """Unix time."""
    failures: int
    """Times in a row."""
    free: int | None
    """Replicas for which the nodes seemed to have room then; None: nodes are not read."""
    message: str
    """What the scheduler said."""


@dataclass(frozen=True, slots=True)
class AvailabilityMemory:
    """What is remembered of one deployment, by `Variant.name`."""

    shortages: Mapping[str, Shortage] = field(default_factory=dict)
    """Variants that are not tried now."""
    failures: Mapping[str, Shortage] = field(default_factory=dict)
    """Variants that are being tried again: the last failure."""


def observe_availability(
    memory: AvailabilityMemory,
    variants: Iterable[Variant],
    pods: Iterable[Pod],
    measure_room: Callable[[Variant], int | None],
    now: float,
    policy: AvailabilityPolicy,
) -> AvailabilityMemory:
    """Return the memory with the pods' present state taken in.

    `measure_room` says for how many more replicas of a variant the nodes seem to have space; None: nodes are not read.
    """
    shortages: dict[str, Shortage] = {}
    failures: dict[str, Shortage] = {}
    live = [pod for pod in pods if pod.live]
    for variant in variants:
        mine = [pod for pod in live if pod.variant == variant.name]
        scheduled = sum(pod.scheduled for pod in mine)
        known = memory.shortages.get(variant.name)
        last = known or memory.failures.get(variant.name)
        refused = [pod for pod in mine if not pod.scheduled and pod.waiting == "Unschedulable"]
        late = [pod for pod in refused if now - pod.created > _patience(variant, policy)]
        if known is not None and not _again(known, measure_room(variant), now):
            # Pods that wait say that there is no more than what has a node, even if there was more before.
            ceiling = scheduled if late else max(known.ceiling, scheduled)
            shortages[variant.name] = replace(known, ceiling=ceiling)
            continue
        if known is None and late:
            failed = 1 if last is None else last.failures + 1
            wait = min(policy.retry * 2.0 ** (failed - 1), policy.longest_retry)
            shortages[variant.name] = Shortage(
                ceiling=scheduled,
                retry_at=now + wait,
                failures=failed,
                free=measure_room(variant),
                message=late[0].message,
            )
        elif last is not None and not (mine and scheduled == len(mine) and scheduled > last.ceiling):
            failures[variant.name] = last
    return AvailabilityMemory(shortages, failures)


def _again(shortage: Shortage, room: int | None, now: float) -> bool:
    """Return whether to try again: it is time, or there is more room than when it failed."""
    if now >= shortage.retry_at:
        return True
    return room is not None and shortage.free is not None and room > shortage.free


def _patience(variant: Variant, policy: AvailabilityPolicy) -> float:
    provision_time = variant.accelerator.spec.provision_time
    return policy.patience + (parse_duration(provision_time) if provision_time else 0)
