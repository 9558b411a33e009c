"""What is said besides prose: several choices, tool calls, JSON after a schema, embeddings, /v1/responses."""

import base64
import json
import math
import struct
from typing import Any

import pytest

from dev.standin.text import render_tokens
from tests.unit.standin.helpers import Launch
from tests.unit.standin.test_api import CHAT, MESSAGES, read_events

CITY = {"type": "object", "properties": {"city": {"enum": ["Łódź"]}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = CHAT | {"tools": [WEATHER, CLOCK]}
ARGUMENTS = '{"city": "Łódź"}'
SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}}
INCLUDE_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "rain"}


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_several_choices_are_generated_and_counted(launch: Launch, path: str) -> None:
    running = await launch()
    asked = {"n": 3, "max_tokens": 5, "messages": MESSAGES, "prompt": "hi"}
    body = await (await running.client.post(f"/v1/{path}", json=asked)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 15
    assert await running.metric("vllm:generation_tokens_total") == 15
    events = await read_events(await running.client.post(f"/v1/{path}", json=asked | INCLUDE_USAGE))
    assert events.pop()["usage"] == body["usage"]
    texts = ["", "", ""]
    for event in events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"]["content"] if "chat" in path else choice["text"]
    assert texts == [render_tokens(0, 5)] * 3
    assert [event["choices"][0]["finish_reason"] for event in events[-3:]] == ["length"] * 3


@pytest.mark.parametrize(
    ("fields", "name", "reason"),
    [
        ({}, "weather", "tool_calls"),
        ({"tool_choice": "required"}, "weather", "tool_calls"),
        ({"tool_choice": "auto", "response_format": SCHEMA}, "weather", "tool_calls"),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, "clock", "stop"),
        ({"tool_choice": "required", "messages": [*MESSAGES, RESULT]}, "weather", "tool_calls"),
    ],
)
async def test_tools_are_called(launch: Launch, fields: dict[str, Any], name: str, reason: str) -> None:
    running = await launch()
    body = await (await running.client.post("/v1/chat/completions", json=TOOLS | fields)).json()
    (choice,) = body["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == (reason, None)
    (call,) = choice["message"]["tool_calls"]
    arguments = ARGUMENTS if name == "weather" else "{}"
    assert call["function"] == {"name": name, "arguments": arguments}
    assert body["usage"]["completion_tokens"] == math.ceil(len(arguments) / 4)


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"messages": [*MESSAGES, RESULT]}])
async def test_tools_are_not_called_when_they_may_not_or_have_answered(
    launch: Launch, fields: dict[str, Any]
) -> None:
    running = await launch(output_tokens=4)
    body = await (await running.client.post("/v1/chat/completions", json=TOOLS | fields)).json()
    assert body["choices"][0]["message"] == {"role": "assistant", "content": render_tokens(0, 4)}


async def test_a_streamed_call_names_the_function_once(launch: Launch) -> None:
    running = await launch(tokens_per_event=1)
    events = await read_events(await running.client.post("/v1/chat/completions", json=TOOLS | INCLUDE_USAGE))
    assert events.pop()["usage"]["completion_tokens"] == len(events) - 1
    parts = [event["choices"][0]["delta"]["tool_calls"][0] for event in events[1:]]
    assert "".join(part["function"]["arguments"] for part in parts) == ARGUMENTS
    assert parts[0]["function"]["name"] == "weather"
    assert {part["index"] for part in parts} == {0}
    assert not any("id" in part or "name" in part["function"] for part in parts[1:])
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_the_format_of_the_text(launch: Launch) -> None:
    running = await launch(output_tokens=4)
    for format_, text in (
        (SCHEMA, ARGUMENTS),
        ({"type": "json_object"}, '{"text": "text"}'),
        ({"type": "text"}, render_tokens(0, 4)),
    ):
        asked = CHAT | {"response_format": format_, "ignore_eos": format_ is SCHEMA}
        (choice,) = (await (await running.client.post("/v1/chat/completions", json=asked)).json())["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")


@pytest.mark.parametrize(("limit", "reason"), [(3, "length"), (4, "stop"), (5, "stop")])
async def test_json_is_cut_at_the_limit(launch: Launch, limit: int, reason: str) -> None:
    running = await launch()
    asked = CHAT | {"response_format": SCHEMA, "max_tokens": limit}
    (choice,) = (await (await running.client.post("/v1/chat/completions", json=asked)).json())["choices"]
    assert choice["message"]["content"] == ARGUMENTS[: 4 * limit]
    assert choice["finish_reason"] == reason


