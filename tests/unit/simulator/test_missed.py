"""What a policy is told of missed requests: as engines' pages tell, request by request and in a flow."""

from dataclasses import replace

import numpy as np
import pytest

from modelyard.simulator.flow import flow_of
from modelyard.simulator.fluid import run_fluid
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Objective
from tests.unit.simulator.play import Script, make_arrivals, make_scenario, random_arrivals
from tests.unit.simulator.test_fluid import curve

MINUTES_10 = 600.0


def _told(script: Script) -> float:
    assert all(signals.missed is not None for signals in script.seen)
    return sum(signals.missed or 0.0 for signals in script.seen)


def test_nothing_is_missed_under_little_load():
    script = Script([2], interval=15.0)
    arrivals = random_arrivals(5.0, MINUTES_10, 1, inputs=400)
    outcome = run(make_scenario(arrivals, initial=2), script)
    assert outcome.attained == outcome.requests
    assert _told(script) == 0.0


@pytest.mark.parametrize(
    "objective",
    [Objective(0.3, 0.0, 10.0), Objective(1e6, 0.0, 0.024)],
    ids=["first token", "between tokens"],
)
def test_of_equal_prompts_what_is_told_is_what_is_missed(objective: Objective):
    """With one limit that binds, a page counts just the requests that miss."""
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0.0, MINUTES_10, 24 * 600))
    arrivals = make_arrivals(times, 914, 155, duration=MINUTES_10)
    script = Script([1], interval=15.0)
    outcome = run(replace(make_scenario(arrivals), objective=objective), script)
    missed = outcome.requests - outcome.attained
    assert missed > 0.2 * outcome.requests
    finished = sum(signals.completions for signals in script.seen)
    assert finished > 0.9 * outcome.requests
    # A first token is counted when it comes, the answer when it ends, and the last ones after the last look.
    assert _told(script) == pytest.approx(missed, abs=outcome.requests - finished + 0.02 * missed)


def test_a_flow_tells_what_its_curve_misses():
    scenario = make_scenario(random_arrivals(24.0, MINUTES_10, 1))
    script = Script([1], interval=10.0)
    outcome = run_fluid(scenario, flow_of(scenario.arrivals), curve(), script)
    missed = outcome.requests - outcome.attained
    assert missed > 0.05 * outcome.requests
    assert _told(script) == pytest.approx(missed, rel=0.1)
