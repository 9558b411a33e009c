"""What is sent and answered, byte for byte: load generator, upstream and checks build the same bodies.

Only the standard library: the processes of a measurement import this, and should not carry more than they need.
"""

import json
from functools import cache

LOOPBACK = "127.0.0.1"
PATH = "/v1/chat/completions"

CHAT = "chat"
"""Kind of a request of 2 KB: a question with a short system prompt."""
PROMPT = "prompt"
"""Kind of a request of 300 KB: about 75,000 tokens, the long prompt that gateways are compared at
(https://github.com/llm-d/llm-d-router/issues/1109 uses 220 KB)."""
STREAM = "stream"
"""Kind of a request of 2 KB whose answer is streamed."""

SIZES = {CHAT: 2048, PROMPT: 300 * 1024, STREAM: 2048}
"""Bytes of a body with a model name of NAME_BYTES."""
NAME_BYTES = 12
MAX_NAME = 64
"""Bytes of the longest model name."""

STREAM_EVENTS = 100
"""Events with content in one streamed answer."""
STREAM_INTERVAL = 0.010
"""Seconds between two of them: 100 tokens per second, the pace of a fast engine with one request."""

_MESSAGE_BYTES = 7500
"""Text of one message of a long prompt: a conversation of 40 turns."""
_LINE_WORDS = 14
_QUOTE_EVERY = 5
"""Lines between two with quotes in them, which JSON escapes."""
_PHRASE = (
    "the request waits until a replica of this model is ready and then goes where the load is least while every "
    "other byte of its body stays as the client has sent it because an engine must see what was asked for"
)
_WORDS = _PHRASE.split()


def client_name(index: int) -> str:
    """Return the name that clients send for a model."""
    return f"m{index}"


def engine_name(name: str) -> str:
    """Return the name that the engine answers to: longer, so that a rewrite changes the length of the body."""
    return f"engine/{name}"


@cache
def head(kind: str) -> bytes:
    """Return a body up to the model's name.

    The model comes last, as OpenAI's Python client writes it (`messages` first), so that nothing can be decided before
    the whole body was read.
    """
    size = SIZES[kind]
    count = max(1, size // _MESSAGE_BYTES)
    texts = [_text(seed, size // count) for seed in range(count)]
    spare = size - NAME_BYTES - len(_tail()) - len(_head(kind, texts))
    while spare < 0:
        # Escapes make a text longer than it was asked for.
        texts[-1] = texts[-1][:spare]
        spare = size - NAME_BYTES - len(_tail()) - len(_head(kind, texts))
    texts[-1] += "x" * spare
    return _head(kind, texts)


def body(kind: str, name: str) -> bytes:
    """Return the body of a request for a model."""
    return head(kind) + name.encode() + _tail()


def request(kind: str, name: str, host: str, key: str = "") -> bytes:
    """Return a whole HTTP/1.1 request on a connection that stays open, with an API key if there is one."""
    content = body(kind, name)
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\naccept: */*\r\n"
        f"{authorization}content-length: {len(content)}\r\n\r\n"
    ).encode() + content


def recognise(received: bytes | bytearray, first: int = 0, last: int | None = None) -> tuple[str, str] | None:
    """Return kind and model name of a body that is one of ours to the last byte, else None.

    The body is what stands between `first` and `last`; long ones are compared in place.
    """
    tail, end = _tail(), len(received) if last is None else last
    for kind in SIZES:
        start = head(kind)
        if len(start) < end - first <= len(start) + MAX_NAME + len(tail) and received.startswith(
            start, first
        ):
            if not received.endswith(tail, first, end):
                return None
            return kind, bytes(received[first + len(start) : end - len(tail)]).decode()
    return None


@cache
def answer(name: str) -> bytes:
    """Return the body of a unary answer: the model that the engine was asked for, and its usage."""
    content = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": 1764500000,
        "model": name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _text(7, 600)},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 512, "completion_tokens": 128, "total_tokens": 640},
    }
    return json.dumps(content, separators=(",", ":")).encode()


def event(name: str, index: int, nanoseconds: int) -> bytes:
    """Return one event of a streamed answer; its content carries its place and the time at which it was sent."""
    return _event_start(name) + f"{index:06d} {nanoseconds:020d}".encode() + _EVENT_END


def sent_at(name: str, received: bytes) -> int:
    """Return the time that an event carries. Raises ValueError if there is none."""
    start = len(_event_start(name)) + len("000000 ")
    return int(received[start : start + 20])


@cache
def last_events(name: str) -> bytes:
    """Return the end of a streamed answer: usage, and the mark that nothing follows."""
    usage = {"prompt_tokens": 512, "completion_tokens": STREAM_EVENTS, "total_tokens": 512 + STREAM_EVENTS}
    content = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": name, "choices": []}
    return (
        b"data: "
        + json.dumps({**content, "usage": usage}, separators=(",", ":")).encode()
        + b"\n\ndata: [DONE]\n\n"
    )


@cache
def _event_start(name: str) -> bytes:
    return (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1764500000,'
        f'"model":"{name}","choices":[{{"index":0,"delta":{{"content":"'
    ).encode()


_EVENT_END = b'"},"logprobs":null,"finish_reason":null}]}\n\n'


def _head(kind: str, texts: list[str]) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": roles[turn % 2], "content": text} for turn, text in enumerate(texts)]
    # Who does not ask for the usage need not get it.
    streamed = (
        {"stream": True, "stream_options": {"include_usage": True}} if kind == STREAM else {"stream": False}
    )
    rest = {"max_tokens": 128, "temperature": 0.7, **streamed, "model": ""}
    return json.dumps({"messages": messages, **rest}, separators=(",", ":")).encode()[: -len(_tail())]


def _tail() -> bytes:
    return b'"}'


def _text(seed: int, size: int) -> str:
    """Return plain text with line breaks and now and then quotes, always the same for one seed."""
    lines: list[str] = []
    written, word = 0, seed * 7
    while written < size:
        words = [_WORDS[(word + step * step) % len(_WORDS)] for step in range(_LINE_WORDS)]
        if len(lines) % _QUOTE_EVERY == 0:
            words[3] = f'"{words[3]}"'
        lines.append(" ".join(words))
        written += len(lines[-1]) + 1
        word += 5
    return "\n".join(lines)[:size]
