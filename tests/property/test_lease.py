"""Leader election: never two holders, whatever is late, lost, paused or killed, and however far clocks are apart."""

import heapq
import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.lease import Candidate, Record, Terms

PROCESSES = 3
delays = st.lists(
    st.one_of(st.just(0.0), st.just(0.1), st.floats(0, 1), st.sampled_from([4.0, 9.0, 11.0, 20.0, 30.0])),
    min_size=1,
    max_size=60,
)
"""Seconds that a request, an answer or a pause takes; used up one after the other, again and again."""
fates = st.lists(st.sampled_from(["good", "good", "good", "lost", "killed"]), min_size=1, max_size=40)
offsets = st.lists(st.floats(-1e6, 1e6), min_size=PROCESSES, max_size=PROCESSES)


class Server:
    """A Lease as the API server keeps it: a write succeeds over the version that it names."""

    def __init__(self):
        self.lease: Record | None = None
        self.version = 0

    def write(self, record: Record) -> Record | None:
        if record.version != (self.lease.version if self.lease else ""):
            return None
        self.version += 1
        self.lease = replace(record, version=str(self.version))
        return self.lease


class Process:
    """One operator: what it does, with the seconds that each step takes."""

    def __init__(self, index, offset, server, delay, fate, place=""):
        self.index, self.offset, self.server, self.delay, self.fate = index, offset, server, delay, fate
        self.place = place
        self.now, self.lives = 0.0, 0
        self.begin()

    def begin(self):
        self.lives += 1
        self.candidate = Candidate(f"process-{self.index}-{self.lives}", place=self.place)
        self.steps = self.live()

    def clock(self) -> float:
        return self.now + self.offset

    def holds(self, now: float) -> bool:
        return self.candidate.holds(now + self.offset)

    def look(self):
        yield self.delay()
        lease = self.server.lease
        yield self.delay()
        self.candidate = self.candidate.look(lease, self.clock())

    def live(self):
        while True:
            yield from self.round()
            yield self.candidate.wait(self.clock())

    def round(self):
        if not self.candidate.holds(self.clock()):
            yield from self.look()
        for _ in range(2):
            if not self.candidate.may_take(self.clock()):
                return
            sent, claim = self.clock(), self.candidate.claim(str(self.now))
            yield self.delay()
            stored = self.server.write(claim)
            yield self.delay()
            fate = self.fate()
            if fate == "killed":
                self.begin()
                return
            if fate == "lost":
                return
            if stored is not None:
                self.candidate = self.candidate.written(stored, sent, self.clock())
                return
            yield from self.look()


def play(offsets, delays, fates, steps=400, restarts=False):
    """Yield the time and the processes after each step.

    `restarts`: who begins anew knows that the one before it has ended.
    """
    delay, fate = itertools.cycle(delays), itertools.cycle(fates)
    server = Server()
    processes = [
        Process(
            index,
            offset,
            server,
            lambda: next(delay),
            lambda: next(fate),
            f"process-{index}-" if restarts else "",
        )
        for index, offset in enumerate(offsets)
    ]
    due = [(0.0, index) for index in range(len(processes))]
    for _ in range(steps):
        now, index = heapq.heappop(due)
        process = processes[index]
        process.now = now
        heapq.heappush(due, (now + next(process.steps), index))
        yield now, processes


@given(offsets, delays, fates, st.booleans())
def test_two_never_hold_the_lease(offsets, delays, fates, restarts):
    for now, processes in play(offsets, delays, fates, restarts=restarts):
        assert sum(process.holds(now) for process in processes) <= 1


@given(offsets, st.lists(st.floats(0, 0.5), min_size=1, max_size=20))
def test_somebody_holds_it_all_the_time_where_the_server_answers(offsets, delays):
    held = [any(p.holds(now) for p in processes) for now, processes in play(offsets, delays, ["good"])]
    assert all(held[held.index(True) :])


@given(offsets, st.floats(0, 0.2), st.floats(0, 2))
def test_a_dead_holder_is_followed_within_the_bound(offsets, delay, early):
    """Twenty seconds are promised until requests are served; the Lease takes no more than seventeen of them."""
    terms, server = Terms(), Server()
    first = Candidate("first").look(None, 0.0)
    stored = server.write(first.claim("0"))
    assert stored is not None
    first = first.written(stored, 0.0, 0.0)
    follower = Process(1, offsets[0], server, lambda: delay, lambda: "good")
    # It sees the Lease before the last renewal, after which the holder dies at once.
    now, died, renewed = -early, 0.0, False
    while not follower.holds(now):
        follower.now = now
        if now > died and not renewed:
            renewed = server.write(first.claim("1")) is not None
        now += next(follower.steps)
    # Seven requests or answers: two looks, of which one began too early, the claim, and what was on its way.
    assert follower.now - died <= terms.duration + terms.look + 7 * delay + 0.1
