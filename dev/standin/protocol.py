"""OpenAI requests, checked as vLLM checks them, and the JSON of its answers."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dev.standin.scheduler import FinishReason
from dev.standin.text import count_tokens, render_tokens

DEFAULT_COMPLETION_TOKENS = 16
"""`max_tokens` of /v1/completions when absent (OpenAI API reference)."""

Json = dict[str, Any]


class RequestError(Exception):
    """A refusal, in vLLM's error shape."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> Json:
        """Return the response's JSON."""
        return error_body(self.status, self.kind, str(self), self.param)


def error_body(status: int, kind: str, message: str, param: str | None = None) -> Json:
    """Return an error in vLLM's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A checked request of /v1/chat/completions or /v1/completions."""

    chat: bool
    model: str
    prompt_tokens: int
    max_tokens: int
    output_tokens: int
    """Tokens that will be generated."""
    finish_reason: FinishReason
    stream: bool
    include_usage: bool
    """End a stream with a usage event."""
    usage_in_every_event: bool


def parse_request(
    raw: bytes, *, chat: bool, default_model: str, max_model_len: int, natural_tokens: int, force_usage: bool
) -> GenerationRequest:
    """Check a request body; `natural_tokens` is where the text ends unless the request says otherwise.

    Raises RequestError for anything that vLLM answers with 400. The model's existence is not checked.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(f"JSON decode error: {error}") from error
    if not isinstance(body, dict):
        raise _bad("the body must be a JSON object")
    model = body.get("model") or default_model
    if not isinstance(model, str):
        raise _bad("Input should be a valid string", "model")
    if _integer(body, "n", 1) != 1:
        raise _bad("the stand-in generates one choice: n must be 1", "n")
    prompt_tokens = _count_chat(body) if chat else _count_prompt(body)
    max_tokens = _max_tokens(body, prompt_tokens, max_model_len, chat=chat)
    at_least = _integer(body, "min_tokens", 0, minimum=0)
    if at_least > max_tokens:
        raise _bad(f"min_tokens must be less than or equal to max_tokens={max_tokens}", "min_tokens")
    output_tokens = max_tokens
    if not _flag(body, "ignore_eos"):
        output_tokens = min(max_tokens, max(natural_tokens, at_least))
    stream = _flag(body, "stream")
    options = body.get("stream_options")
    if options is not None and not (stream and isinstance(options, dict)):
        raise _bad("Stream options can only be defined when `stream=True`.", "stream_options")
    return GenerationRequest(
        chat=chat,
        model=model,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        output_tokens=output_tokens,
        finish_reason=FinishReason.STOP if output_tokens < max_tokens else FinishReason.LENGTH,
        stream=stream,
        include_usage=force_usage or _flag(options or {}, "include_usage"),
        usage_in_every_event=_flag(options or {}, "continuous_usage_stats"),
    )


class Answer:
    """Builds the JSON of one answer: a whole one or the events of a stream."""

    def __init__(self, request: GenerationRequest, request_id: str) -> None:
        self._request = request
        self._head = {
            "id": f"{'chatcmpl' if request.chat else 'cmpl'}-{request_id}",
            "object": self._object(stream=request.stream),
            "created": int(time.time()),
            "model": request.model,
        }

    def whole(self, generated: int) -> Json:
        """Return the unary answer."""
        text = render_tokens(0, generated)
        choice: Json = {"index": 0}
        choice |= (
            {"message": {"role": "assistant", "content": text}} if self._request.chat else {"text": text}
        )
        choice |= {"logprobs": None, "finish_reason": self._request.finish_reason, "stop_reason": None}
        return {**self._head, "choices": [choice], "usage": self.usage(generated)}

    def role_event(self) -> Json:
        """Return a chat stream's first event, which carries the role and no token."""
        return self._event(
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}, 0
        )

    def event(self, start: int, end: int) -> Json:
        """Return the event with output tokens `start` to `end` (exclusive)."""
        text = render_tokens(start, end)
        last = end == self._request.output_tokens
        choice: Json = {"index": 0} | ({"delta": {"content": text}} if self._request.chat else {"text": text})
        choice |= {"logprobs": None, "finish_reason": self._request.finish_reason if last else None}
        return self._event(choice, end)

    def usage_event(self, generated: int) -> Json:
        """Return the event that ends a stream with its usage."""
        return {**self._head, "choices": [], "usage": self.usage(generated)}

    def usage(self, generated: int) -> Json:
        """Return the usage object."""
        prompt = self._request.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}

    def _event(self, choice: Json, generated: int) -> Json:
        event = {**self._head, "choices": [choice]}
        if self._request.usage_in_every_event:
            event["usage"] = self.usage(generated)
        return event

    def _object(self, *, stream: bool) -> str:
        if not self._request.chat:
            return "text_completion"
        return "chat.completion.chunk" if stream else "chat.completion"


def _bad(message: str, param: str | None = None) -> RequestError:
    return RequestError(400, "BadRequestError", message, param)


def _integer(body: Mapping[str, object], name: str, default: int, minimum: int = 1) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or value < minimum:
        raise _bad(f"{name} must be an integer of at least {minimum}, got {value!r}", name)
    return value


def _flag(body: Mapping[str, object], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise _bad(f"{name} must be true or false", name)
    return value


def _max_tokens(body: Mapping[str, object], prompt_tokens: int, max_model_len: int, *, chat: bool) -> int:
    left = max_model_len - prompt_tokens
    asked = _integer(body, "max_tokens", 0) or (min(DEFAULT_COMPLETION_TOKENS, left) if not chat else left)
    if chat:
        asked = _integer(body, "max_completion_tokens", asked)
    if left < 1 or asked > left:
        raise _bad(
            f"This model's maximum context length is {max_model_len} tokens. However, you requested "
            f"{max(asked, 0)} output tokens and your prompt contains {prompt_tokens} input tokens. Please "
            "reduce the length of the input prompt or the number of requested output tokens.",
            "input_tokens",
        )
    return asked


def _count_chat(body: Mapping[str, object]) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad("messages must be a non-empty list", "messages")
    return count_tokens(sum(_count_characters(message) for message in messages))


def _count_characters(message: object) -> int:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise _bad("a message must be an object with a role", "messages")
    content = message.get("content")
    if content is None:
        return 0
    if isinstance(content, str):
        return len(content)
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise _bad("content must be a string or a list of parts", "messages")
    return sum(len(str(part.get("text", ""))) for part in content)


def _count_prompt(body: Mapping[str, object]) -> int:
    prompt = body.get("prompt")
    # A list with one prompt in it is that prompt.
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return count_tokens(len(prompt))
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return len(prompt)
    raise _bad("prompt must be one non-empty string or list of token ids", "prompt")
