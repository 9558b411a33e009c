"""The evaluator against what the Kubernetes documentation says of policies, sentence by sentence."""

from typing import Any

import pytest

from tests.policy.networkpolicy import Peer, is_allowed, matches_labels, policy_types

DB = Peer("db", "10.0.1.1", "default", {"role": "db"}, ports={"sql": ("TCP", 6379)}, node="n1")
FRONT = Peer("front", "10.0.1.2", "default", {"role": "frontend"}, node="n2")
OTHER = Peer("other", "10.0.1.3", "default", {"role": "batch"}, node="n2")
PROJECT = Peer("project", "10.0.2.1", "myproject", {"role": "frontend"}, {"project": "myproject"}, node="n2")
OUTSIDE = Peer("outside", "203.0.113.9")
OUTSIDE_V6 = Peer("outside-v6", "2001:db8::9")
NODE = Peer("node", "192.168.7.1", node="n1")
OTHER_NODE = Peer("other-node", "192.168.7.2", node="n2")


def policy(namespace: str = "default", selector: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"podSelector": selector or {}, **spec},
    }


def reach(source: Peer, destination: Peer, *policies: Any, port: int = 6379, protocol: str = "TCP") -> bool:
    return is_allowed(source, destination, protocol, port, policies)


def incoming(peers: list[Any], ports: list[Any] | None = None) -> dict[str, Any]:
    rule = {"from": peers} if ports is None else {"from": peers, "ports": ports}
    return policy(policyTypes=["Ingress"], ingress=[rule])


def outgoing(peers: list[Any], ports: list[Any] | None = None) -> dict[str, Any]:
    rule = {"to": peers} if ports is None else {"to": peers, "ports": ports}
    return policy(policyTypes=["Egress"], egress=[rule])


def test_without_a_policy_everything_is_allowed():
    assert reach(FRONT, DB)
    assert reach(DB, OUTSIDE)
    assert reach(OUTSIDE, DB)


def test_a_policy_of_another_namespace_selects_nothing_here():
    assert reach(FRONT, DB, policy("myproject", policyTypes=["Ingress", "Egress"]))


def test_default_deny_and_default_allow_of_each_direction():
    assert not reach(FRONT, DB, policy(policyTypes=["Ingress"]))
    assert reach(FRONT, DB, policy(policyTypes=["Ingress"], ingress=[{}]))
    assert not reach(DB, OUTSIDE, policy(policyTypes=["Egress"]))
    assert reach(DB, OUTSIDE, policy(policyTypes=["Egress"], egress=[{}]))
    assert reach(DB, OUTSIDE, policy(policyTypes=["Ingress"]))
    assert reach(OUTSIDE, DB, policy(policyTypes=["Egress"]))


def test_an_empty_list_of_rules_allows_nothing():
    assert not reach(FRONT, DB, policy(policyTypes=["Ingress"], ingress=[]))


def test_types_that_are_not_stated():
    assert policy_types(policy()) == {"Ingress"}
    assert policy_types(policy(egress=[{}])) == {"Ingress", "Egress"}
    # "a policy that says nothing but egress: []" isolates ingress only: an empty list is no rule.
    assert policy_types(policy(egress=[])) == {"Ingress"}


def test_both_ends_must_allow_a_connection():
    closed_source = policy(selector={"matchLabels": {"role": "frontend"}}, policyTypes=["Egress"])
    open_destination = policy(selector={"matchLabels": {"role": "db"}}, ingress=[{}])
    assert not reach(FRONT, DB, closed_source, open_destination)
    assert reach(OTHER, DB, closed_source, open_destination)


def test_policies_add_up_and_their_order_does_not_matter():
    deny = policy(policyTypes=["Ingress"])
    allow = incoming([{"podSelector": {"matchLabels": {"role": "frontend"}}}])
    assert reach(FRONT, DB, deny, allow)
    assert reach(FRONT, DB, allow, deny)
    assert not reach(OTHER, DB, deny, allow)


def test_a_pod_selector_alone_means_the_policys_own_namespace():
    allow = incoming([{"podSelector": {"matchLabels": {"role": "frontend"}}}])
    assert reach(FRONT, DB, allow)
    assert not reach(PROJECT, DB, allow)


def test_a_namespace_selector_alone_means_all_pods_there():
    allow = incoming([{"namespaceSelector": {"matchLabels": {"project": "myproject"}}}])
    assert reach(PROJECT, DB, allow)
    assert not reach(FRONT, DB, allow)


def test_an_empty_namespace_selector_means_all_pods_and_nothing_outside():
    allow = incoming([{"namespaceSelector": {}}])
    assert reach(PROJECT, DB, allow)
    assert reach(FRONT, DB, allow)
    assert not reach(OUTSIDE, DB, allow)


