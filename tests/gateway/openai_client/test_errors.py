"""Every refusal reaches the client as the exception that its documentation promises, with a sentence that helps."""

import io
from dataclasses import replace

import openai
import pytest

from dev.envoy.process import free_port
from modelyard.core.routing import RoutingTable, Tenant
from tests.gateway.openai_client.conftest import CHAT, MESSAGES, StepClock, asleep, awake


async def refused(call, expected, status=None):
    """Make a call that must fail; return the exception."""
    with pytest.raises(expected) as caught:
        await call
    if status is not None:
        assert caught.value.status_code == status
    return caught.value


async def read_all(stream):
    """Read a stream to its end."""
    async for _ in stream:
        pass


@pytest.mark.parametrize("stream", [False, True])
async def test_without_a_valid_key(gateway, ask, engine, stream):
    await gateway.apply(RoutingTable(gateway.table.routes, gateway.table.upstreams, anonymous=False))
    error = await refused(
        ask(lambda client: client.chat.completions.create(**CHAT, stream=stream)),
        openai.AuthenticationError,
        401,
    )
    assert (error.code, error.type) == ("invalid_api_key", "invalid_request_error")
    await refused(ask(lambda client: client.models.list()), openai.AuthenticationError)
    assert engine.received == []


async def test_with_a_key_that_may_not_use_the_model(gateway, ask, engine):
    key = "sk-0123456789abcdef0123"
    gateway.tenant_keys = {key: "acme"}
    await gateway.apply(replace(gateway.table, anonymous=False, tenants={"acme": Tenant(frozenset())}))
    error = await refused(
        ask(lambda client: client.with_options(api_key=key).chat.completions.create(**CHAT)),
        openai.PermissionDeniedError,
        403,
    )
    assert (error.code, error.type) == ("model_not_allowed", "invalid_request_error")
    assert "may not use the model `a`" in error.message
    assert (await ask(lambda client: client.with_options(api_key=key).models.list())).data == []
    assert engine.received == []


BAD_BODIES = {
    "missing model": (b'{"messages": []}', 'must have a field "model"'),
    "empty model": (b'{"model": ""}', "non-empty string"),
    "model of another type": (b'{"model": 1}', "non-empty string"),
    "broken JSON": (b'{"model": "a"', "not valid JSON"),
    "no object": (b'["a"]', "must be a JSON object"),
}


