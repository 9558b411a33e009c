import numpy as np
import pytest

from modelyard.simulator.rivals.melange import MelangeSettings, load_per_request, melange
from modelyard.simulator.rivals.static import (
    StaticSettings,
    mean_rate,
    peak_rate,
    static,
    zero_lead_replica_seconds,
)
from modelyard.simulator.scenario import Arrivals
from tests.unit.simulator.rivals_support import arrivals, scenario, signals


def ramp():
    """An hour: 20/s from 1,000 s to 1,600 s, 5/s otherwise."""
    return arrivals(
        np.concatenate([np.arange(0, 1000, 0.2), np.arange(1000, 1600, 0.05), np.arange(1600, 3600, 0.2)]),
        3600,
    )


def test_peak_and_mean_rates():
    assert peak_rate(ramp()) == pytest.approx(20, rel=0.001)
    assert mean_rate(ramp()) == pytest.approx(27_000 / 3600)
    # Shorter than the window: the mean.
    assert peak_rate(arrivals([0, 1, 2], 60)) == pytest.approx(0.05)
    assert peak_rate(arrivals([], 3600)) == mean_rate(arrivals([], 0)) == 0


@pytest.mark.parametrize(
    ("settings", "replicas"),
    [
        (StaticSettings("peak"), 3),  # 20 / 7
        (StaticSettings("mean"), 2),  # 7.5 / 7
        (StaticSettings("peak", 0.7), 5),  # 20 / 4.9
    ],
)
def test_static_sizes(settings, replicas):
    policy = static("static", scenario(arrivals=ramp(), capacity=7.0), settings)
    assert [policy.decide(signals(time, running=time)) for time in (0, 60, 1200)] == [replicas] * 3


def test_static_sizes_keep_the_bounds():
    assert static("s", scenario(arrivals=ramp(), maximum=2), StaticSettings("peak")).replicas == 2
    assert (
        static("s", scenario(arrivals=ramp(), capacity=3.0, maximum=2), StaticSettings("peak")).replicas == 2
    )
    assert static("s", scenario(arrivals=arrivals([], 60), minimum=3), StaticSettings("mean")).replicas == 3


def test_the_zero_lead_bound_takes_each_minute_by_itself():
    # 600 in the first minute, 601 in the second, none in the third, 1 in the last half minute; 10/s each.
    times = np.concatenate([np.arange(600) / 10, 60 + np.arange(601) / 10.1, [185.0]])
    base = scenario(arrivals=arrivals(times, 210), minimum=0)
    assert zero_lead_replica_seconds(base) == 60 * 1 + 60 * 2 + 0 + 30 * 1
    assert zero_lead_replica_seconds(scenario(arrivals=base.arrivals, minimum=1)) == 60 + 120 + 60 + 30
    assert zero_lead_replica_seconds(scenario(arrivals=arrivals([], 0))) == 0


def test_melange_adds_the_loads_of_the_classes():
    # Half are 100/100, half 1000/100: 1 / rate at 40 ms between tokens.
    # 100/100: 0.01 + 0.00011 b <= 0.04 gives b = 256 (the engine's limit): 256 / 3.817.
    # 1000/100: a prompt is 10 ms, so 0.01 + 0.0002 b: b = 95 (the cache); first token 0.039: 95 / (0.039 + 99 * 0.029).
    both = Arrivals(
        time=np.arange(600.0),
        input_tokens=np.tile([100, 1000], 300),
        output_tokens=np.full(600, 100),
        cached_tokens=np.zeros(600, dtype=int),
        duration=600.0,
    )
    mixed = scenario(arrivals=both)
    load = (3.817 / 256 + (0.039 + 99 * 0.029) / 95) / 2
    assert load_per_request(mixed) == pytest.approx(load)
    # 1/s needs 0.023 replicas; 100 times that, 3.
    assert melange("melange", mixed, MelangeSettings()).replicas == 1
    assert melange("melange", mixed, MelangeSettings(overprovision=100.0)).replicas == 3


def test_melange_takes_the_peak_if_told_so():
    load = load_per_request(scenario(arrivals=ramp()))
    size = melange("melange", scenario(arrivals=ramp()), MelangeSettings("peak", 10.0)).replicas
    assert size == int(np.ceil(200 * load))
    assert load_per_request(scenario(arrivals=arrivals([], 60))) == 0
