"""The addresses of a cluster with real nodes, and the bridge that joins them to this machine.

The machine is the control plane's host: the bridge's own address is where the API server and the DNS server listen.
Every node has one address on it, and a range for its pods that is routed there. None of it leaves the machine.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Sequence

from dev.cluster.components import SERVICE_CIDR

BRIDGE = "modelyard0"
"""The bridge between this machine and its nodes."""

HOST_ADDRESS = "10.201.0.254"
"""This machine as the nodes see it."""

NODE_NETWORK = ipaddress.ip_network("10.201.0.0/24")
"""Addresses of the nodes and of this machine."""

POD_NETWORK = ipaddress.ip_network("10.200.0.0/16")
"""Addresses of pods: a /24 for each node, as kubeadm's controllers give by default."""

MAX_NODES = 9
"""Enough for tests; a name of a link takes 15 characters at most."""


class NetworkError(RuntimeError):
    """The machine's network is in the way; the message says how."""


def node_address(number: int) -> str:
    """Return the address of a node, counted from 1."""
    return str(NODE_NETWORK[number])


def pod_range(number: int) -> str:
    """Return the range of a node's pods."""
    base = int(POD_NETWORK.network_address) + number * 256
    return f"{ipaddress.ip_address(base)}/24"


def node_link(number: int) -> str:
    """Return the name of the node's link at the bridge."""
    return f"modelyard{number}n"


def raise_bridge(nodes: int) -> None:
    """Make the bridge and the routes to Services and to the pods of that many nodes.

    Raises NetworkError if another network of this machine has the addresses.
    """
    remove_bridge()
    _refuse_overlap()
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("address", "add", f"{HOST_ADDRESS}/{NODE_NETWORK.prefixlen}", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    for number in range(1, nodes + 1):
        ip("route", "add", pod_range(number), "via", node_address(number))
    # The first node's kube-proxy also serves clients on this machine.
    ip("route", "add", SERVICE_CIDR, "via", node_address(1))


def remove_bridge() -> None:
    """Remove the bridge, and with it every route, and the nodes' links; nothing happens if there are none.

    A killed node's link is the kernel's to remove, but it takes its time.
    """
    ours = {BRIDGE, *(node_link(number) for number in range(1, MAX_NODES + 1))}
    links = {link.get("ifname") for link in json.loads(ip("-json", "link", "show") or "[]")}
    for name in sorted(ours & links):
        try:
            ip("link", "delete", name)
        except NetworkError:
            # The kernel was quicker.
            if name in ip("-json", "link", "show"):
                raise


def _refuse_overlap() -> None:
    ours = [NODE_NETWORK, POD_NETWORK, ipaddress.ip_network(SERVICE_CIDR)]
    for route in json.loads(ip("-json", "-4", "route", "show", "table", "all") or "[]"):
        destination = route["dst"]
        if destination == "default":
            continue
        theirs = ipaddress.ip_network(destination, strict=False)
        for network in ours:
            if network.overlaps(theirs):
                raise NetworkError(
                    f"the real nodes need {network}, and this machine routes {theirs} to {route.get('dev')}: "
                    "stop what uses it, or run this on another machine"
                )


def ip(*arguments: str) -> str:
    """Run `ip` and return what it printed. Raises NetworkError with its complaint."""
    return _run(["ip", *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout
