"""Kubernetes Events: what changed and why, where `kubectl describe` shows it."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from modelyard.api.llmdeployment import LLMDeployment, LLMDeploymentStatus
from modelyard.api.llmroute import LLMRoute, LLMRouteStatus
from modelyard.api.meta import API_VERSION, Condition, split_key
from modelyard.core.eventflow import EventFlow, Standing, Topic, admit, name_event
from modelyard.core.reasons import Code
from modelyard.core.status import READY, STALLED
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import EVENTS
from modelyard.runtime.logs import about
from modelyard.runtime.metrics import EVENTS as EVENT_COUNT

logger = logging.getLogger(__name__)

MESSAGE_LIMIT = 1024
"""Characters that the API server takes in an Event's message."""

MOST_OBJECTS = 4096
"""Objects whose Events are remembered, as in client-go; of the others an Event may be written twice."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What an Event is about."""

    kind: str
    key: str
    """`namespace/name`."""
    uid: str


class EventRecorder:
    """Writes Events about LLMDeployments and LLMRoutes."""

    def __init__(self, client: KubeClient, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock
        self._flows: OrderedDict[str, EventFlow] = OrderedDict()
        """By UID of the object, the one that was written about last at the end."""

    async def emit_changes(self, before: LLMDeployment, after: LLMDeploymentStatus) -> None:
        """Say what differs between the old and the new status, once per change."""
        for condition_type in (READY, STALLED):
            old = _find(before.status.conditions, condition_type)
            new = _find(after.conditions, condition_type)
            if new is None or (old is not None and old.reason == new.reason):
                continue
            if condition_type == STALLED and new.status == "False":
                continue
            bad = condition_type == STALLED
            await self._emit(_subject(before), "Warning" if bad else "Normal", new.reason, new.message)
        old_size, new_size = before.status.scaling, after.scaling
        if new_size is None or old_size is None:
            return
        if old_size.desired_replicas != new_size.desired_replicas:
            change = f"from {old_size.desired_replicas} to {new_size.desired_replicas} replicas"
            await self._emit(_subject(before), "Normal", new_size.reason, f"{change}: {new_size.message}")

    async def emit_route_change(self, before: LLMRoute, after: LLMRouteStatus) -> None:
        """Say where the requests of a route of policy LowestCost go from now on, if that has changed."""
        old, new = before.status.choice, after.choice
        if old is None or new is None or old.target == new.target:
            return
        change = f"from {old.target or 'nowhere'} to {new.target or 'nowhere'}"
        await self._emit(_subject(before), "Normal", new.reason, f"{change}: {new.message}")

    async def emit_unreadable(self, kind: str, key: str, uid: str, error: str) -> None:
        """Say that an object cannot be read. `key`: `namespace/name`."""
        message = f"it cannot be read: {error}; correct it. What runs stays as it is"
        await self._emit(_Subject(kind, key, uid), "Warning", Code.INVALID, message)

    async def _emit(self, subject: "_Subject", severity: str, reason: str, message: str) -> None:
        """Write an Event, count it on one that stands, or leave it out. What cannot be written is only logged."""
        topic = Topic(severity, reason, message[:MESSAGE_LIMIT])
        uid = subject.uid or subject.key
        flow, action, standing = admit(self._flows.get(uid, EventFlow()), topic, self._clock())
        self._remember(uid, flow)
        if action == "suppress":
            EVENT_COUNT.labels(outcome="suppressed").inc()
            return
        try:
            if action == "create" or not await self._repeat(subject, standing):
                name = await self._create(subject, standing)
                self._remember(uid, name_event(flow, topic, name))
        except ApiError as error:
            # The condition says the same; work on the object must not fail for it.
            self._remember(uid, name_event(flow, topic, ""))
            EVENT_COUNT.labels(outcome="failed").inc()
            fields = about(subject.key, subject.kind, reason)
            logger.warning("Event %s of %s was not written: %s", reason, subject.key, error, extra=fields)

    def _remember(self, uid: str, flow: EventFlow) -> None:
        self._flows[uid] = flow
        self._flows.move_to_end(uid)
        while len(self._flows) > MOST_OBJECTS:
            self._flows.popitem(last=False)

    async def _repeat(self, subject: "_Subject", standing: Standing) -> bool:
        """Count an occurrence on the Event that stands. Returns False if it is gone: they are kept for an hour."""
        patch = {
            "count": standing.count,
            "lastTimestamp": _format(standing.last),
            "message": standing.topic.message,
        }
        found = await self._client.merge(EVENTS, split_key(subject.key)[0], standing.name, patch)
        if found:
            EVENT_COUNT.labels(outcome="repeated").inc()
        return found

    async def _create(self, subject: "_Subject", standing: Standing) -> str:
        """Create an Event and return its name."""
        (namespace, name), moment = split_key(subject.key), _format(standing.last)
        body = await self._client.create(
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{name}-", "namespace": namespace},
                "involvedObject": {
                    "apiVersion": API_VERSION,
                    "kind": subject.kind,
                    "namespace": namespace,
                    "name": name,
                    "uid": subject.uid,
                },
                "type": standing.topic.type,
                "reason": standing.topic.reason,
                "message": standing.topic.message,
                "source": {"component": "modelyard"},
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": standing.count,
            },
        )
        EVENT_COUNT.labels(outcome="created").inc()
        return str(body["metadata"]["name"])


def _subject(found: LLMDeployment | LLMRoute) -> _Subject:
    return _Subject(type(found).__name__, found.key, found.metadata.uid)


def _find(conditions: tuple[Condition, ...], condition_type: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == condition_type), None)


def _format(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
