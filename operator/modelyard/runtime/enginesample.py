"""Which pods of a variant are read, and what is kept of each between two readings."""

from dataclasses import dataclass, field

from modelyard.core.enginemetrics import EngineReading
from modelyard.core.load import Objective
from modelyard.core.perf.step import StepTime
from modelyard.core.servicequality import Served, count_missed
from modelyard.core.snapshot import Pod
from modelyard.core.variants import Variant

LONGEST_GAP = 2.0
"""Time that a count may stand for, relative to the time that was counted: where pods take turns, one is counted at its
second reading, so that every other round may count nothing."""


@dataclass(slots=True)
class PodWindow:
    """A pod that is being read: from the first reading until there is enough to learn from."""

    pod: Pod
    first: EngineReading | None = None
    last: EngineReading | None = None
    """The newest, where there is a first."""
    restarted: float = 0.0
    """Unix seconds of the last restart that was seen."""


@dataclass(slots=True)
class Tally:
    """What pairs of readings counted in one round."""

    requests: float = 0.0
    missed: float = 0.0
    waiting: float = 0.0
    """Requests in the queues of the pods that were counted."""
    pods: int = 0
    """Pairs of readings, one of each pod."""
    seconds: float = 0.0
    """Between the readings, over all pods."""
    longest: float = 0.0
    """Seconds of the longest pair."""


@dataclass(slots=True)
class SampledVariant:
    """What is read of one variant of one deployment."""

    key: str
    engine: str
    variant: Variant
    prior: StepTime
    not_before: float = 0.0
    """Unix seconds: pods that were created earlier run another model or precision than the prior is about."""
    windows: dict[str, PodWindow] = field(default_factory=dict)
    """By pod UID."""
    cursor: str = ""
    """Name of the pod that was last taken into the sample."""
    crowded: bool = False
    """Whether pods wait for their turn."""
    told: tuple[float, float] = (0.0, 0.0)
    """Logarithms of both factors when work was last asked for."""
    objective: Objective | None = None
    """None: requests that miss are not counted."""
    serving: int = 0
    """Pods that requests are sent to, those that are still cold included."""
    tally: Tally = field(default_factory=Tally)
    counted: float = 0.0
    """Unix seconds of the last round that counted; 0: none since pods serve."""

    def follow(self, variant: Variant, prior: StepTime, changed_after: float) -> None:
        """Take in the newest view of the variant."""
        if prior != self.prior:
            if variant.hardware == self.variant.hardware:
                # Not the class but the spec changed: what runs now is on its way out, and is not what the prior means.
                self.not_before = changed_after
            self.windows.clear()
        self.variant, self.prior = variant, prior

    def choose(self, pods: list[Pod], size: int) -> None:
        """Keep the pods of the sample that are still there, and fill it with the next in turn.

        A pod stays until its window is complete, so that of thousands of pods each pair of readings is of one pod.
        """
        found = {pod.uid: pod for pod in pods}
        kept = [(uid, window) for uid, window in self.windows.items() if uid in found][:size]
        self.windows = {uid: _renew(window, found[uid]) for uid, window in kept}
        self.crowded = len(found) > size
        turn = sorted(found.values(), key=lambda pod: (pod.name <= self.cursor, pod.name))
        for pod in turn:
            if len(self.windows) >= size:
                break
            if pod.uid not in self.windows:
                self.windows[pod.uid] = PodWindow(pod)
                self.cursor = pod.name

    def finish(self, uid: str) -> None:
        """Give the pod's place in the sample to the next, if any waits."""
        if self.crowded:
            self.windows.pop(uid, None)

    def count(self, before: EngineReading, after: EngineReading) -> None:
        """Take in what one pod served between two readings."""
        seconds = after.time - before.time
        if self.objective is None or seconds <= 0:
            return
        served = count_missed(before, after, self.objective)
        if served is not None:
            self.tally.requests += served.requests
            self.tally.missed += served.missed
            self.tally.waiting += served.waiting
            self.tally.pods += 1
            self.tally.seconds += seconds
            self.tally.longest = max(self.tally.longest, seconds)

    def close_round(self, now: float) -> Served | None:
        """Return what all pods that serve did since the last round that counted; None: nothing was counted.

        The sample stands for all in proportion to the time that pods served: variants of one deployment are added up,
        and one with many pods must not weigh as little as its sample.
        """
        tally, self.tally = self.tally, Tally()
        if not self.serving:
            self.counted = 0.0
        if not tally.seconds:
            return None
        most = LONGEST_GAP * tally.longest
        elapsed = min(max(now - self.counted, 0.0), most) if self.counted else tally.longest
        self.counted = now
        scale = self.serving * elapsed / tally.seconds
        waiting = tally.waiting * self.serving / tally.pods
        return Served(scale * tally.requests, scale * tally.missed, waiting)


def _renew(window: PodWindow, pod: Pod) -> PodWindow:
    if (pod.restarts, pod.ready_since) != (window.pod.restarts, window.pod.ready_since):
        window.first = window.last = None
    window.pod = pod
    return window
