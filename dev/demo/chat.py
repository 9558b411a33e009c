"""One chat request, as an application would send it."""

import time
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


async def ask(url: str, model: str, prompt: str, *, max_tokens: int, timeout_s: float) -> ChatAnswer:
    """Send one chat request and return the answer; a failure is an answer with `error` set."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    began = time.monotonic()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.post(f"{url}/v1/chat/completions", json=body) as response,
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


def curl_line(url: str, model: str) -> str:
    """Return the same request for a person to paste."""
    return (
        f"curl -s {url}/v1/chat/completions -H 'content-type: application/json' "
        f"""-d '{{"model": "{model}", "max_tokens": 60, "messages": [{{"role": "user", "content":
        "Hello!"}}]}}'"""
    )
