"""Watches the pods of a namespace: when each was made, served, was told to leave, and was gone."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes import client, watch

from dev.cluster.api import api_client

STRETCH_S = 2
"""Seconds after which the watch is asked for again, from where it ended: this is how soon it can be stopped."""


@dataclass(slots=True)
class PodLife:
    """One pod. Unix times in seconds, as the watch told them; None: not yet."""

    name: str
    created: float
    ready: float | None = None
    """When it was Ready for the first time."""
    leaving: float | None = None
    """When its deletion was asked for."""
    gone: float | None = None

    @property
    def start_s(self) -> float | None:
        """Seconds from its making to its first answer."""
        return None if self.ready is None else self.ready - self.created

    def held_s(self, until: float) -> float:
        """Return the seconds up to a time in which it held its accelerator."""
        end = until if self.gone is None else min(self.gone, until)
        return max(end - self.created, 0.0)


class PodWatch:
    """Keeps the life of every pod of a namespace, gone ones included. A context manager."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._client = api_client(kubeconfig)
        self._namespace = namespace
        self._lives: dict[str, PodLife] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="pod watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.close()

    @property
    def lives(self) -> list[PodLife]:
        """All pods so far, in the order of their making."""
        return list(self._lives.values())

    def held_s(self, until: float) -> float:
        """Return replica-seconds up to a Unix time: from each pod's making until it was gone."""
        return sum(life.held_s(until) for life in self.lives)

    def most_wanted(self, until: float) -> int:
        """Return the most pods at one moment up to a Unix time, without those that are leaving."""
        changes = [(life.created, 1) for life in self.lives]
        changes += [(life.leaving, -1) for life in self.lives if life.leaving is not None]
        count = most = 0
        for when, change in sorted(changes):
            if when <= until:
                count += change
                most = max(most, count)
        return most

    def _follow(self) -> None:
        core = client.CoreV1Api(self._client)
        version: str | None = None
        while not self._stopped.is_set():
            stretch = watch.Watch()
            for event in stretch.stream(
                core.list_namespaced_pod, self._namespace, resource_version=version, timeout_seconds=STRETCH_S
            ):
                self._note(event, time.time())
            version = stretch.resource_version

    def _note(self, event: Any, now: float) -> None:
        pod = event["object"]
        life = self._lives.setdefault(pod.metadata.uid, PodLife(pod.metadata.name, now))
        conditions = pod.status.conditions or []
        if life.ready is None and any(one.type == "Ready" and one.status == "True" for one in conditions):
            life.ready = now
        if life.leaving is None and pod.metadata.deletion_timestamp is not None:
            life.leaving = now
        if event["type"] == "DELETED":
            life.gone = now
