"""How far dataPolicy Sovereign reaches: to names, to the deployments behind them, and to where models come from."""

import pytest

from modelyard.core.reasons import Code, Reason
from modelyard.core.sovereign import sovereign_deployments
from modelyard.core.status import build_route_status
from tests.unit.core.build import NOW, make_deployment, make_snapshot, make_targets_route

OWN, OTHER = {"deployment": "llama"}, {"deployment": "other", "weight": 0}
ACME = {"provider": "acme", "model": "large"}
SOVEREIGN = {"dataPolicy": "Sovereign"}
ROUTED = (True, Reason(Code.ROUTED, "requests come here"))


def test_every_target_of_a_sovereign_route_is_meant_also_those_of_rules_and_without_weight():
    rule = {"match": {"tenants": ["blue"]}, "targets": [{"deployment": "ruled"}]}
    route = make_targets_route("team/chat", "chat", OWN, OTHER, ACME, rules=[rule], **SOVEREIGN)
    assert sovereign_deployments([route]) == {"team/llama", "team/other", "team/ruled"}


def test_an_open_route_closes_nothing_and_another_namespace_has_no_say():
    routes = [
        make_targets_route("team/chat", "chat", OWN),
        make_targets_route("rival/chat", "chat", OTHER, **SOVEREIGN),
    ]
    assert sovereign_deployments(routes) == {"rival/other"}


def test_targets_of_a_sibling_for_the_same_name_are_meant_too():
    """The name is sovereign, whichever of the two has it."""
    routes = [
        make_targets_route("team/chat", "chat", OWN),
        make_targets_route("team/chat-inside", "chat", OTHER, **SOVEREIGN),
        make_targets_route("team/else", "else", {"deployment": "free"}),
    ]
    assert sovereign_deployments(routes) == {"team/llama", "team/other"}


@pytest.mark.parametrize(
    ("source", "adapter", "status", "reason"),
    [
        ("pvc://models/llama", "pvc://models/lora", "True", "SourcesInside"),
        ("hf://org/llama", "pvc://models/lora", "False", "SourceOutside"),
        ("pvc://models/llama", "hf://org/lora", "False", "SourceOutside"),
    ],
)
def test_the_status_of_a_sovereign_route_says_where_its_models_come_from(source, adapter, status, reason):
    model = {"source": source, "adapters": [{"name": "lora", "source": adapter}]}
    route = make_targets_route("team/chat", "chat", OWN, **SOVEREIGN)
    snapshot = make_snapshot(make_deployment("team/llama", model=model), routes=(route,))
    ready, inside = build_route_status(route, snapshot, ROUTED, NOW).conditions
    # What runs goes on to answer.
    assert (ready.type, ready.status) == ("Ready", "True")
    assert (inside.type, inside.status, inside.reason) == ("SourcesInside", status, reason)
    if status == "False":
        assert "team/llama" in inside.message
        assert "hf://org/" in inside.message
        assert "set source to pvc://" in inside.message


def test_an_open_route_does_not_mention_it():
    route = make_targets_route("team/chat", "chat", OWN)
    snapshot = make_snapshot(make_deployment("team/llama"), routes=(route,))
    assert [item.type for item in build_route_status(route, snapshot, ROUTED, NOW).conditions] == ["Ready"]
