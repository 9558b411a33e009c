"""Command line of the demo."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dev.cluster.binaries import BuildError
from dev.cluster.instance import InstanceBusyError
from dev.cluster.processes import ComponentError
from dev.demo.kube import NotReadyError
from dev.demo.run import Demo
from dev.demo.settings import REPOSITORY, TRAFFIC_MINUTES, DemoSettings

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

LOG_WIDTH = 160
"""Columns of the output where there is no terminal."""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def demo(
    minutes: Annotated[
        float, typer.Option(min=1, max=TRAFFIC_MINUTES, help="Time to play ten minutes of traffic in.")
    ] = TRAFFIC_MINUTES,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")
    ] = False,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Use this cluster instead of a local one. See below."),
    ] = None,
    report: Annotated[Path, typer.Option(help="Folder for the report.")] = REPOSITORY / "report",
    folder: Annotated[Path, typer.Option(help="Folder for logs and state of what runs.")] = REPOSITORY
    / "run"
    / "demo",
) -> None:
    """Watch models serve, scale and sleep on a real Kubernetes API server behind a real Envoy.

    Starts a local cluster (no root, no containers: nodes run pods as processes), the operator and Envoy, and
    applies `examples/`. Then a chat request wakes a sleeping Gemma 3 270M on llama.cpp, and ten minutes of
    recorded traffic make a stand-in for Llama 3.1 8B grow from 1 replica to 5-7 and shrink again. At the end:
    a summary, how long each step took, and a report with plots. The first run on a machine builds Kubernetes,
    about 10 minutes.

    Exit code 0 if no request was lost and the replicas went up and down; 1 if not; 130 after
    Ctrl-C before the end. Ctrl-C stops everything at any time.

    **With --kubeconfig** the operator and Envoy run here and everything else there: the cluster needs nodes
    that match `examples/accelerator-classes.yaml` and pod addresses that this machine can reach. The demo
    deletes what it created.
    """
    interactive = sys.stdout.isatty() and not os.environ.get("CI")
    console = Console() if interactive else Console(width=LOG_WIDTH, force_terminal=False)
    settings = DemoSettings(
        folder=folder.resolve(),
        report=report.resolve(),
        minutes=minutes,
        keep=keep,
        kubeconfig=kubeconfig.resolve() if kubeconfig else None,
        interactive=interactive,
    )
    # A stop by a service manager or CI takes the same way out as Ctrl-C, and a shell that starts the demo in the
    # background would leave Ctrl-C ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        good = Demo(settings, console).play()
    except KeyboardInterrupt:
        console.print("Stopped on request.")
        sys.exit(INTERRUPTED)
    except (BuildError, ComponentError, InstanceBusyError, NotReadyError) as error:
        console.print("[bold red]The demo failed:[/]")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    if not good:
        sys.exit(1)


if __name__ == "__main__":
    app()
