import pytest

from modelyard.core.load import LoadShape
from modelyard.simulator.rivals.wva import (
    WvaV1,
    WvaV1Settings,
    WvaV2,
    WvaV2Settings,
    derived_capacity,
)
from tests.unit.simulator.rivals_support import scenario, signals


def v1(*readings, settings=None, **changes):
    policy = WvaV1("wva-v1", scenario(**changes), settings or WvaV1Settings())
    return [policy.decide(signals(15.0 * index, **reading)) for index, reading in enumerate(readings)]


def v2(*readings, settings=None, **changes):
    policy = WvaV2("wva-v2", scenario(**changes), settings or WvaV2Settings())
    return [policy.decide(signals(15.0 * index, **reading)) for index, reading in enumerate(readings)]


@pytest.mark.parametrize(
    ("cache", "waiting", "replicas"),
    [
        (0.71, 0, 5),  # spare 0.09 of 0.1
        (0.69, 0, 4),  # enough now, but 0.69 * 4 / 3 = 0.92 afterwards
        (0.52, 0, 3),  # 0.693 afterwards: 0.107 spare
        (0.53, 0, 4),  # 0.707 afterwards
        (0.85, 0, 5),  # saturated
        (0.0, 4 * 2.1, 5),  # 2.1 wait in each: 2.9 spare of 3
        (0.0, 4 * 1.6, 4),  # 3.4 spare now, 2.87 afterwards
        (0.0, 4 * 1.4, 3),  # 3.13 afterwards
        (0.0, 4 * 9.0, 5),  # saturated
    ],
)
def test_v1_adds_or_removes_one(cache, waiting, replicas):
    assert v1({"ready": 4, "cache_usage": cache, "waiting": waiting}) == [replicas]


def test_v1_does_not_see_requests_at_the_gateway():
    assert v1({"ready": 4, "cache_usage": 0.6, "waiting": 40.0, "gateway_waiting": 40.0}) == [4]


def test_v1_waits_while_a_replica_starts():
    busy = {"cache_usage": 0.9}
    assert v1({"ready": 2, **busy}, {"ready": 2, "pending": 1, **busy}, {"ready": 3, **busy}) == [3, 3, 4]


def test_v1_waits_until_what_was_removed_is_gone():
    assert v1({"ready": 4}, {"ready": 4}, {"ready": 3}) == [3, 3, 2]


def test_v1_looks_at_the_last_minutes_maximum():
    # 0.71 at 0 s holds for the readings up to 45 s; at 60 s it is forgotten.
    readings = [{"ready": 4 + index, "cache_usage": 0.71 if index == 0 else 0.65} for index in range(5)]
    # Afterwards 0.65 is neither too much now nor little enough to remove one: 0.743.
    assert v1(*readings) == [5, 6, 7, 8, 8]


def test_v1_keeps_the_last_replica():
    assert v1({"ready": 2}, {"ready": 1}, {"ready": 1}) == [1, 1, 1]


COMPLETED = {"completions": 10, "completed_input_tokens": 3000, "completed_output_tokens": 1000}
"""300 in and 100 out: a request takes 400 tokens; derived: min(8192 / 4, 256) * 350 = 89,600, so memory limits, at
80,000 of 100,000."""


@pytest.mark.parametrize(
    ("cache", "replicas"),
    [
        (0.68, 4),  # 4 * 68,000 / 0.85 = 320,000: just what 4 have
        (0.70, 5),  # 9,412 too few
        (0.95, 6),  # 447,059: 127,059 too few, 1.59 replicas
        (0.60, 4),  # 240,000 / 0.7 = 342,857: nothing to spare
        (0.44, 4),  # 251,429: 68,571 to spare, not a whole replica
        (0.42, 3),  # 240,000: 80,000 to spare
        (0.13, 1),  # 74,286: 245,714 to spare, 3.07 replicas
    ],
)
def test_v2_sizes_for_tokens(cache, replicas):
    assert v2({"ready": 4, "cache_usage": cache, **COMPLETED}) == [replicas]


def test_v2_counts_waiting_requests_with_their_full_length():
    # 4 * (60,000 + 4 * 400) / 0.85 = 289,882: enough; 20 in each are 68,000, just enough; 21, not.
    assert v2({"ready": 4, "cache_usage": 0.6, "waiting": 16.0, **COMPLETED}) == [4]
    # 5 or more in each: what is held now is the capacity. 4 * (60,000 + 8,400) / 0.85 / 60,000 = 5.36.
    assert v2({"ready": 4, "cache_usage": 0.6, "waiting": 84.0, **COMPLETED}) == [6]


def test_v2_counts_requests_at_the_gateway():
    # 4 * 68,000 + 50 * 400 = 292,000 / 0.85 = 343,529: 23,529 too few.
    reading = {"ready": 4, "cache_usage": 0.68, "waiting": 50.0, "gateway_waiting": 50.0}
    assert v2({**reading, **COMPLETED}) == [5]


def test_v2_counts_starting_replicas_upwards_only():
    # 2 * 95,000 / 0.85 = 223,529: 3 replicas' worth.
    first, second = {"ready": 2, "cache_usage": 0.95}, {"ready": 2, "pending": 1, "cache_usage": 0.95}
    assert v2({**first, **COMPLETED}, {**second, **COMPLETED}) == [3, 3]


def test_v2_remembers_what_a_replica_held_with_a_queue():
    # A queue at 40,000 held: that is the capacity. Later without a queue it still is: 2 * 35,000 / 0.85 = 82,353.
    saturated = {"ready": 2, "cache_usage": 0.4, "waiting": 12.0, **COMPLETED}
    # 2 * (40,000 + 6 * 400) / 0.85 = 99,765 against 80,000: one more.
    later = [{"ready": 3, "cache_usage": 0.35, **COMPLETED}] * 5
    counts = v2(saturated, *later)
    assert counts[0] == 3
    # Once the minute's maxima are gone: 3 * 35,000 / 0.85 = 123,529 against 120,000.
    assert counts[-1] >= 4
    # Without that memory: 3 * 35,000 / 0.7 = 150,000 of 240,000, one to spare.
    assert v2(*[{"ready": 3, "cache_usage": 0.35, **COMPLETED}]) == [2]


def test_v2_changes_by_ten_at_most():
    reading = {"ready": 20, "cache_usage": 1.0, "waiting": 1000.0, "gateway_waiting": 1000.0, **COMPLETED}
    # 20 * 100,000 + 400,000 = 2,400,000 / 0.85 / 80,000 = 35.3: from 20, 10 more.
    assert v2(reading) == [30]
    assert v2({"ready": 20, **COMPLETED}) == [10]


def test_the_derived_capacity():
    engine = scenario().engine
    # 8,192 tokens a step, a quarter of them decoding: 2,048 sequences, but 256 at most, of 350 tokens each.
    assert derived_capacity(engine, LoadShape(300, 100)) == 256 * 350
    # 8,192 * 10 / 8,010 = 10.2 sequences of 8,005.
    assert derived_capacity(engine, LoadShape(8000, 10)) == pytest.approx(8192 * 10 / 8010 * 8005)
    assert derived_capacity(engine, LoadShape(0, 0)) == 0
