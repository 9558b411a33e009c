"""The connection of a command to the cluster that its options name."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import typer

from modelyard.cli.kubeconfig import find_access
from modelyard.cli.manifests import InputError
from modelyard.core.report.model import EXIT_CODES
from modelyard.kube.client import ApiError, KubeClient

T = TypeVar("T")

UNREADABLE = 1
"""Exit code: the cluster cannot be read, or what was asked for is not there."""
USAGE = EXIT_CODES["Invalid"]
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the signal's number."""


@asynccontextmanager
async def connect_cluster(
    kubeconfig: Path | None, context: str | None
) -> AsyncIterator[tuple[KubeClient, str]]:
    """Connect to the cluster that the options name; yields also the namespace that is meant where none is named.

    Raises InputError where it is not known which or its file is no kubeconfig, and ApiError for one that leads nowhere.
    """
    access = find_access(kubeconfig, context)
    client = await KubeClient.connect(access.files, access.context)
    try:
        yield client, access.namespace
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
