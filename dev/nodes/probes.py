"""Probes with the kubelet's semantics.

https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

USER_AGENT = "kube-probe/1.37"
"""The kubelet's, which servers filter from their logs."""


class UnsupportedProbeError(ValueError):
    """A probe of a kind that only a container runtime can run."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe. Times are in seconds; defaults are those of the Kubernetes API."""

    url: str | None
    """What to GET, or None for a probe that only connects to `address`."""
    address: tuple[str, int]
    headers: Mapping[str, str] = field(default_factory=dict)
    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_period: float | None = None
    """How long the container may take to end after this probe failed; None is the pod's own."""


def read_probe(manifest: Mapping[str, Any] | None, container: Mapping[str, Any], pod_ip: str) -> Probe | None:
    """Read a `v1` Probe of a container. Raises UnsupportedProbeError for `exec` and `grpc`."""
    if manifest is None:
        return None
    url = None
    headers: dict[str, str] = {}
    if http := manifest.get("httpGet"):
        address = (http.get("host") or pod_ip, _port_number(http["port"], container))
        scheme = http.get("scheme", "HTTP").lower()
        path = http.get("path", "/")
        url = f"{scheme}://{address[0]}:{address[1]}/{path.removeprefix('/')}"
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
        headers |= {header["name"]: header["value"] for header in http.get("httpHeaders", [])}
    elif tcp := manifest.get("tcpSocket"):
        address = (tcp.get("host") or pod_ip, _port_number(tcp["port"], container))
    else:
        kinds = ", ".join(sorted({"exec", "grpc"} & manifest.keys()))
        raise UnsupportedProbeError(f"local nodes run httpGet and tcpSocket probes only, not {kinds}")
    return Probe(
        url=url,
        address=address,
        headers=headers,
        initial_delay=manifest.get("initialDelaySeconds", 0),
        period=manifest.get("periodSeconds", 10),
        timeout=manifest.get("timeoutSeconds", 1),
        success_threshold=manifest.get("successThreshold", 1),
        failure_threshold=manifest.get("failureThreshold", 3),
        grace_period=manifest.get("terminationGracePeriodSeconds"),
    )


def _port_number(port: int | str, container: Mapping[str, Any]) -> int:
    if isinstance(port, int):
        return port
    for declared in container.get("ports", []):
        if declared.get("name") == port:
            return int(declared["containerPort"])
    if port.isdecimal():
        return int(port)
    raise UnsupportedProbeError(f"container {container['name']!r} has no port named {port!r}")


class Prober:
    """Runs probes. Every probe is a new connection, as the kubelet's are."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, ssl=False),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Release the connections."""
        await self._session.close()

    async def check(self, probe: Probe) -> bool:
        """Run the probe once; return whether it succeeded."""
        try:
            async with asyncio.timeout(probe.timeout):
                if probe.url is None:
                    _, writer = await asyncio.open_connection(*probe.address)
                    writer.close()
                    return True
                async with self._session.get(probe.url, headers=probe.headers) as response:
                    return 200 <= response.status < 400
        except (TimeoutError, OSError, aiohttp.ClientError):
            return False


async def outcomes(
    probe: Probe,
    check: Callable[[Probe], Awaitable[bool]],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    initial_delay: float | None = None,
) -> AsyncGenerator[bool, None]:
    """Yield True or False whenever that many like results in a row reach the probe's threshold.

    The first check comes after the initial delay, later ones at whole periods from it; a check that
    takes longer than a period skips the ones it covers, as a Go ticker does. `clock` is in seconds.
    """
    await sleep(probe.initial_delay if initial_delay is None else initial_delay)
    due = clock()
    last: bool | None = None
    run = 0
    while True:
        healthy = await check(probe)
        run = run + 1 if healthy == last else 1
        last = healthy
        if run >= (probe.success_threshold if healthy else probe.failure_threshold):
            yield healthy
        periods = max(1, int((clock() - due) / probe.period) + 1)
        due += periods * probe.period
        await sleep(max(0.0, due - clock()))
