"""When an engine counts as started, ready and alive, and how it stops."""

from typing import Any

from modelyard.render.engines.base import EngineAdapter
from modelyard.render.workload import Workload

PORT_NAME = "http"
"""Name of the engine's port in containers and Services."""

_START_PERIOD = 1
"""Seconds between start probes. Each second lost here is a second in which a loaded accelerator waits; a refused
connection inside the pod costs nothing."""
_READY_PERIOD = 2
"""Seconds between readiness probes, so that a pod comes back soon after a stall."""
_READY_FAILURES = 3
"""A busy engine may be late once; leaving the others with its share of requests would make things worse."""
_LIVE_PERIOD = 10
"""Seconds between liveness probes."""
_LIVE_FAILURES = 12
"""Two minutes: a restart costs the minutes of loading again, and engines whose core dies exit by themselves."""
_PROBE_TIMEOUT = 5
"""Seconds an answer may take: tokenising a very long prompt can hold an engine's event loop for seconds."""

PRE_STOP_SECONDS = 5
"""How long a leaving pod goes on accepting requests: by then every gateway has the endpoint list without it (pod
event, decision, push: well below a second each) and retries of the last second have gone elsewhere."""
_GRACE_MARGIN = 10
"""Seconds to exit after the drain, before SIGKILL."""
_PROGRESS_MARGIN = 60
"""Seconds for scheduling and container creation on top of the start budget, so that the startup probe gives up
first and the Deployment's condition can name what it saw."""


def build_probes(engine: EngineAdapter, workload: Workload) -> dict[str, Any]:
    """Return the probe fields of the engine container."""
    check = {"httpGet": {"path": engine.health_path, "port": PORT_NAME}, "timeoutSeconds": _PROBE_TIMEOUT}
    # The kubelet probes readiness at once when the start probe has passed.
    failures = -(-workload.start_seconds // _START_PERIOD)
    return {
        "startupProbe": {**check, "periodSeconds": _START_PERIOD, "failureThreshold": failures},
        "readinessProbe": {**check, "periodSeconds": _READY_PERIOD, "failureThreshold": _READY_FAILURES},
        "livenessProbe": {**check, "periodSeconds": _LIVE_PERIOD, "failureThreshold": _LIVE_FAILURES},
    }


def pre_stop_seconds(engine: EngineAdapter, workload: Workload) -> int:
    """Return the seconds between the deletion of a pod and SIGTERM.

    An engine that drops its requests on SIGTERM gets the signal only after the drain timeout: nothing can tell the
    kubelet earlier that the last request is done.
    """
    return PRE_STOP_SECONDS + (0 if engine.drains_on_sigterm else workload.drain_seconds)


def worker_stop_seconds(workload: Workload) -> int:
    """Return the seconds between the deletion of a group's worker and SIGTERM, on which its engine ends at once.

    Where a worker's node is drained the leader leaves with it, and needs the worker's layers for what it still answers.
    """
    return PRE_STOP_SECONDS + workload.drain_seconds


def grace_period_seconds(workload: Workload) -> int:
    """Return the seconds between the deletion of a pod and SIGKILL."""
    return PRE_STOP_SECONDS + workload.drain_seconds + _GRACE_MARGIN


def progress_deadline_seconds(workload: Workload) -> int:
    """Return the seconds a rollout may go without a new Ready pod: provisioning a node and starting on it."""
    return workload.provision_seconds + workload.start_seconds + _PROGRESS_MARGIN
