"""The `modelyard` command."""

import json
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.cost import HELP as COST_HELP
from modelyard.cli.cost import cost
from modelyard.cli.explain import explain
from modelyard.cli.logs import HELP as LOGS_HELP
from modelyard.cli.logs import logs
from modelyard.cli.operator import operator, split_address
from modelyard.cli.plan import HELP, plan
from modelyard.cli.simulate import HELP as SIMULATE_HELP
from modelyard.cli.simulate import simulate
from modelyard.cli.status import HELP as STATUS_HELP
from modelyard.cli.status import status
from modelyard.cli.validate import INVALID, validate_files
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap
from modelyard.render.envoy.control_plane import ControlPlaneTls, secret_files

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run fleets of open LLMs on your own GPUs. `modelyard operator` runs in the cluster; "
    "`modelyard validate` checks manifests before they get there, and `modelyard plan` says what they mean: fit, "
    "accelerators, replicas and cost. `modelyard simulate` plays traffic against them. `modelyard status` says how the "
    "installation is, `modelyard explain` why a deployment has the size that it has, `modelyard logs` what its engines "
    "say, and `modelyard cost` what was used and spent, and by whom.",
)
app.command(name="operator")(operator)
app.command(name="validate")(validate_files)
app.command(name="plan", help=HELP)(plan)
app.command(name="simulate", help=SIMULATE_HELP)(simulate)
app.command(name="status", help=STATUS_HELP)(status)
app.command(name="explain")(explain)
app.command(name="logs", help=LOGS_HELP)(logs)
app.command(name="cost", help=COST_HELP)(cost)

__all__ = ["INVALID", "app"]

BOOTSTRAP = BootstrapSettings(control_plane_host="127.0.0.1", control_plane_port=18000, node_id="envoy-1")


@app.command(name="bootstrap")
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


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(package_version("modelyard"))
