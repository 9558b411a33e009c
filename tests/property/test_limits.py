"""Limits of tenants: never more than a minute's worth and one burst, and waits that are exact."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.limits.account import Limits, admit, change_limits, charge, open_account
from modelyard.core.limits.bucket import MINUTE, advance, fill, resize, take, wait

limits = st.integers(1, 500)
gaps = st.lists(st.integers(0, MINUTE), min_size=1, max_size=60)
"""Nanoseconds between two requests."""


@settings(deadline=None)
@given(limits, gaps, st.integers(1, 100))
def test_no_minute_has_more_requests_than_the_limit_and_one_burst(limit, pauses, at_once):
    account, now, admitted = open_account(Limits(requests=limit), 0), 0, []
    for pause in pauses:
        now += pause
        for _ in range(at_once):
            account, verdict = admit(account, now)
            if verdict.refused_by is None:
                admitted.append(now)
    for index, start in enumerate(admitted):
        within = sum(1 for time in admitted[index:] if time < start + MINUTE)
        assert within <= 2 * limit
    # Over any longer time the burst counts once.
    assert len(admitted) * MINUTE <= limit * (MINUTE + now)


@settings(deadline=None)
@given(limits, st.lists(st.tuples(st.integers(0, MINUTE), st.integers(0, 50_000)), min_size=1, max_size=60))
def test_tokens_exceed_the_limit_by_what_is_answered_at_a_time_alone(limit, answers):
    """One request at a time: its tokens are charged when it ends, before the next one asks."""
    account, now, used, largest = open_account(Limits(tokens=limit), 0), 0, 0, 0
    for pause, tokens in answers:
        now += pause
        account, verdict = admit(account, now)
        if verdict.refused_by is None:
            account = charge(account, tokens, now)
            used, largest = used + tokens, max(largest, tokens)
    assert (used - largest) * MINUTE <= limit * (MINUTE + now)


@settings(deadline=None)
@given(limits, limits, st.integers(0, 1_000), st.integers(0, 100_000), st.integers(0, MINUTE))
def test_the_wait_is_exact(requests, tokens, asked, used, now):
    account = open_account(Limits(requests, tokens), 0)
    for _ in range(min(asked, requests)):
        account, _ = admit(account, 0)
    account = charge(account, used, 0)
    account, verdict = admit(account, now)
    if verdict.refused_by is None:
        assert verdict.wait == 0
        return
    assert verdict.wait > 0
    assert admit(account, now + verdict.wait - 1)[1].refused_by is not None
    assert admit(account, now + verdict.wait)[1].refused_by is None


@settings(deadline=None)
@given(limits, gaps, st.integers(0, 10_000))
def test_it_does_not_matter_when_somebody_looks(limit, pauses, amount):
    looked = take(fill(limit, 0), amount, 0)
    untouched, now = looked, 0
    for pause in pauses:
        now += pause
        looked = advance(looked, now)
    assert looked == advance(untouched, now)
    assert advance(looked, now - 1) == looked, "a clock that goes back changes nothing"


@settings(deadline=None)
@given(limits, limits, st.integers(0, 20_000), st.integers(0, MINUTE))
def test_what_was_used_stays_used_under_another_limit(before, after, amount, now):
    bucket = take(fill(before, 0), amount, 0)
    used = before * MINUTE - advance(bucket, now).level
    changed = resize(bucket, after, now)
    assert changed.capacity - changed.level == used
    assert wait(changed, changed.capacity) * after >= used > (wait(changed, changed.capacity) - 1) * after


@settings(deadline=None)
@given(limits, st.integers(1, 1_000))
def test_switching_a_limit_off_and_on_is_no_new_minute_for_the_other_one(limit, asked):
    account = open_account(Limits(limit, limit), 0)
    for _ in range(min(asked, limit)):
        account, _ = admit(account, 0)
    changed = change_limits(change_limits(account, Limits(requests=limit), 0), Limits(limit, limit), 0)
    assert changed.requests == account.requests
    assert changed == replace(account, tokens=fill(limit, 0))
