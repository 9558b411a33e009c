"""Run the real Envoy as a process, for tests and the demo."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from dev.cluster.processes import free_ports
from dev.envoy.binary import envoy_binary
from modelyard.render.envoy.bootstrap import BootstrapSettings, bootstrap
from modelyard.render.envoy.control_plane import ControlPlaneTls, secret_files

LOOPBACK = "127.0.0.1"

START_SECONDS = 60.0
"""Envoy waits at most 15 s for its first resources before it opens its listeners (`initial_fetch_timeout`), and takes
longer than usual to start where the processors have other work."""

STOP_SECONDS = 5.0
"""How long Envoy gets to end after SIGTERM."""

POLL_SECONDS = 0.02
"""How often readiness is asked for."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on and that nobody else was given lately (`free_ports`)."""
    return free_ports(1)[0]


def write_secret_files(tls: ControlPlaneTls) -> None:
    """Write what `modelyard bootstrap --xds-tls` writes beside the bootstrap."""
    for path, content in secret_files(tls).items():
        Path(path).write_text(json.dumps(content, indent=1), encoding="utf-8")


@dataclass(slots=True)
class EnvoyProcess:
    """One Envoy, from the start of its process until it is stopped; an asynchronous context manager.

    The listener's port comes with the resources of the ADS server (`GatewaySettings.listener_port`); it is given here
    only so that `url` is right. Several Envoys may share it: the kernel spreads connections over them.
    """

    folder: Path
    """Where bootstrap and log are written."""
    xds_port: int
    listener_port: int
    node_id: str = "envoy-1"
    listener_address: str = LOOPBACK
    xds_address: str = LOOPBACK
    xds_tls: ControlPlaneTls | None = None
    """None: the operator is reached without TLS."""
    concurrency: int = 1
    """Worker threads."""
    drain_seconds: int = 1
    """How long it serves on at least when it is to leave: here nobody needs to hear of it first."""
    patience_seconds: int = 600
    """How long it waits then for an operator that does not answer: one starts slowly on a busy machine."""
    stats_port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    _process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"http://{self.listener_address}:{self.listener_port}"

    @property
    def stats_url(self) -> str:
        """Where the counters are read."""
        return f"http://{LOOPBACK}:{self.stats_port}"

    @property
    def log_file(self) -> Path:
        """What Envoy wrote to its standard error."""
        return self.folder / f"{self.node_id}.log"

    @property
    def pid(self) -> int:
        """Process id. Raises RuntimeError if the process was not started."""
        if self._process is None:
            raise RuntimeError("Envoy was not started")
        return self._process.pid

    async def start(self) -> None:
        """Start the process; returns at once, before it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = BootstrapSettings(
            control_plane_host=self.xds_address,
            control_plane_port=self.xds_port,
            control_plane_tls=self.xds_tls,
            node_id=self.node_id,
            stats_address=LOOPBACK,
            stats_port=self.stats_port,
            admin_port=self.admin_port,
            drain_seconds=self.drain_seconds,
            patience_seconds=self.patience_seconds,
        )
        if self.xds_tls is not None:
            write_secret_files(self.xds_tls)
        config = self.folder / f"{self.node_id}.json"
        config.write_text(json.dumps(bootstrap(settings), indent=1), encoding="utf-8")
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(envoy_binary()),
                "--config-path", str(config),
                "--concurrency", str(self.concurrency),
                "--disable-hot-restart",
                "--log-level", "warning",
                stdout=log,
                stderr=log,
            )  # fmt: skip

    async def wait_ready(self, timeout: float = START_SECONDS) -> None:  # noqa: ASYNC109
        """Wait until Envoy has its resources and answers.

        Raises RuntimeError if it ends before, TimeoutError if it takes longer than `timeout` seconds.
        """
        async with asyncio.timeout(timeout), aiohttp.ClientSession() as session:
            while not await self._is_ready(session):
                if self._process is None or self._process.returncode is not None:
                    raise RuntimeError(f"Envoy ended: {self.log_file.read_text(encoding='utf-8')[-2000:]}")
                await asyncio.sleep(POLL_SECONDS)

    async def stop(self) -> None:
        """End the process and wait for it."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def kill(self) -> None:
        """End the process without any notice, as a crash does."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def __aenter__(self) -> Self:
        """Start and wait until ready."""
        await self.start()
        try:
            await self.wait_ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.stats_url}/ready") as reply:
                return reply.status == 200
        except aiohttp.ClientError:
            return False
