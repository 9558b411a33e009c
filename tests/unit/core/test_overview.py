"""The overview: what asks for attention, in which order, and what is told of it."""

import pytest

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmbudget import LLMBudget
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmroute import LLMRoute
from modelyard.core.inventory import Node, Usage, build_inventory
from modelyard.core.overview.build import Installation, build_overview
from modelyard.core.overview.judge import judge_budget, judge_deployment, judge_route

NOW = 1_767_261_600.0
SINCE = "2026-01-01T09:00:00Z"


def conditions(**stated):
    """Conditions by type, each `(status, reason)`."""
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": f"{kind} says {reason}",
            "lastTransitionTime": SINCE,
        }
        for kind, (status, reason) in stated.items()
    ]


def deployment(name="chat", *, generation=3, observed=3, spec=None, status=None, **stated):
    return LLMDeployment.model_validate(
        {
            "metadata": {"name": name, "namespace": "team", "generation": generation},
            "spec": {"model": {"source": "hf://a/b"}, "scaling": {"min": 0, "max": 8}, **(spec or {})},
            "status": {
                "observedGeneration": observed,
                "conditions": conditions(**stated),
                **(status or {}),
            },
        }
    )


def route(name="chat", spec=None, status=None, **stated):
    targets = [{"deployment": "chat"}]
    return LLMRoute.model_validate(
        {
            "metadata": {"name": name, "namespace": "team", "generation": 1},
            "spec": {"model": "chat", "targets": targets, **(spec or {})},
            "status": {"observedGeneration": 1, "conditions": conditions(**stated), **(status or {})},
        }
    )


def budget(name="gpu", *, action="Refuse", scope=None, status=None, **stated):
    return LLMBudget.model_validate(
        {
            "metadata": {"name": name, "namespace": "modelyard-system", "generation": 1},
            "spec": {"amount": "100", "period": "Day", "hard": {"action": action}, "scope": scope or {}},
            "status": {"observedGeneration": 1, "conditions": conditions(**stated), **(status or {})},
        }
    )


SERVING = {"Ready": ("True", "Serving"), "Stalled": ("False", "NotStalled")}
SPENT = {"Ready": ("True", "SpendRead"), "BudgetExhausted": ("True", "AmountSpent")}


@pytest.mark.parametrize(
    ("made", "level", "reason"),
    [
        (deployment(**SERVING), "Healthy", "Serving"),
        (deployment(Ready=("True", "ScaledToZero")), "Asleep", "ScaledToZero"),
        (deployment(Ready=("False", "Loading"), Progressing=("True", "Loading")), "NotReady", "Loading"),
        (
            deployment(Ready=("True", "Serving"), Stalled=("True", "DoesNotFit")),
            "Stalled",
            "DoesNotFit",
        ),
        (deployment(**SERVING, Progressing=("True", "Starting")), "Changing", "Starting"),
        (
            deployment(**SERVING, PlacementPreferred=("False", "CapacityMissing")),
            "Warning",
            "CapacityMissing",
        ),
        (
            deployment(
                **SERVING,
                PlacementPreferred=("False", "CapacityMissing"),
                MetricsAvailable=("False", "NoData"),
            ),
            "Warning",
            "NoData",
        ),
        (deployment(spec={"suspend": True}, Ready=("False", "Suspended")), "Off", "Suspended"),
        (deployment(generation=4, **SERVING), "Changing", "NotDecided"),
        (deployment(observed=0), "NotReady", "NotDecided"),
    ],
)
def test_level_of_a_deployment(made, level, reason):
    judged = judge_deployment(made)
    assert (judged.level, judged.reason) == (level, reason)


@pytest.mark.parametrize(
    ("made", "level"),
    [
        (route(Ready=("True", "Routed")), "Healthy"),
        (route(Ready=("False", "TargetNotFound")), "NotReady"),
        (route(Ready=("True", "Routed"), Spilling=("True", "Saturated")), "Warning"),
        (route(Ready=("True", "Routed"), Spilling=("False", "Room")), "Healthy"),
        (route(Ready=("True", "Routed"), Stalled=("True", "Invalid")), "Stalled"),
        (
            route(
                spec={"policy": "LowestCost"},
                status={"choice": {"target": "", "since": SINCE, "reason": "NoTarget"}},
                Ready=("True", "Routed"),
            ),
            "NotReady",
        ),
    ],
)
def test_level_of_a_route(made, level):
    assert judge_route(made).level == level


