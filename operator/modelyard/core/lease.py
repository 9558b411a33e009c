"""Which of several operators may act: the rules of a Lease, without its transport and its clock.

Whoever holds the Lease renews it. Whoever wants it takes it once it has not changed for as long as it says. Nobody
looks at another's clock: how long a Lease has not changed is measured from the moment at which its reader saw it first.
That is how client-go elects leaders (https://pkg.go.dev/k8s.io/client-go/tools/leaderelection).

Two never hold it at once as long as clocks run at about the same speed: a holder counts from before its last renewal
was sent and stops after `Terms.deadline`; everybody else counts from after it was stored and waits for
`Terms.duration`. One that takes the place of a process that has ended need not wait (`Candidate.place`).
"""

from dataclasses import dataclass, field, replace
from math import inf

_LEAST_WAIT = 0.05
"""Seconds between two looks at a Lease that may be taken, where somebody else is always faster."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Durations in seconds.

    15, 10 and 2 are those of Kubernetes' own components (`--leader-elect-lease-duration`,
    `--leader-elect-renew-deadline`, `--leader-elect-retry-period`).
    """

    duration: float = 15.0
    """A Lease that has not changed for this long may be taken. Whole seconds."""
    deadline: float = 10.0
    """A holder stops to act when its last good renewal was sent this long ago. The difference to `duration` is room for
    clocks that run at different speeds, and for requests that are on their way when it stops."""
    retry: float = 2.0
    """Between two renewals, also after one that failed."""
    look: float = 1.0
    """Between two looks of one that does not hold it: after the last renewal of a holder that dies, the Lease is taken
    within `duration + look` and two requests."""
    request: float = 3.0
    """One request may take this long: within `deadline` two can time out."""

    def __post_init__(self) -> None:
        """Raise ValueError for durations with which two could hold the Lease, or the only holder could not keep it."""
        if not self.duration > self.deadline > self.retry > 0:
            raise ValueError("duration must be above deadline, and deadline above retry")


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says."""

    holder: str
    """Identity of the holder; empty: nobody."""
    duration: float
    """Seconds, as its holder wrote them."""
    acquired: str = ""
    renewed: str = ""
    """Times by the holder's clock. They are shown and compared for equality, never with another clock."""
    transitions: int = 0
    """How often the holder changed."""
    version: str = field(default="", compare=False)
    """`resourceVersion`: a write succeeds only if it is still the same."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One process and what it knows of the Lease. All times are readings of its own monotonic clock, in seconds."""

    identity: str
    """Unique to the process: the same pod with a restarted container is another candidate."""
    terms: Terms = field(default_factory=Terms)
    place: str = ""
    """What identities begin with of processes that run one after the other and never beside each other, as those of one
    container do: when the next begins, the one before it has ended. Empty: nothing is known of that."""
    seen: Record | None = None
    """What the Lease said last; None: there was none."""
    since: float = -inf
    """When this was first seen."""
    known: bool = False
    """Whether there ever was a Lease."""
    held_until: float = -inf

    def holds(self, now: float) -> bool:
        """Say whether this process may act."""
        return now < self.held_until

    def look(self, record: Record | None, now: float) -> "Candidate":
        """Take in what the Lease says. `now` is read after the answer came."""
        other = record is not None and record.holder != self.identity
        return replace(
            self,
            seen=record,
            since=self.since if self.known and record == self.seen else now,
            known=self.known or record is not None,
            held_until=-inf if other else self.held_until,
        )

    def may_take(self, now: float) -> bool:
        """Say whether this process may write itself, or its renewal, into the Lease."""
        if self.seen is None:
            # Somebody deleted it: its holder has not heard of that yet.
            return not self.known or self.holds(now) or now >= self.since + self.terms.duration
        return self.seen.holder in {"", self.identity} or self._succeeds() or now >= self.expires

    def _succeeds(self) -> bool:
        """Say whether the Lease is held by a process that ended before this one began: nobody is there to wait for."""
        return self.seen is not None and bool(self.place) and self.seen.holder.startswith(self.place)

    @property
    def expires(self) -> float:
        """When the Lease may be taken unless it changes."""
        return self.since + (self.terms.duration if self.seen is None else self.seen.duration)

    def claim(self, time: str) -> Record:
        """Return the Lease with this process as its holder; `time` is the present by the clock that people read."""
        before = self.seen
        same = before is not None and before.holder == self.identity
        return Record(
            holder=self.identity,
            duration=self.terms.duration,
            acquired=before.acquired if before is not None and same else time,
            renewed=time,
            transitions=before.transitions + (not same) if before is not None else 0,
            version=before.version if before is not None else "",
        )

    def written(self, record: Record, sent: float, now: float) -> "Candidate":
        """Take in that the claim was stored. `sent` is read before the request was sent."""
        held_until = sent + self.terms.deadline
        return replace(self, seen=record, since=now, known=True, held_until=held_until)

    def stop(self) -> "Candidate":
        """Return the candidate that acts no more, whether or not it can give the Lease back."""
        return replace(self, held_until=-inf)

    def release(self, time: str) -> Record | None:
        """Return the Lease without a holder, for the next to take at once; None if it is not this process's."""
        before = self.seen
        if before is None or before.holder != self.identity:
            return None
        return replace(before, holder="", duration=1.0, renewed=time)

    def wait(self, now: float) -> float:
        """Return the seconds until the next look at the Lease, or the next renewal."""
        if self.holds(now):
            return self.terms.retry
        left = 0.0 if self._succeeds() else self.expires - now
        return min(self.terms.look, max(left, _LEAST_WAIT))
