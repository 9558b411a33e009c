"""What the recorded run has: three models, a route by cost, a provider, two tenants and three budgets."""

import base64
from dataclasses import dataclass
from typing import Any

from dev.demo.kube import Manifest, load_manifests
from dev.demo.settings import REPOSITORY
from dev.loadgen import PlannedRequest, plan_requests
from dev.traces import read_trace, select_window

NAMESPACE, SYSTEM = "chat", "modelyard-system"

BUSY, SLEEPY, FAST = "llama-3-1-8b", "gemma-3-270m", "llama-on-h100"
BY_COST, OUTSIDE = "assistant", "outside"
"""Routes: to own accelerators or a provider by cost, and to the provider alone."""

NODES = "h100:1=2,l4x4:2=4,cpu=1"
"""Two H100, eight L4 and a node without accelerators."""

STANDIN_RULES = (
    "class=h100:STANDIN_PROFILE=h100-8b",
    "class=h100:STANDIN_LOAD_SECONDS=20",
    "class=l4:STANDIN_PROFILE=l4-8b",
    # Of a model that loads in a minute, at the speed that the trace is played at.
    "class=l4:STANDIN_LOAD_SECONDS=24",
)

MODEL_OF_PROVIDER = "Meta-Llama-3.1-8B-Instruct"
KEYS = {"search-team": "sk-search-0123456789abcdef", "support-team": "sk-support-0123456789abcdef"}
"""Of a cluster that lives for ten minutes on a loopback address."""
LIMIT = 100
"""Requests a minute that the search team may send: it sends more now and then."""

SPEED = 2.5
"""The trace of the busy model is played so much faster, as the demo does: 14 to 18 requests/s at its peak."""
DURATION_S = 540.0
"""From the first request to the end of what is drawn."""
BUSY_FROM_S = 75.0
BUSY_FOR_S = 240.0
PROVIDER_FAILS_FROM_S, PROVIDER_FAILS_FOR_S = 360.0, 30.0
"""Half a minute in which the provider answers 500 to half of the requests."""
FAILING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of one tenant for one model."""

    tenant: str
    model: str
    planned: list[PlannedRequest]


def traffic() -> list[Traffic]:
    """Return everything that is sent: recorded arrivals, and a few requests to the model that sleeps."""
    trace = read_trace()
    # The demo's ten minutes: the load rises by half.
    rising = plan_requests(select_window(trace, 840.0, BUSY_FOR_S * SPEED), speed=SPEED)
    late = [
        PlannedRequest(item.at_s + BUSY_FROM_S, item.prompt_tokens, item.output_tokens) for item in rising
    ]
    window = select_window(trace, 0.0, DURATION_S)
    # Tokens of a small context; it wakes twice, and sleeps after two idle minutes.
    naps = [PlannedRequest(at_s, 24, 48) for at_s in (30.0, 40.0, 50.0, 330.0, 345.0)]
    return [
        Traffic("support-team", "llama-3.1-8b", late),
        Traffic("support-team", BY_COST, plan_requests(window, scale_rate=0.15, seed=2)),
        Traffic("search-team", OUTSIDE, plan_requests(window, scale_rate=0.2, seed=3)),
        Traffic("search-team", FAST, plan_requests(window, scale_rate=0.3, seed=4)),
        Traffic("support-team", SLEEPY, naps),
    ]


def models() -> list[Manifest]:
    """Return what teams write: two of the examples, one more model, and two routes."""
    named = ("accelerator-classes", "llama-3.1-8b", "gemma-3-270m")
    provider = {"provider": "azure", "model": MODEL_OF_PROVIDER}
    return [
        *load_manifests(REPOSITORY / "examples" / f"{name}.yaml" for name in named),
        _object(
            "LLMDeployment",
            FAST,
            model={"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "name": FAST, "contextLength": 16384},
            placement={"accelerators": [{"class": "h100", "requestsPerMinute": 900}]},
            replicas=1,
        ),
        _object(
            "LLMRoute", BY_COST, model=BY_COST, policy="LowestCost", targets=[{"deployment": BUSY}, provider]
        ),
        _object("LLMRoute", OUTSIDE, model=OUTSIDE, targets=[provider]),
    ]


def platform(url: str, certificate: str) -> list[Manifest]:
    """Return what the platform team writes: provider, tenants, budgets, and their Secret."""
    values = {**KEYS, "azure": "sk-azure-0123456789abcdef", "ca.crt": certificate}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": encoded}
    # The catalogue's price of this model at Azure, US dollars per million tokens.
    price = {"inputPerMillion": "0.30", "outputPerMillion": "0.61"}
    tenants = [
        _object("LLMTenant", name, keys=[{"name": "keys", "key": name}], **limits)
        for name, limits in (("search-team", {"limits": {"requestsPerMinute": LIMIT}}), ("support-team", {}))
    ]
    return [
        secret,
        _object(
            "LLMProvider",
            "azure",
            baseURL=f"{url}/v1",
            secretRef={"name": "keys", "key": "azure"},
            caSecretRef={"name": "keys", "key": "ca.crt"},
            models=[{"name": MODEL_OF_PROVIDER, "price": price}],
        ),
        *tenants,
        # Amounts that ten minutes make a difference to.
        _budget("chat-gpus", "2.50", {"namespaces": [NAMESPACE]}, soft={"at": "0.3", "action": "Sleep"}),
        _budget("search-external", "0.25", {"tenants": ["search-team"], "providers": ["azure"]}),
        _budget("whole-platform", "20", {}),
    ]


def _budget(name: str, amount: str, scope: dict[str, Any], **limits: Any) -> Manifest:
    spec = {"amount": amount, "period": "Day", "hard": {"action": "Warn"}, **limits}
    return _object("LLMBudget", name, **(spec | ({"scope": scope} if scope else {})))


def _object(kind: str, name: str, **spec: Any) -> Manifest:
    return {"apiVersion": "modelyard.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
