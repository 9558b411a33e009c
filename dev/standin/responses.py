"""/v1/responses: text answers without state, whole and as the typed events of a stream.

What vLLM does without a store: nothing can be read again later, and `previous_response_id` is unknown. Shapes:
OpenAI API reference, "Responses" and "Streaming events".
"""

import json
import time
from collections.abc import Mapping

from dev.standin.content import parse_format
from dev.standin.errors import Json, RequestError, bad_request, read_flag, read_integer
from dev.standin.protocol import (
    GenerationRequest,
    count_characters,
    finish_reason,
    parse_json,
    parse_model,
)
from dev.standin.scheduler import FinishReason
from dev.standin.text import count_tokens


def parse_response_request(
    raw: bytes, *, default_model: str, max_model_len: int, natural_tokens: int
) -> GenerationRequest:
    """Check a request body; `natural_tokens` is where prose ends unless the request says otherwise.

    Raises RequestError for anything that vLLM refuses. The model's existence is not checked.
    """
    body = parse_json(raw)
    previous = body.get("previous_response_id")
    if previous is not None:
        raise RequestError(404, "NotFoundError", f"Response with id {previous!r} not found.", "response_id")
    if body.get("tools"):
        raise bad_request("the stand-in calls tools in /v1/chat/completions only", "tools")
    text = body.get("text")
    content = parse_format(text.get("format") if isinstance(text, dict) else None, "text.format")
    prompt_tokens = _count_input(body)
    left = max_model_len - prompt_tokens
    max_tokens = read_integer(body, "max_output_tokens", left)
    if left < 1 or max_tokens > left:
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens.", "max_output_tokens"
        )
    output_tokens = min(max_tokens, content.length(natural_tokens))
    return GenerationRequest(
        chat=True,
        model=parse_model(body, default_model),
        prompt_tokens=prompt_tokens,
        choices=1,
        content=content,
        max_tokens=max_tokens,
        output_tokens=output_tokens,
        finish_reason=finish_reason(content, output_tokens, max_tokens),
        stream=read_flag(body, "stream"),
        include_usage=True,
        usage_in_every_event=False,
        tells_cached=False,
    )


class ResponsesAnswer:
    """Builds the JSON of one answer: a whole one or the events of a stream."""

    END = b""
    """What ends a stream after its last event."""

    def __init__(self, request: GenerationRequest, request_id: str) -> None:
        self._request = request
        self._created = int(time.time())
        self._id = f"resp_{request_id}"
        self._item = f"msg_{request_id}"
        self._number = 0

    def whole(self) -> Json:
        """Return the unary answer."""
        return self._response(complete=True)

    def first_events(self, index: int) -> list[Json]:
        """Return the events before the first token."""
        at = {"output_index": index}
        part = {"content_index": 0, "item_id": self._item, **at}
        return [
            self._event("response.created", response=self._response(complete=False)),
            self._event("response.in_progress", response=self._response(complete=False)),
            self._event("response.output_item.added", item=self._message("in_progress", []), **at),
            self._event("response.content_part.added", part=_text(""), **part),
        ]

    def event(self, index: int, start: int, end: int, generated: int) -> Json:  # noqa: ARG002 - as other answers
        """Return the event with output tokens `start` to `end` (exclusive)."""
        return self._event(
            "response.output_text.delta",
            item_id=self._item,
            output_index=index,
            content_index=0,
            delta=self._request.content.render(start, end),
            logprobs=[],
        )

    def last_events(self, generated: int) -> list[Json]:  # noqa: ARG002 - as other answers
        """Return the events after the last token."""
        text = self._request.content.render(0, self._request.output_tokens)
        at = {"output_index": 0}
        part = {"content_index": 0, "item_id": self._item, **at}
        kind = "completed" if self._complete else "incomplete"
        return [
            self._event("response.output_text.done", text=text, logprobs=[], **part),
            self._event("response.content_part.done", part=_text(text), **part),
            self._event("response.output_item.done", item=self._message(kind, [_text(text)]), **at),
            self._event(f"response.{kind}", response=self._response(complete=True)),
        ]

    @staticmethod
    def encode(event: Json) -> bytes:
        """Return an event as it is sent."""
        return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()

    @property
    def _complete(self) -> bool:
        return self._request.finish_reason is FinishReason.STOP

    def _event(self, kind: str, **fields: object) -> Json:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event

    def _message(self, status: str, content: list[Json]) -> Json:
        return {
            "id": self._item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _response(self, *, complete: bool) -> Json:
        request = self._request
        status = "in_progress" if not complete else "completed" if self._complete else "incomplete"
        text = request.content.render(0, request.output_tokens)
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None,
            "metadata": None,
            "model": request.model,
            "output": [self._message(status, [_text(text)])] if complete else [],
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": self._usage() if complete else None,
        }

    def _usage(self) -> Json:
        prompt, output = self._request.prompt_tokens, self._request.output_tokens
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + output,
        }


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": []}


def _count_input(body: Mapping[str, object]) -> int:
    given, instructions = body.get("input"), body.get("instructions") or ""
    if not isinstance(instructions, str):
        raise bad_request("instructions must be a string", "instructions")
    if isinstance(given, str) and given:
        return count_tokens(len(instructions) + len(given))
    if not isinstance(given, list) or not given:
        raise bad_request("input must be a non-empty string or list of items", "input")
    return count_tokens(len(instructions) + sum(count_characters(item, "input") for item in given))
