"""`modelyard operator`: the options of the operator process."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.addresses import split_address
from modelyard.cli.gatewayroute import read_gateway_route
from modelyard.core.availability import AvailabilityPolicy
from modelyard.core.replicas import SizePolicy
from modelyard.core.state import Policy
from modelyard.gateway.authority import CertificatesUnusableError
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.settings import PodPeer, RenderSettings
from modelyard.runtime.leader import LeaseLostError
from modelyard.runtime.logs import LogFormat, configure_logging
from modelyard.runtime.settings import SYSTEM_NAMESPACE, OperatorSettings
from modelyard.runtime.start import run_operator

DEFAULTS = OperatorSettings()

logger = logging.getLogger(__name__)


def operator(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Cluster to work on. Default: the one that the process runs in.", exists=True, dir_okay=False
        ),
    ] = None,
    namespace: Annotated[
        str,
        typer.Option(
            help="Namespace of the operator and the gateway; engine pods accept traffic from it, LLMProviders, "
            "LLMTenants and their Secrets are read in it."
        ),
    ] = SYSTEM_NAMESPACE,
    watch_namespace: Annotated[
        list[str] | None, typer.Option(help="Namespace to watch; may be given several times. Default: all.")
    ] = None,
    lease: Annotated[
        str | None,
        typer.Option(
            help="Name of a Lease in the operator's namespace. Of several operators only its holder acts; the others "
            "stand by. Default: this one acts."
        ),
    ] = None,
    pod_name: Annotated[
        str | None,
        typer.Option(
            envvar="POD_NAME",
            help="Name of the pod that this runs in: it has the label modelyard.dev/active while it holds the Lease.",
        ),
    ] = None,
    pod_uid: Annotated[
        str | None,
        typer.Option(
            envvar="POD_UID",
            help="UID of that pod: a container that begins anew takes the Lease at once that the one before it held.",
        ),
    ] = None,
    xds_address: Annotated[
        str, typer.Option(help="HOST:PORT where Envoy gets its configuration.")
    ] = f"{DEFAULTS.xds_host}:{DEFAULTS.xds_port}",
    xds_tls: Annotated[
        bool,
        typer.Option(
            "--xds-tls",
            help="Encrypt the connection with Envoy; both show certificates. The operator makes and renews them, in "
            "the Secrets modelyard-xds-server and modelyard-xds-client of its namespace.",
        ),
    ] = False,
    xds_tls_name: Annotated[
        str, typer.Option(help="DNS name in the operator's certificate, which Envoy checks.")
    ] = DEFAULTS.xds_tls_name,
    xds_tls_interval: Annotated[
        float, typer.Option(help="Seconds between two looks at the Secrets of --xds-tls.", min=0.1)
    ] = DEFAULTS.xds_tls_interval,
    health_address: Annotated[
        str, typer.Option(help="HOST:PORT of /healthz, /readyz and /metrics.")
    ] = f"{DEFAULTS.http_host}:{DEFAULTS.http_port}",
    web_address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of the read-only web page, such as 127.0.0.1:8082 for `kubectl port-forward`. It asks "
            "nobody who they are. Default: it is not served."
        ),
    ] = None,
    gateway_address: Annotated[
        str, typer.Option(help="HOST:PORT that Envoy listens on for clients.")
    ] = f"{DEFAULTS.gateway.listener_address}:{DEFAULTS.gateway.listener_port}",
    operator_url: Annotated[
        str,
        typer.Option(
            help="URL of the health address as seen from other pods: KEDA reads decided sizes there "
            "(scaling.external.scaler ScaledObject)."
        ),
    ] = DEFAULTS.render.operator_url,
    scaler_interval: Annotated[
        float,
        typer.Option(
            help="Seconds between two looks at the autoscalers of deployments with actuator External.",
            min=0.1,
        ),
    ] = DEFAULTS.scaler_interval,
    gateway_parent: Annotated[
        list[str] | None,
        typer.Option(
            help="A Gateway (gateway.networking.k8s.io) that is to lead to this one, as NAMESPACE/GATEWAY or "
            "NAMESPACE/GATEWAY/LISTENER; may be given several times. The operator makes an HTTPRoute for it."
        ),
    ] = None,
    gateway_hostname: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name of that HTTPRoute; may be given several times. Default: the listener's."
        ),
    ] = None,
    gateway_service: Annotated[
        str, typer.Option(help="NAME[:PORT] of the gateway's own Service, which the HTTPRoute leads to.")
    ] = "modelyard-gateway:80",
    gateway_tls_secret: Annotated[
        str | None,
        typer.Option(
            help="Secret of the gateway's namespace (kubernetes.io/tls, as cert-manager writes it) with the "
            "certificate that clients are shown. Default: clients connect without TLS."
        ),
    ] = None,
    gateway_ca_file: Annotated[
        str,
        typer.Option(
            help="File of certificates, as seen by Envoy, that providers without caSecretRef are checked with."
        ),
    ] = DEFAULTS.gateway.ca_file,
    provider_interval: Annotated[
        float,
        typer.Option(
            help="Seconds between two readings of LLMProviders, their Secrets and the gateway's certificate.",
            min=0.1,
        ),
    ] = DEFAULTS.provider_interval,
    tenant_interval: Annotated[
        float, typer.Option(help="Seconds between two readings of LLMTenants and their API keys.", min=0.1)
    ] = DEFAULTS.tenant_interval,
    anonymous: Annotated[
        bool,
        typer.Option(
            "--anonymous",
            help="Ask clients for no API key. Without it a request without the key of an LLMTenant is answered 401.",
        ),
    ] = False,
    read_interval: Annotated[
        float, typer.Option(help="Seconds between two readings of the gateway's counters.", min=0.1, max=60)
    ] = DEFAULTS.read_interval,
    ledger_interval: Annotated[
        float,
        typer.Option(
            help="Seconds between two writes of the ledger, where something was used: what an Envoy counted since is "
            "lost if it and the operator end at the same moment.",
            min=1,
            max=300,
        ),
    ] = DEFAULTS.ledger_interval,
    scale_down_window: Annotated[
        float,
        typer.Option(
            help="Seconds that less load must last before replicas go; at least one measured start time.",
            min=0,
        ),
    ] = DEFAULTS.policy.size.down_window,
    pending_patience: Annotated[
        float,
        typer.Option(
            help="Seconds that a pod may wait for a node, beside the class's provisionTime, before the next kind of "
            "accelerator is used.",
            min=0,
        ),
    ] = DEFAULTS.policy.availability.patience,
    placement_interval: Annotated[
        float,
        typer.Option(
            help="Seconds between two looks at whether the fleet should be placed otherwise.", min=0.1
        ),
    ] = DEFAULTS.placement_interval,
    read_hub: Annotated[
        bool,
        typer.Option(
            help="Read the configuration of models that are not in the catalogue from the model hub, to know their "
            "memory and speed."
        ),
    ] = True,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    log_format: Annotated[
        LogFormat,
        typer.Option(help="Log lines for people, or JSON objects with the object and reason as fields."),
    ] = "text",
) -> None:
    """Run the operator: watch LLMDeployments, run their engines, scale them and tell Envoy where requests go."""
    configure_logging(log_level, log_format)
    xds_host, xds_port = split_address(xds_address, "--xds-address")
    http_host, http_port = split_address(health_address, "--health-address")
    listener_host, listener_port = split_address(gateway_address, "--gateway-address")
    web_host, web_port = (
        split_address(web_address, "--web-address") if web_address else (None, DEFAULTS.web_port)
    )
    settings = OperatorSettings(
        kubeconfig=kubeconfig,
        namespaces=tuple(watch_namespace or ()),
        lease=lease,
        pod_name=pod_name,
        pod_uid=pod_uid,
        xds_host=xds_host,
        xds_port=xds_port,
        xds_tls=xds_tls,
        xds_tls_name=xds_tls_name,
        xds_tls_interval=xds_tls_interval,
        http_host=http_host,
        http_port=http_port,
        web_host=web_host,
        web_port=web_port,
        anonymous=anonymous,
        read_interval=read_interval,
        ledger_interval=ledger_interval,
        read_hub=read_hub,
        placement_interval=placement_interval,
        scaler_interval=scaler_interval,
        provider_interval=provider_interval,
        tls_secret=gateway_tls_secret,
        tenant_interval=tenant_interval,
        gateway_route=read_gateway_route(gateway_parent or (), gateway_hostname or (), gateway_service),
        policy=Policy(
            size=replace(SizePolicy(), down_window=scale_down_window),
            availability=replace(AvailabilityPolicy(), patience=pending_patience),
        ),
        gateway=GatewaySettings(
            listener_address=listener_host,
            listener_port=listener_port,
            tls=gateway_tls_secret is not None,
            ca_file=gateway_ca_file,
        ),
        render=RenderSettings(
            gateway=PodPeer(namespace, {"app.kubernetes.io/component": "gateway"}),
            operator=PodPeer(namespace, {"app.kubernetes.io/component": "operator"}),
            operator_url=operator_url,
        ),
    )
    try:
        asyncio.run(run_operator(settings))
    except LeaseLostError as error:
        logger.warning("This operator ends, to begin anew as one that stands by: %s", error)
        raise typer.Exit(1) from error
    except CertificatesUnusableError as error:
        logger.warning("This operator ends, because Envoy cannot be served without certificates: %s", error)
        raise typer.Exit(1) from error
