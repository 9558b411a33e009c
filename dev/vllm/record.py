"""One life of a vLLM server, written down: from its start over answers and metrics to its drain."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

from dev.cluster.processes import ComponentError
from dev.vllm.server import SERVED_NAME, START_TIMEOUT_S, Server

PROMPT = "The operator places model 7"
LONG_TOKENS = 256
"""Output tokens of the stream that SIGTERM meets: 2 s and more on a CPU. A busy one has made 10 tokens a second, which
is still within the drain."""

COMPLETION = {"model": SERVED_NAME, "prompt": PROMPT, "max_tokens": 5, "ignore_eos": True}
CHAT = {
    "model": SERVED_NAME,
    "messages": [{"role": "user", "content": PROMPT}],
    "max_tokens": 5,
    "ignore_eos": True,
}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
"""As the gateway asks, whatever the client does: what is not told cannot be counted."""
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "completion": ("/v1/completions", COMPLETION),
    "chat": ("/v1/chat/completions", CHAT),
    "completion stream": ("/v1/completions", {**COMPLETION, **STREAM}),
    "chat stream": ("/v1/chat/completions", {**CHAT, **STREAM}),
    "chat stream, usage not asked for": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "unknown model": ("/v1/completions", {**COMPLETION, "model": "nobody"}),
    "too long": ("/v1/chat/completions", {**CHAT, "max_tokens": 1_000_000}),
    "no prompt": ("/v1/chat/completions", {"model": SERVED_NAME}),
}
"""Requests whose answers have a shape that is compared."""


@dataclass(slots=True)
class Answer:
    """A status, and the JSON objects of the body: one, or the events of a stream."""

    status: int
    objects: list[Any]
    ended: bool = True
    """Whether a stream ended with `[DONE]`."""


@dataclass(slots=True)
class Record:
    """What was seen of one server."""

    health: list[str] = field(default_factory=list)
    """What the health check said while it started: a status or `refused`, each only where it differs from before."""
    first: int = 0
    """Status of a request sent at once when the health check had passed for the first time."""
    models: Answer | None = None
    version: Answer | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    metrics_before: str = ""
    metrics: str = ""
    """The page after the answers."""
    drained: Answer | None = None
    """The stream that was running at SIGTERM."""
    late: list[str] = field(default_factory=list)
    """What new requests were told while it drained: a status or `refused`, each only where it differs."""
    late_health: list[str] = field(default_factory=list)
    """What the health check said meanwhile, in the same way."""
    exit_seconds: float = 0.0
    """From SIGTERM to the end of the process."""
    exit_code: int | None = None


def shape(value: Any) -> Any:
    """Return the keys and the JSON types of a value, without its content."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        shapes = [shape(item) for item in value]
        return [item for index, item in enumerate(shapes) if item not in shapes[:index]]
    return "null" if value is None else {str: "string", bool: "boolean"}.get(type(value), "number")


def record_life(server: Server, requests: dict[str, tuple[str, dict[str, Any]]]) -> Record:
    """Start to end: wait until it is ready, send the requests, read the metrics, stop it during a stream."""
    record = Record()
    # No proxy of the surroundings, no kept connection: a refused one must be seen.
    limits = httpx2.Limits(max_keepalive_connections=0)
    with httpx2.Client(base_url=server.url, timeout=60, trust_env=False, limits=limits) as client:
        _wait_ready(server, client, record)
        record.first = client.post("/v1/completions", json=COMPLETION).status_code
        record.metrics_before = client.get("/metrics").text
        record.models = _ask(client, "/v1/models")
        record.version = _ask(client, "/version")
        record.answers = {name: ask(client, path, body) for name, (path, body) in requests.items()}
        record.metrics = client.get("/metrics").text
        _drain(server, client, record)
    return record


def _wait_ready(server: Server, client: httpx2.Client, record: Record) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while record.health[-1:] != ["200"]:
        if not server.process.running or time.monotonic() > deadline:
            raise ComponentError(f"vLLM does not serve\n{server.process.tail()}")
        _note(record.health, _status(client, "/health"))
        time.sleep(0.1)


def _note(seen: list[str], what: str) -> None:
    if seen[-1:] != [what]:
        seen.append(what)


def _status(client: httpx2.Client, path: str, body: dict[str, Any] | None = None) -> str:
    try:
        answer = client.get(path) if body is None else client.post(path, json=body)
    except httpx2.ConnectError:
        return "refused"
    except httpx2.HTTPError as error:
        return type(error).__name__
    return str(answer.status_code)


def _ask(client: httpx2.Client, path: str) -> Answer:
    answer = client.get(path)
    return Answer(answer.status_code, [answer.json()])


def ask(client: httpx2.Client, path: str, body: dict[str, Any]) -> Answer:
    """Send a request and read all of the answer."""
    with client.stream("POST", path, json=body) as response:
        return _read(response, response.iter_lines())


def _read(response: httpx2.Response, lines: Any) -> Answer:
    if not response.headers["content-type"].startswith("text/event-stream"):
        response.read()
        return Answer(response.status_code, [response.json()])
    events: list[str] = []
    # A stream that breaks off has no end marker.
    with suppress(httpx2.RemoteProtocolError):
        events += (line.removeprefix("data: ") for line in lines if line.startswith("data: "))
    ended = events[-1:] == ["[DONE]"]
    return Answer(response.status_code, [json.loads(event) for event in events if event != "[DONE]"], ended)


def _drain(server: Server, client: httpx2.Client, record: Record) -> None:
    body = {**COMPLETION, **STREAM, "max_tokens": LONG_TOKENS}
    with client.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        began = time.monotonic()
        server.process.terminate()
        for _ in range(20):
            _note(record.late, _status(client, "/v1/completions", COMPLETION))
            _note(record.late_health, _status(client, "/health"))
            time.sleep(0.1)
        record.drained = _read(response, lines)
    record.exit_code = server.process.wait(server.grace_seconds)
    record.exit_seconds = time.monotonic() - began
