"""`modelyard logs`: what the engines of a deployment say, and what happened to it."""

import asyncio
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.cli.connect import UNREADABLE, connect_cluster, run_command
from modelyard.cli.kubeconfig import Context, Kubeconfig
from modelyard.cli.logsread import (
    Follower,
    Line,
    LogOptions,
    decisions,
    list_pods,
    merge,
    read_events,
    read_log,
)
from modelyard.cli.planwords import clean
from modelyard.cli.status import suggest_names
from modelyard.cli.target import Namespace, read_target
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import ENGINE_CONTAINER, project_object
from modelyard.kube.resources import LLM_DEPLOYMENTS

KINDS = frozenset({"llmdep", "llmdeps", "llmdeployment", "llmdeployments"})

EVENT_SECONDS = 5.0
"""Seconds between two readings of Events with --follow."""

_AGO = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
"""Of pods' names. They repeat after eight pods; the name is always written."""

HELP = """Write the logs of all pods of a deployment, each line with the pod that it comes from.

With --events also what happened to it, in the order of time: Events of the deployment and its pods, and the last
changes of its size. Nothing is written to the cluster.

\b
Exit codes:
  0    the logs were written
  1    there is no such deployment, or nothing can be read
  2    an option is wrong
  130  ended with Ctrl-C

\b
Examples:
  modelyard logs llmdep chat -n team
  modelyard logs llmdep team/chat -f --tail 20
  modelyard logs llmdep team/chat --previous
  modelyard logs llmdep team/chat --events --since 1h
"""


