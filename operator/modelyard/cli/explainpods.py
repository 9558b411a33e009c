"""Pods and Events of a deployment, for its explanation: what somebody on call would ask kubectl for next."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from modelyard.core.overview.explanation import EventRow, PodRow
from modelyard.kube.client import KubeClient
from modelyard.kube.projections import ENGINE_CONTAINER, project_pod
from modelyard.kube.resources import EVENTS

EVENTS_SHOWN = 10
"""Events of an explanation: the newest, as many as fit beside the rest. `modelyard logs --events` has all."""


def describe_pod(body: Mapping[str, Any]) -> PodRow:
    """Return the row of a pod."""
    pod = project_pod(body)
    if pod.terminating:
        state = "leaves"
    elif pod.phase == "Running":
        # Of a group, all but the leader work for it and answer nobody.
        state = "works" if pod.member and pod.ready else "serves" if pod.ready else "not ready"
    else:
        state = pod.phase.lower()
    reasons = [f"{pod.waiting}: {pod.message}" if pod.message else pod.waiting] if pod.waiting else []
    reasons += _describe_end(body.get("status", {}))
    return PodRow(
        name=pod.name,
        state=state,
        why="; ".join(reasons),
        node=pod.node,
        restarts=pod.restarts,
        created=body["metadata"].get("creationTimestamp", ""),
    )


def _describe_end(status: Mapping[str, Any]) -> Iterable[str]:
    """Yield how the engine's container ended, now or before its last start."""
    for container in status.get("containerStatuses") or ():
        if container["name"] != ENGINE_CONTAINER:
            continue
        for field, when in (("state", "ended"), ("lastState", "ended before")):
            end = (container.get(field) or {}).get("terminated")
            if end is not None:
                message = f": {end['message']}" if end.get("message") else ""
                yield f"{when}: {end.get('reason', '')}, exit code {end.get('exitCode')}{message}"


async def list_events(
    client: KubeClient, namespace: str, uids: Iterable[str]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the Events about objects of those UIDs, each with its time, in no order.

    The API server selects by one UID at a time, and one list of a namespace is less than a list for each pod.
    """
    wanted = set(uids)
    async for body in client.list_pages(EVENTS, {}, namespace=namespace):
        if (body.get("involvedObject") or {}).get("uid") in wanted:
            moment = body.get("lastTimestamp") or body.get("eventTime")
            yield moment or body["metadata"]["creationTimestamp"], body


async def read_event_rows(client: KubeClient, namespace: str, uids: Iterable[str]) -> list[EventRow]:
    """Return the Events about objects of those UIDs, the newest last."""
    rows = []
    async for moment, body in list_events(client, namespace, uids):
        about = body["involvedObject"]
        row = EventRow(
            time=moment,
            about=f"{about.get('kind', '')}/{about.get('name', '')}",
            severity=body.get("type") or "",
            reason=body.get("reason") or "",
            message=body.get("message") or "",
            count=body.get("count") or 1,
        )
        rows.append(row)
    return sorted(rows, key=lambda row: (row.time, row.about, row.reason))
