"""The rules of a Lease, one by one."""

import pytest

from modelyard.core.lease import Candidate, Record, Terms

TERMS = Terms()


def held_by(holder: str, renewed: str = "1", version: str = "7") -> Record:
    return Record(holder, 15.0, "0", renewed, 3, version)


def test_nobody_waits_for_the_first_lease():
    candidate = Candidate("me").look(None, 100.0)
    assert candidate.may_take(100.0)
    assert not candidate.holds(100.0), "wanting is not having"
    claim = candidate.claim("now")
    assert claim == Record("me", 15.0, "now", "now", 0)
    assert claim.version == "", "it must not exist yet"


def test_the_lease_of_another_is_taken_after_its_duration_as_seen_from_here():
    candidate = Candidate("me").look(held_by("other"), 100.0)
    assert not candidate.may_take(114.9)
    candidate = candidate.look(held_by("other", version="8"), 114.0)
    assert candidate.may_take(115.0), "metadata alone do not renew it"
    claim = candidate.claim("now")
    assert (claim.holder, claim.transitions, claim.acquired, claim.version) == ("me", 4, "now", "8")


def test_a_renewal_begins_the_time_anew():
    candidate = Candidate("me").look(held_by("other"), 100.0).look(held_by("other", "2"), 114.0)
    assert not candidate.may_take(115.0)
    assert candidate.may_take(129.0)


def test_the_duration_that_its_holder_wrote_counts():
    candidate = Candidate("me").look(Record("other", 60.0, renewed="1"), 0.0)
    assert not candidate.may_take(59.0)
    assert candidate.may_take(60.0)


def test_a_holder_counts_from_before_its_request_was_sent():
    candidate = Candidate("me").look(None, 0.0)
    candidate = candidate.written(held_by("me"), sent=1.0, now=4.0)
    assert candidate.holds(10.9)
    assert not candidate.holds(11.0)


def test_a_renewal_keeps_the_time_of_acquisition():
    candidate = Candidate("me").look(None, 0.0).written(held_by("me"), 0.0, 0.0)
    claim = candidate.claim("later")
    assert (claim.acquired, claim.renewed, claim.transitions, claim.version) == ("0", "later", 3, "7")


def test_who_reads_another_name_has_lost_at_once():
    candidate = Candidate("me").look(None, 0.0).written(held_by("me"), 0.0, 0.0)
    assert candidate.holds(1.0)
    assert not candidate.look(held_by("other"), 1.0).holds(1.0)


def test_a_write_whose_answer_was_lost_gives_nothing_until_the_next_one():
    candidate = Candidate("me").look(held_by("me"), 0.0)
    assert not candidate.holds(0.0)
    assert candidate.may_take(0.0)


def test_a_lease_that_was_given_back_is_taken_at_once():
    holder = Candidate("other").look(None, 0.0).written(held_by("other"), 0.0, 0.0).stop()
    assert not holder.holds(0.0)
    released = holder.release("later")
    assert released is not None
    assert released.version == "7"
    assert Candidate("me").look(released, 0.1).may_take(0.1)


def test_a_restarted_container_follows_the_one_before_it_at_once():
    candidate = Candidate("pod_1_b", place="pod_1_").look(held_by("pod_1_a"), 100.0)
    assert not candidate.holds(100.0), "it is another process, and has to write"
    assert candidate.may_take(100.0)
    assert 0 < candidate.wait(100.0) < TERMS.look
    claim = candidate.claim("now")
    assert (claim.holder, claim.transitions, claim.acquired, claim.version) == ("pod_1_b", 4, "now", "7")


@pytest.mark.parametrize(
    ("place", "holder"), [("pod_1_", "pod_2_a"), ("pod_1_", "pod"), ("pod_1_", "pod_11_a"), ("", "pod_1_a")]
)
def test_every_other_process_waits(place, holder):
    candidate = Candidate("pod_1_b", place=place).look(held_by(holder), 100.0)
    assert not candidate.may_take(114.9)
    assert candidate.may_take(115.0)


def test_only_its_holder_gives_it_back():
    assert Candidate("me").look(held_by("other"), 0.0).release("now") is None


def test_a_deleted_lease_is_its_holders_to_write_again():
    holder = Candidate("other").look(None, 0.0).written(held_by("other"), 0.0, 0.0)
    follower = Candidate("me").look(held_by("other"), 0.0)
    holder, follower = holder.look(None, 1.0), follower.look(None, 1.0)
    assert holder.may_take(1.0)
    assert holder.holds(1.0)
    assert not follower.may_take(15.9)
    assert follower.may_take(16.0)


def test_waits_are_short_enough_for_the_next_thing():
    follower = Candidate("me").look(held_by("other"), 0.0)
    assert follower.wait(0.0) == TERMS.look
    assert follower.wait(14.5) == pytest.approx(0.5)
    assert 0 < follower.wait(20.0) < TERMS.look
    assert follower.written(held_by("me"), 0.0, 0.0).wait(0.0) == TERMS.retry


@pytest.mark.parametrize(
    ("duration", "deadline", "retry"), [(10.0, 10.0, 2.0), (15.0, 2.0, 2.0), (15.0, 10.0, 0.0)]
)
def test_durations_that_would_allow_two_holders_are_refused(duration, deadline, retry):
    with pytest.raises(ValueError, match="duration"):
        Terms(duration, deadline, retry)
