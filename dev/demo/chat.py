"""One chat request, as an application would send it."""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What came back."""

    status: int
    text: str
    """The model's words, or the error's JSON."""
    wait_s: float
    completion_tokens: int
    error: str | None = None
    """Why this is no answer, if it is none."""


def chat_body(model: str, prompt: str, max_tokens: int, stop: str) -> dict[str, object]:
    """Return a chat request whose answer is the same every time."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stop": [stop],
        "temperature": 0,
    }


async def ask(url: str, body: Mapping[str, object], *, timeout_s: float) -> ChatAnswer:
    """Send one chat request and return the answer; a failure is an answer with `error` set."""
    began = time.monotonic()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.post(f"{url}/v1/chat/completions", json=dict(body)) as response,
        ):
            if response.status != 200:
                text = await response.text(errors="replace")
                return ChatAnswer(
                    response.status, text, time.monotonic() - began, 0, f"HTTP {response.status}"
                )
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        return ChatAnswer(0, "", time.monotonic() - began, 0, f"{type(error).__name__}: {error}")
    text = answer["choices"][0]["message"]["content"].strip()
    tokens = int(answer.get("usage", {}).get("completion_tokens", 0))
    return ChatAnswer(200, text, time.monotonic() - began, tokens, None if text else "the answer is empty")


def curl_line(url: str, body: Mapping[str, object]) -> str:
    """Return the same request for a person to paste."""
    return shlex.join(
        [
            "curl",
            "-s",
            f"{url}/v1/chat/completions",
            "-H",
            "content-type: application/json",
            "-d",
            json.dumps(body),
        ]
    )