async def test_embeddings_depend_on_the_input_alone(launch: Launch) -> None:
    running = await launch()

    async def embed(**fields: Any) -> tuple[list[Any], dict[str, int]]:
        response = await running.client.post("/v1/embeddings", json={"model": "m", "dimensions": 7} | fields)
        body = await response.json()
        assert [entry["index"] for entry in body["data"]] == list(range(len(body["data"])))
        return [entry["embedding"] for entry in body["data"]], body["usage"]

    vectors, usage = await embed(input=["first", "second", "first"])
    assert usage == {"prompt_tokens": 6, "completion_tokens": 0, "total_tokens": 6}
    assert vectors[0] == vectors[2] != vectors[1]
    assert [len(vector) for vector in vectors] == [7, 7, 7]
    assert math.hypot(*vectors[0]) == pytest.approx(1)
    (packed,), _ = await embed(input="first", encoding_format="base64")
    assert struct.unpack("<7f", base64.b64decode(packed)) == pytest.approx(vectors[0])
    vectors, usage = await embed(input=[[1, 2, 3], [4]])
    assert (len(vectors), usage["prompt_tokens"]) == (2, 4)
    assert (await embed(input=[1, 2, 3]))[0] == vectors[:1]
    assert await running.metric("vllm:prompt_tokens_total") == 6 + 2 + 4 + 3


async def test_responses_come_whole_and_as_typed_events(launch: Launch) -> None:
    running = await launch(output_tokens=9)
    asked = {"model": "m", "input": "x" * 32, "instructions": "y" * 8}
    whole = await (await running.client.post("/v1/responses", json=asked)).json()
    assert whole["status"] == "completed"
    assert whole["output"][0]["content"][0]["text"] == render_tokens(0, 9)
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (10, 9)
    response = await running.client.post("/v1/responses", json=asked | {"stream": True})
    lines = (await response.text()).split("\n\n")
    assert lines.pop() == ""
    events = [json.loads(line.partition("\ndata: ")[2]) for line in lines]
    assert [line.partition("\n")[0] for line in lines] == [f"event: {event['type']}" for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) == 3
    assert "".join(deltas) == render_tokens(0, 9)
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    assert events[-1]["response"]["usage"] == whole["usage"]


async def test_a_response_that_is_cut_says_so(launch: Launch) -> None:
    running = await launch()
    messages = [{"role": "user", "content": [{"type": "input_text", "text": "x" * 400}]}]
    asked = {"input": messages, "max_output_tokens": 3, "text": {"format": {"type": "json_object"}}}
    body = await (await running.client.post("/v1/responses", json=asked)).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["content"][0]["text"] == '{"text": "te'
    assert body["usage"]["input_tokens"] == 100


@pytest.mark.parametrize(
    ("path", "fields", "status", "param"),
    [
        ("chat/completions", {"tools": {}}, 400, "tools"),
        ("chat/completions", {"tools": [{"type": "function"}]}, 400, "tools"),
        ("chat/completions", {"tool_choice": "required"}, 400, "tool_choice"),
        ("chat/completions", {"tools": [CLOCK], "tool_choice": "always"}, 400, "tool_choice"),
        ("chat/completions", {"tool_choice": {"function": {"name": "other"}}}, 400, "tool_choice"),
        ("chat/completions", {"response_format": "json"}, 400, "response_format"),
        ("chat/completions", {"response_format": {"type": "json_schema"}}, 400, "response_format"),
        ("embeddings", {}, 400, "input"),
        ("embeddings", {"input": ""}, 400, "input"),
        ("embeddings", {"input": []}, 400, "input"),
        ("embeddings", {"input": ["a", 3]}, 400, "input"),
        ("embeddings", {"input": "a", "dimensions": 0}, 400, "dimensions"),
        ("embeddings", {"input": "a", "encoding_format": "hex"}, 400, "encoding_format"),
        ("embeddings", {"input": [1] * 1001}, 400, "input_tokens"),
        ("embeddings", {"input": "a", "model": "other"}, 404, "model"),
        ("responses", {"input": ""}, 400, "input"),
        ("responses", {"input": ["hi"]}, 400, "input"),
        ("responses", {"input": "hi", "instructions": 3}, 400, "instructions"),
        ("responses", {"input": "hi", "max_output_tokens": 1000}, 400, "max_output_tokens"),
        ("responses", {"input": "hi", "tools": [CLOCK]}, 400, "tools"),
        ("responses", {"input": "hi", "previous_response_id": "resp_1"}, 404, "response_id"),
    ],
)
async def test_bad_requests_are_refused(
    launch: Launch, path: str, fields: dict[str, Any], status: int, param: str
) -> None:
    running = await launch("--max-model-len", "1000")
    given = {"messages": MESSAGES} if "chat" in path else {}
    response = await running.client.post(f"/v1/{path}", json={"model": "m"} | given | fields)
    assert response.status == status
    error = (await response.json())["error"]
    assert (error["code"], error["param"]) == (status, param)
    assert not running.standin.engine.scheduler.has_work
