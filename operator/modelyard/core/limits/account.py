"""What a tenant has used of its limits, and whether its next request is answered.

A request is answered while there is room for one request and one token: what it costs in tokens is known at its end.
What is used beyond the limit by then is a debt, which is paid off before the next request is answered. So the overshoot
is what the requests cost that were being answered when the room ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from modelyard.core.limits.bucket import MINUTE, Bucket, advance, fill, remaining, resize, take, wait

TOLD: Final = ("prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens")
"""What an answer tells, and counts. Of `prompt_tokens`, cached ones are a part; the other two stand beside them."""

ESTIMATED: Final = ("estimated_prompt_tokens", "estimated_completion_tokens")
"""What counts where an answer ended before it told anything."""

_LAST_SUCCESS: Final = 299
"""HTTP status: errors use nothing unless they tell so. 0 is a client that left before the answer began."""

LimitKind = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a tenant, over all gateways together. None: no limit."""

    requests: int | None = None
    """Requests per minute."""
    tokens: int | None = None
    """Tokens of prompts and answers per minute."""


@dataclass(frozen=True, slots=True)
class Account:
    """What is left of the limits of a tenant."""

    requests: Bucket | None = None
    tokens: Bucket | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit, as clients are told about it."""

    kind: LimitKind
    limit: int
    remaining: int
    reset: int
    """Nanoseconds until all of it is there again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is answered."""

    quotas: tuple[Quota, ...] = ()
    """The limits that the tenant has."""
    refused_by: LimitKind | None = None
    """None: it is answered."""
    wait: int = 0
    """Nanoseconds until a request would be answered, if no other comes first."""


def open_account(limits: Limits, now: int) -> Account:
    """Return the account of a tenant that nothing is known of: all its limits allow is there."""
    return Account(
        None if limits.requests is None else fill(limits.requests, now),
        None if limits.tokens is None else fill(limits.tokens, now),
    )


def change_limits(account: Account, limits: Limits, now: int) -> Account:
    """Return the account under other limits."""
    return Account(
        _change(account.requests, limits.requests, now), _change(account.tokens, limits.tokens, now)
    )


def admit(account: Account, now: int) -> tuple[Account, Verdict]:
    """Decide on a request; one that is answered has been taken from the account."""
    requests = None if account.requests is None else advance(account.requests, now)
    tokens = None if account.tokens is None else advance(account.tokens, now)
    current = Account(requests, tokens)
    waits: list[tuple[int, LimitKind]] = []
    if requests is not None:
        waits.append((wait(requests, MINUTE), "requests"))
    if tokens is not None:
        waits.append((wait(tokens, MINUTE), "tokens"))
    longest, kind = max(waits, default=(0, None))
    if longest:
        return current, Verdict(_quotas(current), kind, longest)
    if requests is not None:
        current = Account(take(requests, 1, now), tokens)
    return current, Verdict(_quotas(current))


def charge(account: Account, tokens: int, now: int) -> Account:
    """Take what an answer has used."""
    if account.tokens is None:
        return account
    return Account(account.requests, take(account.tokens, tokens, now))


def used_tokens(status: int, values: Mapping[str, int]) -> int:
    """Return the tokens that count against a limit, from what is known of a request at its end."""
    if any(key in values for key in TOLD):
        return sum(values.get(key, 0) for key in TOLD)
    if status > _LAST_SUCCESS:
        return 0
    return sum(values.get(key, 0) for key in ESTIMATED)


def _change(bucket: Bucket | None, limit: int | None, now: int) -> Bucket | None:
    if limit is None:
        return None
    return fill(limit, now) if bucket is None else resize(bucket, limit, now)


def _quotas(account: Account) -> tuple[Quota, ...]:
    buckets: tuple[tuple[LimitKind, Bucket | None], ...] = (
        ("requests", account.requests),
        ("tokens", account.tokens),
    )
    return tuple(
        Quota(kind, bucket.limit, remaining(bucket), wait(bucket, bucket.capacity))
        for kind, bucket in buckets
        if bucket is not None
    )
