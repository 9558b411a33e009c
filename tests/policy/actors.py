"""Who may want to talk to whom around an engine pod, and the engine pods of each kind of deployment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import API_VERSION, LABEL_DEPLOYMENT
from modelyard.render.children import build_policy
from modelyard.render.engines import ENGINES
from modelyard.render.settings import PodPeer, RenderSettings
from modelyard.render.workload import Parent, Workload
from tests.policy.networkpolicy import Peer
from tests.unit.core.build import make_accelerator

SYSTEM: Final = "modelyard-system"
TEAM: Final = "team"
COMPONENT: Final = "app.kubernetes.io/component"
SETTINGS: Final = RenderSettings(
    # As `modelyard operator` sets them.
    gateway=PodPeer(SYSTEM, {COMPONENT: "gateway"}),
    operator=PodPeer(SYSTEM, {COMPONENT: "operator"}),
)


@dataclass(frozen=True)
class Situation:
    """A kind of deployment with its pod and its policies."""

    name: str
    engine: Peer
    port: int
    """The engine's TCP port."""
    policies: tuple[Mapping[str, Any], ...]


def _situation(
    name: str,
    model: dict[str, Any],
    *,
    engine: str = "vLLM",
    sovereign: bool = False,
    settings: RenderSettings = SETTINGS,
    **spec: Any,
) -> Situation:
    body = {
        "apiVersion": API_VERSION,
        "kind": "LLMDeployment",
        "metadata": {"name": "model", "namespace": TEAM, "uid": "1"},
        "spec": {"model": model, "engine": {"name": engine}, **(spec or {"replicas": 1})},
    }
    deployment = LLMDeployment.model_validate(body)
    parent = Parent(deployment, sovereign=sovereign)
    workload = Workload(deployment, accelerator=make_accelerator("l4"), count=1, replicas=1)
    pod = Peer(f"engine ({name})", "10.1.0.1", TEAM, workload.pod_labels, node="a")
    return Situation(name, pod, ENGINES[deployment.spec.engine.name].port, (build_policy(parent, settings),))


HUB: Final = {"source": "hf://org/model"}
CLAIM: Final = {"source": "pvc://models/model"}
GROUPS: Final = {"placement": {"accelerators": [{"class": "l4", "nodes": 2}]}, "replicas": 1}
SITUATIONS: Final = (
    _situation("vLLM, hub", HUB),
    _situation("llama.cpp, hub", {"source": "hf://org/model:Q4_K_M"}, engine="LlamaCpp"),
    _situation("claim", CLAIM),
    _situation("claim, adapter from hub", {**CLAIM, "adapters": [{"name": "a", "source": "hf://org/a"}]}),
    _situation("sovereign", HUB, sovereign=True),
    _situation("two nodes, hub", HUB, **GROUPS),
    _situation("two nodes, sovereign", HUB, sovereign=True, **GROUPS),
    _situation(
        "KEDA, hub",
        HUB,
        scaling={"max": 3, "actuator": "External", "external": {"scaler": "ScaledObject"}},
    ),
    _situation(
        "hub mirror inside",
        HUB,
        settings=replace(
            SETTINGS,
            hub_endpoint="https://hub.example",
            closed_networks=tuple(n for n in SETTINGS.closed_networks if n != "192.168.0.0/16"),
        ),
    ),
)

GATEWAY: Final = Peer("gateway", "10.1.0.2", SYSTEM, {COMPONENT: "gateway"}, node="b")
OPERATOR: Final = Peer("operator", "10.1.0.3", SYSTEM, {COMPONENT: "operator"}, node="b")
SYSTEM_POD: Final = Peer("another pod beside the gateway", "10.1.0.4", SYSTEM, {}, node="b")
SIBLING: Final = Peer("engine of another deployment", "10.1.0.5", TEAM, {COMPONENT: "engine"}, node="b")
MEMBER: Final = Peer(
    "another pod of the same deployment", "10.1.0.13", TEAM, {LABEL_DEPLOYMENT: "model"}, node="b"
)
TEAM_POD: Final = Peer("application of the team", "10.1.0.6", TEAM, {"app": "web"}, node="b")
STRANGER: Final = Peer("pod of another team", "10.1.0.7", "other", {"app": "web"}, node="b")
PRETENDER: Final = Peer(
    "pod of another team, labelled as the gateway", "10.1.0.8", "other", {COMPONENT: "gateway"}, node="b"
)
INSIDER: Final = Peer(
    "pod of the team, labelled as the operator", "10.1.0.9", TEAM, {COMPONENT: "operator"}, node="b"
)
KEDA: Final = Peer("KEDA", "10.1.0.10", "keda", {}, node="b")
PROMETHEUS: Final = Peer("Prometheus", "10.1.0.11", "monitoring", {}, node="b")
DNS: Final = Peer("cluster DNS", "10.1.0.12", "kube-system", {"k8s-app": "kube-dns"}, node="b")
NODE_DNS: Final = Peer("DNS agent of the node", "169.254.20.10")
API_SERVER: Final = Peer("API server", "192.168.0.10", node="control-plane")
PUBLIC_API_SERVER: Final = Peer("API server with a public address", "203.0.113.20")
METADATA: Final = Peer("metadata service of the cloud", "169.254.169.254")
OWN_NODE: Final = Peer("the pod's own node", "192.168.0.11", node="a")
OTHER_NODE: Final = Peer("another node", "192.168.0.12", node="b")
DATA_CENTRE: Final = Peer("server in the data centre", "172.16.0.9")
INTERNET: Final = Peer("Internet", "198.51.100.7")
INTERNET_V6: Final = Peer("Internet, IPv6", "2001:db8::7")
PRIVATE_V6: Final = Peer("private network, IPv6", "fd00::7")

INCOMING: Final = (
    *(
        GATEWAY,
        OPERATOR,
        SYSTEM_POD,
        MEMBER,
        SIBLING,
        TEAM_POD,
        STRANGER,
        PRETENDER,
        INSIDER,
        KEDA,
        PROMETHEUS,
    ),
    *(OWN_NODE, OTHER_NODE, INTERNET),
)
"""Who may try the engine's port, and port 22 that nothing should reach."""

OUTGOING: Final = (
    (GATEWAY, "TCP", 8080),
    (OPERATOR, "TCP", 18000),
    (OPERATOR, "TCP", 8081),
    (MEMBER, "TCP", 29501),
    (SIBLING, "TCP", 8000),
    (TEAM_POD, "TCP", 443),
    (STRANGER, "TCP", 443),
    (DNS, "UDP", 53),
    (DNS, "TCP", 53),
    (NODE_DNS, "UDP", 53),
    (API_SERVER, "TCP", 6443),
    (API_SERVER, "TCP", 443),
    (PUBLIC_API_SERVER, "TCP", 443),
    (METADATA, "TCP", 80),
    (METADATA, "TCP", 443),
    (OWN_NODE, "TCP", 10250),
    (OTHER_NODE, "TCP", 10250),
    (DATA_CENTRE, "TCP", 443),
    (DATA_CENTRE, "TCP", 5432),
    (INTERNET, "TCP", 443),
    (INTERNET, "TCP", 80),
    (INTERNET, "TCP", 22),
    (INTERNET, "TCP", 53),
    (INTERNET, "UDP", 443),
    (INTERNET_V6, "TCP", 443),
    (PRIVATE_V6, "TCP", 443),
)
"""Where an engine may try to connect to."""