def test_one_peer_with_both_selectors_is_and_two_peers_are_or():
    namespace = {"namespaceSelector": {"matchLabels": {"project": "myproject"}}}
    pod = {"podSelector": {"matchLabels": {"role": "batch"}}}
    assert not reach(PROJECT, DB, incoming([{**namespace, **pod}]))
    assert reach(PROJECT, DB, incoming([namespace, pod]))
    assert reach(OTHER, DB, incoming([namespace, pod]))
    assert reach(PROJECT, DB, incoming([{**namespace, "podSelector": {"matchLabels": {"role": "frontend"}}}]))


def test_every_namespace_has_the_label_of_its_name():
    allow = incoming([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "myproject"}}}])
    assert reach(PROJECT, DB, allow)
    # A namespace cannot pretend to be another.
    liar = Peer("liar", "10.0.3.1", "liar", {}, {"kubernetes.io/metadata.name": "myproject"})
    assert not reach(liar, DB, allow)


def test_an_address_block_and_its_exceptions():
    allow = outgoing([{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.8/30"]}}])
    assert not reach(DB, OUTSIDE, allow)
    assert reach(DB, Peer("near", "203.0.113.13"), allow)
    assert not reach(DB, Peer("far", "198.51.100.1"), allow)
    assert not reach(DB, OUTSIDE_V6, outgoing([{"ipBlock": {"cidr": "0.0.0.0/0"}}]))
    assert reach(DB, OUTSIDE_V6, outgoing([{"ipBlock": {"cidr": "::/0"}}]))
    with pytest.raises(ValueError, match="no other field"):
        reach(DB, OUTSIDE, outgoing([{"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}]))


def test_no_peers_mean_everyone_and_no_ports_mean_all():
    assert reach(OUTSIDE, DB, incoming([]))
    assert reach(OUTSIDE, DB, incoming([], []), port=1)
    assert not reach(OUTSIDE, DB, incoming([], [{"port": 80}]), port=81)


@pytest.mark.parametrize(
    ("ports", "number", "protocol", "expected"),
    [
        ([{"protocol": "TCP", "port": 6379}], 6379, "TCP", True),
        ([{"port": 6379}], 6379, "TCP", True),
        ([{"port": 6379}], 6379, "UDP", False),
        ([{"protocol": "UDP", "port": 53}], 53, "UDP", True),
        ([{"protocol": "SCTP"}], 7, "SCTP", True),
        ([{"protocol": "SCTP"}], 7, "TCP", False),
        ([{"port": 32000, "endPort": 32768}], 32000, "TCP", True),
        ([{"port": 32000, "endPort": 32768}], 32768, "TCP", True),
        ([{"port": 32000, "endPort": 32768}], 32769, "TCP", False),
        ([{"port": "sql"}], 6379, "TCP", True),
        ([{"port": "sql"}], 6380, "TCP", False),
        ([{"port": "web"}], 6379, "TCP", False),
        ([{"port": 1}, {"port": 2}], 2, "TCP", True),
    ],
)
def test_ports(ports, number, protocol, expected):
    assert reach(FRONT, DB, incoming([], ports), port=number, protocol=protocol) is expected
    assert reach(FRONT, DB, outgoing([], ports), port=number, protocol=protocol) is expected


def test_a_pod_reaches_itself_and_its_node_whatever_policies_say():
    closed = policy(policyTypes=["Ingress", "Egress"])
    assert reach(DB, DB, closed)
    assert reach(NODE, DB, closed)
    assert reach(DB, NODE, closed)
    assert not reach(OTHER_NODE, DB, closed)
    assert not reach(DB, OTHER_NODE, closed)
    # Pods of one node are no exception.
    assert not reach(FRONT, OTHER, closed)


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        (
            {
                "matchLabels": {"a": "1"},
                "matchExpressions": [{"key": "b", "operator": "Exists"}],
            },
            {"a": "1"},
            False,
        ),
    ],
)
def test_label_selectors(selector, labels, expected):
    assert matches_labels(selector, labels) is expected


def test_the_example_of_the_documentation():
    example = policy(
        selector={"matchLabels": {"role": "db"}},
        policyTypes=["Ingress", "Egress"],
        ingress=[
            {
                "from": [
                    {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}},
                    {"namespaceSelector": {"matchLabels": {"project": "myproject"}}},
                    {"podSelector": {"matchLabels": {"role": "frontend"}}},
                ],
                "ports": [{"protocol": "TCP", "port": 6379}],
            }
        ],
        egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"protocol": "TCP", "port": 5978}]}],
    )
    assert reach(FRONT, DB, example)
    assert reach(PROJECT, DB, example)
    assert reach(Peer("inside", "172.17.2.1"), DB, example)
    assert not reach(Peer("excepted", "172.17.1.1"), DB, example)
    assert not reach(OTHER, DB, example)
    assert not reach(FRONT, DB, example, port=6380)
    assert reach(DB, Peer("target", "10.0.0.7"), example, port=5978)
    assert not reach(DB, Peer("target", "10.0.0.7"), example, port=5979)
    assert not reach(DB, Peer("target", "10.0.1.7"), example, port=5978)
    # It says nothing about other pods.
    assert reach(OTHER, FRONT, example)
