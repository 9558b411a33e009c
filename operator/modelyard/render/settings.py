"""What the platform team configures about the objects that Modelyard builds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.catalog.engines import ImageSettings

ENGINE_USER = 2000
"""User id of engine processes. vLLM's images have a user of this id, and PyTorch fails at start when the id has no
name (https://github.com/vllm-project/vllm/issues/44548). llama.cpp's images work with any id."""

PRIVATE_NETWORKS = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
)
"""Where clusters, data centres and cloud metadata services live (RFC 1918, RFC 6598, RFC 3927)."""

PRIVATE_NETWORKS_V6 = ("fc00::/7", "fe80::/10")
"""The same for IPv6 (RFC 4193, RFC 4291)."""

OPERATOR_URL = "http://modelyard-operator.modelyard-system.svc:8081"
"""The operator's Service under its default name, and the default port of its health address."""


@dataclass(frozen=True, slots=True)
class PodPeer:
    """Pods, by namespace and labels, that may connect to engines."""

    namespace: str
    labels: Mapping[str, str]
    """Empty: every pod of the namespace."""


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """Settings of the builders."""

    gateway: PodPeer
    """The Envoy pods."""
    operator: PodPeer
    """The operator's pods: they read engine metrics."""
    images: ImageSettings = field(default_factory=ImageSettings)
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the deployment's own namespace. Only named: nothing here reads them."""
    user: int = ENGINE_USER
    """User, group and file-system group id of engine pods."""
    operator_url: str = OPERATOR_URL
    """Where KEDA reads decided sizes: the operator's health address, as seen from KEDA's pods."""
    hub_endpoint: str | None = None
    """URL of a mirror of the model hub. None: huggingface.co."""
    closed_networks: tuple[str, ...] = PRIVATE_NETWORKS
    """IPv4 networks that a pod that downloads its model may not reach: engines are treated as hostile, and the hub
    is on the Internet. Leave out the network of a hub mirror or of an HTTPS proxy inside."""
    closed_networks_v6: tuple[str, ...] = PRIVATE_NETWORKS_V6
