"""Whether a provider's model answers, from what became of the attempts that gateways made there.

Nobody asks a provider only to see whether it answers: that costs money. So a model of which nothing is known answers,
and one that has stopped is tried again with a small part of the requests, whose failures the next target answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelyard.core.reasons import Code, Reason

WINDOW = 60.0
"""Seconds of attempts that are looked at: the longest time for which an Envoy leaves an address of a provider out
(`provider_ejection_limit`), so that what it finds out by itself is seen here before it is forgotten."""

FAILURES = 5
"""Failed attempts from which on a model may count as silent: one Envoy passes an address over after 3
(`provider_failures`), which a single moment of overload can be."""

PROOF = 3
"""Answers after which a silent model counts as answering again, and failures after which a trial has failed."""

FIRST_TRIAL, LAST_TRIAL = 30.0, 600.0
"""Seconds until a silent model is tried again, the first time and at most: each failed trial doubles them."""

FORGET = 2 * LAST_TRIAL
"""Seconds without any attempt after which nothing is known of a model any more, and so it answers: a trial must be able
to come first."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """What became of attempts at one model of a provider, so far."""

    sent: int = 0
    """Requests that went out on a connection, further attempts included."""
    answered: int = 0
    """Replies below 500, but those of the next two: also 400, 404 and 422, which are about the request."""
    refused: int = 0
    """401 and 403."""
    limited: int = 0
    """429."""
    errors: int = 0
    """500, which is about the request as often as about the provider."""
    failed: int = 0
    """Other replies of 5xx, connections that failed or broke with a request on them, and answers that did not begin in
    time. One attempt may count twice."""
    lost: int = 0
    """Of those that failed, the ones that were sent and of which nothing came back: they may be billed."""

    def __add__(self, other: "Attempts") -> "Attempts":
        """Return the sum."""
        return self._combine(other, 1)

    def since(self, before: "Attempts") -> "Attempts":
        """Return what came after a former count."""
        return self._combine(before, -1)

    def _combine(self, other: "Attempts", sign: int) -> "Attempts":
        return Attempts(
            self.sent + sign * other.sent,
            self.answered + sign * other.answered,
            self.refused + sign * other.refused,
            self.limited + sign * other.limited,
            self.errors + sign * other.errors,
            self.failed + sign * other.failed,
            self.lost + sign * other.lost,
        )

    @property
    def bad(self) -> int:
        """Attempts that speak against the provider.

        A refused key, a limit and a 500 do only where nothing at all was answered: else they are about some requests.
        """
        return self.failed + (0 if self.answered else self.refused + self.limited + self.errors)


@dataclass(frozen=True, slots=True)
class Silence:
    """That a model does not answer."""

    reason: Reason
    since: float
    """Unix time."""
    pause: float
    """Seconds from the last failed trial, or the beginning, to the next trial."""
    trial: float
    """Unix time from which on it is tried."""
    base: Attempts
    """What had been counted when the trial, or else the silence, began: it says nothing about whether it answers
    again."""
    trying: bool = False
    """Whether a few requests go there to find out."""


@dataclass(frozen=True, slots=True)
class AnswerMemory:
    """What is remembered of one model."""

    samples: tuple[tuple[float, Attempts], ...] = ()
    """Unix times and counts, oldest first; the first is the newest that is older than the window."""
    moved: float | None = None
    """Unix time of the newest sample that showed an attempt; None: there was none."""
    silence: Silence | None = None
    """None: it answers, as far as is known."""


Answers = Mapping[str, AnswerMemory]
"""By `external_key`."""


def observe_attempts(
    memory: Answers, attempts: Mapping[str, Attempts], time: float
) -> dict[str, AnswerMemory]:
    """Return the memory with a reading of the counters taken in. `time`: Unix time of the reading.

    What has no attempts is forgotten. The same reading a second time changes nothing.
    """
    return {
        key: _observe(memory.get(key, AnswerMemory()), counted, time, key)
        for key, counted in attempts.items()
    }


def find_silent(memory: Answers) -> dict[str, Reason]:
    """Return the models that do not answer, and why that is thought."""
    return {key: item.silence.reason for key, item in memory.items() if item.silence is not None}


def find_tried(memory: Answers) -> frozenset[str]:
    """Return the silent models that a few requests go to, to find out whether they answer again."""
    return frozenset(key for key, item in memory.items() if item.silence is not None and item.silence.trying)


def was_asked(memory: AnswerMemory, now: float) -> bool:
    """Say whether a model was asked within the time after which it is forgotten."""
    return memory.moved is not None and now - memory.moved < FORGET


def _observe(memory: AnswerMemory, counted: Attempts, time: float, key: str) -> AnswerMemory:
    if memory.samples and time <= memory.samples[-1][0]:
        return memory
    moved = memory.moved
    if memory.samples and counted != memory.samples[-1][1]:
        moved = time
    memory = replace(memory, samples=_keep((*memory.samples, (time, counted)), time - WINDOW), moved=moved)
    silence = (
        _find_silence(memory, time, key) if memory.silence is None else _test(memory, memory.silence, time)
    )
    return replace(memory, silence=silence)


def _keep(samples: tuple[tuple[float, Attempts], ...], begin: float) -> tuple[tuple[float, Attempts], ...]:
    older = sum(time <= begin for time, _ in samples)
    return samples[max(older - 1, 0) :]


def _find_silence(memory: AnswerMemory, time: float, key: str) -> Silence | None:
    (_, before), (_, counted) = memory.samples[0], memory.samples[-1]
    recent = counted.since(before)
    if recent.bad < FAILURES or recent.bad < recent.answered:
        return None
    return Silence(_explain(recent, key), time, FIRST_TRIAL, time + FIRST_TRIAL, counted)


def _test(memory: AnswerMemory, silence: Silence, time: float) -> Silence | None:
    """Return the silence as it goes on; None: it has ended."""
    counted = memory.samples[-1][1]
    if time - max(memory.moved or 0.0, silence.since) >= FORGET:
        return None
    if not silence.trying and time >= silence.trial:
        return replace(silence, trying=True, base=counted)
    recent = counted.since(silence.base)
    if recent.answered >= PROOF and recent.answered > recent.bad:
        return None
    if silence.trying and recent.bad >= PROOF:
        pause = min(silence.pause * 2, LAST_TRIAL)
        return replace(silence, pause=pause, trial=time + pause, base=counted, trying=False)
    return silence


def _explain(recent: Attempts, key: str) -> Reason:
    counts = {
        Code.PROVIDER_FAILING: (recent.failed + recent.errors, "failed"),
        Code.PROVIDER_LIMITED: (recent.limited, "were refused with 429"),
        Code.KEY_REFUSED: (recent.refused, "were refused with 401 or 403: see whether its API key is right"),
    }
    code, (_, what) = max(counts.items(), key=lambda item: item[1][0])
    shown = key.partition(":")[2]
    return Reason(code, f"{shown} does not answer: most attempts within {WINDOW:.0f} s {what}")
