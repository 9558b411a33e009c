"""The `modelyard` command."""

import json
from importlib.metadata import version as package_version
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
def print_bootstrap(
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
) -> None:
    """Print the static configuration of an Envoy of the gateway, for `envoy --config-path`."""
    host, port = split_address(xds_address, "--xds-address")
    settings = BootstrapSettings(
        control_plane_host=host,
        control_plane_port=port,
        node_id=node_id,
        stats_port=stats_port,
        admin_port=admin_port,
    )
    typer.echo(json.dumps(bootstrap(settings), indent=1))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(package_version("modelyard"))