@pytest.mark.parametrize(
    ("made", "level"),
    [
        (budget(Ready=("True", "SpendRead"), BudgetExhausted=("False", "AmountLeft")), "Healthy"),
        (budget(**SPENT), "NotReady"),
        (budget(action="Warn", **SPENT), "Warning"),
        (budget(Ready=("True", "SpendRead"), SoftLimitReached=("True", "SoftLimitActs")), "Warning"),
        (budget(Ready=("False", "LedgerStale"), SpendUnknown=("True", "LedgerStale")), "NotReady"),
    ],
)
def test_level_of_a_budget(made, level):
    assert judge_budget(made).level == level


@pytest.mark.parametrize(
    ("stated", "level", "reason"),
    [
        ({"Ready": ("True", "Configured")}, "Healthy", "Configured"),
        ({"Ready": ("False", "SecretNotFound")}, "NotReady", "SecretNotFound"),
        ({"Ready": ("True", "Configured"), "Answering": ("False", "KeyRefused")}, "Warning", "KeyRefused"),
        (
            {"Ready": ("True", "Configured"), "LimitReached": ("True", "LimitReached")},
            "Warning",
            "LimitReached",
        ),
        (
            {"Ready": ("True", "Configured"), "LimitReached": ("False", "LimitNotReached")},
            "Healthy",
            "Configured",
        ),
        ({"Ready": ("True", "Configured"), "ToCome": ("False", "Whatever")}, "Warning", "Whatever"),
        ({}, "NotReady", "NotDecided"),
    ],
)
def test_level_of_what_is_ready_or_not(stated, level, reason):
    provider = LLMProvider.model_validate(
        {
            "metadata": {"name": "acme", "generation": 1},
            "spec": {"baseURL": "https://api.acme.example/v1", "models": [{"name": "large"}]},
            "status": {"observedGeneration": 1, "conditions": conditions(**stated)},
        }
    )
    row = build_overview(Installation(providers=[provider]), NOW).providers[0]
    assert (row.level, row.reason) == (level, reason)


def test_reconciling_is_no_warning():
    made = deployment(**SERVING, Progressing=("True", "Starting"), Reconciling=("True", "Starting"))
    assert judge_deployment(made).level == "Changing"


def test_trouble_comes_first_and_names_decide_between_equals():
    found = Installation(
        deployments=[
            deployment("b", **SERVING),
            deployment("a", **SERVING),
            deployment("z", Stalled=("True", "DoesNotFit")),
            deployment("y", Ready=("False", "Loading")),
        ]
    )
    overview = build_overview(found, NOW)
    assert [row.name for row in overview.deployments] == ["team/z", "team/y", "team/a", "team/b"]
    assert [row.name for row in overview.troubled] == ["team/z", "team/y"]


def test_a_deployment_tells_what_it_holds_costs_and_was_decided():
    status = {
        "replicas": 3,
        "readyReplicas": 2,
        "placement": {
            "class": "h100",
            "count": 2,
            "variants": [
                {"class": "h100", "count": 2, "replicas": 2, "readyReplicas": 2},
                {"class": "l4", "count": 1, "purchase": "Spot", "replicas": 1, "readyReplicas": 0},
                {"class": "a10", "count": 1, "replicas": 0, "readyReplicas": 0},
            ],
        },
        "cost": {"perHour": "8.4", "perMillionTokens": "0.2"},
        "scaling": {
            "desiredReplicas": 4,
            "reason": "OfferedLoad",
            "message": "need 4",
            "numbers": {"level": "6.67", "backlog": "12"},
            "history": [
                {"time": SINCE, "fromReplicas": 1, "toReplicas": 4, "reason": "OfferedLoad", "message": "m"}
            ],
        },
    }
    row = build_overview(Installation(deployments=[deployment(status=status, **SERVING)]), NOW).deployments[0]
    assert (row.ready, row.wanted, row.accelerators) == (2, 4, "4 x h100, 1 x l4 spot")
    assert (row.cost_per_hour, row.requests_per_second, row.waiting) == ("8.4", "6.67", "12")
    assert (row.decision, row.decided_at) == ("OfferedLoad", SINCE)


def test_rates_of_now_go_before_those_of_the_last_decision():
    status = {
        "scaling": {
            "desiredReplicas": 1,
            "reason": "OfferedLoad",
            "numbers": {"level": "6.67"},
        }
    }
    found = Installation(
        deployments=[deployment("a", status=status, **SERVING), deployment("b", status=status, **SERVING)],
        rates={"team/a": 1.5},
    )
    rows = build_overview(found, NOW).deployments
    assert [row.requests_per_second for row in rows] == ["1.50", None]


