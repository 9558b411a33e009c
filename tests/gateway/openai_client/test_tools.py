"""Tools and JSON schemas: definitions arrive as they were written, calls and values come back whole and streamed."""

import json

import openai
from pydantic import BaseModel

from tests.gateway.openai_client.conftest import CHAT, MESSAGES


class Step(BaseModel):
    explanation: str
    next: "Step | None"


class Solution(BaseModel):
    steps: list[Step]
    answer: int


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        # The order of the properties is what a model sees: nothing may sort them.
        "parameters": {
            "type": "object",
            "properties": {
                "unit": {"enum": ["°C", "°F"]},
                "city": {"const": "Łódź"},
                "at": {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "integer"}}},
            },
            "required": ["unit", "city"],
        },
    },
}
ARGUMENTS = {"unit": "°C", "city": "Łódź", "at": {"z": 0, "a": 0}}


async def test_a_tool_is_called_and_its_result_answered(ask, engine):
    asked = {**CHAT, "tools": [TOOL]}
    answer = await ask(lambda client: client.chat.completions.create(**asked))
    assert answer.choices[0].finish_reason == "tool_calls"
    message = answer.choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)
    sent = json.loads(engine.received[0].body)["tools"]
    assert json.dumps(sent) == json.dumps([TOOL]), "also in the same order"
    asked["messages"] = [*MESSAGES, message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    answer = await ask(lambda client: client.chat.completions.create(**asked))
    assert (answer.choices[0].finish_reason, answer.choices[0].message.tool_calls) == ("stop", None)
    assert json.loads(engine.received[1].body)["messages"][1]["tool_calls"][0]["id"] == call.id


async def test_a_call_is_streamed_in_pieces(ask, engine):
    events = await ask(
        lambda client: client.chat.completions.create(
            **CHAT,
            tools=[TOOL],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            stream=True,
            n=2,
        )
    )
    for index in range(2):
        choices = [choice for event in events for choice in event.choices if choice.index == index]
        parts = [part for choice in choices for part in choice.delta.tool_calls or ()]
        assert len(parts) > 3
        assert [part.function.name for part in parts if part.function.name] == ["weather"]
        assert json.loads("".join(part.function.arguments for part in parts)) == ARGUMENTS
        assert choices[-1].finish_reason == "stop"


async def test_helpers_of_the_client_parse_streamed_calls(client, engine):
    tool = openai.pydantic_function_tool(Solution)
    async with client.chat.completions.stream(**CHAT, tools=[tool], tool_choice="required") as stream:
        done = [event async for event in stream if event.type == "tool_calls.function.arguments.done"]
        whole = await stream.get_final_completion()
    (call,) = whole.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Solution)
    assert [event.name for event in done] == ["Solution"]


async def test_answers_follow_a_schema(ask, engine):
    answer = await ask(lambda client: client.chat.completions.parse(**CHAT, response_format=Solution))
    assert isinstance(answer.choices[0].message.parsed, Solution)
    schema = json.loads(engine.received[0].body)["response_format"]["json_schema"]
    assert (schema["name"], schema["strict"]) == ("Solution", True)
    assert list(schema["schema"]["properties"]) == ["steps", "answer"]


async def test_a_schema_is_followed_in_a_stream_and_in_a_response(client, engine):
    async with client.chat.completions.stream(**CHAT, response_format=Solution) as stream:
        whole = await stream.get_final_completion()
    response = await client.responses.parse(model="a", input="hello", text_format=Solution)
    assert response.output_parsed == whole.choices[0].message.parsed
    assert isinstance(response.output_parsed, Solution)
