"""Endpoint pickers: who is asked, who goes round it, and what is told."""

from dataclasses import replace
from typing import Any

import pytest

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.names import Exposure, build_routing_table, resolve_names
from modelyard.core.picking import PoolState, asks_picker, explain_picker, explain_pool, find_picker
from modelyard.core.reasons import Code
from modelyard.core.routing import Picker, RoutingTable
from tests.unit.core.build import KEY, make_deployment, make_pod, make_snapshot, make_targets_route


def picked(mode: str = "FailClose", **spec: Any) -> LLMDeployment:
    return make_deployment(endpointPicker={"service": "picker", "failureMode": mode}, **spec)


def test_a_picker_is_of_the_deployments_own_namespace() -> None:
    assert find_picker(picked()) == Picker("picker.team.svc", 9002)
    assert find_picker(picked(), "cluster.local") == Picker("picker.team.svc.cluster.local.", 9002)
    assert find_picker(make_deployment()) is None


@pytest.mark.parametrize(
    ("mode", "silent", "asks"),
    [
        ("FailClose", False, True),
        ("FailClose", True, True),
        ("FailOpen", False, True),
        ("FailOpen", True, False),
    ],
)
def test_only_fail_open_goes_round_a_picker_that_is_silent(mode: str, silent: bool, asks: bool) -> None:
    deployment = picked(mode)
    keys = {KEY} if silent else set()
    assert asks_picker(deployment, keys) == asks
    answers, reason = explain_picker(deployment, keys)
    assert (answers, reason.code) == (not silent, Code.PICKER_SILENT if silent else Code.PICKER_ASKED)
    if silent:
        assert ("503" in reason.message) == (mode == "FailClose")


def test_of_a_deployment_without_a_picker_nothing_is_told() -> None:
    with pytest.raises(ValueError, match="no endpointPicker"):
        explain_picker(make_deployment(), ())


def table_of(deployment: LLMDeployment, silent: frozenset[str] = frozenset()) -> RoutingTable:
    snapshot = make_snapshot(deployment, pods={KEY: (make_pod(),)})
    snapshot = replace(snapshot, silent_pickers=silent)
    return build_routing_table(
        snapshot, resolve_names(snapshot), {KEY: Exposure()}, RoutingTable(), anonymous=True
    )


def test_the_table_says_who_is_asked_and_adapters_ask_too() -> None:
    adapters = [{"name": "tuned", "source": "hf://org/tuned"}]
    deployment = picked("FailOpen", model={"adapters": adapters})
    upstreams = table_of(deployment).upstreams
    assert {key: (item.picker, item.asks_picker, item.model) for key, item in upstreams.items()} == {
        KEY: (Picker("picker.team.svc", 9002), True, "llama"),
        f"{KEY}:tuned": (Picker("picker.team.svc", 9002), True, "tuned"),
    }
    silent = table_of(deployment, frozenset({KEY})).upstreams
    assert {item.asks_picker for item in silent.values()} == {False}
    assert table_of(make_deployment()).upstreams[KEY].picker is None


@pytest.mark.parametrize("mode", ["FailOpen", "FailClose"])
def test_behind_a_sovereign_name_no_picker_sees_a_request(mode: str) -> None:
    """Its Service may lead out of the cluster."""
    deployment = picked(mode)
    route = make_targets_route("team/front", "front", {"deployment": "llama"}, dataPolicy="Sovereign")
    snapshot = make_snapshot(deployment, routes=(route,), pods={KEY: (make_pod(),)})
    table = build_routing_table(
        snapshot, resolve_names(snapshot), {KEY: Exposure()}, RoutingTable(), anonymous=True
    )
    assert {item.picker for item in table.upstreams.values()} == {None}
    answers, reason = explain_picker(deployment, (), sovereign=True)
    assert (answers, reason.code) == (False, Code.PICKER_NOT_ASKED)


@pytest.mark.parametrize(
    ("state", "holds", "code"),
    [
        ("Applied", True, Code.POOL_APPLIED),
        ("Missing", False, Code.INFERENCE_API_MISSING),
        ("Forbidden", False, Code.POOL_FORBIDDEN),
        ("Refused", False, Code.POOL_PENDING),
        ("Taken", False, Code.NAME_CONFLICT),
        ("Unknown", False, Code.POOL_PENDING),
    ],
)
def test_what_is_known_of_the_pool_is_told(state: PoolState, holds: bool, code: str) -> None:
    said, reason = explain_pool(picked(), state)
    assert (said, reason.code) == (holds, code)
