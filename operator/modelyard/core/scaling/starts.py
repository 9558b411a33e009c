"""How long a start takes, measured on the deployment's own pods."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from modelyard.core.snapshot import Pod

KEPT = 8
"""Starts whose median counts: one odd one among them changes nothing."""


@dataclass(frozen=True, slots=True)
class StartMemory:
    """What was measured."""

    seconds: tuple[float, ...] = ()
    """Of the newest starts, oldest first."""
    measured: frozenset[str] = frozenset()
    """Pods that are there and whose start has counted: one that turns unready and ready again starts nothing."""


def observe_starts(memory: StartMemory, pods: Iterable[Pod]) -> StartMemory:
    """Return the memory with the pods taken in that serve for the first time.

    A container that was restarted took its time for another reason, and does not count.
    """
    pods = tuple(pods)
    known = frozenset(pod.uid for pod in pods) & memory.measured
    fresh = sorted(
        (pod.ready_since, pod.uid, pod.ready_since - pod.created)
        for pod in pods
        if pod.ready_since is not None and pod.ready and pod.created and pod.uid not in known
    )
    if not fresh and known == memory.measured:
        return memory
    restarted = {pod.uid for pod in pods if pod.restarts}
    seconds = [taken for _, uid, taken in fresh if uid not in restarted and taken > 0]
    return StartMemory((*memory.seconds, *seconds)[-KEPT:], known | frozenset(uid for _, uid, _ in fresh))


def start_time(memory: StartMemory, assumed: float) -> float:
    """Return seconds from a new pod to its first answer: the median of what was measured, or what is assumed."""
    return median(memory.seconds) if memory.seconds else assumed
