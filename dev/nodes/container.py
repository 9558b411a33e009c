"""One container of a pod: starts its process, probes it, restarts it, ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dev.nodes.environment import ContainerConfigError
from dev.nodes.images import ContainerStartError, UnknownImageError
from dev.nodes.probes import Probe, Prober, UnsupportedProbeError, outcomes, read_probe
from dev.nodes.process import ContainerProcess
from dev.nodes.status import ContainerView, Running, Terminated, Waiting, stopped
from dev.nodes.termination import Termination

logger = logging.getLogger(__name__)

CONFIG_RETRY_SECONDS = 2.0
"""Pause before a container whose Secret or ConfigMap was missing is tried again. The kubelet's is up to
10 s (`backOffPeriod`); nothing here gains from waiting longer."""

START_ERROR_EXIT_CODE = 128
"""What containerd reports for a container whose program could not be started."""


@dataclass(frozen=True, slots=True)
class RestartBackoff:
    """Pauses between restarts in seconds: none, then `initial`, doubling up to `maximum`.

    Defaults are the kubelet's:
    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy. A container that
    ran for `reset_after` starts over.
    """

    initial: float = 10.0
    maximum: float = 300.0
    reset_after: float = 600.0

    def pause(self, restarts: int) -> float:
        """Return the pause before restart number `restarts`, the first being 0."""
        if restarts == 0:
            return 0.0
        return float(min(self.maximum, self.initial * 2 ** min(restarts - 1, 30)))


@dataclass(frozen=True, slots=True)
class Command:
    """What to run for a container."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path


