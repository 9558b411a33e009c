"""`modelyard status`: the whole installation in one look, trouble first."""

import asyncio
import difflib
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from modelyard.api.meta import wire
from modelyard.cli.connect import UNREADABLE, connect_cluster, run_command
from modelyard.cli.data import to_json, to_yaml
from modelyard.cli.kubeconfig import Context, Kubeconfig
from modelyard.cli.statusformat import format_overview
from modelyard.cli.statusread import StatusReader, StatusScope, narrow
from modelyard.core.overview.build import Installation, build_overview
from modelyard.core.overview.model import Overview
from modelyard.kube.errors import ApiError
from modelyard.runtime.settings import SYSTEM_NAMESPACE

TROUBLED = 3
"""Exit code of `--check` where something is stalled or not ready."""

WATCH_SECONDS = 5.0
"""Seconds between two readings of `--watch`: the operator itself tells figures no more often than every 10 s."""

WIDE = 240
"""Columns of a page that is not a terminal's: wide enough for a row of long names."""

HELP = """Say how the installation is: deployments, routes, budgets, accelerators, operator. Trouble comes first.

It reads objects and their status, and writes nothing. What it may not read it leaves out, and says so.

\b
Exit codes:
  0  the status was written; with --check: nothing is stalled or not ready
  1  the cluster cannot be read, or nothing has that name
  2  an option is wrong
  3  with --check: something is stalled or not ready

\b
Examples:
  modelyard status
  modelyard status --watch
  modelyard status llama-3-1-8b -n team
  modelyard status --check -o json | jq '.deployments[] | select(.level == "Stalled")'

\b
States     stalled    does not go on until a person acts
           not ready  requests are not answered, or it is not in force
           warning    works, but not as it should: spilling, waiting for a
                      better place, a soft limit
           changing   on its way: loading, scaling
           asleep     a request wakes it
           off        switched off in its spec
requests/s and waiting are as they were at the last decision.
"""


class StatusFormat(StrEnum):
    """How a status is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def status(
    name: Annotated[
        str | None, typer.Argument(help="Deployments and routes of this name, or of NAMESPACE/NAME.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace of deployments and routes.")
    ] = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="All namespaces, which is the default.")
    ] = False,
    system_namespace: Annotated[
        str, typer.Option(help="Namespace of the operator, budgets, tenants and providers.")
    ] = SYSTEM_NAMESPACE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between two readings of --watch.", min=0.5, max=3600)
    ] = WATCH_SECONDS,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 3 where something is stalled or not ready.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Annotated[StatusFormat, typer.Option("--output", "-o")] = StatusFormat.TABLE,
) -> None:
    """Read the installation and write how it is."""
    if all_namespaces and namespace is not None:
        raise typer.BadParameter("give --namespace or --all-namespaces, not both", param_hint="-A")
    if watch and (check or output is not StatusFormat.TABLE):
        raise typer.BadParameter(
            "it writes tables until Ctrl-C: leave --check and -o out", param_hint="--watch"
        )
    if name is not None and "/" in name:
        stated, _, _ = name.partition("/")
        if namespace not in (None, stated):
            raise typer.BadParameter(f"{name} is not in namespace {namespace}", param_hint="-n")
        namespace = stated
    scope = StatusScope(namespace or "", system_namespace)
    if watch:
        run_command(_watch(kubeconfig, context, scope, name, interval))
        return
    overview = run_command(_read_once(kubeconfig, context, scope, name))
    if overview is None:
        raise typer.Exit(UNREADABLE)
    _write(overview, output)
    if check and overview.troubled:
        raise typer.Exit(TROUBLED)


async def _read_once(
    kubeconfig: Path | None, context: str | None, scope: StatusScope, name: str | None
) -> Overview | None:
    """Return the overview; None, with a line on standard error, if nothing has that name."""
    async with connect_cluster(kubeconfig, context) as (client, _):
        found = await StatusReader(client, scope).read()
    overview = _build(found, name)
    if name is not None and not overview.deployments and not overview.routes:
        typer.echo(f"Error: {_not_found(name, found)}", err=True)
        return None
    return overview


def _build(found: Installation, name: str | None) -> Overview:
    """Return the overview. With a name: of what has it, and of nothing else that has a level."""
    if name is None:
        return build_overview(found, time.time())
    overview = build_overview(narrow(found, name), time.time())
    return overview.model_copy(update={"budgets": (), "tenants": (), "providers": ()})


def _not_found(name: str, found: Installation) -> str:
    keys = sorted({item.key for item in found.deployments} | {item.key for item in found.routes})
    return f"no LLMDeployment or LLMRoute {name}{suggest_names(name, keys)}"


def suggest_names(name: str, keys: list[str]) -> str:
    """Return a half-sentence with keys (`namespace/name`) that are near a name; empty if none is."""
    bare = name.rpartition("/")[2]
    names = {key: key.rpartition("/")[2] for key in keys}
    close = difflib.get_close_matches(bare, sorted(set(names.values())), n=3)
    near = [key for key in keys if names[key] in close]
    return f": did you mean {', '.join(near[:3])}?" if near else ""


async def _watch(
    kubeconfig: Path | None, context: str | None, scope: StatusScope, name: str | None, interval: float
) -> None:
    """Show the status again and again: on a terminal in place, else one after the other where it changed."""
    console = Console(highlight=False) if sys.stdout.isatty() else _plain_console()
    async with connect_cluster(kubeconfig, context) as (client, _):
        reader = StatusReader(client, scope)
        overview = await _read_round(reader, name)
        if not console.is_terminal:
            shown = overview
            console.print(format_overview(overview))
            while True:
                await asyncio.sleep(interval)
                overview = await _read_round(reader, name)
                if overview.model_copy(update={"time": shown.time}) != shown:
                    shown = overview
                    console.print()
                    console.print(format_overview(overview))
        with Live(format_overview(overview), console=console, screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(interval)
                try:
                    overview = await _read_round(reader, name)
                except ApiError as error:
                    # What was seen last stands: the API server comes back while somebody looks.
                    note = f"the cluster cannot be read, this is of {overview.time}: {error}"
                    stale = overview.model_copy(update={"notes": (note, *overview.notes)})
                    live.update(format_overview(stale), refresh=True)
                    continue
                live.update(format_overview(overview), refresh=True)


async def _read_round(reader: StatusReader, name: str | None) -> Overview:
    return _build(await reader.read(), name)


def _plain_console() -> Console:
    return Console(width=WIDE, color_system=None, highlight=False)


def _write(overview: Overview, output: StatusFormat) -> None:
    if output is StatusFormat.JSON:
        typer.echo(to_json(wire(overview)))
    elif output is StatusFormat.YAML:
        typer.echo(to_yaml(wire(overview)).rstrip("\n"))
    else:
        console = Console(highlight=False) if sys.stdout.isatty() else _plain_console()
        console.print(format_overview(overview))
