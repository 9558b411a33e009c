"""Limits of tenants, by hand."""

import pytest

from modelyard.core.limits.account import Limits, Quota, admit, charge, open_account, used_tokens
from modelyard.core.limits.bucket import MINUTE
from modelyard.gateway.ratelimit import format_duration
from modelyard.runtime.limits import LimitBook

SECOND = 10**9


def test_a_minutes_worth_comes_at_once_and_flows_back_evenly():
    account = open_account(Limits(requests=60), 0)
    for _ in range(60):
        account, verdict = admit(account, 0)
        assert verdict.refused_by is None
    account, verdict = admit(account, 0)
    assert (verdict.refused_by, verdict.wait) == ("requests", SECOND)
    assert verdict.quotas == (Quota("requests", 60, 0, MINUTE),)
    assert admit(account, SECOND)[1].refused_by is None


def test_the_longer_wait_is_told():
    account = charge(open_account(Limits(requests=1, tokens=60), 0), 59 + 31, 0)
    account, verdict = admit(account, 0)
    assert (verdict.refused_by, verdict.wait) == ("tokens", 31 * SECOND)
    # A refused request costs none of the requests.
    account, verdict = admit(account, 31 * SECOND)
    assert verdict.refused_by is None
    account = charge(account, 2, 31 * SECOND)
    assert admit(account, 31 * SECOND)[1].refused_by == "requests"


@pytest.mark.parametrize(
    ("status", "values", "used"),
    [
        (200, {"prompt_tokens": 3, "completion_tokens": 2}, 5),
        (200, {"prompt_tokens": 3, "cache_read_tokens": 10, "cache_write_tokens": 7}, 20),
        (200, {"prompt_tokens": 3, "completion_tokens": 2, "estimated_prompt_tokens": 99}, 5),
        (200, {"estimated_prompt_tokens": 9, "estimated_completion_tokens": 4}, 13),
        (0, {"estimated_prompt_tokens": 9}, 9),
        (429, {"estimated_prompt_tokens": 9}, 0),
        (502, {"estimated_prompt_tokens": 9}, 0),
        (503, {"prompt_tokens": 3}, 3),
        (200, {}, 0),
    ],
)
def test_what_counts(status, values, used):
    assert used_tokens(status, values) == used


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (120_000_000, "120ms"),
        (SECOND, "1s"),
        (SECOND + 1, "2s"),
        (MINUTE, "1m0s"),
        (6 * MINUTE + 5 * SECOND, "6m5s"),
    ],
)
def test_durations_as_openai_writes_them(nanoseconds, text):
    assert format_duration(nanoseconds) == text


def test_a_book_knows_only_tenants_with_limits():
    book = LimitBook(lambda: 0)
    book.set_limits({"a": Limits(requests=1)})
    assert book.admit("a").refused_by is None
    assert book.admit("a").refused_by == "requests"
    assert book.admit("b").refused_by is None
    book.charge("b", 1_000)
    book.set_limits({"a": Limits(requests=1), "b": Limits(tokens=1)})
    assert book.admit("a").refused_by == "requests", "nothing is forgotten when others change"
    assert book.admit("b").refused_by is None
    book.set_limits({})
    assert book.admit("a").refused_by is None
