"""The demo's two kinds of traffic: one chat request to a sleeping model, and a recorded trace."""

import asyncio
import time
from collections.abc import Iterable

import aiohttp

from dev.demo.chat import ChatAnswer, ask, chat_body
from dev.demo.kube import NotReadyError
from dev.demo.observer import Observer
from dev.demo.settings import (
    CHAT_MODEL,
    CHAT_PROMPT,
    CHAT_STOP,
    CHAT_TIMEOUT_S,
    CHAT_TOKENS,
    TRACE_DURATION_S,
    TRACE_START_S,
    DemoSettings,
)
from dev.loadgen import PlannedRequest, plan_requests
from dev.traces import read_trace, select_window

POLL_INTERVAL_S = 0.25
"""Seconds between looks at the gateway's list of models."""

CHAT_BODY = chat_body(CHAT_MODEL, CHAT_PROMPT, CHAT_TOKENS, CHAT_STOP)
"""The request to the sleeping model."""


def plan_traffic(settings: DemoSettings) -> list[PlannedRequest]:
    """Return the trace's requests at the times of this run."""
    window = select_window(read_trace(), TRACE_START_S, TRACE_DURATION_S)
    return plan_requests(window, speed=settings.speed, scale_rate=settings.scale_rate)


async def wait_for_models(url: str, names: Iterable[str], timeout_s: float) -> None:
    """Wait until the gateway lists these models, asleep or not. Raises NotReadyError."""
    missing = set(names)
    deadline = time.monotonic() + timeout_s
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while missing:
            if time.monotonic() > deadline:
                raise NotReadyError(
                    f"the gateway does not list {', '.join(sorted(missing))} after {timeout_s:.0f} s"
                )
            try:
                async with session.get(f"{url}/v1/models") as response:
                    listed = await response.json() if response.ok else {}
            except (aiohttp.ClientError, TimeoutError):
                listed = {}
            missing -= {model["id"] for model in listed.get("data", [])}
            await asyncio.sleep(POLL_INTERVAL_S)


async def chat_with_sleeper(url: str, observer: Observer) -> tuple[ChatAnswer, bool]:
    """Ask the sleeping model; return its answer, and whether it really slept."""
    view = observer.latest.model(CHAT_MODEL)
    asleep = view is not None and view.ready == 0 and view.desired == 0
    answer = await ask(url, CHAT_BODY, timeout_s=CHAT_TIMEOUT_S)
    return answer, asleep
