"""Who may talk to engine pods, and to whom they may talk. Both directions are denied unless listed."""

from typing import Any

from modelyard.render.engines.base import EngineAdapter
from modelyard.render.settings import PodPeer, RenderSettings
from modelyard.render.workload import Parent

_DNS_PORT = 53
_HTTPS_PORT = 443

_NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
"""Set on every namespace by the API server, and not changeable."""


def build_network_policy(parent: Parent, engine: EngineAdapter, settings: RenderSettings) -> dict[str, Any]:
    """Return the NetworkPolicy.

    In: the engine port, from gateway and operator. Out: nothing, unless the source is remote and no route to it is
    sovereign. Probes come from the pod's own node, which no policy can shut out.

    Where replicas may span nodes, the deployment's pods also reach each other at every port, since NCCL and vLLM choose
    theirs, and a resolver, which tells the leader's address. A policy cannot say "of the same group".
    """
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": parent.selector},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [_build_peer(settings.gateway), _build_peer(settings.operator)],
                "ports": [_build_port("TCP", engine.port)],
            }
        ],
    }
    if parent.is_remote and not parent.sovereign:
        spec["egress"] = _build_download_rules(settings)
    if parent.has_groups:
        peers = [{"podSelector": {"matchLabels": parent.selector}}]
        spec["ingress"].append({"from": peers})
        spec["egress"] = [{"to": peers}, *spec.get("egress", [_build_lookup_rule()])]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": parent.build_metadata(),
        "spec": spec,
    }


def _build_lookup_rule() -> dict[str, Any]:
    """Allow the cluster's own resolver and no other: whoever reaches any resolver can ask for what it wants to tell.

    https://kubernetes.io/docs/tasks/administer-cluster/dns-custom-nameservers/ names namespace and label.
    """
    namespace = {"matchLabels": {_NAMESPACE_NAME_LABEL: "kube-system"}}
    pods = {"matchLabels": {"k8s-app": "kube-dns"}}
    return {
        "to": [{"namespaceSelector": namespace, "podSelector": pods}],
        "ports": [_build_port("UDP", _DNS_PORT), _build_port("TCP", _DNS_PORT)],
    }


def _build_download_rules(settings: RenderSettings) -> list[dict[str, Any]]:
    return [
        # Any destination: the resolver may be a pod, a Service or an agent on the node itself.
        {"ports": [_build_port("UDP", _DNS_PORT), _build_port("TCP", _DNS_PORT)]},
        {
            "to": [
                _build_block("0.0.0.0/0", settings.closed_networks),
                _build_block("::/0", settings.closed_networks_v6),
            ],
            "ports": [_build_port("TCP", _HTTPS_PORT)],
        },
    ]


def _build_peer(peer: PodPeer) -> dict[str, Any]:
    selector: dict[str, Any] = {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME_LABEL: peer.namespace}}}
    if peer.labels:
        selector["podSelector"] = {"matchLabels": dict(peer.labels)}
    return selector


def _build_port(protocol: str, port: int) -> dict[str, Any]:
    return {"protocol": protocol, "port": port}


def _build_block(cidr: str, excluded: tuple[str, ...]) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, "except": list(excluded)} if excluded else {"cidr": cidr}}
