"""The `modelyard` command."""

import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated

import typer
import yaml

from modelyard.api.meta import GROUP
from modelyard.api.validation import validate
from modelyard.cli.operator import operator, split_address
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run fleets of open LLMs on your own GPUs. `modelyard operator` runs in the cluster; "
    "`modelyard validate` checks manifests before they get there.",
)
app.command(name="operator")(operator)

INVALID = 2
"""Exit code for manifests that the API server would refuse."""


@app.command(name="validate")
def validate_files(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders with YAML manifests.", exists=True)],
) -> None:
    """Check manifests as the API server would, without a cluster. Exits 2 if one would be refused."""
    problems = checked = 0
    for file in _manifest_files(paths):
        try:
            documents = [item for item in yaml.safe_load_all(file.read_text(encoding="utf-8")) if item]
        except yaml.YAMLError as error:
            # One line for each problem: the output is read by pipelines.
            typer.echo(f"{file}: Error: not YAML: {' '.join(str(error).split())}", err=True)
            problems += 1
            continue
        for document in documents:
            if not isinstance(document, dict) or not str(document.get("apiVersion", "")).startswith(
                f"{GROUP}/"
            ):
                kind = document.get("kind", "document") if isinstance(document, dict) else "document"
                typer.echo(f"{file}: {kind} skipped: not of {GROUP}", err=True)
                continue
            checked += 1
            for problem in validate(document):
                typer.echo(f"{file}: {problem.severity}: {problem.field}: {problem.message}", err=True)
                problems += problem.severity == "Error"
    typer.echo(f"{checked} checked, {problems} problems", err=True)
    if problems:
        raise typer.Exit(INVALID)


def _manifest_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else (path,)


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
