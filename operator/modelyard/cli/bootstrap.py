"""`modelyard bootstrap`: the static configuration of an Envoy."""

import json
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.addresses import split_address
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap
from modelyard.render.envoy.control_plane import ControlPlaneTls, secret_files

BOOTSTRAP = BootstrapSettings(control_plane_host="127.0.0.1", control_plane_port=18000, node_id="envoy-1")


def write_bootstrap(
    xds_address: Annotated[
        str, typer.Option(help="HOST:PORT of the operator, where Envoy gets its configuration.")
    ] = f"{BOOTSTRAP.control_plane_host}:{BOOTSTRAP.control_plane_port}",
    node_id: Annotated[str, typer.Option(help="Unique name of this Envoy.")] = BOOTSTRAP.node_id,
    stats_port: Annotated[
        int, typer.Option(help="Port where the operator reads its counters.", min=1, max=65535)
    ] = BOOTSTRAP.stats_port,
    admin_port: Annotated[
        int, typer.Option(help="Port of Envoy's own pages, on loopback only.", min=1, max=65535)
    ] = BOOTSTRAP.admin_port,
    output: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.", dir_okay=False)
    ] = None,
    xds_tls: Annotated[
        str | None,
        typer.Option(
            help="Folder with ca.crt, tls.crt and tls.key as Envoy sees it (Secret modelyard-xds-client): the "
            "connection to the operator is encrypted, and both show certificates. Two more files are written beside "
            "--output."
        ),
    ] = None,
    xds_server_name: Annotated[
        str | None,
        typer.Option(
            help="DNS name that the operator's certificate must have. Default: the host of --xds-address."
        ),
    ] = None,
) -> None:
    """Write the static configuration of an Envoy of the gateway, for `envoy --config-path`."""
    host, port = split_address(xds_address, "--xds-address")
    tls = None
    if xds_tls is not None:
        if output is None:
            raise typer.BadParameter("--xds-tls needs --output", param_hint="--xds-tls")
        tls = ControlPlaneTls(xds_tls, xds_server_name or host, str(output.parent.absolute()))
    settings = BootstrapSettings(
        control_plane_host=host,
        control_plane_port=port,
        control_plane_tls=tls,
        node_id=node_id,
        stats_port=stats_port,
        admin_port=admin_port,
    )
    text = json.dumps(bootstrap(settings), indent=1)
    if output is None:
        typer.echo(text)
        return
    for path, content in (secret_files(tls) if tls is not None else {}).items():
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    output.write_text(text + "\n", encoding="utf-8")
