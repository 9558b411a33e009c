"""When a provider's model counts as silent, how it is tried again, and when it is believed to answer."""

import pytest

from modelyard.core.answering import (
    FAILURES,
    FIRST_TRIAL,
    FORGET,
    LAST_TRIAL,
    PROOF,
    WINDOW,
    Attempts,
    find_silent,
    find_tried,
    observe_attempts,
)
from modelyard.core.reasons import Code

API = "provider:acme/large"
READ = 2.0
"""Seconds between two readings."""


class Watch:
    """One model, read again and again."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.counts = Attempts()
        self.memory = observe_attempts({}, {API: self.counts}, self.now)

    def read(self, readings: int = 1, **each: int) -> None:
        """Let so many readings pass, each with further attempts of these kinds."""
        for _ in range(readings):
            self.now += READ
            self.counts += Attempts(**each)
            self.memory = observe_attempts(self.memory, {API: self.counts}, self.now)

    @property
    def silent(self) -> bool:
        return API in find_silent(self.memory)

    @property
    def tried(self) -> bool:
        return API in find_tried(self.memory)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def gone(watch: Watch) -> Watch:
    """One that has just been found silent."""
    watch.read(answered=10)
    watch.read(failed=10)
    assert watch.silent
    return watch


def test_no_data_is_no_silence(watch: Watch) -> None:
    watch.read(1000)
    assert not watch.silent
    assert observe_attempts(watch.memory, {}, watch.now + READ) == {}


def test_what_was_counted_before_the_first_reading_says_nothing() -> None:
    memory = observe_attempts({}, {API: Attempts(failed=1000)}, 0.0)
    assert find_silent(observe_attempts(memory, {API: Attempts(failed=1001)}, READ)) == {}


def test_a_few_failures_are_not_enough_and_as_many_as_answers_are(watch: Watch) -> None:
    watch.read(failed=FAILURES - 1)
    assert not watch.silent
    watch.read(answered=FAILURES + 1)
    watch.read(failed=1)
    assert not watch.silent
    watch.read(failed=1)
    assert find_silent(watch.memory)[API].code == Code.PROVIDER_FAILING


def test_failures_of_long_ago_do_not_add_up(watch: Watch) -> None:
    for _ in range(FAILURES * 2):
        watch.read(failed=1)
        watch.read(int(WINDOW / READ))
    assert not watch.silent


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("errors", Code.PROVIDER_FAILING),
        ("limited", Code.PROVIDER_LIMITED),
        ("refused", Code.KEY_REFUSED),
    ],
)
def test_what_may_be_about_the_request_counts_where_nothing_else_comes_back(
    watch: Watch, kind: str, code: str
) -> None:
    watch.read(answered=1, **{kind: 10})
    assert not watch.silent
    watch.read(int(WINDOW / READ) + 1)
    watch.read(**{kind: FAILURES})
    assert find_silent(watch.memory)[API].code == code


def test_it_is_tried_after_a_while_and_a_failed_trial_doubles_the_pause(gone: Watch) -> None:
    pauses = []
    for _ in range(7):
        begin = gone.now
        while not gone.tried:
            gone.read()
        pauses.append(gone.now - begin)
        gone.read(failed=PROOF)
        assert gone.silent
        assert not gone.tried
    assert pauses == [FIRST_TRIAL, 60.0, 120.0, 240.0, 480.0, LAST_TRIAL, LAST_TRIAL]


def test_answers_of_a_trial_end_the_silence(gone: Watch) -> None:
    gone.read(int(FIRST_TRIAL / READ))
    assert gone.tried
    gone.read(PROOF - 1, answered=1)
    assert gone.silent
    gone.read(answered=1)
    assert not gone.silent
    # What failed before is not held against it again.
    gone.read(failed=1)
    assert not gone.silent or gone.counts.failed >= FAILURES


def test_a_trial_with_few_requests_takes_as_long_as_it_takes(gone: Watch) -> None:
    gone.read(int(FIRST_TRIAL / READ))
    for _ in range(PROOF):
        assert gone.silent
        gone.read(int(2 * WINDOW / READ))
        gone.read(answered=1)
    assert not gone.silent


def test_requests_that_other_routes_go_on_to_send_are_proof_too(gone: Watch) -> None:
    gone.read(answered=PROOF)
    assert not gone.silent


def test_one_that_nobody_asks_for_long_is_not_known_any_more(gone: Watch) -> None:
    gone.read(int(FORGET / READ) - 1)
    assert gone.silent
    gone.read()
    assert not gone.silent


def test_the_same_reading_twice_changes_nothing(gone: Watch) -> None:
    assert observe_attempts(gone.memory, {API: Attempts(failed=999)}, gone.now) == gone.memory
