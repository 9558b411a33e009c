"""OpenAI requests, checked as vLLM checks them, and the JSON of its answers."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from dev.standin.content import PROSE, Content, parse_content
from dev.standin.errors import Json, bad_request, read_flag, read_integer
from dev.standin.scheduler import FinishReason
from dev.standin.text import count_tokens

DEFAULT_COMPLETION_TOKENS = 16
"""`max_tokens` of /v1/completions when absent (OpenAI API reference)."""

LARGEST_N = 128
"""Most choices of one request (OpenAI API reference)."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A checked request of /v1/chat/completions or /v1/completions."""

    chat: bool
    model: str
    prompt_tokens: int
    choices: int
    """Answers to generate (`n`)."""
    content: Content
    max_tokens: int
    """Limit of one choice."""
    output_tokens: int
    """Tokens that will be generated for one choice."""
    finish_reason: FinishReason
    stream: bool
    include_usage: bool
    """End a stream with a usage event."""
    usage_in_every_event: bool
    tells_cached: bool
    """Whether the usage at the end says how much of the prompt was cached."""


def parse_json(raw: bytes) -> Json:
    """Return the JSON object of a body. Raises RequestError."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"JSON decode error: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    return body


def parse_model(body: Mapping[str, object], default: str) -> str:
    """Return the model that is asked for; its existence is not checked. Raises RequestError."""
    model = body.get("model") or default
    if not isinstance(model, str):
        raise bad_request("Input should be a valid string", "model")
    return model


def parse_request(
    raw: bytes,
    *,
    chat: bool,
    default_model: str,
    max_model_len: int,
    natural_tokens: int,
    force_usage: bool,
    tells_cached: bool,
) -> GenerationRequest:
    """Check a request body; `natural_tokens` is where prose ends unless the request says otherwise.

    Raises RequestError for anything that vLLM answers with 400. The model's existence is not checked.
    """
    body = parse_json(raw)
    choices = read_integer(body, "n", 1)
    if choices > LARGEST_N:
        raise bad_request(f"n must be at most {LARGEST_N}, got {choices}", "n")
    prompt_tokens = _count_chat(body) if chat else _count_prompt(body)
    content = parse_content(body) if chat else PROSE
    max_tokens = _max_tokens(body, prompt_tokens, max_model_len, chat=chat)
    at_least = read_integer(body, "min_tokens", 0, minimum=0)
    if at_least > max_tokens:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={max_tokens}", "min_tokens")
    output_tokens = max_tokens
    if content.text is not None or not read_flag(body, "ignore_eos"):
        output_tokens = min(max_tokens, max(content.length(natural_tokens), at_least))
    stream = read_flag(body, "stream")
    options = body.get("stream_options")
    if options is not None and not (stream and isinstance(options, dict)):
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    # As vLLM does (`should_include_usage`): forced usage is in every event, whatever the request says.
    asked = read_flag(options or {}, "include_usage")
    continuous = asked and read_flag(options or {}, "continuous_usage_stats")
    return GenerationRequest(
        chat=chat,
        model=parse_model(body, default_model),
        prompt_tokens=prompt_tokens,
        choices=choices,
        content=content,
        max_tokens=max_tokens,
        output_tokens=output_tokens,
        finish_reason=finish_reason(content, output_tokens, max_tokens),
        stream=stream,
        include_usage=force_usage or asked,
        usage_in_every_event=force_usage or continuous,
        tells_cached=tells_cached,
    )


def finish_reason(content: Content, output_tokens: int, max_tokens: int) -> FinishReason:
    """Return how the text ends: one that is complete has stopped, even with its last token allowed."""
    complete = output_tokens < max_tokens if content.text is None else output_tokens >= content.length(0)
    return FinishReason.STOP if complete else FinishReason.LENGTH


class Answer:
    """Builds the JSON of one answer: a whole one or the events of a stream."""

    END = b"data: [DONE]\n\n"
    """What ends a stream after its last event."""

    def __init__(self, request: GenerationRequest, request_id: str) -> None:
        self._request = request
        self._id = request_id
        self._head = {
            "id": f"{'chatcmpl' if request.chat else 'cmpl'}-{request_id}",
            "object": self._object(stream=request.stream),
            "created": int(time.time()),
            "model": request.model,
        }

    def whole(self) -> Json:
        """Return the unary answer."""
        choices = [self._choice(index) for index in range(self._request.choices)]
        return {
            **self._head,
            "choices": choices,
            "usage": self._final_usage(self._request.choices * self._request.output_tokens),
        }

    def first_events(self, index: int) -> list[Json]:
        """Return the events before the first token of a choice: in a chat one with the role."""
        if not self._request.chat:
            return []
        choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return [self._event(choice, 0)]

    def event(self, index: int, start: int, end: int, generated: int) -> Json:
        """Return the event with output tokens `start` to `end` (exclusive) of a choice.

        `generated` is the tokens of all choices so far.
        """
        text = self._request.content.render(start, end)
        last = end == self._request.output_tokens
        choice: Json = {"index": index}
        if self._request.content.tool is not None:
            call = self._call(index, text) if start == 0 else {"function": {"arguments": text}}
            choice |= {"delta": {"tool_calls": [{"index": 0, **call}]}}
        else:
            choice |= {"delta": {"content": text}} if self._request.chat else {"text": text}
        choice |= {"logprobs": None, "finish_reason": self._finish_reason() if last else None}
        return self._event(choice, generated)

    def last_events(self, generated: int) -> list[Json]:
        """Return the events after the last token: the usage, if it was asked for."""
        if not self._request.include_usage:
            return []
        return [{**self._head, "choices": [], "usage": self._final_usage(generated)}]

    @staticmethod
    def encode(event: Json) -> bytes:
        """Return an event as it is sent."""
        return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"

    def _final_usage(self, generated: int) -> Json:
        """Return the usage object of a whole answer. Nothing of a prompt is ever found in a cache."""
        usage = self._usage(generated)
        if self._request.tells_cached:
            # Only chats tell what went into the cache.
            created = {"created_cache_tokens": 0} if self._request.chat else {}
            usage["prompt_tokens_details"] = {"cached_tokens": 0, **created}
        return usage

    def _usage(self, generated: int) -> Json:
        """Return the usage object of an event."""
        prompt = self._request.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}

    def _choice(self, index: int) -> Json:
        text = self._request.content.render(0, self._request.output_tokens)
        choice: Json = {"index": index}
        if self._request.content.tool is not None:
            calls = [self._call(index, text)]
            choice |= {"message": {"role": "assistant", "content": None, "tool_calls": calls}}
        elif self._request.chat:
            choice |= {"message": {"role": "assistant", "content": text}}
        else:
            choice |= {"text": text}
        return choice | {"logprobs": None, "finish_reason": self._finish_reason(), "stop_reason": None}

    def _call(self, index: int, arguments: str) -> Json:
        function = {"name": self._request.content.tool, "arguments": arguments}
        return {"id": f"chatcmpl-tool-{self._id}-{index}", "type": "function", "function": function}

    def _finish_reason(self) -> str:
        content, reason = self._request.content, self._request.finish_reason
        called = content.tool is not None and not content.forced and reason is FinishReason.STOP
        return "tool_calls" if called else reason.value

    def _event(self, choice: Json, generated: int) -> Json:
        event = {**self._head, "choices": [choice]}
        if self._request.usage_in_every_event:
            event["usage"] = self._usage(generated)
        return event

    def _object(self, *, stream: bool) -> str:
        if not self._request.chat:
            return "text_completion"
        return "chat.completion.chunk" if stream else "chat.completion"


def _max_tokens(body: Mapping[str, object], prompt_tokens: int, max_model_len: int, *, chat: bool) -> int:
    left = max_model_len - prompt_tokens
    asked = read_integer(body, "max_tokens", 0) or (
        min(DEFAULT_COMPLETION_TOKENS, left) if not chat else left
    )
    if chat:
        asked = read_integer(body, "max_completion_tokens", asked)
    if left < 1 or asked > left:
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens. However, you requested "
            f"{max(asked, 0)} output tokens and your prompt contains {prompt_tokens} input tokens. Please "
            "reduce the length of the input prompt or the number of requested output tokens.",
            "input_tokens",
        )
    return asked


def _count_chat(body: Mapping[str, object]) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a non-empty list", "messages")
    # The chat template writes the tools into the prompt.
    tools = len(json.dumps(body["tools"])) if body.get("tools") else 0
    return count_tokens(tools + sum(count_characters(message, "messages") for message in messages))


def count_characters(message: object, param: str) -> int:
    """Return the characters of a message of a conversation. Raises RequestError."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise bad_request("a message must be an object with a role", param)
    content = message.get("content")
    if content is None:
        return 0
    if isinstance(content, str):
        return len(content)
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise bad_request("content must be a string or a list of parts", param)
    return sum(len(str(part.get("text", ""))) for part in content)


def _count_prompt(body: Mapping[str, object]) -> int:
    prompt = body.get("prompt")
    # A list with one prompt in it is that prompt.
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return count_tokens(len(prompt))
    if is_token_list(prompt):
        return len(prompt)
    raise bad_request("prompt must be one non-empty string or list of token ids", "prompt")


def is_token_list(given: object) -> TypeGuard[list[int]]:
    """Tell whether a prompt or an input is given as token numbers."""
    return isinstance(given, list) and bool(given) and all(type(token) is int for token in given)
