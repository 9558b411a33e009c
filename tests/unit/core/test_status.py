"""What the user reads: conditions, sizes, history and cost."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from modelyard.api.llmdeployment import LLMDeployment, LLMDeploymentStatus
from modelyard.api.meta import Refusal
from modelyard.core.plan import DeploymentPlan, Size
from modelyard.core.reasons import Code, Reason
from modelyard.core.snapshot import ChildDeployment, Pod, Snapshot
from modelyard.core.status import (
    HISTORY_LIMIT,
    METRICS_AVAILABLE,
    NAME_ACCEPTED,
    PLACEMENT_PREFERRED,
    PROGRESSING,
    READY,
    STALLED,
    build_route_status,
    build_status,
    format_time,
)
from tests.unit.core.build import (
    KEY,
    NOW,
    make_accelerator,
    make_deployment,
    make_placement,
    make_pod,
    make_route,
    make_snapshot,
    make_variant,
)

ROUTED = (True, Reason(Code.ROUTED, "requests for llama come here"))
SCALED = {"scaling": {"min": 0, "max": 10}}


def _plan(replicas: int | None = 1, code: str = Code.OFFERED_LOAD, **changes: Any) -> DeploymentPlan:
    fields: dict[str, Any] = {
        "placement": make_placement(message="1 x l4"),
        "size": Size(replicas if replicas is not None else 2, Reason(code, f"because of {code}")),
        "replicas": replicas,
        **changes,
    }
    return DeploymentPlan(KEY, **fields)


def _status(
    plan: DeploymentPlan,
    *pods: Pod,
    deployment: LLMDeployment | None = None,
    child: ChildDeployment | None = None,
    name: tuple[bool, Reason] = ROUTED,
    cost: Decimal | None = None,
    now: float = NOW,
) -> LLMDeploymentStatus:
    deployment = deployment or make_deployment(**SCALED)
    snapshot = Snapshot(
        deployments={KEY: deployment},
        pods={KEY: pods},
        children={} if child is None else {KEY: {make_variant().name: child}},
    )
    return build_status(deployment, plan, snapshot, name, cost, now)


def _conditions(status: LLMDeploymentStatus) -> dict[str, tuple[str, str]]:
    return {item.type: (item.status, item.reason) for item in status.conditions}


def _with(status: LLMDeploymentStatus, **spec: Any) -> LLMDeployment:
    return make_deployment(**(spec or SCALED)).model_copy(update={"status": status})


def test_a_deployment_that_serves_as_wanted():
    status = _status(_plan(2), make_pod("a"), make_pod("b"))
    assert _conditions(status) == {
        READY: ("True", Code.SERVING),
        PROGRESSING: ("False", Code.NOT_PROGRESSING),
        STALLED: ("False", Code.NOT_STALLED),
        NAME_ACCEPTED: ("True", Code.ROUTED),
        METRICS_AVAILABLE: ("True", Code.DEMAND_READ),
        PLACEMENT_PREFERRED: ("True", Code.PREFERRED),
    }
    assert (status.replicas, status.ready_replicas, status.observed_generation) == (2, 2, 3)
    assert (status.model, status.selector) == ("llama", "modelyard.dev/deployment=llama")
    assert status.placement is not None
    assert status.placement.class_name == "l4"
    assert {item.observed_generation for item in status.conditions} == {3}
    assert {item.last_transition_time for item in status.conditions} == {format_time(NOW)}


@pytest.mark.parametrize(
    ("pod", "code"),
    [
        ({"waiting": "ImagePullBackOff"}, Code.IMAGE_PULL_FAILED),
        ({"waiting": "ErrImagePull"}, Code.IMAGE_PULL_FAILED),
        ({"waiting": "CrashLoopBackOff"}, Code.ENGINE_FAILED),
        ({"waiting": "Unschedulable", "scheduled": False, "phase": "Pending"}, Code.WAITING_FOR_GPU),
        ({"waiting": "SchedulingGated", "scheduled": False, "phase": "Pending"}, Code.QUEUED),
        ({}, Code.LOADING),
        ({"phase": "Pending"}, Code.STARTING),
    ],
)
def test_what_a_pod_waits_for_is_said(pod: dict[str, Any], code: str):
    status = _status(_plan(1), make_pod(**{"ready": False, "message": "the kubelet's words", **pod}))
    assert _conditions(status)[READY] == ("False", code)
    assert _conditions(status)[PROGRESSING] == ("True", code)
    if pod.get("waiting"):
        assert "the kubelet's words" in status.conditions[0].message


def test_the_most_telling_pod_speaks():
    loading = make_pod("a", ready=False)
    failing = make_pod("b", ready=False, waiting="CrashLoopBackOff", restarts=4)
    status = _status(_plan(2), loading, failing)
    assert _conditions(status)[READY] == ("False", Code.ENGINE_FAILED)
    assert "4 restarts" in status.conditions[0].message


def test_a_sleeping_model_is_ready():
    status = _status(_plan(0, Code.IDLE))
    assert _conditions(status)[READY] == ("True", Code.SCALED_TO_ZERO)
    assert _conditions(status)[PROGRESSING] == ("False", Code.NOT_PROGRESSING)


def test_pods_of_a_model_put_to_sleep_are_not_ready_replicas():
    status = _status(_plan(0, Code.IDLE), make_pod())
    assert _conditions(status)[READY] == ("True", Code.SCALED_TO_ZERO)
    assert _conditions(status)[PROGRESSING] == ("True", Code.SCALING)
    assert (status.replicas, status.ready_replicas) == (1, 0)


@pytest.mark.parametrize(
    ("spec", "code"),
    [({"suspend": True, **SCALED}, Code.SUSPENDED), ({"replicas": 0}, Code.SCALED_TO_ZERO)],
)
@pytest.mark.parametrize("pods", [(), (make_pod(),)])
def test_a_deployment_that_refuses_requests_is_not_ready(
    spec: dict[str, Any], code: str, pods: tuple[Pod, ...]
):
    status = _status(_plan(0), *pods, deployment=make_deployment(**spec))
    assert _conditions(status)[READY] == ("False", code)


def test_a_refused_deployment_is_stalled_and_serves_on():
    plan = DeploymentPlan(KEY, refusal=Refusal(Code.ACCELERATOR_NOT_FOUND, "create one"))
    stalled = _conditions(_status(plan))
    assert stalled[READY] == ("False", Code.ACCELERATOR_NOT_FOUND)
    assert stalled[STALLED] == ("True", Code.ACCELERATOR_NOT_FOUND)
    assert stalled[PROGRESSING] == ("False", Code.ACCELERATOR_NOT_FOUND)
    assert METRICS_AVAILABLE not in stalled
    assert _conditions(_status(plan, make_pod()))[READY] == ("True", Code.SERVING)


def test_pods_that_do_not_start_in_time_stall():
    child = ChildDeployment(1, deadline_exceeded=True, message="took too long")
    conditions = _conditions(_status(_plan(1), make_pod(ready=False), child=child))
    assert conditions[STALLED] == ("True", Code.START_TIMEOUT)
    assert conditions[PROGRESSING] == ("False", Code.START_TIMEOUT)


def test_who_waits_in_a_queue_does_not_fail_to_start():
    child = ChildDeployment(1, deadline_exceeded=True, message="took too long")
    queued = make_pod(
        ready=False, scheduled=False, phase="Pending", waiting="SchedulingGated", message="gates"
    )
    conditions = _conditions(_status(_plan(1), queued, child=child))
    assert conditions[STALLED] == ("False", Code.NOT_STALLED)
    assert conditions[PROGRESSING] == ("True", Code.QUEUED)


def test_replicas_that_leave_are_progress():
    leaving = make_pod("b", terminating=True)
    assert _conditions(_status(_plan(1), make_pod(), leaving))[PROGRESSING] == ("True", Code.SCALING)
    assert _conditions(_status(_plan(1), make_pod(), make_pod("b")))[PROGRESSING] == ("True", Code.SCALING)


def test_with_an_external_actuator_the_pods_there_are_are_wanted():
    status = _status(_plan(None), make_pod("a"), make_pod("b", ready=False))
    assert _conditions(status)[PROGRESSING] == ("True", Code.LOADING)
    assert status.conditions[0].message == "1 of 2 replicas serve"


def test_lost_metrics_are_a_condition_only_where_load_decides():
    unknown = Size(1, Reason(Code.NO_DATA, "not known"), known=False)
    assert _conditions(_status(_plan(size=unknown)))[METRICS_AVAILABLE] == ("False", Code.NO_DATA)
    fixed = _status(_plan(code=Code.FIXED), deployment=make_deployment(replicas=1))
    assert METRICS_AVAILABLE not in _conditions(fixed)


def test_a_lost_name_is_a_condition():
    lost = (False, Reason(Code.SERVED_NAME_CONFLICT, "belongs to b/llama"))
    assert _conditions(_status(_plan(), name=lost))[NAME_ACCEPTED] == ("False", Code.SERVED_NAME_CONFLICT)


def test_times_change_only_with_the_status_of_a_condition():
    first = _status(_plan(2), make_pod("a"), make_pod("b"))
    second = _status(_plan(2), make_pod("a"), deployment=_with(first), now=NOW + 60.0)
    times = {item.type: item.last_transition_time for item in second.conditions}
    assert times[READY] == format_time(NOW)
    assert times[PROGRESSING] == format_time(NOW + 60.0)
    assert second.conditions[0].message == "1 of 2 replicas serve"


@pytest.mark.parametrize("replicas", [0, 2, None])
def test_nothing_new_is_no_change(replicas: int | None):
    pods = (make_pod("a"), make_pod("b", ready=False))
    first = _status(_plan(replicas), *pods, cost=Decimal("0.5"))
    again = _status(_plan(replicas), *pods, deployment=_with(first), now=NOW + 3600.0)
    assert again == first


def test_a_load_that_moves_without_moving_the_size_is_no_change():
    first = _status(_plan(2), make_pod())
    moved = _plan(2, size=Size(2, Reason(Code.OFFERED_LOAD, "1.51 requests/s")))
    assert _status(moved, make_pod(), deployment=_with(first), now=NOW + 5.0) == first


def test_a_new_reason_for_the_same_size_is_shown_and_is_no_event():
    first = _status(_plan(2))
    second = _status(_plan(2, Code.STABILIZING), deployment=_with(first), now=NOW + 5.0)
    assert second.scaling is not None
    assert (second.scaling.reason, second.scaling.history) == (Code.STABILIZING, ())
    assert second.scaling.message == "because of Stabilizing"


def test_changes_of_size_are_kept_newest_last_and_bounded():
    status = _status(_plan(0))
    assert status.scaling is not None
    assert status.scaling.history == ()
    for size in range(1, HISTORY_LIMIT + 6):
        status = _status(_plan(size), deployment=_with(status), now=NOW + size)
    assert status.scaling is not None
    history = status.scaling.history
    assert len(history) == HISTORY_LIMIT
    assert [event.to_replicas for event in history] == list(range(6, HISTORY_LIMIT + 6))
    assert all(event.from_replicas == event.to_replicas - 1 for event in history)
    assert history[-1].time == format_time(NOW + HISTORY_LIMIT + 5)


def test_a_refusal_keeps_the_scaling_that_was():
    first = _status(_plan(2))
    refused = DeploymentPlan(KEY, refusal=Refusal(Code.NAME_CONFLICT, "rename it"))
    assert _status(refused, deployment=_with(first)).scaling == first.scaling


def _per_million(shown: str | None, measured: str | None) -> str | None:
    cost = {"perHour": "0.8", "perMillionTokens": shown}
    deployment = make_deployment(status={"cost": cost} if shown else {}, **SCALED)
    value = None if measured is None else Decimal(measured)
    status = _status(_plan(1), make_pod(), deployment=deployment, cost=value)
    assert status.cost is not None
    assert status.cost.per_hour == "0.8"
    return status.cost.per_million_tokens


@pytest.mark.parametrize(
    ("shown", "measured", "expected"),
    [
        (None, None, None),
        (None, "0.5", "0.5"),
        ("0.5", None, "0.5"),
        ("0.5", "0.55", "0.5"),
        ("0.5", "0.45", "0.5"),
        ("0.5", "0.5501", "0.5501"),
        ("0.5", "0.44", "0.44"),
        ("0", "0.2", "0.2"),
    ],
)
def test_cost_per_token_moves_only_by_more_than_a_tenth(
    shown: str | None, measured: str | None, expected: str | None
):
    assert _per_million(shown, measured) == expected


def test_a_class_without_price_has_no_cost():
    plan = _plan(placement=make_placement(make_variant(make_accelerator(price=None))))
    assert _status(plan, make_pod(), cost=Decimal(1)).cost is None


def test_long_messages_fit_the_schema():
    plan = DeploymentPlan(KEY, refusal=Refusal(Code.NAME_CONFLICT, "x" * 5000))
    assert all(len(item.message) <= 1024 for item in _status(plan).conditions)


def _route_ready(name: tuple[bool, Reason], *deployments: LLMDeployment) -> tuple[str, str, str]:
    route = make_route("team/chat", "chat", {"llama": 1, "phi": 0})
    status = build_route_status(route, make_snapshot(*deployments, routes=(route,)), name, NOW)
    assert status.observed_generation == 2
    (ready,) = status.conditions
    return ready.status, ready.reason, ready.message


def test_a_route_is_ready_when_its_targets_exist_and_its_name_is_its_own():
    both = (make_deployment("team/llama"), make_deployment("team/phi"))
    assert _route_ready(ROUTED, *both)[:2] == ("True", Code.ROUTED)
    state, code, message = _route_ready(ROUTED, make_deployment("team/llama"), make_deployment("b/phi"))
    assert (state, code) == ("False", Code.TARGET_NOT_FOUND)
    assert "team/phi" in message
    assert "team/llama" not in message
    lost = (False, Reason(Code.SERVED_NAME_CONFLICT, "belongs to b"))
    assert _route_ready(lost, *both)[:2] == ("False", Code.SERVED_NAME_CONFLICT)


def test_the_numbers_of_a_size_stand_until_size_or_reason_change():
    numbers = {"rate": 3.5, "margin": 0.123456, "broken": float("nan")}
    size = Size(2, Reason(Code.OFFERED_LOAD, "because"), numbers=numbers)
    first = _status(_plan(2, size=size))
    assert first.scaling is not None
    assert first.scaling.numbers == {"rate": "3.5", "margin": "0.1235"}
    moved = replace(size, numbers={"rate": 4.0})
    again = _status(_plan(2, size=moved), deployment=_with(first))
    assert again.scaling == first.scaling
    grown = _status(_plan(3, size=replace(moved, replicas=3)), deployment=_with(first))
    assert grown.scaling is not None
    assert grown.scaling.numbers == {"rate": "4"}
    many = replace(size, numbers={f"n{index:02}": 1.0 for index in range(40)})
    bounded = _status(_plan(2, size=many)).scaling
    assert bounded is not None
    assert len(bounded.numbers or {}) == 16
