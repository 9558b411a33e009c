"""From a deployment to a scenario, and the record of what a policy decides."""

from dataclasses import replace

import pytest

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.cli.classes import default_class
from modelyard.cli.simulateload import parse_synthetic
from modelyard.core.choice import VariantPolicy, list_variants
from modelyard.core.load import LoadShape, Objective
from modelyard.core.perf.predict import sustainable
from modelyard.core.plan import Code, Reason, Size
from modelyard.core.snapshot import Snapshot
from modelyard.core.variants import VariantList
from modelyard.simulator.fleetrun import (
    POLICIES,
    Recorder,
    RunOptions,
    Subject,
    build_subject,
    make_policy,
    plan_load,
    play,
)
from modelyard.simulator.rivals.common import mean_shape
from modelyard.simulator.run import run
from modelyard.simulator.scenario import Disturbances
from tests.unit.cli.simulating import chat

SHAPE = LoadShape(1000, 100)


def subject(load="poisson:rate=2,minutes=20,input-cv=0,output-cv=0", options=RunOptions(), **spec):  # noqa: B008
    classes = spec.pop("classes", [{"class": "l4", "count": 1}])
    item = chat(**spec)
    item["spec"]["placement"]["accelerators"] = classes
    deployment = LLMDeployment.model_validate(item)
    snapshot = Snapshot(deployments={deployment.key: deployment}, accelerators={"l4": default_class("l4")})
    arrivals = parse_synthetic(load).build(SHAPE, seed=1)
    choice = list_variants(deployment, snapshot, mean_shape(arrivals), VariantPolicy())
    assert isinstance(choice, VariantList)
    built = build_subject(deployment, choice.variants[0], arrivals, options)
    assert isinstance(built, Subject)
    return built


def test_bounds_objective_price_and_drain_are_the_specs():
    built = subject(
        scaling={"min": 2, "max": 9, "slo": {"timeToFirstToken": "3s", "interTokenLatency": "80ms"}},
        rollout={"drainTimeout": "45s"},
    )
    scenario = built.scenario
    assert (scenario.minimum, scenario.maximum, scenario.drain) == (2, 9, 45)
    objective = scenario.objective
    assert (objective.first_token_base, objective.first_token_per_input_token) == (3, 0)
    assert objective.inter_token == 0.08
    assert scenario.price == pytest.approx(float(built.variant.price))
    assert scenario.engine.cache_tokens == built.variant.fit.cache_tokens


def test_a_fixed_size_has_one_bound():
    scenario = subject(replicas=3).scenario
    assert (scenario.minimum, scenario.initial, scenario.maximum) == (3, 3, 3)


@pytest.mark.parametrize(("rate", "replicas"), [(0, 1), (2, 1), (6, 3), (100, 8)])
def test_it_begins_with_what_the_first_minutes_need(rate, replicas):
    classes = [{"class": "l4", "count": 1, "requestsPerMinute": 180}]
    built = subject(f"poisson:rate={rate},minutes=20", scaling={"min": 1, "max": 8}, classes=classes)
    assert built.scenario.initial == replicas


def test_start_time_is_the_variants_unless_stated():
    assert subject().scenario.start.median == subject().variant.start_time
    assert subject(options=RunOptions(start_time=37.0)).scenario.start.median == 37


@pytest.mark.parametrize(("room", "seconds"), [(None, 300), (2, 300), (6, 0)])
def test_a_new_node_is_waited_for_where_the_nodes_lack_room(room, seconds):
    built = subject()
    spec = built.variant.accelerator.spec.model_copy(update={"provision_time": "5m"})
    accelerator = built.variant.accelerator.model_copy(update={"spec": spec})
    variant = replace(built.variant, accelerator=accelerator)
    found = build_subject(built.deployment, variant, built.scenario.arrivals, RunOptions(room=room))
    assert found.scenario.start.provision == seconds


def test_spot_capacity_that_is_not_taken_away_is_noted():
    built = subject()
    on_spot = replace(built.variant, spot=True)
    found = build_subject(built.deployment, on_spot, built.scenario.arrivals, RunOptions())
    assert "as if all of it were spot capacity; --spot-loss says when" in " ".join(found.notes)
    assert "spot" not in " ".join(built.notes)
    lost = RunOptions(disturbances=Disturbances(spot_losses=((60.0, 1),)))
    played = build_subject(built.deployment, on_spot, built.scenario.arrivals, lost)
    assert played.scenario.disturbances == lost.disturbances
    assert "--spot-loss" not in " ".join(played.notes)


@pytest.mark.parametrize("declared", [40, 120, 180])
def test_the_engine_answers_what_is_declared(declared):
    built = subject(classes=[{"class": "l4", "count": 1, "requestsPerMinute": declared}])
    engine, shape = built.scenario.engine, mean_shape(built.scenario.arrivals)
    found = sustainable(engine.step, shape, Objective(), engine.cache_tokens, engine.max_sequences)
    assert found.requests_per_second * 60 == pytest.approx(declared, rel=0.05)


def test_a_declaration_far_from_the_model_is_not_followed_but_told():
    built = subject(classes=[{"class": "l4", "count": 1, "requestsPerMinute": 60_000}])
    assert "check requestsPerMinute" in built.notes[0]
    assert built.scenario.engine.step == built.variant.prior


def test_the_variant_is_chosen_for_the_peak():
    arrivals = parse_synthetic("step:before=1,after=9,at=600,minutes=20").build(SHAPE, seed=1)
    load = plan_load(arrivals)
    assert load.requests_per_minute == pytest.approx(9 * 60, rel=0.1)
    assert load.source == "File"


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_plays(name):
    outcome = play(subject("poisson:rate=3,minutes=5"), name).outcome
    assert outcome.requests == outcome.completed + outcome.refused + outcome.abandoned


def test_an_unknown_policy_is_an_error():
    with pytest.raises(KeyError):
        make_policy("best", subject().scenario)


class Steps:
    """Wants two replicas more at each decision, and goes beyond the bounds."""

    name, interval = "steps", 60.0

    def __init__(self):
        self.wanted = 0

    def decide(self, signals):
        self.wanted += 2
        return self.wanted


def test_the_record_keeps_changes_within_the_bounds_and_the_trace():
    scenario = subject("poisson:rate=1,minutes=5", scaling={"min": 1, "max": 5}).scenario
    times = []
    recorder = Recorder(Steps(), scenario, times.append)
    run(scenario, recorder)
    assert [(item.before, item.after) for item in recorder.changes] == [(1, 2), (2, 4), (4, 5)]
    assert [item.time for item in recorder.changes] == [60, 120, 180]
    assert "requests/s came" in recorder.changes[0].message
    assert times[:3] == [60, 120, 180]
    assert max(times) <= 300


def test_the_record_keeps_the_numbers_of_a_decision():
    policy, scenario = Steps(), subject("poisson:rate=1,minutes=3").scenario
    policy.size = Size(3, Reason(Code.OFFERED_LOAD, "why"), numbers={"offeredRate": 1.5})
    policy.reason, policy.message = "OfferedLoad", "why"
    recorder = Recorder(policy, scenario)
    run(scenario, recorder)
    first = recorder.changes[0]
    assert (first.reason, first.message, first.numbers) == ("OfferedLoad", "why", {"offeredRate": 1.5})