def test_costs_are_added_and_what_has_none_is_said():
    priced = deployment("a", status={"cost": {"perHour": "1.5"}}, **SERVING)
    other = deployment("b", status={"cost": {"perHour": "2.25"}}, **SERVING)
    both = build_overview(Installation(deployments=[priced, other]), NOW)
    assert (both.cost_per_hour, both.cost_complete) == ("3.75", True)
    partly = build_overview(Installation(deployments=[priced, deployment("c", **SERVING)]), NOW)
    assert (partly.cost_per_hour, partly.cost_complete) == ("1.5", False)


@pytest.mark.parametrize(
    ("spec", "status", "told"),
    [
        ({"policy": "Priority", "targets": [{"deployment": "a"}, {"deployment": "b"}]}, {}, "a, then b"),
        (
            {
                "targets": [
                    {"deployment": "a", "weight": 3},
                    {"provider": "p", "model": "m", "weight": 1},
                    {"deployment": "off", "weight": 0},
                ]
            },
            {},
            "a 75%, p/m 25%",
        ),
        (
            {"policy": "LowestCost"},
            {"choice": {"target": "provider:p/m", "since": SINCE, "reason": "ProviderCheaper"}},
            "provider:p/m",
        ),
        ({"policy": "LowestCost"}, {}, ""),
    ],
)
def test_where_a_route_goes(spec, status, told):
    found = Installation(routes=[route(spec=spec, status=status, Ready=("True", "Routed"))])
    assert build_overview(found, NOW).routes[0].goes_to == told


@pytest.mark.parametrize(
    ("scope", "level", "refused"),
    [
        ({}, "NotReady", ("everybody: budget gpu is spent",)),
        ({"tenants": ["red"]}, "Warning", ("tenants red: budget gpu is spent",)),
        ({"deployments": ["team/chat"]}, "Warning", ("everybody, at some targets: budget gpu is spent",)),
        ({"deployments": ["team/other"]}, "Healthy", ()),
        ({"namespaces": ["elsewhere"]}, "Healthy", ()),
        ({"routes": ["team/chat"]}, "NotReady", ("everybody: budget gpu is spent",)),
    ],
)
def test_a_spent_budget_shows_at_the_routes_that_it_refuses(scope, level, refused):
    found = Installation(routes=[route(Ready=("True", "Routed"))], budgets=[budget(scope=scope, **SPENT)])
    row = build_overview(found, NOW).routes[0]
    assert (row.level, row.refused) == (level, refused)


def test_a_budget_that_only_warns_refuses_nothing():
    found = Installation(routes=[route(Ready=("True", "Routed"))], budgets=[budget(action="Warn", **SPENT)])
    assert build_overview(found, NOW).routes[0].refused == ()


def accelerator(name="h100", **spec):
    stated = {
        "resourceName": "nvidia.com/gpu",
        "nodeSelector": {"gpu": name},
        "price": {"onDemand": "6.88"},
        **spec,
    }
    return AcceleratorClass.model_validate({"metadata": {"name": name}, "spec": stated})


def test_accelerators_are_counted_by_class_and_cordoned_ones_are_not_free():
    nodes = [
        Node("a", {"gpu": "h100"}, accelerators={"nvidia.com/gpu": 8}),
        Node("b", {"gpu": "h100"}, accelerators={"nvidia.com/gpu": 8}, schedulable=False),
        Node("c", {"gpu": "l4"}, accelerators={"nvidia.com/gpu": 1}),
    ]
    usages = [Usage("a", "", "", {"nvidia.com/gpu": 3}), Usage("b", "", "", {"nvidia.com/gpu": 2})]
    inventory = build_inventory(nodes, usages, complete=False)
    cpu = accelerator("cpu", resourceName=None, nodeSelector={}, requests={"cpu": "1", "memory": "1Gi"})
    overview = build_overview(Installation(accelerators=[accelerator(), cpu], inventory=inventory), NOW)
    counted = {row.name: (row.nodes, row.total, row.used, row.free) for row in overview.accelerators}
    assert counted == {"cpu": (None, None, None, None), "h100": (2, 16, 5, 5)}
    assert overview.free_is_upper_bound


def test_without_nodes_nothing_is_claimed_about_them():
    row = build_overview(Installation(accelerators=[accelerator()]), NOW).accelerators[0]
    assert (row.on_demand, row.nodes, row.free) == ("6.88", None, None)
