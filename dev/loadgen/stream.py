"""Reads the server-sent events of one streamed completion, and nothing more of them than is needed."""

import json
from dataclasses import dataclass, field

TAIL_BYTES = 16_384
"""How much of the end of a stream is kept: the usage event is the last before `[DONE]`, and a few hundred
bytes long. Events before it are counted by nobody, so they are not parsed: this is what keeps hundreds of
streams cheap."""


@dataclass(slots=True)
class StreamTail:
    """The end of a stream of server-sent events."""

    _tail: bytearray = field(default_factory=bytearray)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._tail += chunk
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    def usage(self) -> tuple[int, int]:
        """Return prompt and completion tokens of the finished stream.

        Raises StreamError if the stream is cut short, carries an error, or reports no usage.
        """
        payloads = [
            line[len(b"data:") :].strip()
            for line in bytes(self._tail).splitlines()
            if line.startswith(b"data:")
        ]
        if not payloads or payloads[-1] != b"[DONE]":
            raise StreamError("stream ended without [DONE]" + _quote_error(payloads))
        for payload in reversed(payloads[:-1]):
            event = _parse(payload)
            if "error" in event:
                raise StreamError(f"stream carries an error: {event['error']}")
            usage = event.get("usage")
            if isinstance(usage, dict):
                return int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        raise StreamError("stream reports no usage")


class StreamError(ValueError):
    """The stream is not a complete answer; the message says why."""


def _parse(payload: bytes) -> dict[str, object]:
    try:
        event = json.loads(payload)
    except ValueError:
        # The oldest kept event may have lost its beginning.
        return {}
    return event if isinstance(event, dict) else {}


def _quote_error(payloads: list[bytes]) -> str:
    if payloads and "error" in (event := _parse(payloads[-1])):
        return f": {event['error']}"
    return ""
