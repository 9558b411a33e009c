"""How long requests are held, and how long a wake takes."""

from modelyard.runtime.holds import HoldBoard
from modelyard.runtime.metrics import REGISTRY

KEY = "team/sleepy"


class Stage:
    def __init__(self):
        self.now, self.serving = 100.0, set()
        self.board = HoldBoard(self.serving.__contains__, lambda: self.now)


def wakes():
    count = REGISTRY.get_sample_value("modelyard_wake_seconds_count")
    return count, REGISTRY.get_sample_value("modelyard_wake_seconds_sum")


def test_a_hold_lasts_from_the_first_signal_to_the_first_replica():
    stage = Stage()
    count, total = wakes()
    stage.board.note(KEY)
    stage.now += 30
    stage.board.note(KEY)
    stage.board.look(KEY)
    assert stage.board.seconds() == {KEY: 30}
    stage.now += 10
    stage.serving.add(KEY)
    stage.board.look(KEY)
    assert stage.board.seconds() == {}
    assert wakes() == (count + 1, total + 40)


def test_a_signal_for_what_serves_holds_nothing():
    """A second Envoy asks for the cluster, too."""
    stage = Stage()
    stage.serving.add(KEY)
    stage.board.note(KEY)
    assert stage.board.seconds() == {}


def test_a_deployment_that_is_gone_holds_nothing():
    stage = Stage()
    stage.board.note(KEY)
    stage.board.keep(["team/other"])
    assert stage.board.seconds() == {}
