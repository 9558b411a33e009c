"""Which autoscaler carries out a size, and what is said where it cannot."""

from dataclasses import replace

import pytest

from modelyard.core.decide import decide_deployment
from modelyard.core.external import (
    Scaler,
    ScalerSupport,
    explain_leftover,
    explain_scaler,
    take_over,
    wanted_scaler,
)
from modelyard.core.plan import DeploymentPlan
from modelyard.core.reasons import Code, Reason
from modelyard.core.replicas import SizeMemory
from modelyard.core.state import DeploymentMemory, Policy
from modelyard.core.status import EXTERNAL_SCALER_READY, build_status
from tests.unit.core.build import KEY, NOW, make_deployment, make_placement, make_snapshot

HPA, KEDA = "HorizontalPodAutoscaler", "ScaledObject"
WORKS = Scaler(uid="1", version="1", name="llama", owner="2", active=True)


def external(scaler=None, **changes):
    named = {} if scaler is None else {"external": {"scaler": scaler}}
    return make_deployment(scaling={"max": 4, "actuator": "External", **named}, **changes)


@pytest.mark.parametrize(
    ("deployment", "wanted"),
    [
        (external(), HPA),
        (external(HPA), HPA),
        (external(KEDA), KEDA),
        (external("None"), None),
        (external(suspend=True), None),
        (make_deployment(scaling={"max": 4, "actuator": "External", "mode": "Advise"}), None),
        (make_deployment(scaling={"max": 4}), None),
        (make_deployment(replicas=2), None),
    ],
)
def test_only_an_active_external_actuator_wants_an_autoscaler(deployment, wanted):
    assert wanted_scaler(deployment) == wanted


@pytest.mark.parametrize(
    ("support", "scaler", "taken", "code", "remedy"),
    [
        (None, WORKS, False, Code.SCALER_PENDING, "not said yet"),
        (ScalerSupport(served=False), None, False, Code.KEDA_MISSING, "install KEDA"),
        (ScalerSupport(missing_rights=("create",)), None, False, Code.SCALER_FORBIDDEN, "not create a"),
        (ScalerSupport(), None, True, Code.SCALER_CONFLICT, "delete it"),
        (ScalerSupport(adapter="Missing"), WORKS, False, Code.METRICS_ADAPTER_MISSING, "install one"),
        (
            ScalerSupport(adapter="Failing", adapter_message="no endpoints"),
            WORKS,
            False,
            Code.METRICS_ADAPTER_FAILING,
            "no endpoints",
        ),
        (ScalerSupport(), None, False, Code.SCALER_PENDING, "not said yet"),
        (ScalerSupport(), replace(WORKS, active=None), False, Code.SCALER_PENDING, "not said yet"),
        (
            ScalerSupport(),
            replace(WORKS, active=False, message="no metrics returned"),
            False,
            Code.SCALER_FAILING,
            "no metrics returned",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(support, scaler, taken, code, remedy):
    ready, reason = explain_scaler(KEDA, support, scaler, taken=taken)
    assert (ready, reason.code) == (False, code)
    assert remedy in reason.message


def test_an_autoscaler_that_works_is_ready():
    ready, reason = explain_scaler(HPA, ScalerSupport(), WORKS)
    assert (ready, reason.code) == (True, Code.SCALER_ACTIVE)


def test_the_condition_stands_only_with_an_outside_autoscaler():
    deployment = external()
    plan = DeploymentPlan(KEY, placement=make_placement())
    routed = (True, Reason(Code.ROUTED, "here"))
    for scaler, shown in ((None, []), (explain_leftover(HPA), [("False", "ScalerForbidden")])):
        status = build_status(deployment, plan, make_snapshot(deployment), routed, None, NOW, scaler)
        found = [
            (item.status, item.reason) for item in status.conditions if item.type == EXTERNAL_SCALER_READY
        ]
        assert found == shown


def test_what_an_autoscaler_left_stays_for_a_window():
    """With the history of an idle model the size would fall at once; what an autoscaler left counts as just grown."""
    memory = DeploymentMemory(size=SizeMemory(since=0.0))
    before, _ = decide_deployment(
        KEY, make_snapshot(external(), children={KEY: 4}), memory, NOW - 1, Policy()
    )
    ours = make_deployment(scaling={"min": 1, "max": 4})
    taken = take_over(ours, before, memory, NOW)
    assert taken is not None
    assert taken.size.since == NOW


@pytest.mark.parametrize("deployment", [external(), make_deployment(replicas=1)])
def test_nothing_is_taken_over_by_others(deployment):
    memory = DeploymentMemory(size=SizeMemory(since=0.0))
    left = DeploymentPlan(KEY, placement=make_placement(), replicas=None)
    assert take_over(deployment, left, memory, NOW) is memory


def test_a_size_that_was_ours_is_not_taken_over():
    memory = DeploymentMemory(size=SizeMemory(since=0.0))
    ours = make_deployment(scaling={"min": 1, "max": 4})
    for before in (
        None,
        DeploymentPlan(KEY, placement=make_placement(), replicas=2),
        DeploymentPlan(KEY, replicas=None),
    ):
        assert take_over(ours, before, memory, NOW) is memory
    assert take_over(ours, DeploymentPlan(KEY, placement=make_placement()), None, NOW) is None
