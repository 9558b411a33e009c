"""How much is left of what an LLMProvider allows per minute, and until when it gets no requests.

The gateway's counters say what was sent, so a limit is known to be used up one reading later: what is sent meanwhile is
beyond it, and is paid off like any other debt before the provider is asked again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from modelyard.api.llmprovider import LLMProvider
from modelyard.core.limits.account import Account, Limits, change_limits, charge, open_account
from modelyard.core.limits.bucket import MINUTE, Bucket, advance, take, wait
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.core.snapshot import GatewayReading, Provider

REOPEN_SHARE = 0.1
"""Of what a minute allows: how much must have come back before a provider is asked again. That is six seconds, or three
readings: with less, every reading would close and open it."""

SHOWN = 300.0
"""Seconds for which status says that a limit was reached: one that is reached again and again is written once."""

_SECOND = 10**9
"""Nanoseconds."""


@dataclass(frozen=True, slots=True)
class ProviderUse:
    """What was sent to a provider so far."""

    requests: int = 0
    """Further attempts included."""
    tokens: int = 0
    """Of prompts and answers, estimates included."""


@dataclass(frozen=True, slots=True)
class ReachedLimit:
    """A provider that gets no requests for a moment."""

    provider: str
    """Name of the LLMProvider."""
    kind: str
    """`requests` or `tokens`: what is used up."""
    limit: int
    """Per minute."""
    until: int
    """Unix time from which on it is asked again, as far as is known now."""

    @property
    def sentence(self) -> str:
        """What a client is told whose request goes nowhere."""
        return (
            f"Provider {self.provider} is asked for no more than {self.limit} {self.kind} per minute; they are used up "
            "for now."
        )


@dataclass(frozen=True, slots=True)
class LimitMemory:
    """What is remembered of one provider with limits."""

    limits: Limits
    account: Account
    counted: ProviderUse
    """At the last reading."""
    reached: ReachedLimit | None = None
    """None: it may be asked."""
    last_reached: float | None = None
    """Unix time at which it was last closed, or still was."""


def provider_limits(provider: LLMProvider) -> Limits | None:
    """Return the limits of a provider, if it has any."""
    limits = provider.spec.limits
    return None if limits is None else Limits(limits.requests_per_minute, limits.tokens_per_minute)


def sum_use(reading: GatewayReading) -> dict[str, ProviderUse]:
    """Return what was sent to each provider, by name."""
    sums: dict[str, ProviderUse] = {}
    for counts in (reading.input_tokens, reading.output_tokens, reading.estimated_tokens):
        for key, tokens in counts.items():
            if key.startswith(EXTERNAL_PREFIX):
                sums[_name(key)] = _add(sums.get(_name(key)), 0, int(tokens))
    for key, attempts in reading.attempts.items():
        sums[_name(key)] = _add(sums.get(_name(key)), attempts.sent, 0)
    return sums


def count_limits(
    memory: Mapping[str, LimitMemory],
    providers: Mapping[str, Provider],
    reading: GatewayReading | None,
    now: float,
) -> dict[str, LimitMemory]:
    """Return the memory of all providers with limits. `now`: Unix time.

    What was counted before the first reading is not charged: nobody knows when that was.
    """
    found: dict[str, LimitMemory] = {}
    uses = sum_use(reading) if reading is not None else {}
    for name, provider in providers.items():
        limits = provider_limits(provider.object)
        if limits is None:
            continue
        known = memory.get(name)
        if known is None:
            if reading is None:
                continue
            known = LimitMemory(
                limits, open_account(limits, _nanoseconds(now)), uses.get(name, ProviderUse())
            )
        found[name] = _count(known, limits, name, uses.get(name, known.counted), now)
    return found


def find_reached(memory: Mapping[str, LimitMemory]) -> tuple[ReachedLimit, ...]:
    """Return the providers that get no requests now, by name."""
    return tuple(item.reached for _, item in sorted(memory.items()) if item.reached is not None)


def was_reached(memory: LimitMemory, now: float) -> bool:
    """Say whether status tells that a limit was reached."""
    return memory.last_reached is not None and now - memory.last_reached < SHOWN


def _count(memory: LimitMemory, limits: Limits, name: str, use: ProviderUse, now: float) -> LimitMemory:
    time = _nanoseconds(now)
    account, reached = _follow_clock(memory.account, time), memory.reached
    if account != memory.account and reached is not None:
        # It is judged anew: that moment may be hours away by now.
        reached = replace(reached, until=int(now))
    if limits != memory.limits:
        account, reached = change_limits(account, limits, time), None
    account = charge(account, max(use.tokens - memory.counted.tokens, 0), time)
    if account.requests is not None:
        sent = max(use.requests - memory.counted.requests, 0)
        account = replace(account, requests=take(account.requests, sent, time))
    if reached is None or now >= reached.until:
        reached = _judge(account, name, time, closed=reached is not None)
    last = now if reached is not None else memory.last_reached
    return LimitMemory(limits, account, use, reached, last)


def _follow_clock(account: Account, time: int) -> Account:
    """Return the account as it is by a clock that was set back: nothing would flow back until it has caught up."""
    requests, tokens = (
        replace(bucket, at=min(bucket.at, time)) if bucket is not None else None
        for bucket in (account.requests, account.tokens)
    )
    return Account(requests, tokens)


def _judge(account: Account, name: str, time: int, *, closed: bool) -> ReachedLimit | None:
    """Return the limit that keeps a provider closed for longest; None: it may be asked.

    `closed`: it gets no requests as things stand, and opens only when enough has come back.
    """
    waits: list[tuple[int, str, int]] = []
    for kind, bucket in (("requests", account.requests), ("tokens", account.tokens)):
        if bucket is None:
            continue
        current = advance(bucket, time)
        level = _reopen_level(current)
        if current.level < (level if closed else MINUTE):
            waits.append((wait(current, level), kind, current.limit))
    if not waits:
        return None
    longest, kind, limit = max(waits)
    return ReachedLimit(name, kind, limit, ceil((time + longest) / _SECOND))


def _reopen_level(bucket: Bucket) -> int:
    return max(int(bucket.capacity * REOPEN_SHARE), MINUTE)


def _nanoseconds(now: float) -> int:
    return int(now * _SECOND)


def _name(key: str) -> str:
    return key.removeprefix(EXTERNAL_PREFIX).partition("/")[0]


def _add(before: ProviderUse | None, requests: int, tokens: int) -> ProviderUse:
    before = before or ProviderUse()
    return ProviderUse(before.requests + requests, before.tokens + tokens)
