"""Argo CD's health and Flux's readiness of every combination of conditions that the operator can produce."""

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api.crd import KINDS
from modelyard.api.meta import UNOBSERVED
from modelyard.core.plan import DeploymentPlan, Size
from modelyard.core.reasons import Code, Reason
from modelyard.core.status import READY
from tests.gitops.asides import NO_CONDITION, asides
from tests.gitops.combinations import (
    DEGRADED,
    HEALTHY,
    KEY,
    PROGRESSING,
    SPECS,
    SUSPENDED,
    Case,
    deployment_body,
    deployment_meaning,
    every,
    plan_for,
)
from tests.gitops.health import ArgoHealth, FluxHealth, Kstatus, kstatus
from tests.unit.core.build import make_placement, make_pod

ARGO, FLUX = ArgoHealth(), FluxHealth()

CASES = [*every(), *asides()]


def signature(body: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a judge may look at: kind and conditions."""
    conditions = body["status"]["conditions"]
    return body["kind"], *((item["type"], item["status"], item["reason"]) for item in conditions)


def expected_kstatus(case: Case) -> Kstatus:
    """Return what kstatus must say: Current of nothing that is not as it should be, Failed of what gave up."""
    if case.means == HEALTHY:
        return "Current"
    return "Failed" if case.gives_up else "InProgress"


def test_the_cases_reach_every_kind_meaning_and_combination() -> None:
    kinds = {case.body["kind"] for case in CASES}
    assert kinds == KINDS.keys() - {"AcceleratorClass"}, "nothing is said of an AcceleratorClass"
    found = Counter((case.body["kind"], case.means) for case in CASES)
    assert {means for kind, means in found if kind == "LLMDeployment"} == {
        HEALTHY,
        PROGRESSING,
        DEGRADED,
        SUSPENDED,
    }
    assert len({signature(case.body) for case in CASES}) > 300


def test_the_cases_have_every_reason_code_that_a_condition_can_have() -> None:
    """A new code needs a case here, or a line that says where else it stands."""
    codes = {code for name, code in vars(Code).items() if name.isupper()}
    seen = {item["reason"] for case in CASES for item in case.body["status"]["conditions"]}
    assert NO_CONDITION.keys() <= codes
    assert codes - seen == NO_CONDITION.keys()


def test_argo_cd_says_what_each_combination_means() -> None:
    for case in CASES:
        health, message = ARGO.judge(case.body)
        assert health == case.means, (case.name, signature(case.body), message)
        assert message, case.name


def test_kstatus_agrees_with_each_combination() -> None:
    for case in CASES:
        assert kstatus(case.body) == expected_kstatus(case), (case.name, signature(case.body))


def test_flux_takes_what_is_switched_off_for_done_and_agrees_otherwise() -> None:
    for case in CASES:
        wanted = "Current" if case.means == SUSPENDED else expected_kstatus(case)
        assert FLUX.judge(case.body) == wanted, (case.name, signature(case.body))


def test_what_a_wait_is_for_is_told() -> None:
    case = next(case for case in CASES if case.name.startswith("fixed, pods no-gpu") and not case.gives_up)
    ready = next(item for item in case.body["status"]["conditions"] if item["type"] == READY)
    assert ready["reason"] == Code.WAITING_FOR_GPU
    assert ARGO.judge(case.body) == (PROGRESSING, ready["message"])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_object_that_nobody_looked_at_is_not_done(kind: str) -> None:
    case = next((case for case in CASES if case.body["kind"] == kind and case.means == HEALTHY), None)
    if case is None:
        # An AcceleratorClass is only read.
        body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": kind, "metadata": {"generation": 1}}
        assert (ARGO.judge(body)[0], kstatus(body)) == (HEALTHY, "Current")
        return
    # As the API server fills it in, and after a change of a spec that was looked at.
    new = {**case.body, "status": {"observedGeneration": UNOBSERVED}}
    changed = {**case.body, "metadata": {**case.body["metadata"], "generation": 9}}
    for body in (new, changed):
        assert (ARGO.judge(body)[0], kstatus(body), FLUX.judge(body)) == (
            PROGRESSING,
            "InProgress",
            "InProgress",
        )
    assert ARGO.judge({key: value for key, value in case.body.items() if key != "status"})[0] == PROGRESSING


def test_the_script_names_reasons_that_exist_and_serves_every_kind() -> None:
    assert ARGO.scripts.keys() == KINDS.keys()
    assert len(set(ARGO.scripts.values())) == 1
    named = set(re.findall(r"(\w+) = true", ARGO.scripts["LLMDeployment"]))
    assert named == {
        Code.STARTING,
        Code.ROUTES_NOT_CONFIRMED,
        Code.LEDGER_MISSING,
        Code.SUSPENDED,
        Code.SCALED_TO_ZERO,
    }


PODS = st.lists(
    st.builds(
        make_pod,
        st.uuids().map(str),
        ready=st.booleans(),
        terminating=st.booleans(),
        scheduled=st.booleans(),
        phase=st.sampled_from(["Pending", "Running"]),
        waiting=st.sampled_from(
            ["", "ImagePullBackOff", "CrashLoopBackOff", "Unschedulable", "SchedulingGated"]
        ),
    ),
    max_size=4,
).map(tuple)


@settings(deadline=None)
@given(
    spec=st.sampled_from(sorted(SPECS)),
    pods=PODS,
    wanted=st.integers(0, 4),
    late=st.booleans(),
    refusal=st.sampled_from([None, Code.DOES_NOT_FIT]),
    known=st.booleans(),
)
def test_any_pods(
    spec: str, pods: tuple[Any, ...], wanted: int, *, late: bool, refusal: str | None, known: bool
) -> None:
    plan = plan_for(SPECS[spec], wanted, refusal, known=known)
    means, gives_up = deployment_meaning(SPECS[spec], plan, pods, late=late)
    case = Case(spec, deployment_body(SPECS[spec], plan, pods, late=late), means, gives_up)
    assert ARGO.judge(case.body)[0] == means
    assert kstatus(case.body) == expected_kstatus(case)
    assert FLUX.judge(case.body) == ("Current" if means == SUSPENDED else expected_kstatus(case))


def test_progress_is_there_only_while_it_is_true() -> None:
    size = Size(1, Reason(Code.OFFERED_LOAD, "load"))
    plan = DeploymentPlan(KEY, make_placement(), size, 1)
    done = deployment_body(SPECS["scaled"], plan, (make_pod(),))
    going = deployment_body(SPECS["scaled"], plan, ())
    assert "Reconciling" not in {item["type"] for item in done["status"]["conditions"]}
    assert {item["status"] for item in going["status"]["conditions"] if item["type"] == "Reconciling"} == {
        "True"
    }
