"""The configuration files of a node's programs, as plain data.

Sources: https://github.com/containerd/containerd/blob/release/1.6/docs/cri/config.md,
https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/,
https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/ and
https://www.cni.dev/plugins/current/main/ptp/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dev.realnode.network import HOST_ADDRESS, POD_NETWORK, node_address, pod_range

CLUSTER_DOMAIN = "cluster.local"

DNS_SERVICE_IP = "10.96.0.10"
"""Cluster IP of the DNS Service: the tenth of the range, as kubeadm chooses."""

PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
"""Name of the image that holds a pod's network: Kubernetes' own, so that a node with a registry would find it too."""

KUBELET_PORT = 10250

MAX_PODS = 60
"""Pods a node takes: far more than two cores run, and fewer than its range has addresses."""


def containerd(folder: Path, cni_binaries: Path) -> str:
    """Return containerd's configuration, version 2 (containerd 1.6 and later)."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    lines = [
        "version = 2",
        f'root = "{folder}/containerd"',
        'state = "/run/containerd"',
        "[grpc]",
        f'address = "{folder}/containerd.sock"',
        f"[{cri}]",
        f'sandbox_image = "{PAUSE_IMAGE}"',
        # Machines without CAP_SYS_RESOURCE may not lower the score of a process, and every sandbox would fail.
        "restrict_oom_score_adj = true",
        "netns_mounts_under_state_dir = true",
        f"[{cri}.cni]",
        f'bin_dir = "{cni_binaries}"',
        f'conf_dir = "{folder}/cni"',
        f"[{cri}.containerd.runtimes.runc]",
        'runtime_type = "io.containerd.runc.v2"',
        f"[{cri}.containerd.runtimes.runc.options]",
        "SystemdCgroup = false",
    ]
    return "\n".join(lines) + "\n"


def cni(folder: Path, number: int) -> dict[str, Any]:
    """Return the pods' network: a link of its own to the node for each, which routes everything.

    Routed rather than bridged: what a Service sends back to another pod of the node passes the node's address
    translation without a kernel setting for bridges.
    """
    return {
        "cniVersion": "1.0.0",
        "name": "modelyard",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{folder}/addresses",
                    "ranges": [[{"subnet": pod_range(number)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def kubelet(folder: Path, number: int, ca: Path, cgroup: str) -> dict[str, Any]:
    """Return the kubelet's configuration."""
    never = "0%"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node_address(number),
        "port": KUBELET_PORT,
        "healthzBindAddress": node_address(number),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(ca)},
        },
        # Whoever has a certificate of this cluster: only this machine reaches the address.
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        # Needs quotas of the file system to be told from statistics; test machines rarely have them.
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": f"{folder}/resolv.conf",
        "podLogsDir": f"{folder}/pod-logs",
        "volumePluginDir": f"{folder}/volume-plugins",
        "maxPods": MAX_PODS,
        # The machine's disk and memory are not this node's alone: a full one must not evict its pods, nor remove images
        # that no registry would bring back.
        "evictionHard": {"memory.available": never, "nodefs.available": never, "imagefs.available": never},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def kube_proxy(kubeconfig: Path, name: str, number: int) -> dict[str, Any]:
    """Return kube-proxy's configuration, for nftables: the kernel needs no module beside it."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": str(POD_NETWORK),
        "detectLocalMode": "ClusterCIDR",
        "hostnameOverride": name,
        "nodeIPOverride": [node_address(number)],
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # Zero: leave the kernel's settings, which belong to the machine, as they are.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "nftables": {"syncPeriod": "30s", "minSyncPeriod": "200ms"},
        "nodePortAddresses": ["primary"],
    }


def corefile(kubeconfig: Path) -> str:
    """Return CoreDNS' configuration: names of this cluster, and no others."""
    return f""".:53 {{
    bind {HOST_ADDRESS}
    errors
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig} local
        ttl 5
    }}
}}
"""


def dns_service() -> list[dict[str, Any]]:
    """Return the DNS Service, whose one endpoint is the CoreDNS on this machine."""
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": DNS_SERVICE_IP,
                "ports": [
                    {"name": name, "port": 53, "targetPort": 53, "protocol": protocol}
                    for name, protocol in ports
                ],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [HOST_ADDRESS], "conditions": {"ready": True}}],
            "ports": [{"name": name, "port": 53, "protocol": protocol} for name, protocol in ports],
        },
    ]
