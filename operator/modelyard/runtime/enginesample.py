"""Which pods of a variant are read, and what is kept of each between two readings."""

from dataclasses import dataclass, field

from modelyard.core.enginemetrics import EngineReading
from modelyard.core.perf.step import StepTime
from modelyard.core.snapshot import Pod
from modelyard.core.variants import Variant


@dataclass(slots=True)
class PodWindow:
    """A pod that is being read: from the first reading until there is enough to learn from."""

    pod: Pod
    first: EngineReading | None = None
    restarted: float = 0.0
    """Unix seconds of the last restart that was seen."""


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


def _renew(window: PodWindow, pod: Pod) -> PodWindow:
    if (pod.restarts, pod.ready_since) != (window.pod.restarts, window.pod.ready_since):
        window.first = None
    window.pod = pod
    return window
