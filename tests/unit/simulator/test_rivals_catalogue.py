import pytest

from modelyard.simulator.rivals.catalogue import RIVALS, rival
from tests.unit.simulator.rivals_support import scenario, signals

NAMES = {
    "static-peak",
    "static-mean",
    "hpa-gpu",
    "hpa-cpu",
    "hpa-concurrency",
    "keda-queue",
    "keda-queue-cache",
    "knative",
    "kubeai",
    "ray-serve",
    "aibrix-apa",
    "aibrix-kpa",
    "wva-v1",
    "wva-v2",
    "wva-p90",
    "dynamo-constant",
    "dynamo-arima",
    "dynamo-kalman",
    "dynamo-constant-load",
    "dynamo-arima-load",
    "dynamo-kalman-load",
    "melange",
}


def test_all_are_there_once():
    assert len(RIVALS) == len(NAMES)
    assert {known.name for known in RIVALS} == NAMES
    with pytest.raises(KeyError):
        rival("none")


@pytest.mark.parametrize("known", RIVALS, ids=lambda known: known.name)
def test_every_candidate_makes_a_policy(known):
    candidates = list(known.candidates())
    assert candidates[0] == known.documented
    assert 1 < len(candidates) <= 24
    assert all(candidates.count(candidate) == 1 for candidate in candidates)
    for candidate in candidates:
        policy = known.policy(scenario(), candidate)
        assert policy.name == known.name
        assert 0 < policy.interval <= 180
        assert 1 <= policy.decide(signals(ready=1)) <= 100


def test_what_needs_the_whole_trace_says_so():
    assert {known.name for known in RIVALS if known.hindsight} == {"static-peak", "static-mean", "melange"}
