"""How the operator process runs. Every value states its unit and why it is what it is."""

from dataclasses import dataclass, field
from pathlib import Path

from modelyard.core.state import Policy
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.gateway_api import GatewayRouteSettings
from modelyard.render.settings import PodPeer, RenderSettings

SYSTEM_NAMESPACE = "modelyard-system"
"""Namespace that the operator and the gateway are installed in."""


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Settings of one operator process."""

    kubeconfig: Path | None = None
    """None: the cluster that the process runs in."""
    namespaces: tuple[str, ...] = ()
    """Watched namespaces; empty: all."""
    xds_host: str = "127.0.0.1"
    xds_port: int = 18000
    """Where Envoy gets its configuration. 18000 is the port of Envoy's own examples."""
    http_host: str = "127.0.0.1"
    http_port: int = 8081
    """Health and metrics; 8080 is the gateway's."""
    lease: str | None = None
    """Name of the Lease, in the gateway's namespace, that decides which of several operators acts. None: this one."""
    pod_name: str | None = None
    """Name of the pod that the process runs in: it is labelled while it acts."""
    pod_uid: str | None = None
    """Its UID: a container that begins anew need not wait for the Lease that the one before it held."""
    xds_tls: bool = False
    """Whether Envoy and the operator show each other certificates, and everything between them is encrypted."""
    xds_tls_name: str = "modelyard-xds"
    """DNS name in the operator's certificate; Envoy checks it."""
    xds_tls_interval: float = 30.0
    """Seconds between two looks at the Secrets of these certificates. A look is two requests; what is due for renewal
    has days."""
    web_host: str | None = None
    """Where the read-only web page is served. None: it is not."""
    web_port: int = 8082
    """The port after that of health and metrics."""
    anonymous: bool = False
    """True: the gateway asks for no API key."""
    workers: int = 16
    """Keys worked on at a time. Applies wait on the API server, so this is not bound to cores; 16 applied
    117 objects/s on 2 cores."""
    read_interval: float = 2.0
    """Seconds between two readings of the gateway's counters: small against any start time."""
    ledger_interval: float = 10.0
    """Seconds between two writes of the ledger, where there is something new: what is lost of an Envoy that crashes
    together with the operator. Budgets do not wait for it. Each write is one object of up to 1 MiB."""
    cost_interval: float = 30.0
    """Seconds between two updates of cost figures in status."""
    route_interval: float = 10.0
    """Seconds between two updates of the figures in the status of an LLMRoute: five readings. A new target is told at
    once."""
    occupancy_interval: float = 15.0
    """Seconds between two readings of the accelerators that other pods hold: the sync period of the HPA, and short
    against the start of an engine."""
    placement_interval: float = 5.0
    """Seconds between two looks at whether the fleet should be placed otherwise. Only what changed is worked out."""
    engine_interval: float = 15.0
    """Seconds between two readings of an engine's own metrics, from which its speed is learned."""
    scaler_interval: float = 15.0
    """Seconds between two looks at the autoscaler objects of `actuator: External`, and at objects of other optional
    kinds, which are not watched: the sync period of the HPA."""
    provider_interval: float = 10.0
    """Seconds between two readings of LLMProviders, their Secrets and the gateway's certificate: how long a new key may
    take. A reading is one list and one request per Secret."""
    tls_secret: str | None = None
    """Secret of the gateway's namespace with the certificate of its listener. None: clients connect without TLS."""
    tenant_interval: float = 10.0
    """Seconds between two readings of LLMTenants and their Secrets: how long a new key, or one taken away, may take. A
    reading is one list and one request per key."""
    read_hub: bool = True
    """Whether configurations of models that the catalogue lacks are read from the model hub."""
    verify_interval: float = 600.0
    """Seconds after which children are compared with the API server again, even without an event."""
    gateway_route: GatewayRouteSettings | None = None
    """Gateways of the cluster that lead to ours. None: none is known here."""
    audit_interval: float = 60.0
    """Seconds between two looks at whether the watches show what the API server has: three lists of metadata."""
    policy: Policy = field(default_factory=Policy)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    render: RenderSettings = field(
        default_factory=lambda: RenderSettings(
            gateway=PodPeer(SYSTEM_NAMESPACE, {"app.kubernetes.io/component": "gateway"}),
            operator=PodPeer(SYSTEM_NAMESPACE, {"app.kubernetes.io/component": "operator"}),
        )
    )

    @property
    def support_interval(self) -> float:
        """Seconds after which is asked again what the cluster offers of such a kind: two minutes, as nobody waits."""
        return 8 * self.scaler_interval
