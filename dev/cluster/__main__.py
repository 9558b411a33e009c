"""The command line of local clusters: `python -m dev.cluster --help`."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from dev.cluster.binaries import BuildError, cache_folder, ensure_binaries
from dev.cluster.control_plane import ControlPlane
from dev.cluster.instance import Instance, InstanceBusyError
from dev.cluster.interrupts import terminable
from dev.cluster.node_classes import NODE_CLASSES, NodeClass, parse_node_counts
from dev.cluster.processes import STOP_TIMEOUT_S, Component, ComponentError

HELP = f"""
A real Kubernetes control plane on this machine, without root or containers.

It runs etcd, kube-apiserver, kube-scheduler and kube-controller-manager as ordinary processes on
loopback ports of their own, so several clusters can run side by side, each in a folder of its own.
The first start on a machine builds the programs with Go (about 10 minutes on 2 cores); later
starts take a few seconds.

A typical session, in two terminals:

    python -m dev.cluster up --nodes h100=2,l4=4,cpu=1

    export KUBECONFIG=...   (the line that `up` prints)

    kubectl get nodes

Node classes: {", ".join(NODE_CLASSES)}. Their nodes are fake (KWOK): pods on them count as Running,
but no process runs. `h100:1=2` asks for two H100 nodes with one GPU each.

Environment: MODELYARD_CACHE is where built programs and default cluster folders stand (default:
modelyard in XDG_CACHE_HOME or ~/.cache).
"""

STOP_GRACE_S = 10.0
"""Seconds `down` waits beyond the patience that the owner has with each component."""

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Folder = Annotated[
    Path | None,
    typer.Option(help="The cluster's folder. Default: clusters/default in the cache.", show_default=False),
]


@app.command()
def up(
    folder: Folder = None,
    nodes: Annotated[str, typer.Option(help="Fake nodes, as CLASS[:GPUS]=COUNT,... (runs KWOK).")] = "",
    kwok: Annotated[bool, typer.Option("--kwok", help="Run KWOK even without --nodes.")] = False,
    audit: Annotated[bool, typer.Option("--audit", help="Log every change to audit.log.")] = False,
) -> None:
    """Start a cluster and keep it until Ctrl-C or SIGTERM, then stop all of it."""
    try:
        counts = parse_node_counts(nodes)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--nodes") from error
    control_plane = ControlPlane(_chosen(folder), kwok=kwok or bool(counts), audit=audit, report=typer.echo)
    with terminable():
        try:
            began = time.monotonic()
            with control_plane:
                if counts:
                    _add_fake_nodes(control_plane, counts)
                _greet(control_plane, time.monotonic() - began)
                failed = _wait_for_exit(list(control_plane.components.values()))
                typer.echo(f"{failed.name} has ended unexpectedly\n{failed.tail()}", err=True)
                raise typer.Exit(1)
        except KeyboardInterrupt:
            typer.echo("stopped")
        except (BuildError, ComponentError, InstanceBusyError, TimeoutError) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error


@app.command()
def down(folder: Folder = None) -> None:
    """Stop the cluster of a folder, or end what a crashed one left there."""
    instance = Instance(_chosen(folder))
    record = instance.read()
    if not instance.held():
        ended = instance.end_leftovers()
        typer.echo(f"ended what was left: {', '.join(ended)}" if ended else "nothing runs here")
        return
    if record is None:
        typer.echo("this cluster is just starting or stopping; try again in a moment", err=True)
        raise typer.Exit(1)
    typer.echo(f"asking process {record.owner.pid} to stop its cluster")
    os.kill(record.owner.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S * len(record.components) + STOP_GRACE_S
    while instance.held():
        if time.monotonic() > deadline:
            typer.echo(
                f"process {record.owner.pid} still runs; its logs: {instance.folder / 'logs'}", err=True
            )
            raise typer.Exit(1)
        time.sleep(0.2)
    typer.echo("stopped")


@app.command()
def status(folder: Folder = None) -> None:
    """Say whether the cluster of a folder runs, where, and as which processes (exit code 3 if not)."""
    instance = Instance(_chosen(folder))
    record = instance.read()
    if record is None or not instance.held():
        typer.echo(f"no cluster runs in {instance.folder}")
        raise typer.Exit(3)
    typer.echo(f"{record.url}, owned by process {record.owner.pid}")
    for name, process in record.components.items():
        typer.echo(f"  {name:<24} pid {process.pid:<8} {'running' if process.alive() else 'ENDED'}")
    typer.echo(f"export KUBECONFIG={record.kubeconfig}")


@app.command()
def build() -> None:
    """Build the programs (once per machine and version) and print their folder."""
    try:
        binaries = ensure_binaries(lambda line: typer.echo(line, err=True))
    except BuildError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(str(binaries.folder))


def _chosen(folder: Path | None) -> Path:
    return folder or cache_folder() / "clusters" / "default"


def _add_fake_nodes(control_plane: ControlPlane, counts: list[tuple[NodeClass, int]]) -> None:
    # Imported here: the Kubernetes client takes about a second to import, and only this needs it.
    from dev.cluster.fake_nodes import FakeNodes

    with closing(FakeNodes(control_plane.kubeconfig)) as fake_nodes:
        names = fake_nodes.add(counts)
    typer.echo(
        f"{len(names)} fake nodes are ready: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
    )


def _greet(control_plane: ControlPlane, seconds: float) -> None:
    typer.echo(f"the cluster is up after {seconds:.1f} s; logs: {control_plane.folder / 'logs'}")
    typer.echo(f"export KUBECONFIG={control_plane.kubeconfig}")
    typer.echo("Ctrl-C stops it")
    sys.stdout.flush()


def _wait_for_exit(components: list[Component]) -> Component:
    """Sleep until one of the components ends, and return it."""
    with selectors.DefaultSelector() as selector:
        watched = []
        try:
            for component in components:
                if component.pid is None:
                    return component
                descriptor = os.pidfd_open(component.pid)
                watched.append(descriptor)
                selector.register(descriptor, selectors.EVENT_READ, component)
            ended = selector.select()[0][0].data
            if not isinstance(ended, Component):
                raise TypeError(f"selected {ended!r}, which is no component")
            return ended
        finally:
            for descriptor in watched:
                os.close(descriptor)


if __name__ == "__main__":
    app(prog_name="python -m dev.cluster")
