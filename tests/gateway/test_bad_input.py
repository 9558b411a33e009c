"""Bad input against the real Envoy: refused or neutralised, and never sent to an engine."""

import pytest

from tests.gateway.conftest import table_of

REFUSED = {
    "no body": (b"", 400),
    "broken JSON": (b'{"model": "a"', 400),
    "not JSON": (b"model=a", 400),
    "an array": (b'[{"model": "a"}]', 400),
    "a string": (b'"model"', 400),
    "no model": (b'{"messages": []}', 400),
    "a number": (b'{"model": 1}', 400),
    "null": (b'{"model": null}', 400),
    "an object": (b'{"model": {"model": "a"}}', 400),
    "empty": (b'{"model": ""}', 400),
    "twice": (b'{"model": "a", "model": "b"}', 400),
    "twice, once escaped": (b'{"model": "a", "mod\\u0065l": "b"}', 400),
    "only nested": (b'{"messages": [{"model": "a"}]}', 400),
    "unterminated string": (b'{"model": "a', 400),
    "rest after the object": (b'{"model": "a"} {"model": "b"}', 400),
    "unknown": (b'{"model": "nobody"}', 404),
    "a header injection": (b'{"model": "a\\r\\nx-evil: 1"}', 404),
    "very long": (b'{"model": "' + b"x" * 5000 + b'"}', 404),
}


@pytest.fixture
async def served(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0), ("b", (backend.endpoint,), 0)))
    return backend


async def test_bad_bodies_are_refused_in_openai_shape(gateway, served):
    for name, (body, expected) in REFUSED.items():
        status, answer, headers = await gateway.post(body)
        assert status == expected, (name, answer)
        assert headers["content-type"] == "application/json", name
        assert set(answer["error"]) >= {"message", "type", "code"}, name
        assert "x-evil" not in headers
    assert served.bodies == []


async def test_an_escaped_key_never_reaches_another_model(gateway, served):
    status, answer, _ = await gateway.post(b'{"mod\\u0065l": "b", "x": 1}')
    assert (status, answer.get("model")) in {(400, None), (200, "served-b")}


async def test_escapes_in_the_name_are_decoded_or_refused(gateway, served):
    status, answer, _ = await gateway.post(b'{"model": "\\u0061"}')
    assert (status, answer.get("model")) in {(400, None), (200, "served-a")}


async def test_deep_nesting_passes_and_absurd_nesting_is_refused(gateway, served):
    for depth, expected in ((200, 200), (100_000, 400)):
        body = b'{"model": "a", "x": ' + b"[" * depth + b"]" * depth + b"}"
        assert (await gateway.post(body))[0] == expected


async def test_content_type_may_carry_a_charset_but_must_be_json(gateway, served):
    ok = {"Content-Type": "application/json; charset=utf-8"}
    assert (await gateway.post({"model": "a"}, headers=ok))[0] == 200
    status, answer, _ = await gateway.post(b'{"model": "a"}', headers={"Content-Type": "text/plain"})
    assert status == 415
    assert answer["error"]["type"] == "invalid_request_error"


async def test_too_large_bodies_get_413(gateway, served):
    status, answer, _ = await gateway.post(b'{"model": "a", "x": "' + b"x" * (40 * 1024 * 1024) + b'"}')
    assert (status, answer["error"]["type"]) == (413, "invalid_request_error")
    assert served.bodies == []


async def test_engine_paths_that_are_not_inference_stay_closed(gateway, served):
    for path in ("/metrics", "/v1/load_lora_adapter", "/docs"):
        status, answer, _ = await gateway.post({"model": "a"}, path=path)
        assert status in {404, 405}, path
        assert "error" in answer
    assert served.bodies == []
