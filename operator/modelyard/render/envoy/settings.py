"""Settings of the gateway: every number that its Envoys are configured with."""

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024
"""Bytes."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What an installation may change about its Envoys.

    All durations are in seconds, all sizes in bytes.
    """

    listener_address: str = "0.0.0.0"  # noqa: S104  (a gateway listens on every address of its pod)
    """Address that clients connect to."""

    listener_port: int = 8080
    """Port that clients connect to; above 1024, so that no capability is needed."""

    tls: bool = False
    """True: clients connect over TLS, with the certificate that Envoy is sent as a secret; never without it."""

    max_body_bytes: int = 32 * MEBIBYTE
    """Largest request body, and largest unary response whose token usage is read. The whole body is held in
    memory, because the model name may stand at its end. Prompts with images reach 20 MB; 32 MiB leaves room."""

    connect_timeout: float = 2.0
    """How long a TCP connection to an engine pod may take: a SYN and one retransmission after 1 s (RFC 6298)."""

    upstream_idle_timeout: float = 4.0
    """When an unused connection to an engine is closed. uvicorn, vLLM's server, closes after 5 s
    (`timeout_keep_alive`, https://www.uvicorn.org/settings/): the gateway must be first, or requests are sent into
    a closing connection."""

    provider_connect_timeout: float = 5.0
    """How long a connection to a provider may take, with its TLS handshake: the way across an ocean and two
    retransmissions, after 1 and 2 s (RFC 6298)."""

    provider_idle_timeout: float = 50.0
    """When an unused connection to a provider is closed. Load balancers in front of such APIs close after 60 s
    (AWS's default,
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html)."""

    ca_file: str = "/etc/ssl/certs/ca-certificates.crt"
    """Certificates that providers are checked with, as seen by Envoy: where Debian and Envoy's own image have them."""

    limit_timeout: float = 1.0
    """How long a request of a tenant with limits may wait to hear whether it is answered; then it is. Envoy's default
    of 20 ms is less than a worker needs for a body of 20 MB, or the operator for a decision about its fleet (1 s for
    2,000 deployments)."""

    body_idle_timeout: float = 60.0
    """How long a client may pause while it sends a request. Once the model is known, the route's own limits
    (hold and request time) apply instead."""

    headers_timeout: float = 10.0
    """How long a client may take to send its request headers."""

    retry_after: int = 10
    """`Retry-After` of a 503: long enough for a replica to recover, short enough that a client waits for it."""

    retries: int = 2
    """Further attempts after a failed one, each on a host not tried yet where there is one."""

    max_upstream: int = 100_000
    """Connections, pending requests and requests per cluster. Envoy's default of 1024 is below one burst after a
    cold start, and an overflow is not retried; the body limit and the overload manager protect the memory."""

    max_retries: int = 1024
    """Concurrent retries per cluster (Envoy's default of 3 is meant for small services)."""

    failures_before_ejection: int = 5
    """Consecutive 502, 503, 504 or connection failures after which a pod is left out (Envoy's default)."""

    ejection_seconds: float = 5.0
    """How long a pod is left out the first time; the operator removes pods that are not Ready long before."""

    provider_failures: int = 3
    """Consecutive 502, 503, 504 or failures of the connection after which an address of a provider is left out. Fewer
    than for a pod: each may cost a request the whole `provider_connect_timeout`, and nobody else notices."""

    provider_ejection_seconds: float = 10.0
    """How long an address of a provider is left out the first time, and how much longer each time after it."""

    provider_ejection_limit: float = 60.0
    """How long it is left out at most: then a few requests find out whether it answers again."""