def logs(
    kind: Annotated[str, typer.Argument(metavar="llmdep", help="Kind of the object.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Name of the deployment, or NAMESPACE/NAME. Both in one word: llmdep/NAME.",
            show_default=False,
        ),
    ] = None,
    namespace: Namespace = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, with pods that start meanwhile.")
    ] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the run before the last restart.")
    ] = False,
    container: Annotated[
        str, typer.Option("--container", "-c", help="Container of the pods.")
    ] = ENGINE_CONTAINER,
    tail: Annotated[
        int | None,
        typer.Option(help="Lines from the end of each log. Default: all; 10 with --follow.", min=0),
    ] = None,
    since: Annotated[str | None, typer.Option(help="Begin so long ago: 30s, 15m, 2h, 1d.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin lines with their times.")] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Also Events and changes of size, in the order of time.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Write the logs."""
    wanted, namespace, name = read_target(kind, name, namespace)
    if wanted not in KINDS:
        raise typer.BadParameter(f"{wanted!r} has no logs: give llmdep", param_hint="kind")
    if follow and previous:
        raise typer.BadParameter(
            "a run that is over cannot be followed: leave -f out", param_hint="--previous"
        )
    seconds = None if since is None else _read_ago(since)
    options = LogOptions(
        container=container,
        previous=previous,
        # Like kubectl with a selector: nobody wants to read the past of every pod before the present.
        tail=10 if tail is None and follow and seconds is None else tail,
        since=seconds,
        timestamps=timestamps or (events and not follow),
    )
    task = _Task(namespace, name, options, Printer(times=timestamps or events), events=events)
    if not run_command(task.run(kubeconfig, context, follow=follow)):
        raise typer.Exit(UNREADABLE)


def _read_ago(text: str) -> int:
    found = _AGO.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time: write 30s, 15m, 2h or 1d", param_hint="--since")
    return int(found[1]) * _UNITS[found[2]]


class Printer:
    """Writes lines to standard output, and what it has to say itself to standard error."""

    def __init__(self, *, times: bool) -> None:
        self._times = times
        terminal = sys.stdout.isatty()
        # Lines are as long as they are: a terminal wraps them itself, and a pipe must not get other lines.
        self._console = Console(highlight=False, soft_wrap=True, color_system="auto" if terminal else None)
        self._colours: dict[str, str] = {}

    def show(self, line: Line) -> None:
        """Write a line with its source. Control characters of engines do not reach the terminal."""
        colour = self._colours.setdefault(line.source, _COLOURS[len(self._colours) % len(_COLOURS)])
        text = Text(f"[{line.source}] ", style=colour)
        if self._times and line.time is not None:
            moment = datetime.fromtimestamp(line.time, UTC).isoformat(timespec="milliseconds")
            text.append(f"{moment.replace('+00:00', 'Z')} ", style="dim")
        text.append(clean_line(line.text), style="default")
        self._console.print(text, soft_wrap=True)
        self._console.file.flush()

    def say(self, text: str) -> None:
        """Write a remark."""
        typer.echo(f"({clean(text)})", err=True)


def clean_line(text: str) -> str:
    """Return a line without control characters, its spaces kept."""
    return "".join(char if char == "\t" or char.isprintable() else " " for char in text)


class _Task:
    """One call of the command."""

    def __init__(
        self, namespace: str | None, name: str, options: LogOptions, printer: Printer, *, events: bool
    ) -> None:
        self._stated = namespace
        self._namespace = ""
        self._name = name
        self._options = options
        self._printer = printer
        self._events = events

    async def run(self, kubeconfig: Path | None, context: str | None, *, follow: bool) -> bool:
        """Write the logs. Returns whether there was anything to read."""
        async with connect_cluster(kubeconfig, context) as (client, usual):
            self._namespace = self._stated or usual
            body = await client.get(LLM_DEPLOYMENTS, self._namespace, self._name)
            if body is None:
                typer.echo(f"Error: {await self._not_found(client)}", err=True)
                return False
            if follow:
                await self._follow(client, body)
                return True
            return await self._read(client, body)

    async def _not_found(self, client: KubeClient) -> str:
        text = f"no LLMDeployment {self._name} in namespace {self._namespace}"
        try:
            keys = [
                f"{body['metadata']['namespace']}/{body['metadata']['name']}"
                async for body in client.list_pages(LLM_DEPLOYMENTS, {})
            ]
        except ApiError:
            # Whoever may not list them gets no names.
            return f"{text}: name another namespace with -n"
        near = suggest_names(f"{self._namespace}/{self._name}", sorted(keys))
        return f"{text}{near or ': name another namespace with -n'}"

    async def _read(self, client: KubeClient, body: dict[str, Any]) -> bool:
        """Write what there is now. Returns whether any log could be read, where there are pods."""
        pods = await list_pods(client, self._namespace, self._name)
        if not pods:
            self._printer.say(_explain_none(body))
        names = [pod["metadata"]["name"] for pod in pods]
        found = await asyncio.gather(*(self._read_pod(client, name) for name in names))
        parts: list[list[Line]] = [part for part in found if part is not None]
        if self._events:
            parts += await self._happened(client, body, pods)
        lines = merge(parts) if self._options.timestamps else [line for part in parts for line in part]
        for line in lines:
            self._printer.show(line)
        return not pods or any(part is not None for part in found)

    async def _read_pod(self, client: KubeClient, pod: str) -> list[Line] | None:
        try:
            pages = read_log(client, self._namespace, pod, self._options, follow=False)
            return [line async for line in pages]
        except ApiError as error:
            self._printer.say(f"the log of {pod} cannot be read: {error.message}")
            return None

    async def _happened(
        self, client: KubeClient, body: dict[str, Any], pods: list[dict[str, Any]]
    ) -> list[list[Line]]:
        """Return Events and decisions since the time that was asked for."""
        uids = [item["metadata"]["uid"] for item in (body, *pods)]
        try:
            events = await read_events(client, self._namespace, uids)
        except ApiError as error:
            self._printer.say(f"Events cannot be read: {error.message}")
            events = []
        seen = project_object(LLMDeployment, body)
        sizes = [] if seen.object is None else decisions(seen.object)
        begin = 0.0 if self._options.since is None else time.time() - self._options.since
        return [[line for line in part if (line.time or 0.0) >= begin] for part in (events, sizes)]

    async def _follow(self, client: KubeClient, body: dict[str, Any]) -> None:
        printer = self._printer
        follower = Follower(client, self._namespace, self._name, self._options, printer.show, printer.say)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(follower.run())
                if self._events:
                    group.create_task(self._follow_events(client, body))
        except* ApiError as failed:
            raise failed.exceptions[0] from None

    async def _follow_events(self, client: KubeClient, body: dict[str, Any]) -> None:
        """Show what happens from now on, and what happened before."""
        shown: set[tuple[str, str, float | None]] = set()
        while True:
            try:
                pods = await list_pods(client, self._namespace, self._name)
                newest = await client.get(LLM_DEPLOYMENTS, self._namespace, self._name) or body
                happened = merge(await self._happened(client, newest, pods))
            except ApiError as error:
                self._printer.say(f"what happens cannot be read: {error.message}")
                happened = []
            for line in happened:
                key = (line.source, line.text, line.time)
                if key not in shown:
                    shown.add(key)
                    self._printer.show(line)
            await asyncio.sleep(EVENT_SECONDS)


def _explain_none(body: dict[str, Any]) -> str:
    """Return why a deployment has no pods, as its status says it."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    found = {item["type"]: item for item in conditions}
    for kind, status in (("Stalled", "True"), ("Ready", "False"), ("Ready", "True")):
        if (item := found.get(kind)) is not None and item["status"] == status:
            return f"it has no pods: {item['reason']}: {item.get('message', '')}"
    return "it has no pods, and nothing is decided yet: is the operator running?"
