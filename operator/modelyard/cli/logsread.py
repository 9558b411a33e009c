"""Logs of pods, and what happened to a deployment: Events and decisions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import LABEL_DEPLOYMENT
from modelyard.cli.explainpods import read_event_rows
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.projections import ENGINE_CONTAINER
from modelyard.kube.resources import PODS

RETRY_SECONDS = 2.0
"""Seconds until the pods are listed again with --follow, and until a log that ended early is read on: short beside the
start of an engine."""

NOT_YET = frozenset({"ContainerCreating", "PodInitializing"})
"""Why a container has no log yet, as the kubelet says it."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of the logs."""

    container: str = ENGINE_CONTAINER
    previous: bool = False
    """The run before the last restart."""
    tail: int | None = None
    """Lines from the end of each log; None: all."""
    since: int | None = None
    """Seconds before now; None: from the beginning."""
    timestamps: bool = False
    """Whether lines begin with their times."""

    def query(self, *, follow: bool) -> dict[str, str]:
        """Return the parameters of a request for a log.

        https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log
        """
        stated = {
            "container": self.container,
            "previous": "true" if self.previous else None,
            "tailLines": None if self.tail is None else str(self.tail),
            "sinceSeconds": None if self.since is None else str(self.since),
            "timestamps": "true" if self.timestamps else None,
            "follow": "true" if follow else None,
        }
        return {name: value for name, value in stated.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of output."""

    source: str
    """Name of a pod, or `event` or `decision`."""
    text: str
    time: float | None = None
    """Unix time; None: not known."""


async def list_pods(client: KubeClient, namespace: str, deployment: str) -> list[dict[str, Any]]:
    """Return the pods of an LLMDeployment, the oldest first."""
    query = {"labelSelector": f"{LABEL_DEPLOYMENT}={deployment}"}
    pods = [body async for body in client.list_pages(PODS, query, namespace=namespace)]
    return sorted(pods, key=lambda body: (body["metadata"]["creationTimestamp"], body["metadata"]["name"]))


async def read_log(
    client: KubeClient, namespace: str, pod: str, options: LogOptions, *, follow: bool
) -> AsyncIterator[Line]:
    """Yield the lines of a pod's log. Raises ApiError where it cannot be read."""
    path = PODS.path(namespace, pod, "log")
    async for text in client.stream_lines(path, options.query(follow=follow)):
        if options.timestamps:
            yield split_time(pod, text)
        else:
            yield Line(pod, text)


def split_time(source: str, text: str) -> Line:
    """Return a line of a log that begins with its time, without that."""
    stamp, _, rest = text.partition(" ")
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return Line(source, text)
    # A node may write the time of its own zone, but never one without a zone: that is something that was written.
    return Line(source, text) if moment.tzinfo is None else Line(source, rest, moment.timestamp())


async def read_events(client: KubeClient, namespace: str, involved: Iterable[str]) -> list[Line]:
    """Return the Events about objects of those UIDs, the oldest first."""
    lines = []
    for row in await read_event_rows(client, namespace, involved):
        count = f" ({row.count} times)" if row.count > 1 else ""
        text = f"{row.severity} {row.reason} {row.about}: {row.message}{count}"
        lines.append(Line("event", text, datetime.fromisoformat(row.time).timestamp()))
    return lines


def decisions(deployment: LLMDeployment) -> list[Line]:
    """Return the changes of size that the status keeps, the oldest first."""
    history = deployment.status.scaling.history if deployment.status.scaling is not None else ()
    return [
        Line(
            "decision",
            f"{event.from_replicas} -> {event.to_replicas} replicas: {event.reason}: {event.message}",
            datetime.fromisoformat(event.time).timestamp(),
        )
        for event in history
    ]


def merge(parts: Iterable[Sequence[Line]]) -> list[Line]:
    """Return the lines in the order of their times. One without a time stays behind the one that it came after."""
    timed = []
    for part in parts:
        last = 0.0
        for line in part:
            last = max(last, line.time) if line.time is not None else last
            timed.append((last, line))
    return [line for _, line in sorted(timed, key=lambda pair: pair[0])]


class Follower:
    """Follows the logs of all pods of a deployment, those to come included."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        deployment: str,
        options: LogOptions,
        show: Callable[[Line], None],
        say: Callable[[str], None],
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._deployment = deployment
        self._options = options
        self._show = show
        self._say = say
        self._running: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, int] = {}
        """Restarts that were known when a log was read to its end, by UID."""

    async def run(self) -> None:
        """Follow until cancelled. Raises ApiError where pods cannot be listed at the beginning."""
        try:
            first = True
            while True:
                try:
                    pods = await list_pods(self._client, self._namespace, self._deployment)
                except ApiError as error:
                    if first:
                        raise
                    self._say(f"pods cannot be listed: {error}")
                else:
                    self._take(pods, first=first)
                    first = False
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _take(self, pods: Iterable[Mapping[str, Any]], *, first: bool) -> None:
        """Begin to read what runs and is not read: a new pod, or one whose container started again."""
        for body in pods:
            uid, name = body["metadata"]["uid"], body["metadata"]["name"]
            started = find_starts(body, self._options.container)
            if started is None or self._seen.get(uid) == started:
                continue
            if (task := self._running.get(uid)) is not None and not task.done():
                continue
            known = uid in self._seen
            self._seen[uid] = started
            if not first and not known:
                self._say(f"{name} has started")
            # What is asked for of the past is asked for once: a later start is read from its beginning.
            options = self._options if first else LogOptions(self._options.container)
            self._running[uid] = asyncio.create_task(self._read(name, options))

    async def _read(self, pod: str, options: LogOptions) -> None:
        try:
            async for line in read_log(self._client, self._namespace, pod, options, follow=True):
                self._show(line)
            self._say(f"the log of {pod} has ended")
        except ApiError as error:
            self._say(f"the log of {pod} cannot be read: {error.message}")


def find_starts(body: Mapping[str, Any], container: str) -> int | None:
    """Return how often a container of a pod was started again; None before its first start."""
    status = body.get("status", {})
    for field in ("containerStatuses", "initContainerStatuses"):
        for item in status.get(field) or ():
            if item["name"] == container:
                waits = (item.get("state") or {}).get("waiting", {}).get("reason")
                return None if waits in NOT_YET else int(item.get("restartCount", 0))
    return None
