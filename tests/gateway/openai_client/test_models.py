"""`/v1/models`: hundreds of models, names with slashes, sleeping ones included; and the first request wakes."""

import asyncio

import openai
import pytest

from tests.gateway.conftest import table_of, until
from tests.gateway.openai_client.conftest import CHAT, asleep, awake

MODELS = 500


async def test_500_models_are_listed_and_found_by_either_name(gateway, ask, make_engine):
    engine = await make_engine()
    names = [f"m-{number}" for number in range(MODELS)]
    # Every other one sleeps.
    endpoints = [() if number % 2 else (engine.endpoint,) for number in range(MODELS)]
    await gateway.apply(table_of(*((name, at, 0) for name, at in zip(names, endpoints, strict=True))))
    page = await ask(lambda client: client.models.list())
    assert sorted(model.id for model in page.data) == sorted([*names, *(f"team/{name}" for name in names)])
    assert not page.has_next_page()
    for name in ("m-0", "m-499", "team/m-0", "team/m-499"):
        model = await ask(lambda client, name=name: client.models.retrieve(name))
        assert (model.id, model.object, model.owned_by) == (name, "model", "modelyard")
    assert gateway.wakes == [], "looking at a model does not wake it"


@pytest.mark.parametrize("name", ["unknown", "team/unknown", "unknown/a", "a/"])
async def test_a_model_that_is_not_there(ask, engine, name):
    for call in (
        lambda client: client.models.retrieve(name),
        lambda client: client.chat.completions.create(**{**CHAT, "model": name}),
        lambda client: client.chat.completions.create(**{**CHAT, "model": name}, stream=True),
    ):
        with pytest.raises(openai.NotFoundError, match=f"The model `{name}` does not exist") as refused:
            await ask(call)
        assert (refused.value.code, refused.value.type) == ("model_not_found", "invalid_request_error")
    assert engine.received == []


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_request_wakes_a_model_and_is_answered(gateway, client, make_engine, stream):
    engine = await make_engine()
    await gateway.apply(asleep())
    assert {model.id async for model in client.models.list()} == {"a", "team/a"}
    call = asyncio.create_task(client.chat.completions.create(**CHAT, stream=stream))
    await gateway.wait_waiting({"team/a": 1})
    # The arrival is counted before Envoy asks for the cluster.
    await until(lambda: gateway.wakes)
    assert not call.done()
    assert [wake[:2] for wake in gateway.wakes] == [("team/a", 0)]
    await gateway.apply(awake(engine))
    answer = await call
    if stream:
        assert [event async for event in answer][-1].choices[0].finish_reason == "stop"
    else:
        assert answer.choices[0].finish_reason == "stop"
    assert len(engine.received) == 1
    assert {model.id async for model in client.models.list()} == {"a", "team/a"}
