"""The command line of real nodes: `python -m dev.realnode --help`."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dev.cluster.binaries import BuildError, cache_folder
from dev.cluster.instance import InstanceBusyError
from dev.cluster.interrupts import terminable
from dev.cluster.processes import ComponentError
from dev.realnode import requirements
from dev.realnode.network import NetworkError

HELP = """
A real Kubernetes cluster on this machine: kubelet, containerd and kube-proxy, with real containers.

Needs root, and programs that Debian has; `doctor` says what is missing and `install` brings it. Nodes live in
namespaces of their own: a containerd or a Docker on this machine is neither used nor disturbed. All ends with Ctrl-C.

The first start builds Kubernetes with Go (about 10 minutes on 2 cores) and the images (about 5).

A typical session, in two terminals:

    python -m dev.realnode up --nodes 2

    export KUBECONFIG=...   (the line that `up` prints)

    kubectl get nodes
"""

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)

MISSING = 3
"""Exit code of `doctor` when something is missing."""

Folder = Annotated[
    Path | None,
    typer.Option(help="The cluster's folder. Default: realnode in the cache.", show_default=False),
]


@app.command()
def doctor() -> None:
    """Say what real nodes need of this machine and whether it is there (exit code 3 if not)."""
    missing = requirements.lacks()
    if missing:
        typer.echo(requirements.explain(missing), err=True)
        raise typer.Exit(MISSING)
    typer.echo("real nodes can run here")


@app.command()
def install() -> None:
    """Install what is missing from Debian's packages (needs root)."""
    try:
        requirements.install(requirements.lacks())
    except RuntimeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    doctor()


@app.command()
def images() -> None:
    """Make the images (those that are not in the cache) and say where they are."""
    from dev.realnode.builder import BuildFailedError
    from dev.realnode.images import ensure_images

    try:
        for name, archive in ensure_images(_say).items():
            typer.echo(f"{name}\t{archive}")
    except (BuildError, BuildFailedError, FileNotFoundError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


@app.command()
def up(
    folder: Folder = None,
    nodes: Annotated[int, typer.Option(help="How many nodes.", min=1, max=9)] = 1,
    with_images: Annotated[
        bool, typer.Option("--images/--no-images", help="Put Modelyard's images into the nodes.")
    ] = True,
) -> None:
    """Start a cluster and keep it until Ctrl-C or SIGTERM, then remove all of it."""
    # Imported here: the Kubernetes client takes about a second to import, and only this needs it.
    from dev.realnode.builder import BuildFailedError
    from dev.realnode.cluster import BusyError, NotPossibleError, RealCluster
    from dev.realnode.images import ensure_images
    from dev.realnode.node import ImageError

    with terminable():
        try:
            began = time.monotonic()
            archives = ensure_images(_say) if with_images and not requirements.lacks() else {}
            with RealCluster(_chosen(folder), nodes=nodes, report=typer.echo) as cluster:
                cluster.import_images(archives)
                typer.echo(
                    f"the cluster is up after {time.monotonic() - began:.0f} s; its files: {cluster.folder}"
                )
                typer.echo(f"export KUBECONFIG={cluster.kubeconfig}")
                typer.echo("Ctrl-C stops it")
                sys.stdout.flush()
                signal.pause()
        except KeyboardInterrupt:
            typer.echo("stopped")
        except (
            BuildError,
            BuildFailedError,
            BusyError,
            ComponentError,
            ImageError,
            InstanceBusyError,
            NetworkError,
            NotPossibleError,
            TimeoutError,
        ) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error


@app.command()
def down(folder: Folder = None) -> None:
    """Stop the cluster of a folder, or remove what a killed one left."""
    from dev.realnode.cluster import BusyError, stop_or_clear

    try:
        typer.echo(stop_or_clear(_chosen(folder)))
    except (BusyError, NetworkError, TimeoutError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _chosen(folder: Path | None) -> Path:
    return folder or cache_folder() / "realnode"


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    app(prog_name="python -m dev.realnode")
