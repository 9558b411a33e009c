"""A fleet in memory, with every kind of row and every level, for the web page."""

from typing import Any

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmbudget import LLMBudget
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmroute import LLMRoute
from modelyard.api.llmtenant import LLMTenant
from modelyard.api.meta import ApiModel
from modelyard.core.budget.judge import Standing
from modelyard.core.demand import DemandMemory, Sample
from modelyard.core.inventory import Node
from modelyard.core.replicas import SizeMemory
from modelyard.core.snapshot import GatewayReading, Provider
from modelyard.core.spend import HOUR, Spend, SpendKey, SpendLine
from modelyard.core.state import DeploymentMemory, Policy
from modelyard.kube.informers import Indices
from modelyard.kube.projections import Seen, SeenNode
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.web import WebPages

SINCE = "2026-11-30T09:00:00Z"
HOSTILE = "<script>alert(1)</script>\"'&\u202e\x07"
"""What a status may hold that somebody else wrote, or an engine said."""
SECRET = "sk-very-secret"
"""Stands where only the operator may see it."""


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": SINCE}


def seen(model: type[ApiModel], name: str, spec: Any, status: Any, namespace: str = "team") -> Any:
    """An object as a watch has it."""
    body = {
        "metadata": {"name": name, "namespace": namespace, "uid": name, "generation": 1},
        "spec": spec,
        "status": {"observedGeneration": 1, **status},
    }
    return Seen(uid=name, version="1", object=model.model_validate(body))


def make_deployment(name: str, *conditions: dict[str, str], replicas: int = 2, **status: Any) -> Any:
    spec = {
        "model": {"source": f"hf://org/{name}", "tokenSecret": None, "name": f"{name}-model"},
        "scaling": {"min": 0, "max": 8},
    }
    placed = {
        "class": "l4",
        "count": 1,
        "message": "1 x l4 ($0.8/h a replica): 180 requests a minute and replica",
        "variants": [
            {
                "class": "l4",
                "count": 1,
                "replicas": replicas,
                "readyReplicas": replicas,
                "deployment": f"{name}-x",
            }
        ],
    }
    decided = {
        "desiredReplicas": replicas,
        "reason": "OfferedLoad",
        "message": "6.67 requests/s at 3.00 a replica, need 2",
        "numbers": {"level": "6.67", "backlog": "0"},
        "history": [
            {
                "time": SINCE,
                "fromReplicas": 1,
                "toReplicas": replicas,
                "reason": "OfferedLoad",
                "message": "need 2",
            }
        ],
    }
    full = {
        "replicas": replicas,
        "readyReplicas": replicas,
        "cost": {"perHour": f"{replicas * 0.8:g}", "perMillionTokens": "0.0833"},
        "placement": placed,
        "scaling": decided,
        "conditions": list(conditions),
        **status,
    }
    return seen(LLMDeployment, name, spec, full)


