"""Which cluster a command reads: its options, and the connection."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from modelyard.cli.kubeconfig import find_kubeconfig
from modelyard.cli.manifests import InputError
from modelyard.core.report.model import EXIT_CODES
from modelyard.kube.client import ApiError, KubeClient

T = TypeVar("T")

UNREADABLE = 1
"""Exit code: the cluster cannot be read, or what was asked for is not there."""
USAGE = EXIT_CODES["Invalid"]
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the signal's number."""

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="Default: KUBECONFIG, ~/.kube/config, or the one around the process.",
        exists=True,
        dir_okay=False,
    ),
]
Context = Annotated[
    str | None, typer.Option(help="Context of the kubeconfig. Default: its current one.", metavar="NAME")
]


@asynccontextmanager
async def connect_cluster(kubeconfig: Path | None, context: str | None) -> AsyncIterator[KubeClient]:
    """Connect to the cluster that the options name.

    Raises InputError where it is not known which, and ApiError for a file that is no kubeconfig.
    """
    found = kubeconfig or find_kubeconfig()
    if found is None and "KUBERNETES_SERVICE_HOST" not in os.environ:
        raise InputError("no kubeconfig: give --kubeconfig, or set KUBECONFIG")
    client = await KubeClient.connect(found, context)
    try:
        yield client
    finally:
        await client.close()


def run_command(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work. What goes wrong is told in one line, with the exit code that the documents say."""
    try:
        return asyncio.run(work)
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(USAGE) from error
    except ApiError as error:
        typer.echo(f"Error: the cluster cannot be read: {error}", err=True)
        raise typer.Exit(UNREADABLE) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error
