"""Endpoint pickers, through the real Envoy: who chooses the replica, and what happens where nobody does."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio
import pytest

from dev.envoy.process import free_port
from modelyard.core.routing import Endpoint, Picker, RoutingTable, Tenant
from modelyard.gateway import protos
from tests.gateway.conftest import PATIENCE, table_of

CHOSEN, SERVED = "x-gateway-destination-endpoint", "x-gateway-destination-endpoint-served"
_REQUEST = protos.message_class("envoy.service.ext_proc.v3.ProcessingRequest")
_RESPONSE = protos.message_class("envoy.service.ext_proc.v3.ProcessingResponse")


@dataclass
class TestPicker:
    """A small endpoint picker, version 1.0.0 of the protocol: streams, chooses when the body is complete."""

    __test__ = False

    port: int = field(default_factory=free_port)
    choose: Callable[[dict[str, Any]], str] = lambda _: ""
    """The addresses for a request's body, separated by commas; empty: none."""
    rewrite: Callable[[bytes], bytes] = lambda body: body
    """What becomes of a request's body."""
    refusal: int = 503
    """Status where it chooses none."""
    headers: list[str] = field(default_factory=list)
    """Names of the headers of all requests."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    """Addresses that Envoy says have answered."""
    answers: list[bytes] = field(default_factory=list)
    server: grpc.aio.Server | None = None

    @property
    def picker(self) -> Picker:
        return Picker("127.0.0.1", self.port)

    async def start(self) -> None:
        # A body that was held comes in one message.
        options = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]
        self.server = grpc.aio.server(options=options)
        handler = grpc.stream_stream_rpc_method_handler(
            self._process, request_deserializer=_REQUEST.FromString, response_serializer=self._serialize
        )
        service = "envoy.service.ext_proc.v3.ExternalProcessor"
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Process": handler}),)
        )
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(0)
            self.server = None

    @staticmethod
    def _serialize(message: Any) -> bytes:
        encoded: bytes = message.SerializeToString()
        return encoded

    async def _process(self, requests: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        body, answer = b"", b""
        async for request in requests:
            match request.WhichOneof("request"):
                case "request_headers":
                    self.headers += [item.key for item in request.request_headers.headers.headers]
                    if request.request_headers.end_of_stream:
                        yield self._pick({})
                case "request_body":
                    body += request.request_body.body
                    if request.request_body.end_of_stream:
                        asked = json.loads(body)
                        self.bodies.append(asked)
                        yield self._pick(asked)
                        if self.choose(asked):
                            yield _body("request_body", self.rewrite(body), last=True)
                case "response_headers":
                    metadata = request.metadata_context.filter_metadata["envoy.lb"]
                    self.served.append(metadata.fields[SERVED].string_value)
                    yield _RESPONSE(response_headers={})
                case "response_body":
                    answer += request.response_body.body
                    last = request.response_body.end_of_stream
                    if last:
                        self.answers.append(answer)
                    yield _body("response_body", request.response_body.body, last=last)
                case "request_trailers":
                    yield _RESPONSE(request_trailers={})
                case "response_trailers":
                    yield _RESPONSE(response_trailers={})

    def _pick(self, asked: dict[str, Any]) -> Any:
        chosen = self.choose(asked)
        if not chosen:
            status = {"code": self.refusal}
            return _RESPONSE(immediate_response={"status": status, "body": b'{"error": "no replica"}'})
        response = _RESPONSE()
        common = response.request_headers.response
        # Real ones ask for it; where the request goes must not be found anew.
        common.clear_route_cache = True
        header = common.header_mutation.set_headers.add()
        header.header.key, header.header.raw_value = CHOSEN, chosen.encode()
        response.dynamic_metadata.update({"envoy.lb": {CHOSEN: chosen}})
        return response


def _body(name: str, body: bytes, *, last: bool) -> Any:
    response = _RESPONSE()
    streamed = getattr(response, name).response.body_mutation.streamed_response
    streamed.body, streamed.end_of_stream = body, last
    return response


@pytest.fixture
async def picker() -> AsyncIterator[TestPicker]:
    running = TestPicker()
    await running.start()
    yield running
    await running.stop()


def picked(picker: TestPicker, *endpoints: Endpoint, asks: bool = True) -> RoutingTable:
    """Return a table with the model `a`, whose replicas a picker chooses."""
    table = table_of(("a", endpoints, 0))
    return replace(
        table,
        upstreams={
            key: replace(item, picker=picker.picker, asks_picker=asks)
            for key, item in table.upstreams.items()
        },
    )


def address(endpoint: Endpoint) -> str:
    return f"{endpoint.address}:{endpoint.port}"


async def test_the_picker_chooses_and_is_told_who_answered(gateway, make_backend, picker):
    pods = [await make_backend() for _ in range(3)]
    await gateway.apply(picked(picker, *(pod.endpoint for pod in pods)))
    for number in (2, 0, 2, 1, 2):
        picker.choose = lambda _, number=number: address(pods[number].endpoint)
        status, body, _ = await gateway.post({"model": "a", "messages": []})
        assert (status, body["model"]) == (200, "served-a"), "the name is rewritten all the same"
    assert [len(pod.bodies) for pod in pods] == [1, 1, 3]
    assert picker.served == [address(pods[number].endpoint) for number in (2, 0, 2, 1, 2)]
    assert {body["model"] for body in picker.bodies} == {"a"}
    assert json.loads(picker.answers[0])["usage"]["total_tokens"] == 5
    counted = await gateway.counters()
    assert sum(counted.arrivals.values()) == 5


async def test_a_client_cannot_choose_the_replica(gateway, make_backend, picker):
    pods = [await make_backend() for _ in range(2)]
    await gateway.apply(picked(picker, *(pod.endpoint for pod in pods)))
    picker.choose = lambda _: address(pods[0].endpoint)
    for _ in range(4):
        headers = {CHOSEN: address(pods[1].endpoint)}
        assert (await gateway.post({"model": "a", "messages": []}, headers=headers))[0] == 200
    assert [len(pod.bodies) for pod in pods] == [4, 0]


async def test_the_picker_gets_no_key_and_is_not_told_who_calls(gateway, make_backend, picker):
    pod, key = await make_backend(), "sk-acme-0123456789abcdef"
    gateway.tenant_keys = {key: "acme"}
    table = picked(picker, pod.endpoint)
    await gateway.apply(replace(table, anonymous=False, tenants={"acme": Tenant(None)}))
    picker.choose = lambda _: address(pod.endpoint)
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key}):
        assert (await gateway.post({"model": "a", "messages": []}, headers=headers))[0] == 200
    assert picker.headers.count("content-type") == 2, "all others are there"
    secret = {"authorization", "x-api-key", "proxy-authorization", "cookie"}
    assert [name for name in picker.headers if name in secret or "modelyard" in name] == []


async def test_the_next_of_the_list_is_tried_where_the_first_fails(gateway, make_backend, picker):
    bad, good, other = await make_backend(status=503), await make_backend(), await make_backend()
    await gateway.apply(picked(picker, *(pod.endpoint for pod in (bad, good, other))))
    picker.choose = lambda _: f"{address(bad.endpoint)},{address(good.endpoint)}"
    assert (await gateway.post({"model": "a", "messages": []}))[0] == 200
    assert [len(pod.bodies) for pod in (bad, good, other)] == [1, 1, 0]
    assert picker.served == [address(good.endpoint)]


async def test_an_address_that_is_no_replica_is_not_used(gateway, make_backend, picker):
    pod, stranger = await make_backend(), await make_backend()
    await gateway.apply(picked(picker, pod.endpoint))
    picker.choose = lambda _: address(stranger.endpoint)
    assert (await gateway.post({"model": "a", "messages": []}))[0] == 200
    assert (len(pod.bodies), len(stranger.bodies)) == (1, 0)


async def test_streams_pass_event_by_event(gateway, make_backend, picker):
    pod = await make_backend()
    await gateway.apply(picked(picker, pod.endpoint))
    picker.choose = lambda _: address(pod.endpoint)
    body = {"model": "a", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    async with gateway.session.post(f"{gateway.envoy.url}/v1/chat/completions", json=body) as reply:
        assert reply.status == 200
        first = await asyncio.wait_for(reply.content.readline(), PATIENCE)
        assert b'"a"' in first, "the first event comes while the engine still works"
        pod.release.set()
        assert (await reply.content.read()).rstrip().endswith(b"data: [DONE]")


async def test_what_the_picker_itself_answers_passes_as_it_is(gateway, make_backend, picker):
    pod = await make_backend()
    await gateway.apply(picked(picker, pod.endpoint))
    status, body, _ = await gateway.post({"model": "a", "messages": []})
    assert (status, body) == (503, {"error": "no replica"})
    # Too many requests are what they are everywhere, in the form that clients know.
    picker.refusal = 429
    status, body, headers = await gateway.post({"model": "a", "messages": []})
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert headers["retry-after"]
    assert pod.bodies == []


async def test_a_long_prompt_reaches_the_picker_whole(gateway, make_backend, picker):
    pod = await make_backend()
    await gateway.apply(picked(picker, pod.endpoint))
    picker.choose = lambda _: address(pod.endpoint)
    prompt = "x" * 1_000_000
    body = {"model": "a", "messages": [{"role": "user", "content": prompt}]}
    assert (await gateway.post(body))[0] == 200
    assert picker.bodies[0]["messages"][0]["content"] == prompt
    assert json.loads(pod.bodies[0])["messages"][0]["content"] == prompt


async def test_a_picker_may_write_the_body_anew(gateway, make_backend, picker):
    pod = await make_backend()
    await gateway.apply(picked(picker, pod.endpoint))
    picker.choose = lambda _: address(pod.endpoint)
    # The extension's own reads the body and writes it with its keys in order.
    picker.rewrite = lambda body: json.dumps(json.loads(body), sort_keys=True, indent=1).encode()
    sent = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
    assert (await gateway.post(sent))[0] == 200
    assert json.loads(pod.bodies[0]) == {**sent, "model": "served-a"}


async def test_no_picker_writes_a_model_into_the_body_that_is_not_the_targets(gateway, make_backend, picker):
    pod = await make_backend()
    await gateway.apply(picked(picker, pod.endpoint))
    picker.choose = lambda _: address(pod.endpoint)
    for body in ({"messages": [], "model": "dear"}, {"a": {"model": "a"}, "model": "dear"}):
        picker.rewrite = lambda _, body=body: json.dumps(body).encode()
        assert (await gateway.post({"model": "a", "messages": []}))[0] == 200
        assert json.loads(pod.bodies.pop())["model"] == "served-a"
    for text in (b'{"model": "a", "model": "dear"}', b'{"mod\\u0065l": "dear", "model": "a"}', b"[]"):
        picker.rewrite = lambda _, text=text: text
        status, answer, _ = await gateway.post({"model": "a", "messages": []})
        assert (status, answer["error"]["code"]) == (502, "invalid_picker_answer"), text
    assert pod.bodies == []


async def test_without_its_picker_a_model_is_closed_until_the_route_goes_round_it(
    gateway, make_backend, picker
):
    pods = [await make_backend() for _ in range(2)]
    endpoints = tuple(pod.endpoint for pod in pods)
    await gateway.apply(picked(picker, *endpoints))
    await picker.stop()
    status, body, headers = await gateway.post({"model": "a", "messages": []})
    assert status == 503, "FailClose"
    assert body["error"]["code"] == "model_unavailable"
    assert "endpoint picker of the model `a`" in body["error"]["message"]
    assert headers["retry-after"]
    assert [len(pod.bodies) for pod in pods] == [0, 0]
    # FailOpen: the operator takes the picker out of the route.
    await gateway.apply(picked(picker, *endpoints, asks=False))
    for _ in range(4):
        assert (await gateway.post({"model": "a", "messages": []}))[0] == 200
    assert sum(len(pod.bodies) for pod in pods) == 4
    await picker.start()
    await gateway.apply(picked(picker, *endpoints))
    picker.choose = lambda _: address(pods[1].endpoint)
    before = len(pods[1].bodies)
    assert (await gateway.post({"model": "a", "messages": []}))[0] == 200
    assert len(pods[1].bodies) == before + 1


async def test_other_models_know_no_picker(gateway, make_backend, picker):
    pod, other = await make_backend(), await make_backend()
    mine, theirs = picked(picker, pod.endpoint), table_of(("b", (other.endpoint,), 0))
    both = replace(
        mine, routes=(*mine.routes, *theirs.routes), upstreams={**mine.upstreams, **theirs.upstreams}
    )
    await gateway.apply(both)
    assert (await gateway.post({"model": "b", "messages": []}))[0] == 200
    assert picker.bodies == []
