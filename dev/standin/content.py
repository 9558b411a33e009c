"""What an answer says: prose, JSON after a schema, or a tool call."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from dev.standin.errors import Json, bad_request
from dev.standin.json_schema import example
from dev.standin.text import count_tokens, cut_tokens, render_tokens


@dataclass(frozen=True, slots=True)
class Content:
    """What every choice of an answer says."""

    text: str | None = None
    """A text that ends by itself; None: prose that goes on until a limit."""
    tool: str | None = None
    """The function that is called with `text` as its arguments."""
    forced: bool = False
    """Whether the client named the function: `finish_reason` is then `stop` (OpenAI API reference)."""

    def length(self, natural_tokens: int) -> int:
        """Return the tokens after which the text ends by itself."""
        return natural_tokens if self.text is None else count_tokens(len(self.text))

    def render(self, start: int, end: int) -> str:
        """Return the text of output tokens `start` to `end` (exclusive)."""
        return render_tokens(start, end) if self.text is None else cut_tokens(self.text, start, end)


PROSE = Content()
"""The answer to a request that asks for nothing special."""


def parse_content(body: Mapping[str, object]) -> Content:
    """Return what a chat request is answered with.

    A model decides whether it calls a tool; the stand-in calls the first one whenever it may, until the last message
    is a tool's result. Raises RequestError.
    """
    tools = _functions(body)
    choice = body.get("tool_choice") or ("auto" if tools else "none")
    named = _named(choice)
    if named is not None:
        if named not in tools:
            raise bad_request(
                f"tool_choice names the function {named!r}, which is not in tools", "tool_choice"
            )
        return Content(_json(tools[named], "tools"), named, forced=True)
    if choice not in {"none", "auto", "required"}:
        raise bad_request("tool_choice must be none, auto, required or a function", "tool_choice")
    if choice == "required" and not tools:
        raise bad_request("tool_choice is required, but tools is empty", "tool_choice")
    if choice == "required" or (choice == "auto" and tools and not _ends_with_result(body)):
        name = next(iter(tools))
        return Content(_json(tools[name], "tools"), name)
    return parse_format(body.get("response_format"), "response_format")


def parse_format(given: object, param: str) -> Content:
    """Return what a `response_format` makes of the text.

    The schema stands under `json_schema` in chat requests, beside `type` in those of /v1/responses. Raises
    RequestError.
    """
    if given is None:
        return PROSE
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(given, dict) or kind not in {"text", "json_object", "json_schema"}:
        raise bad_request(f"{param}.type must be text, json_object or json_schema", param)
    if kind == "text":
        return PROSE
    if kind == "json_object":
        return Content('{"text": "text"}')
    described = given.get("json_schema", given)
    if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
        raise bad_request(f"{param} of type json_schema must have a schema", param)
    return Content(_json(described["schema"], param))


def _json(schema: object, param: str) -> str:
    try:
        return json.dumps(example(schema), ensure_ascii=False)
    except ValueError as error:
        raise bad_request(f"{param}: {error}", param) from error


def _functions(body: Mapping[str, object]) -> Json:
    """Return the parameters' schemas by function, in the order of `tools`."""
    tools = body.get("tools")
    if tools is None:
        return {}
    if not isinstance(tools, list):
        raise bad_request("tools must be a list", "tools")
    functions: Json = {}
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise bad_request("a tool must be a function with a name", "tools")
        functions[function["name"]] = function.get("parameters") or {"type": "object"}
    return functions


def _named(choice: object) -> str | None:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _ends_with_result(body: Mapping[str, object]) -> bool:
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "tool"
