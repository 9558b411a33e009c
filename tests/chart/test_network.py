"""Whom the chart's NetworkPolicies let through, by an evaluator: nothing enforces policies in these tests."""

import pytest

from dev.charts.helm import CHART, NAMESPACE
from tests.chart.combinations import objects_of, pods_of
from tests.policy.actors import (
    API_SERVER,
    DNS,
    INTERNET,
    KEDA,
    METADATA,
    OTHER_NODE,
    SITUATIONS,
    STRANGER,
    SYSTEM_POD,
    TEAM_POD,
)
from tests.policy.networkpolicy import Peer, is_allowed

OBJECTS = objects_of("network-policies")
POLICIES = [item for item in OBJECTS if item["kind"] == "NetworkPolicy"]
PROMETHEUS = Peer(
    "Prometheus",
    "10.1.0.11",
    "monitoring",
    namespace_labels={"kubernetes.io/metadata.name": "monitoring"},
    node="b",
)
ENGINES = [item for item in SITUATIONS if item.name in {"vLLM, hub", "llama.cpp, hub"}]


def peer(component, address):
    pod = pods_of(OBJECTS)[f"modelyard-{component}"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: ("TCP", port["containerPort"]) for port in container["ports"]}
    # Not on a node of the others: a node reaches its own pods whatever policies say.
    return Peer(component, address, NAMESPACE, pod["metadata"]["labels"], ports=ports, node="c")


OPERATOR, GATEWAY = peer("operator", "10.1.1.1"), peer("gateway", "10.1.1.2")

CONNECTIONS = [
    # What each needs.
    (GATEWAY, OPERATOR, "TCP", 18000, True),
    (OPERATOR, GATEWAY, "TCP", 9902, True),
    (OPERATOR, API_SERVER, "TCP", 6443, True),
    (OPERATOR, DNS, "UDP", 53, True),
    (GATEWAY, DNS, "UDP", 53, True),
    (OPERATOR, INTERNET, "TCP", 443, True),
    (GATEWAY, INTERNET, "TCP", 443, True),
    (TEAM_POD, GATEWAY, "TCP", 8080, True),
    (INTERNET, GATEWAY, "TCP", 8080, True),
    (PROMETHEUS, OPERATOR, "TCP", 8081, True),
    (PROMETHEUS, GATEWAY, "TCP", 9902, True),
    # And nothing else.
    (TEAM_POD, OPERATOR, "TCP", 18000, False),
    (SYSTEM_POD, OPERATOR, "TCP", 18000, False),
    (GATEWAY, OPERATOR, "TCP", 8081, False),
    (KEDA, OPERATOR, "TCP", 8081, False),
    (STRANGER, OPERATOR, "TCP", 8081, False),
    (TEAM_POD, GATEWAY, "TCP", 9902, False),
    (TEAM_POD, GATEWAY, "TCP", 9901, False),
    (PROMETHEUS, OPERATOR, "TCP", 18000, False),
    (OPERATOR, GATEWAY, "TCP", 8080, False),
    (OPERATOR, METADATA, "TCP", 80, False),
    (GATEWAY, METADATA, "TCP", 80, False),
    (GATEWAY, API_SERVER, "TCP", 6443, False),
    (GATEWAY, OTHER_NODE, "TCP", 10250, False),
    (OPERATOR, OTHER_NODE, "TCP", 10250, False),
    (GATEWAY, TEAM_POD, "TCP", 8080, False),
    (OPERATOR, TEAM_POD, "TCP", 8000, False),
]


@pytest.mark.parametrize(
    ("source", "destination", "protocol", "port", "allowed"),
    CONNECTIONS,
    ids=[f"{c[0].name} to {c[1].name} {c[3]}" for c in CONNECTIONS],
)
def test_connection(source, destination, protocol, port, allowed):
    assert is_allowed(source, destination, protocol, port, POLICIES) is allowed


@pytest.mark.parametrize("situation", ENGINES, ids=lambda item: item.name)
@pytest.mark.parametrize("source", [OPERATOR, GATEWAY], ids=lambda item: item.name)
def test_engines_are_reached_on_their_port_only(source, situation):
    policies = [*POLICIES, *situation.policies]
    assert is_allowed(source, situation.engine, "TCP", situation.port, policies)
    assert not is_allowed(source, situation.engine, "TCP", 22, policies)
    assert not is_allowed(situation.engine, source, "TCP", 18000, policies)


def test_without_providers_the_gateway_reaches_nothing_outside():
    policies = [item for item in objects_of("everything") if item["kind"] == "NetworkPolicy"]
    labels = pods_of(objects_of("everything"))["llm-gateway"]["metadata"]["labels"]
    gateway = Peer("gateway", "10.1.1.2", NAMESPACE, labels)
    assert not is_allowed(gateway, INTERNET, "TCP", 443, policies)


PROXY = Peer("proxy", "172.16.0.8")


@pytest.mark.parametrize(
    ("values", "port", "allowed"),
    [
        ((), 443, True),
        ((), 3128, False),
        (
            ("networkPolicy.hubPorts={3128}", "operator.env.HTTPS_PROXY=http://proxy.example.com:3128"),
            3128,
            True,
        ),
        (("networkPolicy.hubPorts={8080}", "operator.env.https_proxy=http://proxy:8080/"), 8080, True),
        (("networkPolicy.hubPorts={80}", "operator.env.HTTPS_PROXY=http://proxy"), 80, True),
        (("operator.env.HTTPS_PROXY=https://proxy",), 443, True),
        (("operator.env.HTTPS_PROXY=http://proxy:3128", "operator.readHub=false"), 3128, False),
        (("networkPolicy.hubPorts={3128}", "operator.readHub=false"), 3128, False),
        (("networkPolicy.hubPorts=null",), 3128, False),
    ],
)
def test_the_operator_reaches_the_hub_or_the_proxy_on_the_way(helm, values, port, allowed):
    # The API server's ports are open to every address unless its networks are said.
    own = ("networkPolicy.enabled=true", "networkPolicy.apiServerCIDRs={192.0.2.10/32}")
    objects = helm.render(CHART, (), *(f"--set={value}" for value in (*own, *values)))
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    assert is_allowed(OPERATOR, PROXY, "TCP", port, policies) is allowed
    # The gateway's way to providers does not lead through the operator's proxy.
    assert is_allowed(GATEWAY, PROXY, "TCP", port, policies) is (port == 443)
    assert not is_allowed(OPERATOR, PROXY, "TCP", 22, policies)


@pytest.mark.parametrize("component", ["operator", "gateway"])
def test_both_reach_endpoint_pickers_on_their_ports(component):
    objects = objects_of("everything")
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    labels = pods_of(objects)[f"llm-{component}"]["metadata"]["labels"]
    source = Peer(component, "10.1.1.1", NAMESPACE, labels)
    # The operator asks whether they answer: where it cannot, requests go round them.
    assert is_allowed(source, TEAM_POD, "TCP", 9002, policies)
    assert not is_allowed(source, TEAM_POD, "TCP", 9003, policies)
    assert not is_allowed(source, INTERNET, "TCP", 9002, policies)
