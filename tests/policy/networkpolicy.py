"""An evaluator of networking.k8s.io/v1 NetworkPolicies: may this source open a connection to that destination?

https://kubernetes.io/docs/concepts/services-networking/network-policies/ and
https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/ say what a policy means.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Set on every namespace by the API server."""

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an address that is no pod's."""

    name: str
    address: str
    namespace: str | None = None
    """None: it is no pod."""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    """Beside the label that every namespace has."""
    ports: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Protocol and number by the names of a pod's ports."""
    node: str = ""
    """Of a pod: the node that it runs on. Of another address: the node that it belongs to, if it is one's."""

    @property
    def all_namespace_labels(self) -> Mapping[str, str]:
        return {**self.namespace_labels, NAMESPACE_LABEL: self.namespace or ""}


def is_allowed(source: Peer, destination: Peer, protocol: str, port: int, policies: Iterable[Policy]) -> bool:
    """Whether policies let the connection through: both that of the source and that of the destination must."""
    if source == destination:
        return True  # A pod cannot block access to itself.
    if source.node and source.node == destination.node and None in (source.namespace, destination.namespace):
        return True  # Nor between itself and its own node.
    known = tuple(policies)
    return _passes("Egress", source, destination, (protocol, port), destination, known) and _passes(
        "Ingress", destination, source, (protocol, port), destination, known
    )


def _passes(
    direction: str,
    pod: Peer,
    other: Peer,
    port: tuple[str, int],
    destination: Peer,
    policies: Sequence[Policy],
) -> bool:
    """Whether one end lets it through: where no policy selects it everything, else what any of them allows."""
    selecting = [policy for policy in policies if selects(policy, pod) and direction in policy_types(policy)]
    field_name, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return not selecting or any(
        _matches_peers(rule.get(peers), other, policy)
        and _matches_ports(rule.get("ports"), port, destination)
        for policy in selecting
        for rule in policy["spec"].get(field_name) or ()
    )


def selects(policy: Policy, pod: Peer) -> bool:
    """Whether a policy is about a pod."""
    return pod.namespace == policy["metadata"].get("namespace", "default") and matches_labels(
        policy["spec"].get("podSelector") or {}, pod.labels
    )


def policy_types(policy: Policy) -> frozenset[str]:
    """The directions that a policy isolates: Ingress unless it says otherwise, Egress where it has such rules."""
    spec = policy["spec"]
    default = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    return frozenset(spec.get("policyTypes") or default)


def matches_labels(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    exact = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in exact.items()) and all(
        _matches_expression(item, labels) for item in selector.get("matchExpressions") or ()
    )


def _matches_expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]  # An absent key is in no list.
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:
            raise ValueError(f"{other!r} is no operator of a label selector")


def _matches_peers(peers: Sequence[Mapping[str, Any]] | None, other: Peer, policy: Policy) -> bool:
    return not peers or any(_matches_peer(peer, other, policy) for peer in peers)


def _matches_peer(peer: Mapping[str, Any], other: Peer, policy: Policy) -> bool:
    if "ipBlock" in peer:
        if "podSelector" in peer or "namespaceSelector" in peer:
            raise ValueError("a peer with ipBlock may have no other field")
        return _in_block(peer["ipBlock"], other.address)
    if other.namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not matches_labels(peer["namespaceSelector"] or {}, other.all_namespace_labels):
            return False
    elif other.namespace != policy["metadata"].get("namespace", "default"):
        return False
    return matches_labels(peer.get("podSelector") or {}, other.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    # `in` is False between the families.
    found = ip_address(address)
    return found in ip_network(block["cidr"]) and not any(
        found in ip_network(excluded) for excluded in block.get("except") or ()
    )


def _matches_ports(
    ports: Sequence[Mapping[str, Any]] | None, wanted: tuple[str, int], destination: Peer
) -> bool:
    return not ports or any(_matches_port(port, wanted, destination) for port in ports)


def _matches_port(port: Mapping[str, Any], wanted: tuple[str, int], destination: Peer) -> bool:
    protocol, number = wanted
    if port.get("protocol", "TCP") != protocol:
        return False
    first = port.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        # The name of a port of the destination's pod, in both directions.
        return destination.ports.get(first) == wanted
    return bool(first <= number <= port.get("endPort", first))
