"""What repeats is counted, and one object cannot flood the API server with Events."""

from modelyard.core.eventflow import (
    BURST,
    REFILL_SECONDS,
    SIMILAR,
    WINDOW,
    EventFlow,
    Topic,
    admit,
    name_event,
)

T = 1_800_000_000.0
SERVES = Topic("Normal", "Serving", "1 of 1 replicas serve")
LOADS = Topic("Normal", "Loading", "the engine downloads and loads the model")


class Object:
    """What is written about one object."""

    def __init__(self):
        self.flow = EventFlow()
        self.actions = []

    def say(self, topic, now):
        self.flow, action, standing = admit(self.flow, topic, now)
        self.actions.append(action)
        if action == "create":
            self.flow = name_event(self.flow, topic, f"event-{len(self.actions)}")
        return action, standing


def test_the_same_event_is_counted():
    about = Object()
    assert about.say(SERVES, T)[0] == "create"
    action, standing = about.say(SERVES, T + 5)
    assert (action, standing.count, standing.name, standing.last) == ("repeat", 2, "event-1", T + 5)


def test_long_after_it_is_a_new_one():
    about = Object()
    about.say(SERVES, T)
    assert about.say(SERVES, T + WINDOW)[0] == "repeat"
    assert about.say(SERVES, T + 2 * WINDOW + 1)[0] == "create"


def test_other_reasons_and_messages_stand_for_themselves():
    about = Object()
    for number in range(SIMILAR):
        assert about.say(Topic("Normal", "OfferedLoad", f"from {number} replicas"), T + number)[0] == "create"
    assert about.say(LOADS, T + 20)[0] == "create"


def test_many_similar_ones_are_counted_on_the_newest():
    about = Object()
    for number in range(SIMILAR):
        about.say(Topic("Normal", "OfferedLoad", f"from {number} replicas"), T + number)
    newest = Topic("Normal", "OfferedLoad", "from 99 replicas")
    action, standing = about.say(newest, T + 30)
    assert (action, standing.name, standing.topic, standing.count) == (
        "repeat",
        f"event-{SIMILAR}",
        newest,
        2,
    )


def test_an_object_that_flaps_for_an_hour_writes_as_often_as_its_bucket_allows():
    about, hour = Object(), 3600
    for second in range(0, hour, 2):
        about.say(SERVES if second % 4 else LOADS, T + second)
    written = [action for action in about.actions if action != "suppress"]
    assert len(written) <= BURST + hour / REFILL_SECONDS
    assert written.count("create") == 2, "the rest is counted on them"
    # What was not written is in the next count.
    _, standing = about.say(SERVES, T + hour)
    assert standing.count == len(about.actions) // 2 + 1


def test_a_bucket_fills_again_and_no_further():
    about = Object()
    for number in range(2 * BURST):
        about.say(Topic("Normal", f"R{number}", ""), T)
    assert about.actions.count("create") == BURST
    about.actions.clear()
    for number in range(2 * BURST):
        about.say(Topic("Normal", f"R{number}", ""), T + 100 * BURST * REFILL_SECONDS)
    assert about.actions.count("create") == BURST


def test_what_could_not_be_created_is_tried_again():
    flow, action, _ = admit(EventFlow(), SERVES, T)
    assert action == "create"
    flow = name_event(flow, SERVES, "")
    assert admit(flow, SERVES, T + 1)[1] == "create"


def test_memory_of_an_object_is_bounded():
    flow = EventFlow()
    for number in range(10_000):
        topic = Topic("Normal", f"R{number}", "")
        flow, action, _ = admit(flow, topic, T + number)
        if action == "create":
            flow = name_event(flow, topic, str(number))
    assert len(flow.standing) <= BURST + WINDOW / REFILL_SECONDS
