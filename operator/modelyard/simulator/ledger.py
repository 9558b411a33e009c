"""When each replica was started, served and was gone: billing, start times and the course of a run."""

import math

import numpy as np

from modelyard.simulator.scenario import Floats, Integers, Scenario

NODE_KEPT = 600.0
"""Seconds that an empty node stays: `--scale-down-unneeded-time` of the Kubernetes cluster autoscaler
(https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md). A start needs no new node, and no new
image, while there is an empty one. Where nodes are not made as they are needed, an empty one stays, and so does the
image: the kubelet only removes images from a disk that is nearly full
(https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images)."""


class Ledger:
    """Replicas by number, in the order of their starts."""

    def __init__(self, scenario: Scenario, chance: np.random.Generator) -> None:
        self._start = scenario.start
        self._chance = chance
        self._begin: list[float] = []
        self._ready: list[float] = []
        self._end: list[float] = []
        self._empty_nodes: list[float] = []
        self._notes: list[tuple[float, int, int]] = []
        self._initial = 0

    def start(self, now: float, *, initial: bool = False) -> int:
        """Start a replica and return its number. The start time drawn depends only on the seed and that number."""
        self._begin.append(now)
        self._end.append(math.inf)
        if initial:
            self._initial += 1
            self._ready.append(now)
            return len(self._begin) - 1
        draw = math.exp(self._start.spread * float(self._chance.standard_normal()))
        self._ready.append(now + self._start.median * draw + self._preparation(now))
        return len(self._begin) - 1

    def ready_at(self, number: int) -> float:
        """Return when a replica serves, or would have."""
        return self._ready[number]

    def end(self, number: int, now: float, *, node_lost: bool = False) -> None:
        """Note that a replica is gone; its node stays for others for a while."""
        self._end[number] = now
        preparation = self._start.provision + self._start.image_pull
        if not preparation:
            return
        has_node = now >= min(self._ready[number], self._begin[number] + preparation)
        if has_node and not node_lost:
            self._empty_nodes.append(now)

    def billed(self, until: float) -> float:
        """Return the seconds from starts to ends, up to a time, over all replicas."""
        begin, end = np.minimum(self._begin, until), np.minimum(self._end, until)
        return float(np.sum(end - begin))

    def cold_starts(self, until: float) -> int:
        """Count the starts before a time, those cancelled later included."""
        return sum(begin < until for begin in self._begin) - self._initial

    def note(self, now: float, *, ready: int, wanted: int) -> None:
        """Note how many there are from now on."""
        if not self._notes or self._notes[-1][1:] != (ready, wanted):
            self._notes.append((now, ready, wanted))

    def series(self, times: Floats) -> tuple[Integers, Integers]:
        """Return the replicas that serve, and those wanted, at some times."""
        notes = np.array(self._notes, dtype=np.float64)
        place = np.searchsorted(notes[:, 0], times, side="right") - 1
        return notes[place, 1].astype(np.int64), notes[place, 2].astype(np.int64)

    def reversals(self, until: float) -> int:
        """Count the changes of what is wanted against one in the other direction less than one start time before."""
        span = self._start.longest
        count, last, direction, before = 0, -math.inf, 0, self._notes[0][2]
        for now, _, wanted in self._notes:
            change = (wanted > before) - (wanted < before)
            if change and now <= until:
                count += direction * change < 0 and now - last < span
                last, direction, before = now, change, wanted
        return count

    def _preparation(self, now: float) -> float:
        """Return the seconds until a node is there that has the image; 0 where one is empty, which it then is not."""
        if self._start.provision:
            self._empty_nodes = [since for since in self._empty_nodes if now - since <= NODE_KEPT]
        if self._empty_nodes:
            self._empty_nodes.pop()
            return 0.0
        return self._start.provision + self._start.image_pull