def make_fleet(now: float, *, hostile: str = "weights of 140 GB do not fit into 8 x l4") -> Fleet:
    """A fleet with something on every page; `hostile` stands in messages."""
    serving = condition("Ready", "True", "Serving", "2 of 2 replicas serve")
    deployments = [
        make_deployment("chat", serving),
        make_deployment(
            "code", serving, condition("PlacementPreferred", "False", "CapacityMissing", "waits for h100")
        ),
        make_deployment(
            "embed", condition("Ready", "True", "ScaledToZero", "sleeps: a request wakes it"), replicas=0
        ),
        make_deployment(
            "huge",
            condition("Stalled", "True", "DoesNotFit", hostile),
            condition("Ready", "False", "DoesNotFit", hostile),
            replicas=0,
            placement=None,
            cost=None,
        ),
        make_deployment(
            "new",
            condition("Ready", "False", "Loading", "the engine downloads and loads the model"),
            readyReplicas=0,
        ),
    ]
    choice = {
        "target": "team/chat",
        "since": SINCE,
        "reason": "FleetCheaper",
        "message": f"it costs less {hostile}",
        "numbers": {"requestsPerSecond": "3.2"},
        "costs": [
            {"target": "team/chat", "perHour": "1.2", "perMillionTokens": "0.08", "replicas": 2},
            {
                "target": "provider:acme/large",
                "perHour": "4.1",
                "reason": "QualityTooLow",
                "message": hostile,
            },
        ],
        "crossings": [{"requestsPerMinute": "12.5", "before": "provider:acme/large", "after": "team/chat"}],
    }
    targets = [{"deployment": "chat"}, {"provider": "acme", "model": "large"}]
    routes = [
        seen(
            LLMRoute,
            "front",
            {"model": "front", "policy": "LowestCost", "targets": targets},
            {"conditions": [condition("Ready", "True", "Routed")], "choice": choice, "spillPercent": 0},
        ),
        seen(
            LLMRoute,
            "canary",
            {"model": "canary", "targets": [{"deployment": "chat", "weight": 9}, {"deployment": "code"}]},
            {
                "conditions": [
                    condition("Ready", "True", "Routed"),
                    condition("Spilling", "True", "Saturated", "replicas are missing"),
                ],
                "spillPercent": 20,
            },
        ),
    ]
    system = "modelyard-system"
    budget = seen(
        LLMBudget,
        "research",
        {"amount": "500", "period": "Month", "soft": {"at": "0.8", "action": "PreferCheaper"}},
        {
            "conditions": [
                condition("Ready", "True", "SpendRead"),
                condition("SoftLimitReached", "True", "SoftLimitActs", "80% of US$ 500 are spent"),
            ],
            "spent": "412.07",
            "share": "0.8241",
            "periodEnd": "2026-12-01T00:00:00Z",
        },
        system,
    ).object
    tenant = seen(
        LLMTenant,
        "blue",
        {"keys": [{"name": "blue-key", "key": "key"}]},
        {"conditions": [condition("Ready", "False", "SecretNotFound", "Secret blue-key does not exist")]},
        system,
    ).object
    provider = seen(
        LLMProvider,
        "acme",
        {
            "baseURL": "https://api.acme.example/v1",
            "secretRef": {"name": "acme", "key": "key"},
            "models": [{"name": "large"}],
        },
        {"conditions": [condition("Ready", "True", "Configured")]},
        system,
    ).object
    l4 = seen(
        AcceleratorClass,
        "l4",
        {"resourceName": "nvidia.com/gpu", "nodeSelector": {"gpu": "l4"}, "price": {"onDemand": "0.8048"}},
        {},
        "",
    )
    nodes = {
        f"gpu-{index}": [
            SeenNode(f"n{index}", Node(f"gpu-{index}", {"gpu": "l4"}, accelerators={"nvidia.com/gpu": 4}))
        ]
        for index in range(2)
    }
    fleet = Fleet(
        indices=Indices(
            deployments={item.object.key: [item] for item in deployments},
            routes={item.object.key: [item] for item in routes},
            accelerators={"l4": [l4]},
            nodes=nodes,
            pods={},
        )
    )
    for key, arrived in (("team/chat", 400.0), ("team/code", 25.0), ("team/embed", 0.0)):
        samples = (Sample(now - 60, 0.0), Sample(now, arrived))
        fleet.memory[key] = DeploymentMemory(size=SizeMemory(now), demand=DemandMemory(samples))
    hour = int(now) // HOUR * HOUR
    fleet.budgets = (Standing(budget, None, 412.07, 0.8241),)
    fleet.tenants = {"blue": tenant}
    fleet.tenant_keys = {SECRET: "blue"}
    fleet.providers = {"acme": Provider(provider)}
    fleet.provider_keys = {"acme": SECRET}
    fleet.reading = GatewayReading(time=now)
    fleet.spend = Spend(
        now,
        (
            SpendLine(hour, SpendKey("blue", "team", "team/front@route", "team/chat"), "Own", 3.2451, 0.01),
            SpendLine(hour, SpendKey("", "team", "team/chat", "provider:acme/large"), "Provider", 1.5),
            SpendLine(hour - 3 * HOUR, SpendKey("", "team", "", "team/chat"), "Own", 2.4),
            SpendLine(hour - 40 * HOUR, SpendKey("blue", "team", "", "team/chat"), "Own", 99.0),
        ),
    )
    return fleet


def make_pages(fleet: Fleet, *, acting: bool = True) -> WebPages:
    return WebPages(fleet, Policy(), "modelyard-0", lambda: acting)
