"""What is said of a size that falls."""

from modelyard.core.reasons import Code
from modelyard.core.replicas import decide_size
from tests.unit.core.test_replicas import NOW, OLD, POLICY, _input


def test_a_fleet_that_falls_to_one_says_why_and_not_when_it_sleeps():
    data = _input(0.0, low=0, current=3, last_arrival=NOW)
    size, _ = decide_size(data, OLD, NOW, POLICY)
    assert size.replicas == 1
    assert "sleeps" not in size.reason.message
    alone, _ = decide_size(_input(0.0, low=0, current=1, last_arrival=NOW), OLD, NOW, POLICY)
    assert alone.replicas == 1
    assert alone.reason.message == "sleeps when not used for 60 s"


def test_a_size_between_the_present_and_the_needed_one_says_what_holds_it():
    _, memory = decide_size(_input(3.2, current=6), OLD, NOW, POLICY)
    held, memory = decide_size(_input(1.0, current=6), memory, NOW + 1.0, POLICY)
    assert (held.replicas, held.reason.code) == (4, Code.STABILIZING)
    assert held.reason.message.endswith("need 2; falls to 4, which was needed within 300 s")
    held, _ = decide_size(_input(1.0, current=4), memory, NOW + 2.0, POLICY)
    assert held.replicas == 4
    assert held.reason.message.endswith("need 2; stays at 4 until that is proven for 300 s")
