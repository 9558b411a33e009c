import pytest

from modelyard.simulator.rivals.eppsaturation import EppSaturation, EppSaturationSettings, formula
from modelyard.simulator.rivals.hpa import Behaviour, Limit
from tests.unit.simulator.rivals_support import scenario, signals


def settled(reading, settings=None):
    """The count once the one found at the start is out of the window upwards, at 30 s."""
    counts = run([reading] * 3, settings)
    assert counts[:2] == [reading["ready"] + reading.get("pending", 0)] * 2
    return counts[2]


def run(readings, settings=None, **changes):
    policy = EppSaturation("wva-p90", scenario(**changes), settings or EppSaturationSettings())
    return [policy.decide(signals(15.0 * index, **reading)) for index, reading in enumerate(readings)]


@pytest.mark.parametrize(
    ("saturation", "replicas", "ready", "wanted"),
    [
        (0.55, 10, 10, 10),
        (0.56, 10, 10, 11),
        (0.66, 10, 10, 12),  # 10 * 0.2
        (1.10, 10, 10, 20),
        (1.10, 10, 5, 10),  # half are ready: 1.1 * 0.5 = 0.55
        (1.32, 10, 5, 12),
        (0.70, 10, 5, 7),  # the credit may even ask for fewer: 0.35 / 0.55 - 1 = -0.36
        (0.40, 10, 10, 10),
        (0.39, 10, 10, 10),  # floor(0.25)
        (0.30, 10, 10, 8),  # floor(2.5)
        (0.30, 10, 5, 8),  # no credit downwards
        (0.00, 10, 10, 0),
    ],
)
def test_formula(saturation, replicas, ready, wanted):
    assert formula(saturation, replicas, ready, EppSaturationSettings()) == wanted


def test_the_worse_of_the_two_objectives_counts():
    # Objectives: 1.05 s for 100 tokens, 40 ms. 0.8 and 0.5: 4 * 0.8 / 0.55 = 5.8.
    reading = {"ready": 4, "first_token_p90": 0.84, "inter_token_p90": 0.02}
    assert settled(reading) == 6
    assert settled({"ready": 4, "first_token_p90": 0.1, "inter_token_p90": 0.032}) == 6


def test_the_signal_is_clamped_and_averaged_over_45_seconds():
    free = Behaviour(0.0, 0.0, (Limit("pods", 100, 15),), (Limit("pods", 100, 15),))
    calm, wild = {"ready": 4, "inter_token_p90": 0.02}, {"ready": 4, "inter_token_p90": 3.6}
    # 90 times the objective counts as 2. Averages: 0.5, 0.5, (0.5 + 0.5 + 2) / 3 = 1 and (0.5 + 2 + 2) / 3 = 1.5:
    # 4 / 0.55 = 7.3, and of those 8, 8 * 1.5 / 0.55 = 21.8.
    counts = run([calm, calm, wild, {**wild, "ready": 8}], EppSaturationSettings(behaviour=free))
    assert counts == [4, 4, 8, 22]


def test_the_window_upwards_takes_the_lowest_of_30_seconds():
    calm, wild = {"ready": 4, "inter_token_p90": 0.02}, {"ready": 4, "inter_token_p90": 3.6}
    # At 30 s 8 are recommended, at 45 s 11; the 4 of 15 s are then 30 s old, the 8 are not.
    assert run([calm, calm, wild, wild]) == [4, 4, 4, 8]


def test_a_predictor_sees_the_queue():
    # 84 wait for 4 replicas of 10/s: 2.1 s of 1.05 s.
    reading = {"ready": 4, "waiting": 84.0, "inter_token_p90": 0.02}
    assert settled(reading) == 8
    assert settled(reading, EppSaturationSettings(predicted=False)) == 4


def test_without_a_ready_replica_waiting_is_saturation():
    # Nothing is ready: no credit, so double (of 2, up to 4 more).
    assert settled({"ready": 0, "pending": 2, "waiting": 1.0}) == 6


def test_the_hpa_ignores_changes_within_its_tolerance():
    # 20 * 0.58 / 0.55 = 21.1 -> 22 is within 10 % of 20; 0.61 -> 23 is not.
    assert settled({"ready": 20, "inter_token_p90": 0.0232}) == 20
    assert settled({"ready": 20, "inter_token_p90": 0.0244}) == 23


def test_growth_per_minute():
    # Double, or 4 more, of what there was a minute ago.
    reading = {"ready": 3, "inter_token_p90": 0.2}
    counts = run([{**reading, "ready": ready} for ready in (3, 3, 3, 7, 7, 7, 7)])
    assert counts == [3, 3, 7, 7, 7, 7, 14]


def test_shrinking_is_one_in_two_minutes_after_three():
    counts = run([{"ready": 5}] * 30)
    # The 5 found at the start hold for 180 s; then one each 120 s.
    assert counts == [5] * 12 + [4] * 8 + [3] * 8 + [2] * 2
