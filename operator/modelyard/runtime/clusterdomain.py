"""The DNS domain of the cluster that the process runs in."""

from pathlib import Path

RESOLVER = Path("/etc/resolv.conf")
"""Written by the kubelet. The operator and the gateway run in one namespace, so both have the same search list
(https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#namespaces-of-services)."""

_SERVICES = "svc."
"""Begins the entry of the search list that all Services of the cluster are under."""


def find_cluster_domain(path: Path = RESOLVER) -> str:
    """Return the domain, such as `cluster.local`; empty where the search list is not that of a pod."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    # Of several lines the last counts (resolv.conf(5)).
    search = next(
        (words[1:] for line in reversed(lines) if (words := line.split()) and words[0] == "search"), []
    )
    for entry in search:
        name = entry.rstrip(".").lower()
        domain = name.removeprefix(_SERVICES)
        # In a namespace that is called `svc`, the first entry is `svc.svc.` and the domain: the second is meant.
        if domain != name and not domain.startswith(_SERVICES):
            return domain
    return ""
