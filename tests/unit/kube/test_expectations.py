"""Our own writes count until the watch has caught up, and are asked for when it does not."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.kube.expectations import DEADLINE, Expectations

KEY = "team/llama"


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def expectations():
    clock = Clock()
    return Expectations[str](clock=clock), clock


def test_what_was_written_counts_until_the_watch_shows_it():
    written, _ = expectations()
    written.note(KEY, "u", "7", "new")
    assert written.resolve(KEY, "u", "6", "old") == "new"
    assert written.resolve(KEY, "u", "7", "seen") == "seen"
    # From then on the watch is right, whatever it shows.
    assert written.resolve(KEY, "u", "6", "older") == "older"


def test_another_object_of_the_same_name_is_not_ours():
    written, _ = expectations()
    written.note(KEY, "u", "7", "new")
    assert written.resolve(KEY, "other", "5", "seen") == "seen"
    assert written.pending(KEY) is None


def test_an_object_that_is_not_there_yet():
    written, _ = expectations()
    assert written.pending(KEY) is None
    written.note(KEY, "u", "7", "new")
    assert written.pending(KEY) == "new"
    written.forget(KEY)
    assert written.pending(KEY) is None


def test_a_write_that_the_watch_does_not_show_is_asked_for_once_each_deadline():
    written, clock = expectations()
    assert not written.take_overdue(KEY)
    written.note(KEY, "u", "7", "new")
    clock.now += DEADLINE
    assert not written.take_overdue(KEY)
    clock.now += 1.0
    assert written.take_overdue(KEY)
    assert not written.take_overdue(KEY)
    assert written.pending(KEY) == "new"
    clock.now += DEADLINE + 1.0
    assert written.take_overdue(KEY)


def test_what_the_watch_has_shown_or_nobody_wants_any_more_is_not_asked_for():
    written, clock = expectations()
    written.note(KEY, "u", "7", "new")
    written.note("team/other", "u", "8", "new")
    written.resolve(KEY, "u", "7", "seen")
    written.forget("team/other")
    clock.now += 10 * DEADLINE
    assert not written.take_overdue(KEY)
    assert not written.take_overdue("team/other")


events = st.lists(
    st.tuples(st.sampled_from(["write", "watch", "wait"]), st.integers(0, 3)), min_size=1, max_size=60
)


@given(events)
def test_views_never_go_back_and_what_is_unseen_for_long_is_asked_for(steps):
    """The watch shows versions in order, each as late as it likes; writes make new ones."""
    written, clock = expectations()
    made, shown, best, unseen_since = [1], 0, 0, None
    for step, number in steps:
        if step == "write":
            made.append(made[-1] + 1)
            written.note(KEY, "u", str(made[-1]), str(made[-1]))
            unseen_since = clock.now
        elif step == "watch":
            shown = min(shown + number, len(made) - 1)
        else:
            clock.now += number * DEADLINE / 2
        version = int(written.resolve(KEY, "u", str(made[shown]), str(made[shown])))
        assert version >= best
        best = version
        if made[shown] == made[-1]:
            unseen_since = None
        overdue = unseen_since is not None and clock.now - unseen_since > DEADLINE
        assert written.take_overdue(KEY) == overdue
        if overdue:
            unseen_since = clock.now