class Container:
    """Runs one container until it is done or its pod ends. `view` is its current state."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        pod_ip: str,
        restart_policy: str,
        grace_seconds: float,
        restarts: int,
        prepare: Callable[[Mapping[str, Any]], Awaitable[Command]],
        prober: Prober,
        termination: Termination,
        backoff: RestartBackoff,
        changed: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._pod_ip = pod_ip
        self._restart_policy = restart_policy
        self._grace_seconds = grace_seconds
        self._prepare = prepare
        self._prober = prober
        self._termination = termination
        self._backoff = backoff
        self._changed = changed
        self.process: ContainerProcess | None = None
        self.log: Path | None = None
        """What it writes; None before its first start."""
        self.log_starts: list[int] = []
        """Where in the log each run begins, in bytes."""
        self.view = ContainerView(
            spec["name"], spec["image"], Waiting("ContainerCreating"), restart_count=restarts
        )

    @property
    def succeeded(self) -> bool:
        """Whether it ended with exit code 0 and will not be restarted."""
        return self.view.done and isinstance(self.view.state, Terminated) and self.view.state.exit_code == 0

    async def run(self) -> None:
        """Run it, again and again as its policy says, until it is done or the pod is to end."""
        failures = 0
        while not self._termination.requested.is_set():
            started = asyncio.get_running_loop().time()
            try:
                command = await self._command()
                if command is None:
                    break
                started = asyncio.get_running_loop().time()
                ended = await self._run_once(command)
            except (ContainerStartError, OSError) as error:
                now = datetime.now(UTC)
                ended = Terminated(START_ERROR_EXIT_CODE, "StartError", now, now, message=str(error))
            if self._termination.requested.is_set() or not self._restarts(ended):
                self._show(state=ended, done=True)
                break
            if asyncio.get_running_loop().time() - started >= self._backoff.reset_after:
                failures = 0
            await self._back_off(ended, self._backoff.pause(failures))
            failures += 1
        self._show_view(stopped(self.view, datetime.now(UTC)))

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()

    def _restarts(self, ended: Terminated) -> bool:
        return self._restart_policy == "Always" or (
            self._restart_policy == "OnFailure" and ended.exit_code != 0
        )

    async def _back_off(self, ended: Terminated, pause: float) -> None:
        self._show(state=ended)
        if pause:
            message = f"back-off {pause:g}s restarting failed container={self.view.name}"
            self._show(state=Waiting("CrashLoopBackOff", message), last_state=ended)
            await self._pause(pause)
        if not self._termination.requested.is_set():
            self._show(
                state=Waiting("ContainerCreating") if not pause else self.view.state,
                last_state=ended,
                restart_count=self.view.restart_count + 1,
            )

    async def _pause(self, seconds: float) -> None:
        """Sleep, but no longer than until the pod is to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._termination.requested.wait()

    async def _command(self) -> Command | None:
        """Find out what to run, waiting while it cannot be; None if the pod is to end first."""
        while not self._termination.requested.is_set():
            try:
                self._check_lifecycle()
                self._probes()
                return await self._prepare(self._spec)
            except UnknownImageError as error:
                self._show(state=Waiting("ErrImagePull", str(error)))
                # No later pull can succeed: the table does not change while the agent runs.
                self._show(
                    state=Waiting("ImagePullBackOff", f"Back-off pulling image {self.view.image!r}: {error}")
                )
                await self._termination.requested.wait()
            except (ContainerConfigError, UnsupportedProbeError) as error:
                self._show(state=Waiting("CreateContainerConfigError", str(error)))
                await self._pause(CONFIG_RETRY_SECONDS)
        return None

    async def _run_once(self, command: Command) -> Terminated:
        """Run the process to its end and return how it ended. Raises OSError if it cannot be started."""
        started_at = datetime.now(UTC)
        begin = command.log.stat().st_size if command.log.exists() else 0
        process = ContainerProcess(command.argv, command.environment, command.folder, command.log)
        self.process, self.log = process, command.log
        self.log_starts.append(begin)
        container_id = f"process://{process.pid}"
        startup, readiness, _ = self._probes()
        self._show(
            state=Running(started_at, container_id), started=startup is None, ready=not (startup or readiness)
        )
        logger.info("Started container %s of %s, pid %d", self.view.name, self._pod_ip, process.pid)
        try:
            code = await self._supervise(process)
        finally:
            process.kill()
            await process.wait()
        logger.info("Container %s of %s ended with exit code %d", self.view.name, self._pod_ip, code)
        self._show(ready=False, started=False)
        reason = "Completed" if code == 0 else "Error"
        return Terminated(code, reason, started_at, datetime.now(UTC), container_id)

    async def _supervise(self, process: ContainerProcess) -> int:
        """Probe the process while it runs and end it when a probe or the pod says so."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        started = asyncio.Event()
        unhealthy: asyncio.Future[float] = loop.create_future()
        exited = asyncio.ensure_future(process.wait())
        asked = asyncio.ensure_future(self._termination.requested.wait())
        async with (
            _background(self._probe_readiness(begun, started)),
            _background(exited),
            _background(asked),
        ):
            async with _background(self._probe_health(begun, started, unhealthy)):
                events: set[asyncio.Future[Any]] = {exited, asked, unhealthy}
                await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            # As on a kubelet, only the readiness probe goes on while the container ends.
            if not exited.done():
                grace = unhealthy.result() if unhealthy.done() else float("inf")
                await self._termination.stop(process, self._pre_stop_seconds(), grace)
            return await exited

    def _probes(self) -> tuple[Probe | None, Probe | None, Probe | None]:
        startup, readiness, liveness = (
            read_probe(self._spec.get(name), self._spec, self._pod_ip)
            for name in ("startupProbe", "readinessProbe", "livenessProbe")
        )
        return startup, readiness, liveness

    async def _probe_health(
        self, begun: float, started: asyncio.Event, unhealthy: asyncio.Future[float]
    ) -> None:
        """Run the startup probe, then the liveness probe; on failure set the grace period for the end."""
        startup, _, liveness = self._probes()
        for probe in (startup, liveness):
            if probe is None:
                continue
            async with aclosing(self._outcomes(probe, begun)) as results:
                async for healthy in results:
                    if not healthy:
                        logger.info("Container %s of %s failed its probe", self.view.name, self._pod_ip)
                        grace = probe.grace_period if probe.grace_period is not None else self._grace_seconds
                        unhealthy.set_result(grace)
                        return
                    if probe is startup:
                        break
            if probe is startup:
                self._show(started=True, ready=self._spec.get("readinessProbe") is None)
                started.set()

    async def _probe_readiness(self, begun: float, started: asyncio.Event) -> None:
        """Follow the readiness probe from the moment that the container has started."""
        startup, readiness, _ = self._probes()
        if startup is not None:
            await started.wait()
        if readiness is None:
            return
        async with aclosing(self._outcomes(readiness, begun)) as results:
            async for healthy in results:
                self._show(ready=healthy)

    def _outcomes(self, probe: Probe, begun: float) -> AsyncGenerator[bool, None]:
        clock = asyncio.get_running_loop().time
        delay = max(0.0, begun + probe.initial_delay - clock())
        return outcomes(probe, self._prober.check, clock=clock, initial_delay=delay)

    def _pre_stop_seconds(self) -> float:
        hook = self._spec.get("lifecycle", {}).get("preStop", {})
        return float(hook.get("sleep", {}).get("seconds", 0))

    def _check_lifecycle(self) -> None:
        lifecycle = self._spec.get("lifecycle", {})
        if "postStart" in lifecycle or lifecycle.get("preStop", {"sleep": {}}).keys() != {"sleep"}:
            raise ContainerConfigError("local nodes run no lifecycle hook but preStop.sleep")

    def _show(self, **changes: Any) -> None:
        self._show_view(replace(self.view, **changes))

    def _show_view(self, view: ContainerView) -> None:
        if view != self.view:
            self.view = view
            self._changed()


@asynccontextmanager
async def _background(work: Awaitable[Any]) -> AsyncIterator[None]:
    """Run `work` beside the block and cancel it at the block's end."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()  # an error in the work is one of the block's
