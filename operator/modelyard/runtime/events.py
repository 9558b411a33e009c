"""Kubernetes Events: what changed and why, where `kubectl describe` shows it."""

from datetime import UTC, datetime

from modelyard.api.llmdeployment import LLMDeployment, LLMDeploymentStatus
from modelyard.api.llmroute import LLMRoute, LLMRouteStatus
from modelyard.api.meta import API_VERSION, Condition
from modelyard.core.status import READY, STALLED
from modelyard.kube.client import KubeClient
from modelyard.kube.resources import EVENTS

MESSAGE_LIMIT = 1024
"""Characters that the API server takes in an Event's message."""


class EventRecorder:
    """Writes Events about LLMDeployments and LLMRoutes."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

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
            await self._emit(before, "Warning" if bad else "Normal", new.reason, new.message)
        old_size, new_size = before.status.scaling, after.scaling
        if new_size is None or old_size is None:
            return
        if old_size.desired_replicas != new_size.desired_replicas:
            change = f"from {old_size.desired_replicas} to {new_size.desired_replicas} replicas"
            await self._emit(before, "Normal", new_size.reason, f"{change}: {new_size.message}")

    async def emit_route_change(self, before: LLMRoute, after: LLMRouteStatus) -> None:
        """Say where the requests of a route of policy LowestCost go from now on, if that has changed."""
        old, new = before.status.choice, after.choice
        if old is None or new is None or old.target == new.target:
            return
        change = f"from {old.target or 'nowhere'} to {new.target or 'nowhere'}"
        await self._emit(before, "Normal", new.reason, f"{change}: {new.message}")

    async def _emit(self, about: LLMDeployment | LLMRoute, severity: str, reason: str, message: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = about.metadata
        await self._client.create(
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{metadata.name}-", "namespace": metadata.namespace},
                "involvedObject": {
                    "apiVersion": API_VERSION,
                    "kind": type(about).__name__,
                    "namespace": metadata.namespace,
                    "name": metadata.name,
                    "uid": metadata.uid,
                },
                "type": severity,
                "reason": reason,
                "message": message[:MESSAGE_LIMIT],
                "source": {"component": "modelyard"},
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            },
        )


def _find(conditions: tuple[Condition, ...], condition_type: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == condition_type), None)