@pytest.mark.parametrize(("body", "message"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_bodies_that_name_no_model(client, engine, body, message):
    call = client.post(
        "/chat/completions",
        content=body,
        cast_to=object,
        options={"headers": {"Content-Type": "application/json"}},
    )
    error = await refused(call, openai.BadRequestError, 400)
    assert message in error.message
    assert error.type == "invalid_request_error"
    assert engine.received == []


async def test_bodies_that_the_engine_refuses(ask, engine):
    error = await refused(
        ask(lambda client: client.chat.completions.create(**CHAT, n=0)), openai.BadRequestError, 400
    )
    assert (error.param, error.type) == ("n", "BadRequestError"), "the engine's own words"


async def test_a_body_that_is_too_large(gateway, ask, engine):
    messages = [{"role": "user", "content": "x" * (gateway.settings.max_body_bytes + 1)}]
    error = await refused(
        ask(lambda client: client.chat.completions.create(model="a", messages=messages)),
        openai.APIStatusError,
        413,
    )
    assert error.code == "request_too_large"
    assert engine.received == []


FROM_ENGINES = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


@pytest.mark.parametrize(("status", "expected"), FROM_ENGINES.items())
@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_engine_refuses(client, engine, status, expected, stream):
    engine.break_down(error_share=1, error_status=status)
    error = await refused(client.chat.completions.create(**CHAT, stream=stream), expected, status)
    assert "injected fault" in error.message
    assert error.code == str(status)


async def test_a_model_that_is_refused_or_does_not_come(gateway, ask):
    for table, code in (
        (asleep(refusal="model a is suspended"), "model_unavailable"),
        (asleep(hold_seconds=1), "model_not_ready"),
    ):
        await gateway.apply(table)
        error = await refused(
            ask(lambda client: client.chat.completions.create(**CHAT)), openai.InternalServerError, 503
        )
        assert (error.code, error.type) == (code, "server_error")
        assert error.response.headers["retry-after"] == str(gateway.settings.retry_after)


UNSUPPORTED = {
    "transcription": (
        lambda client: client.audio.transcriptions.create(
            model="a", file=("speech.wav", io.BytesIO(b"x" * 5_000_000))
        ),
        ("input_audio", "/v1/chat/completions"),
    ),
    "speech": (
        lambda client: client.audio.speech.create(model="a", voice="alloy", input="hello"),
        ("engines answer with text",),
    ),
    "response, later": (
        lambda client: client.responses.retrieve("resp_1"),
        ("stored", "/v1/responses"),
    ),
    "conversation": (lambda client: client.conversations.create(), ("stored", "/v1/responses")),
    "image": (lambda client: client.images.generate(prompt="a cat"), ("image_url", "/v1/chat/completions")),
    "moderation": (lambda client: client.moderations.create(input="hello"), ("/v1/chat/completions",)),
    "files": (lambda client: client.files.list(), ("each request by itself", "/v1/chat/completions")),
    "batches": (lambda client: client.batches.list(), ("each request by itself",)),
    "training": (lambda client: client.fine_tuning.jobs.list(), ("each request by itself",)),
    "stored chat": (
        lambda client: client.chat.completions.retrieve("chatcmpl-1"),
        ("There is no such path", "POST /v1/chat/completions"),
    ),
}


@pytest.mark.parametrize(("call", "words"), UNSUPPORTED.values(), ids=UNSUPPORTED)
async def test_what_is_not_served_says_why_and_what_is(ask, engine, call, words):
    error = await refused(ask(call), openai.NotFoundError, 404)
    assert (error.code, error.type) == ("not_found", "invalid_request_error")
    for word in words:
        assert word in error.message
    assert engine.received == []


@pytest.mark.parametrize(
    ("base", "message"), [("", "must end in /v1"), ("/v1/v1", "more than one"), ("/v2", "Served are POST")]
)
async def test_a_wrong_base_url(gateway, make_client, engine, base, message):
    client = make_client(base_url=f"{gateway.envoy.url}{base}")
    assert message in (await refused(client.chat.completions.create(**CHAT), openai.NotFoundError)).message
    assert message in (await refused(client.models.list(), openai.NotFoundError)).message


async def test_a_wrong_method(client, engine):
    call = client.get("/chat/completions", cast_to=object)
    assert "POST" in (await refused(call, openai.APIStatusError, 405)).message


async def test_a_client_that_waits_no_longer(gateway, make_client, make_engine):
    client = make_client(timeout=2)
    await gateway.apply(asleep())
    await refused(client.chat.completions.create(**CHAT), openai.APITimeoutError)
    engine = await make_engine(clock=StepClock(), profile="h100-8b")
    await gateway.apply(awake(engine))
    await refused(client.chat.completions.create(**CHAT), openai.APITimeoutError)
    # The engine does not go on working for nobody; the request that was held went with its client.
    await engine.wait_left()
    assert not engine.standin.engine.scheduler.has_work
    assert len(engine.received) == 1


async def test_a_connection_that_breaks(gateway, make_client, client, make_engine):
    nowhere = make_client(base_url=f"http://127.0.0.1:{free_port()}/v1")
    await refused(nowhere.chat.completions.create(**CHAT), openai.APIConnectionError)
    engine = await make_engine(tokens_per_event=1)
    engine.break_down(break_stream_share=1, break_stream_after_tokens=3)
    await gateway.apply(awake(engine))
    stream = await client.chat.completions.create(model="a", messages=MESSAGES, stream=True)
    await refused(read_all(stream), openai.APIConnectionError)
